"""Where faces to fill from come from: a folder, which is remembered, LFW's archive, and the package."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checks import refusal
from support.tiny import write_tiny_lfw

from dfi_server import paths
from dfi_server.errors import ErrorCode
from dfi_server.vectors import faces, gallery
from dfi_server.vectors.store import open_store

FACES = Path(__file__).parents[1] / "support" / "faces"
CANONICAL = open_store(paths.STARTER.name).canonical_landmarks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two faces, a wall and a file that is no photo."""
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("closed", "smiling"):
        shutil.copy(FACES / f"{name}.jpg", folder)
    Image.new("RGB", (250, 250), "gray").save(folder / "wall.png")
    (folder / "damaged.jpg").write_bytes(b"no photo")
    return folder


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows when a photo is searched for a face."""
    count: list[int] = []
    search = gallery.find_largest
    monkeypatch.setattr(gallery, "find_largest", lambda *photo: count.append(1) or search(*photo))
    return count


def test_what_cannot_be_used_is_told_and_the_rest_goes_on(folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    found = gallery.of_folder(folder, CANONICAL, lambda done, total: seen.append((done, total)))
    assert len(found.small) == 2
    assert [path.name for path in found.faceless] == ["wall.png"]
    assert "damaged.jpg" in found.unreadable[0].message
    assert seen[-1] == (4, 4)
    frame = found.frame(0, 128)
    assert frame.shape == (128, 128, 3)
    np.testing.assert_allclose(  # both are the same view of the same face
        np.asarray(Image.fromarray(np.uint8(255 * frame)).resize((64, 64), Image.Resampling.BOX)),
        found.small[0],
        atol=40,
    )


def test_only_new_photos_are_looked_at_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gallery.of_folder(folder, CANONICAL)
    count = looked_at(monkeypatch)
    again = gallery.of_folder(folder, CANONICAL)
    assert not count
    np.testing.assert_array_equal(again.small, first.small)
    assert again.faceless == first.faceless
    os.utime(folder / "smiling.jpg", (1, 1))
    gallery.of_folder(folder, CANONICAL)
    assert len(count) == 1


def test_what_was_seen_before_an_interruption_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.of_folder(folder, CANONICAL, interrupted)
    count = looked_at(monkeypatch)
    assert len(gallery.of_folder(folder, CANONICAL).small) == 2
    assert len(count) == 1


def test_a_damaged_memory_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.of_folder(folder, CANONICAL)
    (memory,) = paths.galleries().iterdir()
    memory.write_bytes(memory.read_bytes()[:100])
    count = looked_at(monkeypatch)
    assert len(gallery.of_folder(folder, CANONICAL).small) == 2
    assert len(count) == 3


def test_too_few_faces_are_refused_with_their_number(folder: Path) -> None:
    found = gallery.of_folder(folder, CANONICAL)
    sentence = refusal(lambda: found.check("photos"), ErrorCode.BAD_DATA)
    assert "photos has 2 photos" in sentence
    assert str(gallery.LEAST_FACES) in sentence


def test_lfw_s_faces_are_those_that_setup_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    assert "--faces-only" in refusal(gallery.of_lfw, ErrorCode.NO_STORE)
    faces.write(*write_tiny_lfw(tmp_path, faces=24))
    seen: list[tuple[int, int | None]] = []
    found = gallery.of_lfw(lambda done, total: seen.append((done, total)))
    assert found.small.shape == (24, gallery.SMALL, gallery.SMALL, 3)
    assert seen[-1] == (24, 24)
    frame = found.frame(3, gallery.SMALL)
    np.testing.assert_allclose(255 * frame, found.small[3], atol=0.01)


def test_a_package_without_its_faces_says_what_helps(tmp_path: Path) -> None:
    assert "--from" in refusal(lambda: gallery.of_package(tmp_path), ErrorCode.BAD_STORE)
    for number in range(gallery.LEAST_FACES):
        Image.new("RGB", (64, 64), "gray").save(tmp_path / f"{number:02}.webp")
    faces = gallery.of_package(tmp_path)
    (tmp_path / "03.webp").write_bytes(b"no picture")
    (tmp_path / "04.webp").unlink()
    for number in (3, 4):
        assert f"0{number}.webp" in refusal(lambda number=number: faces.frame(number, 64), ErrorCode.BAD_STORE)
