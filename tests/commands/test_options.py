"""What `dfi edit` can choose, `batch` and `strip` choose by the same names, here and through a server."""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from gimp.server import serving
from PIL import Image
from support.checks import run_dfi

from dfi_server.commands import cli, remote
from dfi_server.edit import Editor
from dfi_server.errors import ErrorCode
from dfi_server.photo.pixels import composite
from dfi_server.wire import place
from dfi_server.wire.client import Client
from dfi_server.wire.messages import Error
from dfi_server.wire.protocol import Message, MessageType, encode

Run = Callable[..., subprocess.CompletedProcess[str]]
OPTIONS = (
    *("--iterations", "2", "--box", "60,60,150,150", "--face", "largest", "--store", "tiny"),
    *("--keep", "senior", "--keep", "Eyeglasses", "--neighbours", "20"),
)


@pytest.fixture(scope="module")
def endpoint(_tiny_built: Path) -> Iterator[str]:
    """A server with the store "tiny"."""
    with serving(_tiny_built, options=("--store", "tiny")) as (there, _):
        yield there


@pytest.fixture
def photos(tiny_home: Path, tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: `face.png`, and the same in the folder `in`."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for path in ("face.png", "in/face.png"):
        Image.fromarray(face).save(path)
    return tmp_path


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def succeeds(*arguments: str) -> None:
    assert cli.main(arguments) == 0


def test_edit_batch_and_strip_take_the_same_options_here_and_through_a_server(
    photos: Path, endpoint: str, face: np.ndarray
) -> None:
    succeeds("edit", "face.png", "here.png", "--set", "smiling=0.4", *OPTIONS, "--device", "cpu")
    succeeds("edit", "face.png", "there.png", "--set", "smiling=0.4", *OPTIONS, "--server", endpoint)
    succeeds("batch", "in", "out", "--set", "smiling=0.4", *OPTIONS, "--server", endpoint)
    assert (pixels("here.png") != face).any()
    assert np.array_equal(pixels("here.png")[:60], face[:60])  # the box was heeded
    for other in ("there.png", "out/face.png"):
        assert np.array_equal(pixels(other), pixels("here.png"))
    strip = ("--set", "smiling", "--alphas=-0.3,0.2,0.5", *OPTIONS)
    succeeds("strip", "face.png", "strip.png", *strip, "--device", "cpu")
    succeeds("strip", "face.png", "remote.png", *strip, "--server", endpoint)
    assert np.array_equal(pixels("strip.png"), pixels("remote.png"))


def test_a_sweep_through_a_server_is_the_sweep_of_the_editor(tiny_home: Path, endpoint: str, face: np.ndarray) -> None:
    """Each alpha's pixels, in the order asked for, and progress of the whole."""
    alphas, states = (0.2, 0.5, -0.3), []
    with Client(endpoint) as client:
        patches = remote.sweep(client, face, "smiling", alphas, iterations=3, progress=states.append)
    edits = Editor("tiny", "cpu").sweep(face, [{"smiling": alpha} for alpha in alphas], iterations=3)
    for patch, edit in zip(patches, edits, strict=True):
        assert np.array_equal(composite(face, patch), composite(face, edit.patch))
    assert states[-1].iteration == states[-1].iterations


def test_a_server_with_another_store_says_which_it_has(
    photos: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And does not edit with that one."""
    for command in (
        ("edit", "face.png", "out.png", "--set", "smiling=0.4"),
        ("strip", "face.png", "out.png", "--set", "smiling"),
        ("batch", "in", "out", "--set", "smiling=0.4"),
    ):
        assert cli.main((*command, "--store", "starter", "--server", endpoint)) == 1
        err = capsys.readouterr().err
        assert re.fullmatch(r"dfi: This server edits with the store 'tiny', not 'starter': [^\n]+\n", err)
        assert "dfi serve --store starter" in err
    assert not Path("out.png").exists()
    assert not Path("out/face.png").exists()


def test_a_server_that_is_too_old_to_be_asked_for_a_store_is_told_about(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It refuses the field, as the protocol has it for all that it does not know; without --store it is not sent."""
    asked = []

    def answer() -> None:
        client, header, *_ = router.recv_multipart()
        asked.append(json.loads(header))
        text = "The header has a field that this message does not know: 'store'."
        refused = Message(MessageType.ERROR, asked[-1]["id"], Error(ErrorCode.BAD_REQUEST, text))
        router.send_multipart([client, *encode(refused)])

    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        for store in ((), ("--store", "tiny")):
            old = threading.Thread(target=answer)
            old.start()
            command = ("edit", "face.png", "out.png", "--set", "smiling=1", "--server", f"tcp://127.0.0.1:{port}")
            assert cli.main([*command, *store]) == 1
            old.join()
    assert ["store" in header for header in asked] == [False, True]
    assert "is older than this program" in capsys.readouterr().err.splitlines()[-1]


def test_batch_starts_a_server_with_the_store_and_device_it_is_asked_for(
    photos: Path, face: np.ndarray, tiny_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that runs already with others is not used, and left alone."""
    here = place.find(place.OWN, tiny_home).endpoint
    command = ("batch", "in", "out", "--set", "smiling=0.4", "--iterations", "1")
    try:
        succeeds(*command, "--store", "tiny", "--device", "cpu")
        assert (pixels("out/face.png") != face).any()
        with Client(here) as client:
            assert client.status().store == "tiny"
        for option, asked, there in (("store", "starter", "tiny"), ("device", "cuda", "cpu")):
            capsys.readouterr()
            assert cli.main((*command, f"--{option}", asked)) == 1
            err = capsys.readouterr().err
            said = err.splitlines()[-1]
            assert f"A server of yours runs already, whose {option} is {there}" in said
            assert f"dfi serve --{option} {asked} --endpoint" in said
    finally:
        end_server(here)


@pytest.fixture
def new_home(photos: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder with the stores "tiny" and "lfw", in which no server has run."""
    home = photos / "home"
    for name in ("tiny", "lfw"):
        shutil.copytree(tiny_home / "stores" / "tiny", home / "stores" / name)
    monkeypatch.setenv("DFI_HOME", str(home))
    yield home
    end_server(place.find(place.OWN, home).endpoint)


@pytest.mark.parametrize(
    "command",
    [
        ("batch", "in", "out", "--set", "smiling=0.4"),
        ("edit", "face.png", "out.png", "--set", "smiling=0.4", "--server", "own"),
        ("strip", "face.png", "out.png", "--set", "smiling", "--server", "own-tcp"),
        ("fill", "face.png", "mask.png", "out.png", "--server", "own"),
    ],
)
def test_no_server_is_started_or_asked_for_a_store_that_is_not_there(
    command: tuple[str, ...], new_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((250, 250), np.uint8)
    mask[100:110, 100:110] = 255
    Image.fromarray(mask).save("mask.png")
    assert cli.main((*command, "--store", "nope")) == 1
    assert "There is no store of attribute vectors 'nope'" in capsys.readouterr().err
    assert {path.name for path in new_home.iterdir()} == {"stores"}


@pytest.mark.slow
def test_a_store_that_cannot_be_used_is_in_nobody_s_way(new_home: Path, face: np.ndarray) -> None:
    """The server that was started with it is gone when another store is asked for."""
    (new_home / "stores" / "lfw" / "network.safetensors").write_bytes(b"damaged")
    command = ("batch", "in", "out", "--set", "smiling=0.4", "--iterations", "1")
    for store in ((), ("--store", "lfw")):
        said = run_dfi(*command, *store, home=new_home)
        assert said.returncode == 1
        assert "run 'dfi setup' again" in said.stderr.splitlines()[-1]
    assert run_dfi(*command, "--store", "tiny", home=new_home).returncode == 0
    assert (pixels("out/face.png") != face).any()


def end_server(endpoint: str) -> None:
    """The one that was started by a command, which outlives it."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "serve" in words and endpoint in words:
            os.kill(int(entry.name), 15)


def test_photos_made_with_another_store_or_box_are_told_apart(
    photos: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("batch", "in", "out", "--set", "smiling=0.4", "--iterations", "1", "--server", endpoint)
    succeeds(*command, "--store", "tiny", "--box", "60,60,150,150")
    succeeds(*command, "--store", "tiny", "--box", "60,60,150,150")
    for other in (("--store", "tiny"), ("--box", "60,60,150,150"), ("--store", "tiny", "--box", "50,60,150,150")):
        capsys.readouterr()
        assert cli.main((*command, *other)) == 1
        assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("edit", "face.png", "out.png", "--set", "smiling=1", "--server", "E", "--device", "cpu"), "--device"),
        (("strip", "face.png", "out.png", "--set", "smiling", "--server", "E", "--device", "cpu"), "--device"),
        (("batch", "in", "out", "--set", "smiling=1", "--server", "E", "--device", "cpu"), "--device"),
        (("edit", "face.png", "out.png", "--set", "smiling=1", "--keys", "keys"), "--keys goes with --server"),
        (("strip", "face.png", "out.png", "--set", "smiling", "--keys", "keys"), "--keys goes with --server"),
        (("batch", "in", "out", "--set", "smiling=1", "--keys", "keys"), "--keys goes with --server"),
        (("batch", "in", "out", "--set", "smiling=1", "--server", "E", "--engine", "ray"), "--engine ray exclude"),
        (("strip", "face.png", "out.png", "--set", "smiling", "--server", "E", "--keys", "no"), "no key in no"),
        (("batch", "in", "out", "--set", "smiling=1", "--server", "E", "--keys", "no"), "no key in no"),
    ],
)
def test_what_makes_no_sense_together_is_one_sentence(
    arguments: tuple[str, ...], says: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word.replace("E", "tcp://127.0.0.1:9") if word == "E" else word for word in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"dfi: [^\n]+\.\n", err)
    assert says in err
    assert not Path("out").exists()


def test_keys_open_a_server_to_strip_and_batch(photos: Path, _tiny_built: Path) -> None:
    """Without them it does not answer."""
    assert run_dfi("keygen", "keys", "anna", home=_tiny_built).returncode == 0
    with serving(_tiny_built, options=("--keys", "keys/server"), keys=Path("keys/anna")) as (endpoint, _):
        how = ("--iterations", "1", "--server", endpoint, "--keys", "keys/anna")
        succeeds("strip", "face.png", "strip.png", "--set", "smiling", "--alphas", "0.4", *how)
        succeeds("batch", "in", "out", "--set", "smiling=0.4", *how)
    assert Path("strip.png").exists()
    assert Path("out/face.png").exists()
