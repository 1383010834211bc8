"""What differs between Linux, macOS and Windows. Standard library only: GIMP's own Python loads this too."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

HAS_UNIX_SOCKETS = sys.platform != "win32"
"""Whether programs can talk by a socket that has a file's rights. Windows' ones have none that Python can see."""

_FIRST_GIVEN = 3  # SD_LISTEN_FDS_START

NOBODY = -1
"""The user's number where users have none."""


def user_id() -> int:
    """This user's number, as files and sockets have it for their owner; NOBODY in Windows."""
    if sys.platform == "win32":
        return NOBODY
    return os.getuid()


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
    flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    process = subprocess.Popen(command, stdin=subprocess.PIPE, creationflags=flags, **options)
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


def give_to(path: str | os.PathLike[str], owner: int, group: int) -> None:
    """Change who owns a file; -1 leaves one of both. Raises OSError where this user may not. Nothing in Windows."""
    if sys.platform != "win32":
        os.chown(path, owner, group)


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
