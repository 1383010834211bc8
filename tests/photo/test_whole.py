"""What happens to the file that a result replaces, and what is said before the work where none can be written."""

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.checks import refusal

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo

BLACK = Photo(np.zeros((8, 8, 3), np.uint8))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666, 0o700])
def test_a_file_that_is_replaced_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"old")
    path.chmod(mode)
    disk.write(path, BLACK)
    assert mode_of(path) == mode
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_new_file_has_the_mode_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    disk.write(tmp_path / "photo.png", BLACK)
    assert mode_of(tmp_path / "photo.png") == mode_of(tmp_path / "other")


def test_a_file_that_is_replaced_keeps_its_owner_and_its_group(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"old")
    try:
        os.chown(path, 12345, 23456)
    except PermissionError:
        group = [each for each in os.getgroups() if each != path.stat().st_gid]
        if not group:
            pytest.skip("this user is neither root nor in a second group")
        os.chown(path, -1, group[0])
    path.chmod(0o640)
    before = path.stat()
    disk.write(path, BLACK)
    after = path.stat()
    assert (after.st_uid, after.st_gid, mode_of(path)) == (before.st_uid, before.st_gid, 0o640)


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_stays_and_what_it_points_to_is_written(relative: bool, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "original.png").write_bytes(b"old")
    (folder / "original.png").chmod(0o600)
    link = tmp_path / "photo.png"
    link.symlink_to(Path("elsewhere") / "original.png" if relative else folder / "original.png")
    disk.write(link, BLACK)
    assert link.is_symlink()
    assert (folder / "original.png").read_bytes()[:4] == b"\x89PNG"
    assert mode_of(folder / "original.png") == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "original.png", "photo.png"]


def test_a_link_to_nothing_makes_the_file(tmp_path: Path) -> None:
    (tmp_path / "photo.png").symlink_to("new.png")
    disk.write(tmp_path / "photo.png", BLACK)
    assert (tmp_path / "photo.png").is_symlink()
    assert (tmp_path / "new.png").read_bytes()[:4] == b"\x89PNG"


def test_another_hard_link_keeps_the_old_photo(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"old")
    os.link(tmp_path / "photo.png", tmp_path / "other.png")
    disk.write(tmp_path / "photo.png", BLACK)
    assert (tmp_path / "other.png").read_bytes() == b"old"


@pytest.mark.parametrize("through", ["file", "link"])
def test_a_write_that_fails_leaves_file_and_link(through: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"old")
    (tmp_path / "photo.jpg").chmod(0o600)
    (tmp_path / "link.jpg").symlink_to("photo.jpg")
    with pytest.raises(DFIError):
        disk.write(tmp_path / ("photo.jpg" if through == "file" else "link.jpg"), Photo(np.zeros((1, 70_000, 3))))
    assert (tmp_path / "photo.jpg").read_bytes() == b"old"
    assert mode_of(tmp_path / "photo.jpg") == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.jpg", "photo.jpg"]


LONG_NAMES = ["\u5199" * 83 + ".png", "p" * 251 + ".png", "\N{CAMERA}" * 62 + ".png", "a.b" * 60 + ".png"]


@pytest.mark.parametrize("name", LONG_NAMES)
def test_names_as_long_as_the_file_system_takes(name: str, tmp_path: Path) -> None:
    assert 180 <= len(name.encode()) <= 255
    disk.check_writable(tmp_path / name)
    disk.write(tmp_path / name, BLACK)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def _too_long(folder: Path) -> Path:
    return folder / f"{'p' * 252}.png"


def _circle(folder: Path) -> Path:
    (folder / "a.png").symlink_to("b.png")
    (folder / "b.png").symlink_to("a.png")
    return folder / "a.png"


def _protected(folder: Path) -> Path:
    (folder / "photo.png").touch(mode=0o444)
    return folder / "photo.png"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "photo.png")
    return folder / "photo.png"


def _through_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "photo.png"


def _in_a_read_only_folder(folder: Path) -> Path:
    """A file that is there, where the kernel lets nobody write: another name would not do either."""
    (folder / "photo.png").symlink_to("/proc/version")
    return folder / "photo.png"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_too_long, "choose another name"),
        (_circle, "choose another name"),
        (_protected, "write-protected"),
        (_in_a_read_only_folder, "Nothing can be written to the folder"),
        (_pipe, "no ordinary file"),
        (_through_a_file, "no folder"),
        (lambda folder: Path("/proc/photo.png"), "choose another one"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    make: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    assert words in refusal(lambda: disk.check_writable(path), ErrorCode.BAD_REQUEST)


def test_edited_in_place_a_private_photo_stays_private(
    tmp_path: Path, dfi: Callable[..., subprocess.CompletedProcess[str]], face: np.ndarray
) -> None:
    disk.write(tmp_path / "photo.png", Photo(face))
    (tmp_path / "photo.png").chmod(0o600)
    (tmp_path / "link.png").symlink_to("photo.png")
    before = (tmp_path / "photo.png").read_bytes()
    done = dfi("edit", tmp_path / "link.png", tmp_path / "link.png", "--set", "smiling=0.5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "link.png").is_symlink()
    assert mode_of(tmp_path / "photo.png") == 0o600
    assert (tmp_path / "photo.png").read_bytes() != before
