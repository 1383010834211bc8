"""What `dfi faces` prints is what the other commands take, at the photo's border too; sizes that a format lacks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.checks import refusal

from dfi_server.commands import cli
from dfi_server.commands.arguments import joined
from dfi_server.edit import Editor
from dfi_server.errors import ErrorCode
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, composite
from dfi_server.service.server import Server
from dfi_server.wire.client import Client


@pytest.fixture(params=["left", "right", "top", "bottom"])
def cut(request: pytest.FixtureRequest, portrait: np.ndarray, tmp_path: Path, tiny_home: Path) -> Path:
    """The sample with its face over one of the borders."""
    (face,) = Editor("starter").faces(portrait)
    x, y, width, height = face.box
    part = {
        "left": np.s_[:, x + width // 6 :],
        "right": np.s_[:, : x + width - width // 6],
        "top": np.s_[y + height // 8 :],
        "bottom": np.s_[: y + height - height // 8],
    }[request.param]
    Image.fromarray(portrait[part]).save(tmp_path / "cut.png")
    return tmp_path / "cut.png"


def test_the_box_that_is_printed_works_as_it_is_printed(
    cut: Path, tmp_path: Path, real_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["faces", str(cut)]) == 0
    found = re.search(r"1: (--box) (\S+)", capsys.readouterr().out)
    assert found
    x, y, width, height = map(int, found[2].split(","))
    photo = np.asarray(Image.open(cut))
    assert x < 0 or y < 0 or x + width > photo.shape[1] or y + height > photo.shape[0]
    common = ["--set", "smiling=0.6", "--iterations", "2"]
    for name, more in (("here.png", []), ("there.png", ["--server", real_server.endpoint])):
        assert cli.main(["edit", str(cut), str(tmp_path / name), found[1], found[2], *common, *more]) == 0
    here, there = (np.asarray(Image.open(tmp_path / name)) for name in ("here.png", "there.png"))
    np.testing.assert_array_equal(here, there)
    changed = np.argwhere((here != photo).any(axis=2))
    assert len(changed)
    assert (changed >= (y, x)).all() and (changed < (y + height, x + width)).all()
    strip = ["strip", str(cut), str(tmp_path / "strip.png"), "--set", "smiling", "--alphas", "-0.4,0.4"]
    assert cli.main([*strip, "--iterations", "1", found[1], found[2]]) == 0


def test_a_box_over_the_border_edits_what_is_inside(portrait: np.ndarray) -> None:
    editor = Editor("starter")
    (face,) = editor.faces(portrait)
    box = (-100, -100, portrait.shape[1] + 200, portrait.shape[0] + 200)
    whole = editor.edit(portrait, {"smiling": 0.3}, iterations=2, box=(0, 0, portrait.shape[1], portrait.shape[0]))
    boxed = editor.edit(portrait, {"smiling": 0.3}, iterations=2, box=box)
    middle = np.s_[face.box[1] : face.box[1] + face.box[3], face.box[0] : face.box[0] + face.box[2]]
    np.testing.assert_array_equal(*(composite(portrait, each.patch)[middle] for each in (whole, boxed)))


@given(
    st.lists(st.sampled_from(["--box", "--set", "-1,2,3,4", "-0.5", "in.png", "-h", "--x=1", "-.5,1e-3"]), max_size=8)
)
def test_no_word_of_a_command_line_is_lost(words: list[str]) -> None:
    assert " ".join(words).split() == " ".join(joined(words)).replace("=-", " -").split()
    assert "--x=1=" not in " ".join(joined(words))


@pytest.mark.parametrize(
    ("name", "side"), [("wide.webp", 16_384), ("wide.jpg", 65_501), ("wide.avif", 16_385), ("wide.heic", 65_521)]
)  # the longest that are written: one less
def test_a_size_that_the_format_lacks_is_said_before_the_work(
    name: str, side: int, tmp_path: Path, tiny_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = np.full((20, side, 3), 99, np.uint8)
    assert "Write a .png" in refusal(lambda: disk.check_size(Path(name), wide), ErrorCode.TOO_LARGE)
    refusal(lambda: disk.check_size(Path(name), wide.swapaxes(0, 1)), ErrorCode.TOO_LARGE)
    disk.write(tmp_path / name, Photo(np.ascontiguousarray(wide[:, :-1])))
    assert disk.read(tmp_path / name).pixels.shape == (20, side - 1, 3)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert cli.main(["edit", str(tmp_path / "wide.png"), str(tmp_path / f"out-{name}"), "--set", "smiling=0.4"]) == 1
    assert "to a side" in capsys.readouterr().err  # and not that there is no face
    assert not (tmp_path / f"out-{name}").exists()


def test_batch_says_it_of_each_photo_and_does_the_others(
    tmp_path: Path, tiny_home: Path, face: np.ndarray, real_server: Server
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(face).save(tmp_path / "in" / "a.webp", lossless=True)
    Image.new("RGB", (16_383, 20)).save(tmp_path / "in" / "b.webp")
    with Client(real_server.endpoint) as client:
        client.attributes()
    command = ["batch", str(tmp_path / "in"), str(tmp_path / "out"), "--set", "smiling=0.4", "--iterations", "1"]
    cli.main([*command, "--server", real_server.endpoint])
    told = [json.loads(line) for line in (tmp_path / "out" / "dfi-batch.jsonl").read_text().splitlines()]
    assert {line["file"]: line["status"] for line in told}["a.webp"] == "edited"
