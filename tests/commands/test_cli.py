"""The command line: what it writes and prints, and one sentence for everything that can go wrong.

Most of it runs in this process, which saves importing torch each time; two tests start the real command.
"""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from support import icc
from support.checks import Run, full_disk
from support.tiny import TINY_ATTRIBUTES, tiny_weights

from dfi_server import __version__
from dfi_server.commands import cli
from dfi_server.edit import Editor
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, composite


def test_attributes_are_listed(tiny_home: Path, succeeds: Run) -> None:
    assert tuple(succeeds("attributes").split()) == TINY_ATTRIBUTES
    assert tuple(json.loads(succeeds("attributes", "--json"))) == TINY_ATTRIBUTES
    assert succeeds("attributes", "--store", "tiny") == succeeds("attributes")


def test_an_edit_writes_what_the_pipeline_returns(
    tiny_home: Path, folder: Path, face: np.ndarray, succeeds: Run
) -> None:
    out = succeeds(
        *("edit", "face.png", "out.png", "--set", "smiling=0.4", "--set", "5 o' Clock Shadow=-0.2"),
        *("--iterations", "3", "--device", "cpu", "--store", "tiny"),
    )
    assert "out.png" in out
    assert "smiling=0.4 5_o_clock_shadow=-0.2" in out
    assert "3 iterations" in out
    edit = Editor("tiny", "cpu").edit(face, {"smiling": 0.4, "5_o_clock_shadow": -0.2}, iterations=3)
    result = np.asarray(Image.open("out.png"))
    assert np.array_equal(result, composite(face, edit.patch))
    assert not np.array_equal(result, face)
    assert sorted(path.name for path in folder.iterdir()) == ["face.png", "out.png"]


def test_an_edit_keeps_transparency_and_replaces_its_own_input(
    tiny_home: Path, folder: Path, face: np.ndarray, succeeds: Run
) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (250, 250), dtype=np.uint8)
    Image.fromarray(np.dstack([face, alpha])).save("face.png")
    succeeds("edit", "face.png", "face.png", "--set", "smiling=1", "--iterations", "2")
    result = np.asarray(Image.open("face.png"))
    assert np.array_equal(result[..., 3], alpha)
    assert not np.array_equal(result[..., :3], face)


def test_an_edit_of_the_first_of_several_pictures_says_so(
    tiny_home: Path, folder: Path, face: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [Image.fromarray(np.roll(face, shift, axis=1)) for shift in (0, 1, 2)]
    for name in ("moving.webp", "scan.tif"):
        pages[0].save(name, save_all=True, append_images=pages[1:], lossless=True)
    lost, kept = "Only the first of its 3 pictures was edited and written.", "the others are kept as they were."
    for source, target, said in (
        ("moving.webp", "out.webp", lost),
        ("scan.tif", "o.png", lost),
        ("scan.tif", "o.tif", kept),
    ):
        assert cli.main(("edit", source, target, "--set", "smiling=1", "--iterations", "1")) == 0
        out, err = capsys.readouterr()
        assert target in out
        assert re.fullmatch(rf"dfi: {source}: [^\n]*{re.escape(said)}\n", err)
    with Image.open("o.tif") as after:
        after.seek(2)
        assert np.array_equal(np.asarray(after), np.asarray(pages[2]))
    assert cli.main(("faces", "scan.tif")) == 0
    assert capsys.readouterr().err == "dfi: scan.tif: Only the first of its 3 pictures is looked at.\n"


def test_a_deep_photo_in_its_own_colours_is_edited_in_them(
    tiny_home: Path, folder: Path, portrait: np.ndarray, succeeds: Run
) -> None:
    """16-bit Adobe RGB: depth and profile stay, and no pixel changes where there is no face."""
    profile = icc.rgb(icc.ADOBE_RGB, 2.2)
    deep = portrait.astype(np.uint16) * 257 + np.random.default_rng(0).integers(0, 200, portrait.shape, np.uint16)
    disk.write(folder / "deep.tif", Photo(deep, None, profile))
    succeeds("edit", "deep.tif", "out.tif", "--set", "smiling=1", "--iterations", "3")
    result = disk.read(folder / "out.tif")
    assert (result.pixels.dtype, result.icc_profile) == (np.uint16, profile)
    assert np.array_equal(result.pixels[300:], deep[300:])
    assert (result.pixels[60:170, 170:270] != deep[60:170, 170:270]).mean() > 0.2


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_picture_is_edited(
    tiny_home: Path, folder: Path, face: np.ndarray, mode: str, succeeds: Run
) -> None:
    if mode == "I;16":
        Image.fromarray(face[..., 0].astype(np.uint16) * 257).save("odd.tif")
    else:
        Image.fromarray(face).convert(mode).save("odd.tif")
    succeeds("edit", "odd.tif", "out.png", "--set", "smiling=1", "--iterations", "2")
    assert Image.open("out.png").size == (250, 250)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (20_000, 10_000)])
@pytest.mark.slow
def test_a_picture_without_a_face_says_how_to_name_one(
    tiny_home: Path, folder: Path, size: tuple[int, int], fails: Run
) -> None:
    """Also one of 200 megapixels."""
    Image.new("L", size, 128).save("empty.png")
    assert "--box X,Y,W,H" in fails("edit", "empty.png", "out.png", "--set", "smiling=0.4")


def test_a_photo_that_is_not_finite_is_one_sentence(tiny_home: Path, folder: Path, fails: Run) -> None:
    pixels = np.full((40, 40, 3), 0.5, np.float32)
    pixels[3, 4] = np.nan
    disk.write(folder / "holes.tif", Photo(pixels))
    assert "finite" in fails("edit", "holes.tif", "out.png", "--set", "smiling=0.4")


def test_a_box_says_where_the_face_is(tiny_home: Path, folder: Path, face: np.ndarray, succeeds: Run) -> None:
    wide = np.full((300, 500, 3), 90, np.uint8)
    wide[20:270, 200:450] = face
    Image.fromarray(wide).save("wide.png")
    succeeds("edit", "wide.png", "out.png", "--set", "smiling=0.5", "--iterations", "2", "--box", "240,40,170,170")
    changed = (np.asarray(Image.open("out.png")) != wide).any(axis=2)
    inside = np.zeros_like(changed)
    inside[40:210, 240:410] = True
    assert changed[inside].mean() > 0.1
    assert not changed[~inside].any()


def test_a_strip_shows_the_original_and_every_alpha(
    tiny_home: Path, folder: Path, face: np.ndarray, succeeds: Run
) -> None:
    """One labelled picture, left to right: the change grows with alpha."""
    out = succeeds("strip", "face.png", "strip.png", "--set", "smiling", "--alphas", "0.1,0.5,2", "--iterations", "3")
    assert "smiling at 0.1, 0.5, 2" in out
    strip = np.asarray(Image.open("strip.png").convert("RGB")).astype(int)
    height, width = strip.shape[:2]
    cell = width / 4
    assert 200 < cell < 300
    assert cell < height < 1.3 * cell
    label_height = height - round(cell)
    columns = [strip[:, round(i * cell) : round(i * cell) + int(cell)] for i in range(4)]
    for column in columns:
        assert column[:label_height].min() < 60  # a label's ink
    pictures = [column[label_height + 8 : -8, 8:-8] for column in columns]
    changes = [np.abs(picture - pictures[0]).mean() for picture in pictures]
    assert 0 < changes[1] < changes[2] < changes[3]


def test_a_strip_shows_the_articles_alphas_by_default(tiny_home: Path, folder: Path, succeeds: Run) -> None:
    out = succeeds("strip", "face.png", "strip.png", "--set", "Smiling", "--iterations", "1")
    assert "smiling at 0.1, 0.2, 0.3, 0.4, 0.5" in out
    width, height = Image.open("strip.png").size
    assert 5 < width / height < 6


EDIT = ("edit", "face.png", "out.png", "--set")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*EDIT, "smilling=0.4"), "did you mean smiling"),
        ((*EDIT, "=0.4"), "dfi attributes"),
        ((*EDIT, "smiling"), "smiling=0.4"),
        ((*EDIT, "smiling=much"), "'much'"),
        ((*EDIT, "smiling=nan"), "from -2 to 2"),
        ((*EDIT, "smiling=-inf"), "from -2 to 2"),
        ((*EDIT, "smiling=2.5"), "from -2 to 2"),
        ((*EDIT, "smiling=-3"), "from -2 to 2"),
        ((*EDIT, "smiling=0.1", "--set", "Smiling=0.2"), "set twice"),
        ((*EDIT, "smiling=1", "--box", "240,0,100,100"), "not inside the photo of 250 x 250"),
        ((*EDIT, "smiling=1", "--box=-95,0,100,100"), "not inside the photo of 250 x 250"),
        ((*EDIT, "smiling=1", "--box", "0,0,2,2"), "at least"),
        ((*EDIT, "smiling=1", "--iterations", "1001"), "from 1 to 1000"),
        ((*EDIT, "smiling=1", "--store", "absent"), "dfi setup"),
        ((*EDIT, "smiling=1", "--store", "../tiny"), "plain name"),
        ((*EDIT, "smiling=1", "--server", "nonsense"), "nonsense"),
        (("edit", "absent.png", "out.png", "--set", "smiling=1"), "no image at absent.png"),
        (("edit", "text.png", "out.png", "--set", "smiling=1"), "text.png"),
        (("edit", "empty.png", "out.png", "--set", "smiling=1"), "empty.png"),
        (("edit", "half.png", "out.png", "--set", "smiling=1"), "half.png"),
        (("edit", "wide.png", "out.png", "--set", "smiling=1"), "--box"),
        (("edit", ".", "out.png", "--set", "smiling=1"), "not an image"),
        (("edit", "face.png", "absent/out.png", "--set", "smiling=1"), "no folder absent"),
        (("edit", "face.png", "absent/out.png", "--set", "smiling=1", "--store", "absent"), "no folder absent"),
        (("edit", "face.png", "out.doc", "--set", "smiling=1"), ".png"),
        (("edit", "face.png", "out", "--set", "smiling=1"), ".png"),
        (("edit", "face.png", "folder.png", "--set", "smiling=1"), "is a folder"),
        (("strip", "face.png", "out.png", "--set", "smilling"), "did you mean smiling"),
        (("strip", "face.png", "out.png", "--set", "smiling", "--alphas", "0.1,,0.2"), "not a number"),
        (("strip", "face.png", "out.png", "--set", "smiling", "--alphas", "0.1,9"), "from -2 to 2"),
        (("strip", "absent.png", "out.png", "--set", "smiling"), "no image at absent.png"),
        (("strip", "face.png", "out.txt", "--set", "smiling"), ".png"),
        (("faces", "absent.png"), "no image at absent.png"),
        (("faces", "face.png", "--draw", "absent/out.png"), "no folder absent"),
        (("attributes", "--store", "absent"), "dfi setup"),
        (("serve", "--endpoint", "tcp://0.0.0.0:5577"), "127.0.0.1"),
        (("serve", "--endpoint", "nonsense"), "nonsense"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[str, ...], says: str, tiny_home: Path, folder: Path, fails: Run
) -> None:
    Path("text.png").write_text("not an image")
    Path("empty.png").touch()
    Path("half.png").write_bytes(Path("face.png").read_bytes()[:9000])
    Image.new("RGB", (300, 180), "gray").save("wide.png")
    Path("folder.png").mkdir()
    assert says in fails(*arguments)


def test_a_server_that_is_not_there_is_one_sentence(tiny_home: Path, folder: Path, fails: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        message = fails(*EDIT, "smiling=0.4", "--server", endpoint)
    assert endpoint in message
    assert "dfi serve" in message


def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(
    tiny_home: Path, folder: Path, fails: Run, succeeds: Run
) -> None:
    edit = ("edit", "face.png", "out.png", "--set", "smiling=0.4", "--iterations", "1")
    succeeds(*edit)
    with full_disk(20_000):
        assert "out.png could not be written" in fails(*edit)


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: (store / "vectors.safetensors").unlink(),
        lambda store: (store / "network.safetensors").unlink(),
        lambda store: (store / "vectors.safetensors").write_bytes(b""),
        lambda store: (store / "network.safetensors").write_bytes(b"x" * 1000),
        lambda store: (store / "vectors.safetensors").write_bytes((store / "vectors.safetensors").read_bytes()[:-9]),
        lambda store: save_file(tiny_weights(seed=9), store / "network.safetensors"),
    ],
    ids=["no vectors", "no network", "empty vectors", "no network's file", "cut vectors", "other weights"],
)
def test_a_damaged_store_is_one_sentence(
    damage: Callable[[Path], object],
    tiny_home: Path,
    folder: Path,
    tmp_path: Path,
    fails: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = tmp_path / "home" / "stores" / "lfw"
    shutil.copytree(tiny_home / "stores" / "tiny", store)
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    damage(store)
    assert str(store.parent) in fails(*EDIT, "smiling=0.4")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("enhance",),
        ("edit", "face.png", "out.png"),
        ("edit", "face.png", "--set", "smiling=0.4"),
        (*EDIT, "smiling=1", "--box", "1,2,3"),
        (*EDIT, "smiling=1", "--box", "a,b,c,d"),
        (*EDIT, "smiling=1", "--iterations", "0"),
        (*EDIT, "smiling=1", "--iterations", "many"),
        (*EDIT, "smiling=1", "--device", "tpu"),
        (*EDIT, "smiling=1", "--face", "0"),
        ("setup", "--method", "median"),
        ("setup", "--limit", "-1"),
        ("strip", "face.png", "out.png"),
    ],
)
def test_a_wrong_command_line_prints_the_usage(
    arguments: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: dfi")
    assert [path.name for path in folder.iterdir()] == ["face.png"]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"dfi {__version__}\n"


# From here on: the real command, in a process of its own.


def test_ctrl_c_ends_an_edit_and_writes_nothing(tiny_home: Path, folder: Path) -> None:
    """On a terminal, where the progress bar tells when the solver is at work."""
    Path("out.png").write_bytes(b"what was there")
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    arguments = ["edit", "face.png", "out.png", "--set", "smiling=0.4", "--iterations", "1000"]
    with subprocess.Popen(
        [sys.executable, "-m", "dfi_server", *arguments],
        stderr=stderr,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which tests in the background ignore
    ) as child:
        os.close(stderr)
        said = b""
        deadline = time.monotonic() + 60
        try:
            while not re.search(rb"\d/1000", said):
                assert time.monotonic() < deadline, said
                if select.select([terminal], [], [], 0.1)[0]:
                    said += os.read(terminal, 4096)
            child.send_signal(signal.SIGINT)
            assert child.wait(timeout=30) == 130
        finally:
            child.kill()
    while select.select([terminal], [], [], 0.1)[0]:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # Linux: the other end is closed
            break
    os.close(terminal)
    assert b"dfi: interrupted" in said
    assert b"Traceback" not in said
    assert Path("out.png").read_bytes() == b"what was there"
    assert sorted(path.name for path in folder.iterdir()) == ["face.png", "out.png"]


@pytest.fixture
def endpoint(tiny_home: Path) -> Iterator[str]:
    """A running `dfi serve`, which must end cleanly on SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with subprocess.Popen(
        [sys.executable, "-m", "dfi_server", "serve", "--endpoint", endpoint, "--store", "tiny"],
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield endpoint
        finally:
            child.terminate()
            _, log = child.communicate(timeout=30)
    assert child.returncode == 0, log
    assert "Traceback" not in log


def test_an_edit_through_a_server_gives_the_same_pixels(
    endpoint: str, folder: Path, succeeds: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = ("edit", "face.png", "--set", "smiling=0.5", "--set", "senior=0.1", "--iterations", "3")
    deadline = time.monotonic() + 60
    while cli.main((*edit, "remote.png", "--server", endpoint)) != 0:  # it does not answer yet
        assert "Traceback" not in capsys.readouterr().err
        assert time.monotonic() < deadline
    assert endpoint in capsys.readouterr().out
    succeeds(*edit, "local.png")
    remote, local = (np.asarray(Image.open(name)) for name in ("remote.png", "local.png"))
    assert np.array_equal(remote, local)
    assert not np.array_equal(local, np.asarray(Image.open("face.png")))


def test_a_reader_that_leaves_early_is_no_failure_to_shout_about(tiny_home: Path) -> None:
    """dfi attributes | head -0: no traceback, neither of ours nor of the interpreter's at exit."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        command = [sys.executable, "-m", "dfi_server", "attributes"]
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
