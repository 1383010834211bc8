"""What the command line says where its surroundings fail: one sentence, with advice that fits, and no traceback."""

import errno
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import icc
from support.servers import free_endpoint

from dfi_server.commands import batch, cli
from dfi_server.errors import ErrorCode, unwritable
from dfi_server.photo import colour, disk
from dfi_server.photo.pixels import Photo, to_unit

EDIT = "edit face.png out.png --set smiling=0.4 --iterations 1"
Said = Callable[[str], str]


@pytest.fixture
def folder(tiny_home: Path, tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a photo `face.png` in it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(face).save("face.png")
    return tmp_path


def in_shell(command: str, where: str) -> subprocess.CompletedProcess[str]:
    """`dfi` as a shell starts it, with its output led to `where`."""
    line = f"exec {sys.executable} -m dfi_server {command} {where}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)


def test_a_closed_output_is_no_failure(folder: Path) -> None:
    done = in_shell(EDIT, ">&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert Image.open("out.png").size == (250, 250)
    done = in_shell("attributes --store absent", "2>&-")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("command", [EDIT, "attributes", "--help"])
def test_a_full_output_is_one_sentence(command: str, folder: Path) -> None:
    done = in_shell(command, ">/dev/full")
    assert done.returncode == 1
    assert re.fullmatch(r"dfi: what this command prints [^\n]*No space left on device[^\n]+\.\n", done.stderr)
    assert Path("out.png").exists() == (command == EDIT)
    assert in_shell(command, ">/dev/full 2>/dev/full").returncode == 1


def test_a_photo_s_own_colours_need_no_folder_for_temporary_files(
    folder: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container with a read-only root, of which one folder can be written."""
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nope")
    monkeypatch.setenv("TMPDIR", "/proc/nope")
    disk.write(folder / "deep.png", Photo(portrait, None, icc.rgb(icc.ADOBE_RGB, 2.2)))
    assert cli.main(EDIT.replace("face.png", "deep.png").split()) == 0
    assert not np.array_equal(disk.read(folder / "out.png").pixels, portrait)


def test_profiles_that_lie_at_the_same_place_are_told_apart() -> None:
    """One after the other, as in a batch: libvips remembers them by their files' names."""
    pixels = np.full((2, 2, 3), 20000, np.uint16)
    adobe, linear = (Photo(pixels, None, icc.rgb(*how)) for how in ((icc.ADOBE_RGB, 2.2), (icc.SRGB, 1.0)))
    first, second, third = (colour.to_srgb(photo) for photo in (adobe, linear, adobe))
    assert np.array_equal(first, third)
    assert (second > first + 10000).all()


def test_an_interrupt_while_modules_are_imported_shows_none_of_them(folder: Path) -> None:
    """One of them, the first that is not the program's own, takes very long here."""
    Path("platformdirs.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    child = subprocess.Popen(
        [sys.executable, "-m", "dfi_server", "attributes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not Path("begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (out, err) == ("", "")
    assert child.returncode != 0


def test_two_interrupts_at_once_are_one(folder: Path) -> None:
    """The second comes while the first is told about."""
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    child = subprocess.Popen(
        [sys.executable, "-m", "dfi_server", *EDIT.replace("s 1", "s 1000").split()],
        stderr=stderr,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(stderr)
    said, sent, deadline = b"", False, time.monotonic() + 60
    try:
        while True:
            assert time.monotonic() < deadline, said
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                said += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if not sent and re.search(rb"\d/1000", said):
                sent = True
                child.send_signal(signal.SIGINT)
            if b"interrupted" in said and child.poll() is None:
                child.send_signal(signal.SIGINT)
        assert child.wait(timeout=30) in (130, -signal.SIGINT)
    finally:
        child.kill()
        os.close(terminal)
    assert said.count(b"dfi: interrupted") == 1
    assert b"Traceback" not in said
    assert b"Exception ignored" not in said
    assert not Path("out.png").exists()


@pytest.fixture
def said(folder: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """The one sentence with which a command fails."""

    def run(command: str) -> str:
        assert cli.main(command.split()) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"dfi: [^\n]+[.:?)]\n", err), err
        return err

    return run


def test_a_state_folder_that_cannot_be_written_is_what_is_wrong(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFI_HOME", "/proc/nope")
    sentence = said("batch . out --set smiling=0.3")
    assert "/proc/nope/server.log could not be written" in sentence
    assert "DFI_HOME" in sentence
    assert "nstall" not in sentence


def test_a_program_at_the_server_s_place_is_told_about_with_options_that_there_are(said: Said) -> None:
    with socket.create_server(("127.0.0.1", 0)) as program:
        sentence = said(f"serve --endpoint tcp://127.0.0.1:{program.getsockname()[1]}")
    assert "dfi serve --endpoint" in sentence
    assert "--server ENDPOINT" in sentence


def test_a_server_that_is_not_there_is_to_be_started_where_it_was_looked_for(said: Said, tiny_home: Path) -> None:
    endpoint = free_endpoint()
    assert f"(dfi serve --endpoint {endpoint})" in said(f"{EDIT} --server {endpoint}")
    assert "(dfi serve)" in said(f"{EDIT} --server own")


def test_one_of_its_own_that_has_never_run_is_to_be_started(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be given keys, which it makes itself."""
    monkeypatch.setenv("DFI_HOME", "absent")
    assert "(dfi serve --endpoint own-tcp)" in said(f"{EDIT} --server own-tcp")


def test_a_store_that_is_not_there_is_told_with_those_that_are(said: Said) -> None:
    assert "choose one of lfw, tiny, starter" in said("attributes --store absent")


@pytest.mark.parametrize(
    ("number", "advice", "never"),
    [
        (errno.ENOSPC, "Make room", "another"),
        (errno.EDQUOT, "Make room", "another"),
        (errno.EROFS, "Name another folder", "room"),
        (errno.EACCES, "Get permission to write there, or name another folder", "room"),
        (errno.ENOTDIR, "Name another folder", "room"),
    ],
)
def test_what_cannot_be_written_has_advice_that_helps(number: int, advice: str, never: str) -> None:
    error = unwritable(Path("album"), OSError(number, os.strerror(number), "album"))
    assert error.code is ErrorCode.NO_SPACE
    assert error.message.startswith(f"album could not be written ({os.strerror(number)}). {advice}")
    assert never not in error.message


def test_a_folder_that_becomes_read_only_ends_a_batch_with_advice_that_helps(folder: Path) -> None:
    def edit(*_: object) -> tuple[object, float]:
        raise OSError(errno.EROFS, "Read-only file system", "out")

    job = batch.Job(folder, folder / "out", {"smiling": 0.4})
    with pytest.raises(Exception, match=r"Read-only file system\). Name another folder\.$"):
        batch.run(job, batch.plan(job).todo, edit)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_figures_that_cannot_be_written_are_not_made(option: str, said: Said) -> None:
    sentence = said(f"bench --faces 1 {option} absent/figures.png")
    assert "There is no folder" in sentence
    assert "absent to write figures.png to" in sentence


@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_faces_are_drawn_in_the_photo_s_colours(folder: Path, portrait: np.ndarray, gamma: float) -> None:
    """Those of a linear photo are not dark."""
    deep = np.rint(65535 * (portrait / 255) ** (2.2 / gamma)).astype(np.uint16)
    photo = Photo(deep, None, icc.rgb(icc.SRGB, gamma))
    disk.write(folder / "own.tif", photo)
    assert cli.main(["faces", "own.tif", "--draw", "drawn.png"]) == 0
    seen, drawn = to_unit(colour.to_srgb(photo)), to_unit(disk.read(folder / "drawn.png").pixels)
    corner = slice(300, None), slice(None)  # below the face
    np.testing.assert_allclose(drawn[corner], seen[corner], atol=1 / 255)
    assert np.abs(drawn[corner].mean() - to_unit(portrait)[corner].mean()) < 0.02


def test_what_a_photo_hides_is_neither_drawn_nor_in_a_strip(folder: Path, face: np.ndarray) -> None:
    """Under its transparency, which lies on white as in any format without."""
    pixels, alpha = face.copy(), np.full((250, 250), 255, np.uint8)
    pixels[:, :125], alpha[:, :125] = (255, 0, 0), 0
    Image.fromarray(np.dstack([pixels, alpha])).save("cutout.png")
    assert cli.main(["faces", "cutout.png", "--draw", "drawn.png"]) == 0
    assert cli.main(["strip", "cutout.png", "strip.png", "--set", "smiling", "--iterations", "1"]) == 0
    for name in ("drawn.png", "strip.png"):
        shown = np.asarray(Image.open(name)).astype(int)
        red = (shown[..., 0] - shown[..., 1] > 180) & (shown[..., 2] < 60)
        assert red.mean() < 0.005  # an edit moves a little of it to where it is seen
