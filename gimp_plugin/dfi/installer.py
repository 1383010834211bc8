"""uv or pipx, whichever the user has, run to install the program from what the archive brings."""

import contextlib
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import processes
import program

from dfi_server import system

PYTORCH_CPU = os.environ.get("DFI_TORCH_CPU_INDEX") or "https://download.pytorch.org/whl/cpu"
_TOOLS = {"uv": ("tool", "install", "--force"), "pipx": ("install", "--force", "--verbose")}  # force: over half of one
_FOR_DEBUGGING = ("DEBUG", "TRACE", "pipx >")  # what --verbose brings beside pip's lines
_ANSWER_SECONDS = 4.0
_STOP_SECONDS = 5.0  # that a tool gets to take away what it has begun


def command() -> list[str]:
    """What installs the program; [] where neither tool is there, or nothing to install from."""
    wheel = program.wheel()
    for tool, words in _TOOLS.items() if wheel else ():
        if path := next(program.find(tool), None):
            return [path, *words, str(wheel)]
    return []


def in_a_terminal() -> str:
    """The same as a user would type it."""
    return system.command_line(["uv", "tool", "install", str(program.wheel())])


class Installation:
    """One run of such a command."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def lines(self) -> Iterator[str]:
        """Start it; what it prints for people, as it comes, until it has ended."""
        environment = _environment()
        if self._stopped:
            return
        try:
            self._process = processes.start(self._command, environment)
        except OSError as error:
            yield f"{self._command[0]}: {error.strerror}"
            return
        assert self._process.stdout
        with self._process.stdout as output:
            for line in map(str.strip, output):
                if line and not line.startswith(_FOR_DEBUGGING):
                    yield line
        self._process.wait()

    @property
    def succeeded(self) -> bool:
        return self._process is not None and self._process.returncode == 0

    def stop(self) -> None:
        """End it; it may take away what it has begun."""
        self._stopped = True
        if self._process:
            processes.interrupt(self._process, at_once=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            processes.interrupt(self._process, at_once=True)


def _environment() -> Mapping[str, str]:
    """The versions that passed the tests, and PyTorch without CUDA where there is no NVIDIA GPU (torch.bash)."""
    versions = program.constraints()
    chosen: dict[str, Any] = {"PYTHONUNBUFFERED": "1"}
    if versions.exists():
        chosen |= {"UV_CONSTRAINT": versions.as_uri(), "PIP_CONSTRAINT": versions.as_uri()}  # spaces would part a path
    if system.NAME == "linux" and not system.has_nvidia_gpu() and _answers(f"{PYTORCH_CPU}/torch/"):
        others = os.environ.get("PIP_EXTRA_INDEX_URL", "")
        chosen |= {"UV_TORCH_BACKEND": "cpu", "PIP_EXTRA_INDEX_URL": f"{others} {PYTORCH_CPU}".strip()}
    return chosen


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(address, timeout=_ANSWER_SECONDS):
        return True
    return False
