"""The machine that GIMP runs on, as far as finding it takes: so that tests can show another one."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfi_server import system

ASK_SECONDS = 20.0  # that a program gets to say its version: the first start of a Flatpak takes some


@dataclass(frozen=True)
class Machine:
    """system: "linux", "darwin" or "win32", as dfi_server.system's NAME. root: where paths of the system begin."""

    system: str
    home: Path
    environ: Mapping[str, str]
    root: Path = Path("/")

    @classmethod
    def here(cls) -> "Machine":
        """The one that this program runs on, for the user who runs it."""
        return cls(system.NAME, Path.home(), os.environ)

    def folder(self, variable: str, default: str) -> Path:
        """The folder that an environment variable names; else `default`, below the user's home."""
        return Path(self.environ.get(variable) or self.home / default)

    def which(self, program: str) -> str | None:
        """The path of a program on the user's PATH."""
        return shutil.which(program, path=self.environ.get("PATH", os.defpath))

    def run(self, command: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end. Raises OSError, subprocess.TimeoutExpired."""
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(self.environ),
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
        )

    def ask(self, command: Sequence[str], seconds: float = ASK_SECONDS) -> str:
        """What a program prints; "" where it cannot be run, fails or takes too long."""
        try:
            done = self.run(command, seconds)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout if done.returncode == 0 else ""
