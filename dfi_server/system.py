"""What differs between Linux, macOS and Windows. Standard library only: GIMP's own Python loads this too.

Other modules ask here; ruff and tests/test_system.py keep them from asking the system themselves. The plug-in's
processes.py alone knows how each system lists and ends programs. Not here: what every system has (SIGINT, SIGTERM,
pathlib's paths), programs that are looked for where only some systems have a folder (the plug-in's program.py), and
what tests show other machines to (gimp/, by its Machine).
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

NAME: str = sys.platform
"""Which system this is: "linux", "darwin" (macOS), "win32", or what Python calls another one."""

HAS_UNIX_SOCKETS = sys.platform != "win32"
"""Whether programs can talk by a socket that has a file's rights. Windows' ones have none that Python can see."""

NOBODY = -1
"""The user's number where users have none."""

_FIRST_GIVEN = 3  # SD_LISTEN_FDS_START
_PORTS_IN_USE = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"  # a state there
_NVIDIA_DRIVER, _PCI_DEVICES = Path("/proc/driver/nvidia/gpus"), Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # a vendor on the PCI bus, and how the class of displays begins


# --- users, folders and files


def user_id() -> int:
    """This user's number, as files and sockets have it for their owner; NOBODY in Windows."""
    if sys.platform == "win32":
        return NOBODY
    return os.getuid()


def give_to(path: str | os.PathLike[str], owner: int, group: int) -> None:
    """Change who owns a file; -1 leaves one of both. Raises OSError where this user may not. Nothing in Windows."""
    if sys.platform != "win32":
        os.chown(path, owner, group)


def runtime_folders() -> Iterator[Path]:
    """This user's own folders for sockets, as far as there are any (XDG Base Directory Specification)."""
    user = user_id()
    for folder in filter(None, (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}")):
        if os.access(folder, os.W_OK) and Path(folder).stat().st_uid == user:
            yield Path(folder)


def temporary_folders() -> Iterator[Path]:
    """Where temporary files may be, the likeliest first; whether a folder is there, and lets anybody in, is not said.

    tempfile.gettempdir() takes the current folder where it finds no other.
    """
    for folder in (*map(os.environ.get, ("TMPDIR", "TEMP", "TMP")), "/tmp", "/var/tmp"):
        if folder and Path(folder).is_absolute():
            yield Path(folder)


def temporary_folder(longest: int) -> Path | None:
    """One that can be written to, with a path of at most so many bytes, which leaves room for a Unix socket's name."""
    for folder in temporary_folders():
        if len(os.fsencode(folder)) <= longest and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


@contextlib.contextmanager
def file_with(content: bytes, name: str) -> Iterator[str]:
    """The path of a file that holds this, for a library that reads nothing else. Raises OSError."""
    if hasattr(os, "memfd_create"):  # Linux, where there may be no folder to write to
        with os.fdopen(os.memfd_create(name), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory() as folder:  # Windows lets nobody read a file that is open for writing
            named = Path(folder) / name
            named.write_bytes(content)
            yield str(named)


def lock(file: IO[bytes]) -> bool:
    """Hold a file until it is closed; False where another process does. Raises OSError, and always in Windows."""
    if sys.platform == "win32":
        raise OSError("Windows has no Unix sockets, whose places are held so")
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def program_of(environment: Path, name: str) -> Path:
    """Where a virtual environment has a program."""
    return environment / (f"Scripts/{name}.exe" if sys.platform == "win32" else f"bin/{name}")


def command_line(words: Sequence[str]) -> str:
    """A command as a user would type it in a terminal."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


# --- processes


def without_window() -> dict[str, Any]:
    """What Popen takes for a program of which no window should be seen."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {}


def detached() -> dict[str, Any]:
    """What Popen takes for a process that outlives this one, and its terminal."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def start_with_socket(command: Sequence[str], theirs: socket.socket, **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process that gets `theirs` by given_socket(), and no Ctrl-C: that is this process's to answer.

    options: for Popen. Raises OSError.
    """
    if sys.platform != "win32":
        return subprocess.Popen(command, stdin=theirs.fileno(), process_group=0, **options)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, **detached(), **options)
    assert process.stdin
    with process.stdin as pipe:  # a socket is no file there: the process gets a description of it
        pipe.write(theirs.share(process.pid))
    return process


def given_socket() -> socket.socket:
    """The socket that start_with_socket gave to this process."""
    if sys.platform == "win32":
        return socket.fromshare(sys.stdin.buffer.read())
    return socket.socket(fileno=os.dup(0))


def given_listener() -> int | None:
    """The descriptor of a listening socket that systemd started this process with (sd_listen_fds(3)); None without."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):  # not for the processes that this one starts
        os.environ.pop(name, None)
    os.set_inheritable(_FIRST_GIVEN, False)
    return _FIRST_GIVEN


def how_it_ended(code: int) -> str:
    """For people: what a process' exit code means, that of Popen."""
    if sys.platform != "win32" and code == -signal.SIGKILL:
        return "killed, as the system does when memory runs out"
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


# --- the machine


def sandbox() -> str:
    """The name of the sandbox that this program is in, where it can start no programs outside; "" in none."""
    if Path("/.flatpak-info").exists():
        return "Flatpak"
    return "Snap" if os.environ.get("SNAP") else ""


def listener(port: int) -> int | None:
    """The user whose program listens at a port; None where nobody does, or it cannot be known. Linux tells."""
    for table in _PORTS_IN_USE:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, _, _, _, owner, *_ = line.split()
                if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                    return int(owner)
    return None


def nvidia_gpus() -> int:
    """How many GPUs NVIDIA's driver has; 0 where it does not tell, as in Windows."""
    return len(list(_NVIDIA_DRIVER.glob("*")))


def has_nvidia_gpu() -> bool:
    """Whether there is one that works, or a display by NVIDIA whose driver may come later. Linux tells."""
    if nvidia_gpus():
        return True
    for vendor in _PCI_DEVICES.glob("*/vendor"):
        with contextlib.suppress(OSError):
            if vendor.read_text().strip() == _NVIDIA and vendor.with_name("class").read_text().startswith(_DISPLAY):
                return True
    return False


def peak_memory() -> int:
    """The most bytes of memory that this process has had at one time."""
    if sys.platform == "win32":
        return _windows_peak_memory()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _windows_peak_memory() -> int:
    """PeakWorkingSetSize of PROCESS_MEMORY_COUNTERS (psapi.h)."""
    if sys.platform != "win32":
        raise OSError("not Windows")
    import ctypes

    counters = (ctypes.c_size_t * 9)()  # two numbers of 4 bytes, then eight as long as these: the first is the peak
    kernel = ctypes.windll.kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo(ctypes.c_void_p(kernel.GetCurrentProcess()), counters, ctypes.sizeof(counters))
    return int(counters[1])
