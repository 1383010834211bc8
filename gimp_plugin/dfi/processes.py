"""This user's processes: started from GIMP, those of a command line, and their end, in each system's own way.

Of a damaged plug-in dfi_server.system may be missing, which server.py tells: it is imported where it is needed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_PS = ("ps", "-ww", "-x", "-o", "pid=,args=")  # of this user
_CIM = (
    *("powershell", "-NoProfile", "-Command"),
    "Get-CimInstance Win32_Process -Filter \"Name = 'dfi.exe' OR Name LIKE 'python%'\" | "
    "Select-Object ProcessId, CommandLine | ConvertTo-Json",
)
_SECONDS = 10.0


def ending_with(words: str) -> list[int]:
    """The ids of the processes whose command line ends with these words."""
    listed = {"win32": _windows, "linux": _linux}.get(sys.platform, _others)
    return [process for process, line in listed() if process != os.getpid() and f" {line}".endswith(f" {words}")]


def said(command: Sequence[str], seconds: float = _SECONDS) -> str:
    """What a program prints; "" where it cannot be run, fails or takes longer."""
    from dfi_server import system

    hidden = system.without_window()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds, **hidden)
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
    return ""


def start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Run a program, and what it starts in its turn, to be ended together. Its output is one stream of text."""
    from dfi_server import system

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        encoding="utf-8",
        errors="replace",
        **system.detached(),
    )


def interrupt(process: "subprocess.Popen[str]", at_once: bool) -> None:
    """Do what Ctrl-C does to a program of start() and all that it has started, or end them."""
    if sys.platform == "win32":  # whose programs without a window get no Ctrl-C
        said(("taskkill", "/T", "/F", "/PID", str(process.pid)))
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL if at_once else signal.SIGINT)


def end(process: int, at_once: bool) -> None:
    """Ask a process to end, or end it; one that has ended already is none."""
    number = signal.SIGTERM  # Windows knows no asking: there it ends it
    if at_once and sys.platform != "win32":
        number = signal.SIGKILL
    with contextlib.suppress(OSError):  # Windows says of a process that has ended that its argument is invalid
        os.kill(process, number)


def _linux() -> Iterator[tuple[int, str]]:
    from dfi_server import system

    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if path.stat().st_uid == system.user_id():
                yield int(path.parent.name), path.read_bytes().decode(errors="replace").strip("\0").replace("\0", " ")


def _others() -> Iterator[tuple[int, str]]:
    for line in said(_PS).splitlines():
        number, _, command = line.strip().partition(" ")
        if number.isdigit():
            yield int(number), command.strip()


def _windows() -> Iterator[tuple[int, str]]:
    """Of a single process it tells without a list around it. Others' have no command line."""
    try:
        told = json.loads(said(_CIM) or "[]")
    except ValueError:
        return
    for process in told if isinstance(told, list) else [told]:
        yield int(process["ProcessId"]), (process["CommandLine"] or "").strip()
