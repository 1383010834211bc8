"""Folders as people have them: what is edited, what is left alone and said, whatever bytes a name has."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checks import refusal

from dfi_server.commands import album, batch
from dfi_server.errors import ErrorCode
from dfi_server.photo import disk, extras
from dfi_server.photo.pixels import Photo
from dfi_server.service.server import Server

Dfi = Callable[..., subprocess.CompletedProcess[str]]
LATIN = os.fsdecode(b"J\xfcrgen.png")


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_each_kind_is_counted_once_and_in_one_line(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("a.jpg", "b/c.PNG", "b/d.tiff"),
        *("._a.jpg", "b/._c.PNG", ".DS_Store", "Thumbs.db", "b/desktop.ini"),
        *("film.MOV", "clip.mpg", "paper.pdf", "a.xmp", "b/IMG_1.AAE", "animated.gif", "notes.txt", "noextension"),
        *("@eaDir/a.jpg", ".thumbnails/a.png", "$RECYCLE.BIN/x.jpg", "b/__MACOSX/a.jpg"),
    )
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "linked.jpg").symlink_to("a.jpg")
    (tmp_path / "round").symlink_to(tmp_path)
    found = album.look(tmp_path)
    assert [str(photo) for photo in found.photos] == ["a.jpg", "b/c.PNG", "b/d.tiff", "linked.jpg"]
    assert list(found.said()) == [
        "Left alone: 1 GIF picture, 1 PDF, 1 broken link or device, 2 films, 3 hidden files, 4 hidden folders, "
        "1 link to a folder, 2 macOS's ._ files, 2 other files, 2 sidecar files."
    ]


def test_photos_that_cannot_be_read_are_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "IMG_1.HEIC", "IMG_2.heif", "p.jxl", "DSC_1.NEF", "x/DSC_2.nef", "x/IMG_9.CR3")
    assert [str(photo) for photo in album.look(tmp_path).photos] == ["IMG_1.HEIC", "IMG_2.heif", "p.jxl"]
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    everything = " ".join(album.look(tmp_path).said())
    assert "2 HEIC photos (IMG_1.HEIC and 1 more): HEIC needs dfi-server[heif]: run" in everything
    assert "1 JPEG XL photo (p.jxl): JPEG XL needs" in everything
    assert "3 camera's raw files (DSC_1.NEF and 2 more): develop them first" in everything


def test_a_folder_of_raw_files_alone_is_told_so(tmp_path: Path) -> None:
    make(tmp_path / "in", "DSC_1.NEF")
    sentence = refusal(
        lambda: batch.plan(batch.Job(tmp_path / "in", tmp_path / "out", {"smiling": 0.3})), ErrorCode.BAD_DATA
    )
    assert "1 camera's raw file (DSC_1.NEF): develop" in sentence


def test_what_was_made_before_is_no_photo_of_the_folder(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "out/a.jpg", "out/film.mov")
    found = album.look(tmp_path, apart=tmp_path / "out")
    assert [str(photo) for photo in found.photos] == ["a.jpg"]
    assert not found.left


@pytest.mark.slow
def test_an_album_is_edited_and_the_second_run_finds_nothing_to_do(
    tmp_path: Path, dfi: Dfi, face: np.ndarray, real_server: Server
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in", "._a.png", "doc.pdf", "clip.mpg", "DSC_1.ARW")
    Image.fromarray(face).save(tmp_path / "in" / "a.png")
    Image.fromarray(face).save(os.fsencode(tmp_path / "in" / LATIN))
    command = ("batch", tmp_path / "in", tmp_path / "out", "--set", "smiling=0.4", "--iterations", "1")
    first, second = (dfi(*command, "--server", real_server.endpoint) for _ in range(2))
    for done in (first, second):
        assert done.returncode == 0, done.stderr
        assert "1 PDF" in done.stderr and "1 film" in done.stderr and "DSC_1.ARW" in done.stderr
    assert "2 edited, 0 skipped, 0 failed; 0 were done before" in first.stdout
    assert "0 edited, 0 skipped, 0 failed; 2 were done before" in second.stdout
    told = [json.loads(line) for line in (tmp_path / "out" / batch.REPORT).read_text().splitlines()]
    assert {line["file"] for line in told} == {"a.png", LATIN}
    assert (tmp_path / "out" / LATIN).exists()


@pytest.mark.parametrize(
    "name", ["J\udcfcrgen.png", "J\udcfcrgen.jpg", "J\udcfcrgen.tif", "J\udcfcrgen.webp", "a[page=1].png"]
)
def test_names_in_any_bytes_are_read_and_written(name: str, tmp_path: Path) -> None:
    photo = Photo(np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8))
    disk.write(tmp_path / name, photo)
    assert disk.read(tmp_path / name).pixels.shape == (32, 40, 3)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_an_edit_of_a_latin_1_name_says_what_it_did(
    encoding: str, tmp_path: Path, dfi: Dfi, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    Image.fromarray(face).save(os.fsencode(tmp_path / LATIN))
    done = dfi("edit", tmp_path / LATIN, tmp_path / f"out-{LATIN}", "--set", "smiling=0.4", "--iterations", "1")
    assert done.returncode == 0, done.stderr
    assert "J\\udcfcrgen.png" in done.stdout
    assert (tmp_path / f"out-{LATIN}").exists()
