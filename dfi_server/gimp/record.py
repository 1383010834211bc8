"""What was installed, in the state folder's file `installed`: a line for each thing, the latest last.

install.sh writes into the same file, and can undo all of it where this program does not run any more:

    tree PATH    a file or folder that is removed with all that is in it
    dir PATH     a folder that is removed if it is empty then
    link PATH    install.sh's link to the command
"""

import contextlib
import shutil
from pathlib import Path


class Record:
    """The list of a state folder, `home`. What is made is recorded before it is there, so that nothing is left."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "installed"

    def trees(self) -> list[Path]:
        """What was recorded as ours."""
        return [Path(line.removeprefix("tree ")) for line in self._lines() if line.startswith("tree ")]

    def add_tree(self, path: Path) -> None:
        self._add(f"tree {path}")

    def make_dir(self, path: Path) -> None:
        """Make a folder, and record those of its parents that were not there before."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in reversed(missing):
            self._add(f"dir {folder}")

    def remove(self, trees: list[Path]) -> list[Path]:
        """Remove `trees`, and the recorded folders that are empty then; those of `trees` that were there."""
        removed = []
        lines = self._lines()
        for path in trees:
            if path.exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path)
            lines = [line for line in lines if line != f"tree {path}"]
        for line in reversed(lines):  # latest first, so that a folder is empty when its turn comes
            if line.startswith("dir ") and not self._is_for_home(line):
                with contextlib.suppress(OSError):
                    Path(line.removeprefix("dir ")).rmdir()
                    lines = [other for other in lines if other != line]
        self._write(lines)
        if not any(line.startswith(("tree ", "link ")) for line in lines):
            self._path.unlink(missing_ok=True)
            for folder in (self._home, *(Path(line[4:]) for line in reversed(lines) if self._is_for_home(line))):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return removed

    def _is_for_home(self, line: str) -> bool:
        return line in {f"dir {folder}" for folder in (self._home, *self._home.parents)}

    def _lines(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return self._path.read_text("utf-8", "surrogateescape").splitlines()
        return []

    def _add(self, line: str) -> None:
        if not self._home.exists():
            self.make_dir(self._home)
        lines = self._lines()
        if line not in lines:
            self._write([*lines, line])

    def _write(self, lines: list[str]) -> None:
        if self._home.exists():
            with self._path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                file.writelines(f"{line}\n" for line in lines)
