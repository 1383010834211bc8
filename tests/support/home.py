"""A user's home folder, and install.sh in it."""

import hashlib
import os
import subprocess
from pathlib import Path

from gimp.gimp import REPOSITORY


class Home:
    """A user's home folder, and install.sh run as that user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / ".local/share/dfi"
        self.link = path / ".local/bin/dfi"
        self.filter = path / ".config/GIMP/3.0/plug-ins/dfi"

    def environment(self, **changes: str) -> dict[str, str]:
        """The one of the tests, without what would lead out of this home; pip's cache is shared, for its size."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "DFI_", "PYTHON", "VIRTUAL_ENV"))}
        return {**kept, "HOME": str(self.path), "PIP_CACHE_DIR": str(cache() / "pip"), **changes}

    def install(self, *options: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [REPOSITORY / "install.sh", *options],
            cwd="/",
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
        )

    def contents(self) -> dict[str, str]:
        """Every file, folder and link, with its mode and what is in it."""
        return {str(path.relative_to(self.path)): self._describe(path) for path in self.path.rglob("*")}

    @staticmethod
    def _describe(path: Path) -> str:
        if path.is_symlink():
            return f"-> {path.readlink()}"
        inside = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        return f"{path.stat().st_mode:o} {inside}"


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def program(path: Path, script: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
