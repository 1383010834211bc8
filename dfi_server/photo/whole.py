"""Files that are written whole or not at all, in the place of what was there."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dfi_server import system
from dfi_server.errors import DFIError, ErrorCode

PART = ".part"
"""How the names of files end that `write_whole` has not finished: ".photo.png.k3j_x9ab.part"."""

_NAME = 40  # characters of a file's name that its part's name repeats: all of them could be too many with the rest


def write_whole(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Let `save` write to a temporary file beside `path`, and put it in place only when it is complete.

    A file that is there keeps its mode, and its owner and group as far as this user may give files away; a symbolic
    link stays, and what it points to is written. Other hard links keep the old content. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=part_prefix(path.name), suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            save(file)
        _give_rights(Path(temporary), path)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def part_prefix(name: str) -> str:
    """How the name of a part of the file `name` begins; what follows has no dot before PART."""
    return f".{name[:_NAME]}."


def check_place(path: Path) -> None:
    """Raise DFIError(BAD_REQUEST) before any work is done, if no file could be written at `path`."""
    target = Path(os.path.realpath(path))
    try:
        there = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        there = None
    except OSError as error:  # a name that is too long, links in a circle
        raise DFIError(
            ErrorCode.BAD_REQUEST, f"{path} cannot be written ({error.strerror}): choose another name."
        ) from error
    if there and stat.S_ISDIR(there.st_mode):
        raise DFIError(ErrorCode.BAD_REQUEST, f"{path} is a folder: name a file in it.")
    if there and not stat.S_ISREG(there.st_mode):
        raise DFIError(ErrorCode.BAD_REQUEST, f"{path} is no ordinary file: choose another name.")
    if not target.parent.is_dir():
        folder = target.parent if path.is_symlink() else path.parent  # as the user has it
        raise DFIError(ErrorCode.BAD_REQUEST, f"There is no folder {folder} to write {target.name} to.")
    try:
        with tempfile.TemporaryFile(dir=target.parent):  # permissions alone do not tell: read-only file systems, quotas
            pass
    except OSError as error:
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            f"Nothing can be written to the folder {target.parent} ({error.strerror}): choose another one.",
        ) from error
    # only now: where the folder is what keeps the file, no other name in it would do
    if there and not (there.st_mode & 0o222 and os.access(target, os.W_OK)):
        raise DFIError(
            ErrorCode.BAD_REQUEST, f"{path} is there and write-protected: allow writing to it, or choose another name."
        )


def _give_rights(file: Path, old: Path) -> None:
    """Give `file` the rights that `old` has, or those of a new file where there is none."""
    try:
        there = old.stat()
    except FileNotFoundError:
        file.chmod(0o666 & ~_umask())
        return
    mode = stat.S_IMODE(there.st_mode) & 0o777
    try:
        system.give_to(file, there.st_uid, there.st_gid)
    except OSError:
        try:
            system.give_to(file, -1, there.st_gid)
        except OSError:  # this user's own group must not see more than all others do
            mode &= 0o707 | (mode & 0o007) << 3
    file.chmod(mode)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
