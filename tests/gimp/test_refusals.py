"""What the filter refuses in a real GIMP, and servers that fail it: a sentence, and the image as it was."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gimp.applying import Apply, assert_added, assert_refused
from gimp.gimp import Gimp, free_endpoint, wait_for
from gimp.server import editing, serving

from dfi_server.wire.client import Client

pytestmark = pytest.mark.gimp
pytest_plugins = ["gimp.fixtures", "gimp.applying"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"attribute": "smilling"}, "There is no attribute 'smilling'"),
        ({"alpha": 3.0}, "it must be a number from -2 to 2"),
        ({"alpha": -1e300}, "it must be a number from -2 to 2"),
        ({"attribute": "smiling=much"}, "“much” is not a number"),
        ({"attribute": "smiling=0.2 smiling=0.3"}, "“smiling” is named twice"),
        ({"attribute": " "}, "No attribute was named"),
        ({"face": "left"}, "“left” is not a face"),
        ({"neighbours": 5}, "neighbours must be between 20 and 1000"),
        ({"neighbours": -(2**31) + 1}, "neighbours must be between 20 and 1000"),
        ({"keep": "seniour"}, "There is no attribute 'seniour': did you mean senior"),
    ],
)
def test_bad_arguments(apply: Apply, values: dict[str, object], sentence: str) -> None:
    answer = apply(**values)
    assert_refused(answer, sentence)
    assert len(answer["layers"]) == 1


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        (
            "other = Gimp.Layer.new(image, 'other', 9, 9, 0, 100, 0)\nimage.insert_layer(other, None, 0)\n"
            "call = lambda image, layers, _call=call, **values: _call(image, [layer, other], **values)",
            "2 layers are selected: select one",
        ),
        ("call = lambda image, layers, _call=call, **values: _call(image, [], **values)", "No layer is selected"),
        (
            "layer = Gimp.GroupLayer.new(image, 'two')\nimage.insert_layer(layer, None, 0)",
            "“two” is a layer group: select one layer inside it.",
        ),
        (
            "layer = Gimp.Channel.new(image, 'spots', 250, 250, 50, Gegl.Color.new('red'))\n"
            "image.insert_channel(layer, None, 0)",
            "A channel is selected: select a layer",
        ),
        ("layer = Gimp.Layer.new(image, 'new', 9, 9, 1, 100, 0)\nimage.insert_layer(layer, None, 0)", "“new” is empty"),
        ("layer.set_offsets(300, 0)\nimage.select_rectangle(2, 10, 10, 90, 90)", "The selection lies outside"),
        (
            "image.select_rectangle(Gimp.ChannelOps.REPLACE, 50, 50, 99, 99)\n"
            "layer = Gimp.Selection.float(image, [layer], 0, 0)",
            "The selection floats: anchor it",
        ),
        ("image.select_rectangle(Gimp.ChannelOps.REPLACE, 10, 10, 5, 5)", "The selection is too small for a face"),
        ("image.crop(250, 120, 0, 0)", "No face was found: select one"),
        (
            "image.convert_indexed(Gimp.ConvertDitherType.NONE, Gimp.ConvertPaletteType.GENERATE, 16, 0, 0, '')",
            "The image is indexed: convert it",
        ),
    ],
)
def test_unsuitable_source(apply: Apply, before: str, sentence: str) -> None:
    answer = apply(f"{before}\nimage.clean_all()\nnumber = len(image.get_layers())", "answer['number'] = number")
    assert_refused(answer, sentence)
    assert len(answer["layers"]) == answer["number"]


@contextlib.contextmanager
def aside(path: Path) -> Iterator[None]:
    """path is missing for a while."""
    path.rename(path.with_suffix(".aside"))
    try:
        yield
    finally:
        path.with_suffix(".aside").rename(path)


def test_incomplete_installation(gimp: Gimp, apply: Apply) -> None:
    with aside(gimp.plugin / "server.json"):
        assert_refused(apply(), "The program dfi, which edits, was not found on this computer")
    with aside(gimp.plugin / "dfi_server"):
        assert_refused(apply(), "A part of the plug-in is missing (No module named 'dfi_server')")
    (gimp.plugin / "server.json").write_text("[]")
    assert_refused(apply(), "Run 'dfi gimp install' again.")
    hidden = gimp.plugin / "zmq.py"
    hidden.write_text("raise ImportError(\"No module named 'zmq'\")")
    try:
        assert_refused(apply(), "A part of the plug-in is missing (No module named 'zmq')")
    finally:
        hidden.unlink()


def test_server_that_does_not_start(gimp: Gimp, apply: Apply) -> None:
    gimp.server(free_endpoint(), ["/nowhere/dfi", "serve"])
    assert_refused(apply(), "Cannot start the server with /nowhere/dfi")
    gimp.server(free_endpoint(), ["sh", "-c", "echo no disk left; exit 1"])
    assert_refused(apply(), "The server could not start: no disk left")


def test_without_a_store_the_starter_edits(gimp: Gimp, apply: Apply, tmp_path: Path) -> None:
    gimp.server(free_endpoint(), home=tmp_path)
    assert_added(apply(), "Smiling 0.4")


def test_damaged_store(gimp: Gimp, apply: Apply, tmp_path: Path) -> None:
    """It is not passed over for the starter: the user is told to build it again."""
    (tmp_path / "stores" / "lfw").mkdir(parents=True)
    gimp.server(free_endpoint(), home=tmp_path)
    assert_refused(apply(), "run 'dfi setup'")


def test_starts_the_server(gimp: Gimp, apply: Apply, _tiny_built: Path) -> None:
    """Where none answers; the server stays for the next edit, and outlives the plug-in."""
    endpoint = free_endpoint()
    gimp.server(endpoint, home=_tiny_built)
    before = len(gimp.started_servers())
    assert_added(apply(), "Smiling 0.4")
    with Client(endpoint) as client:
        assert client.hello().state == "ready"
    assert_added(apply(), "Smiling 0.4")
    assert len(gimp.started_servers()) == before + 1


def test_server_dies(gimp: Gimp, apply: Apply, _tiny_built: Path) -> None:
    with serving(_tiny_built) as (endpoint, process):
        gimp.server(endpoint)

        def kill() -> None:
            wait_for("an edit", lambda: editing(endpoint), every=0.01)
            process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        answer = apply()
        killer.join()
    assert_refused(answer, f"The server at {endpoint} ")
    assert len(answer["layers"]) == 1


def test_cancel_leaves_nothing_behind(gimp: Gimp, apply: Apply, tiny: str) -> None:
    """GIMP's Cancel kills the plug-in: the image stays as it is, and the server is free again."""
    gimp.server(tiny)
    freed: list[float] = []

    def kill() -> None:
        wait_for("an edit", lambda: editing(tiny), every=0.01)
        subprocess.run(["kill", "-KILL", *map(str, gimp.plugin_processes())], check=True)
        killed = time.monotonic()
        wait_for("a free server", lambda: not editing(tiny), seconds=10)
        freed.append(time.monotonic() - killed)

    killer = threading.Thread(target=kill)
    killer.start()
    answer = apply()
    killer.join()
    assert answer["status"] != "success"
    assert answer["source same"] and not answer["dirty"]
    assert len(answer["layers"]) == 1
    assert freed[0] < 3
    assert_added(apply(), "Smiling 0.4")
