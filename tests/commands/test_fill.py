"""`dfi fill`: what it writes, what it says of photos that it cannot use, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.servers import serving

from dfi_server import paths
from dfi_server.commands import cli
from dfi_server.service.worker_process import commands
from dfi_server.vectors import gallery

FACE = ("--box", "137,21,176,176")
"""Where the sample's is: looking for it would take longer than all the rest."""

FACES = Path(__file__).parents[1] / "support" / "faces"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portrait: np.ndarray) -> Path:
    """The working folder with `photo.png` and `mask.png`, a scratch over its face."""
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(portrait).save("photo.png")
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[95:150, 224:228] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["fill", *arguments]) == 1
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and not Path("out.png").exists()
    return err


@pytest.mark.slow
def test_a_scratch_is_filled_from_the_faces_that_come_with_the_program(
    folder: Path, portrait: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fill", "photo.png", "mask.png", "out.png", "--iterations", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("out.png: filled from ") and not err
    changed = (np.asarray(Image.open("out.png")) != portrait).any(axis=2)
    mask = np.asarray(Image.open("mask.png")) > 0
    assert not changed[~mask].any() and changed[mask].mean() > 0.5


@pytest.mark.slow
def test_a_server_makes_the_same_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["photo.png", "mask.png"]
    options = ["--iterations", "1", *FACE]
    assert cli.main(["fill", *given, "here.png", *options, "--store", "starter", "--device", "cpu"]) == 0
    with serving(*commands("starter", "cpu")) as server:
        there = ["--server", server.endpoint]
        assert cli.main(["fill", *given, "there.png", *options, *there]) == 0
        assert f"by {server.endpoint}" in capsys.readouterr().out
        np.testing.assert_array_equal(np.asarray(Image.open("here.png")), np.asarray(Image.open("there.png")))
        assert "A server fills from the faces that come with it" in fails(
            capsys, *given, "out.png", *there, "--from", "others"
        )
        assert "covers nothing of the face" in fails(capsys, *given, "out.png", *there, "--box", "0,300,100,100")


@pytest.mark.slow
def test_a_folder_is_used_as_far_as_it_can_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "others").mkdir()
    for path in (FACES / "closed.jpg", FACES / "smiling.jpg"):
        face = np.asarray(Image.open(path).convert("RGB").resize((250, 250)), dtype=float)
        for number in range(gallery.LEAST_FACES // 2):
            bright = np.clip(face * (0.7 + 0.05 * number), 0, 255).astype(np.uint8)
            Image.fromarray(bright).save(folder / "others" / f"{path.stem}{number}.png")
    (folder / "others" / "damaged.jpg").write_bytes(b"no photo")
    Image.new("RGB", (250, 250), "gray").save(folder / "others" / "wall.png")
    given = ["photo.png", "mask.png", "out.png", "--from", "others", "--iterations", "1", *FACE]
    assert cli.main(["fill", *given]) == 0
    out, err = capsys.readouterr()
    assert f"filled from {gallery.LEAST_FACES} faces" in out
    assert "damaged.jpg" in err and "wall.png" in err
    Path("out.png").unlink()
    (folder / "others" / "closed0.png").unlink()
    assert cli.main(["fill", *given]) == 1
    assert f"others has {gallery.LEAST_FACES - 1} photos" in capsys.readouterr().err


def test_what_makes_no_sense_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (100, 80), 255).save("small.png")
    Image.new("L", (512, 512), 0).save("black.png")
    Image.new("L", (512, 512), 255).save("white.png")
    Path("empty").mkdir()
    for arguments, words in (
        (["photo.png", "small.png", "out.png"], "100 x 80"),
        (["photo.png", "black.png", "out.png"], "black all over"),
        (["photo.png", "white.png", "out.png"], "whole photo"),
        (["photo.png", "absent.png", "out.png"], "no image at absent.png"),
        (["photo.png", "mask.png", "out.png", "--from", "absent"], "no folder absent"),
        (["photo.png", "mask.png", "out.png", "--from", "empty"], "No photos were found in empty"),
        (["photo.png", "mask.png", "out.png", "--from", "empty", "--lfw"], "exclude each other"),
        (["photo.png", "mask.png", "out.png", "--lfw"], "dfi setup --faces-only"),
        (["photo.png", "mask.png", "nowhere/out.png"], "no folder nowhere"),
    ):
        assert words in fails(capsys, *arguments)


def test_a_jpegs_black_is_black(folder: Path, portrait: np.ndarray) -> None:
    noisy = np.asarray(Image.open("mask.png")) | np.random.default_rng(0).integers(0, 4, (512, 512), np.uint8)
    Image.fromarray(noisy).save("noisy.png")
    assert cli.main(["fill", "photo.png", "noisy.png", "out.png", "--iterations", "1", *FACE]) == 0
    changed = (np.asarray(Image.open("out.png")) != portrait).any(axis=2)
    assert not changed[np.asarray(Image.open("mask.png")) == 0].any()


def test_transparent_white_is_no_mask(folder: Path, portrait: np.ndarray) -> None:
    mask = np.asarray(Image.open("mask.png"))
    Image.fromarray(np.dstack([np.full((512, 512, 3), 255, np.uint8), mask])).save("layer.png")
    assert cli.main(["fill", "photo.png", "layer.png", "out.png", "--iterations", "1", *FACE]) == 0
    changed = (np.asarray(Image.open("out.png")) != portrait).any(axis=2)
    assert changed[mask > 0].any() and not changed[mask == 0].any()


def test_the_faces_of_the_package_are_all_there() -> None:
    assert len(gallery.of_package().small) == len(list((paths.PORTRAITS / "faces").iterdir())) == 320
