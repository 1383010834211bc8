"""This user's processes: those of a command line, and their end. Each system tells of them in its own way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
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


def end(process: int, at_once: bool) -> None:
    """Ask a process to end, or end it; one that has ended already is none."""
    # Windows knows no asking: there both end it.
    number = signal.SIGTERM if not at_once or sys.platform == "win32" else signal.SIGKILL
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _linux() -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            if path.stat().st_uid == os.getuid():
                yield int(path.parent.name), path.read_bytes().decode(errors="replace").strip("\0").replace("\0", " ")


def _others() -> Iterator[tuple[int, str]]:
    for line in _said(_PS).splitlines():
        number, _, command = line.strip().partition(" ")
        if number.isdigit():
            yield int(number), command.strip()


def _windows() -> Iterator[tuple[int, str]]:
    """Of a single process it tells without a list around it. Others' have no command line."""
    try:
        told = json.loads(_said(_CIM) or "[]")
    except ValueError:
        return
    for process in told if isinstance(told, list) else [told]:
        yield int(process["ProcessId"]), (process["CommandLine"] or "").strip()


def _said(command: tuple[str, ...]) -> str:
    hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, **hidden)
        return done.stdout.decode("utf-8", "replace")
    return ""
