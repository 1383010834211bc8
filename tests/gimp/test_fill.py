"""What the selection covers of a face is filled, in a real GIMP: by a script, and from the menu of its window."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gimp.dialog import SHOWN, names, show
from gimp.gimp import Gimp, Window, wait_for
from gimp.server import editing, listening, serving
from PIL import Image

from dfi_server.wire.client import Client, FillRequest

pytestmark = pytest.mark.gimp
pytest_plugins = ["gimp.fixtures"]

FILL = """
before = digest(layer)
status, sentence = call(image, [layer], "plug-in-dfi-fill")
answer = {"status": status, "sentence": sentence, **outcome(image, layer, before)}
"""
SCRATCH = "image.select_ellipse(Gimp.ChannelOps.REPLACE, 125, 95, 14, 50)"
"""On the sample's nose."""
SIDE = 260


@pytest.fixture(scope="module")
def sample(portrait: np.ndarray) -> np.ndarray:
    """What of the bundled photo is around its face: finding that takes the less the smaller it is."""
    return np.ascontiguousarray(portrait[:SIDE, 90 : 90 + SIDE])


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Endpoint of a server with the starter: the tiny store, made of drawings, finds no real face."""
    with serving(tmp_path_factory.mktemp("home")) as (endpoint, _):
        yield endpoint


Fill = Callable[..., dict[str, Any]]


@pytest.fixture
def fill(gimp: Gimp, starter: str, sample: np.ndarray) -> Fill:
    """fill(before, after): load the sample, fill what is selected then, and tell; see `apply` of applying.py."""
    gimp.server(starter)
    Image.fromarray(sample).save(gimp.share / "portrait.png")

    def run(before: str = SCRATCH, after: str = "") -> dict[str, Any]:
        start = f"image = load({gimp.path(gimp.share / 'portrait.png')!r})\nlayer = image.get_layers()[0]"
        code = [start, before, "image.clean_all()", FILL, after, "image.delete()"]
        answer: dict[str, Any] = gimp.run("\n".join(code), timeout=300)
        return answer

    return run


FEATHERED = "Gimp.context_set_feather(True)\nGimp.context_set_feather_radius(6, 6)\n"
KEPT = """
assert status == "success", sentence
new = image.get_layers()[0]
mask = new.get_mask()
keep("source", layer, {wire!r})
keep("new", new, {wire!r})
keep("alpha", new, "A u8")
keep("mask", mask, "Y u8")
answer["painted on"] = [d.get_id() for d in image.get_selected_drawables()] == [mask.get_id()]
keep("selection", image.get_selection(), "Y u8")
keep("visible", visible(image), "R'G'B' u8")
"""


@pytest.mark.every_gimp
@pytest.mark.parametrize(
    ("before", "wire", "encoding", "tolerance"),
    [
        pytest.param("", "R'G'B' u8", "R'G'B'A u8", 0, id="8 bits"),
        pytest.param(
            "image.convert_grayscale()\nimage.convert_precision(Gimp.Precision.U16_NON_LINEAR)",
            *("Y' u16", "Y'A u16", 1),
            id="gray 16 bits",
        ),
        pytest.param(
            "image.convert_color_profile(Gimp.ColorProfile.new_rgb_adobe(), "
            "Gimp.ColorRenderingIntent.RELATIVE_COLORIMETRIC, True)\n"
            "image.convert_precision(Gimp.Precision.FLOAT_LINEAR)",
            *("R'G'B' u16", "RGBA float", 64),
            id="Adobe RGB float",
        ),
    ],
)
def test_the_new_layer_is_what_the_server_fills_seen_through_the_selection(
    gimp: Gimp,
    fill: Fill,
    starter: str,
    sample: np.ndarray,
    before: str,
    wire: str,
    encoding: str,
    tolerance: int,
) -> None:
    """Of a layer that is smaller than the image and lies elsewhere, in whatever format; with a soft edge."""
    elsewhere = "image.resize(400, 300, 90, 20)\n" + FEATHERED + SCRATCH.replace("125, 95", "215, 115")
    with listening(starter) as (endpoint, fills):
        gimp.server(endpoint)
        answer = fill(f"{before}\n{elsewhere}", KEPT.format(wire=wire))
    assert (answer["status"], answer["sentence"]) == ("success", "")
    assert answer["source same"] and answer["painted on"]
    new, photo = answer["layers"]
    assert (new["name"], photo["name"]) == ("Filled", "Background")
    assert answer["selected"] == ["Filled"]
    assert new["encoding"] == encoding

    dtype = "uint8" if wire.endswith("u8") else "uint16"
    (asked,) = fills
    sent = np.frombuffer(asked.pixels, dtype).reshape((source := gimp.kept("source", dtype, (SIDE, SIDE))).shape)
    assert abs(sent.astype(int) - source).max() <= (0 if dtype == "uint8" else 2)
    selection = gimp.kept("selection", "uint8", (400, 300))[20 : 20 + SIDE, 90 : 90 + SIDE, 0]
    np.testing.assert_array_equal(np.frombuffer(asked.mask, "u1").reshape(SIDE, SIDE), selection)
    assert len(np.unique(selection)) > 20

    with Client(starter) as client:
        request = FillRequest(SIDE, SIDE, sent.shape[2], dtype)
        result = client.fill(request, sent.tobytes(), selection.tobytes())
    left, top = new["offset"]
    assert (left - 90, top - 20, *new["size"]) == (result.x, result.y, result.width, result.height)
    mask = gimp.kept("mask", "uint8", new["size"])[..., 0]
    np.testing.assert_array_equal(mask, np.frombuffer(result.mask, "u1").reshape(mask.shape))
    assert (gimp.kept("alpha", "uint8", new["size"]) == 255).all()
    filled = np.frombuffer(result.pixels, dtype).reshape(result.height, result.width, result.channels)
    off = abs(gimp.kept("new", dtype, new["size"]).astype(int) - filled)[mask > 0]
    assert off.max() <= tolerance
    if dtype == "uint8":
        seen = gimp.kept("visible", "uint8", (400, 300))[20 : 20 + SIDE, 90 : 90 + SIDE]
        np.testing.assert_array_equal(seen[selection == 0], sample[selection == 0])
        assert abs(seen.astype(int) - sample)[selection > 128].max() > 3


def test_what_is_too_bright_for_a_screen_is_filled_too(gimp: Gimp, fill: Fill) -> None:
    """A reflection of 4 times white is replaced, and adds nothing; what is transparent stays so."""
    before = (
        "image.convert_precision(Gimp.Precision.FLOAT_LINEAR)\nlayer.add_alpha()\nimport array\n"
        "buffer = layer.get_buffer()\n"
        "buffer.set(Gegl.Rectangle.new(128, 110, 8, 8), 'RGBA float', array.array('f', [4.0, 4.0, 4.0, 1.0] * 64)"
        ".tobytes())\nbuffer.set(Gegl.Rectangle.new(128, 125, 8, 8), 'RGBA float', bytes(1024))\nbuffer.flush()\n"
        "layer.update(0, 0, 260, 260)\nbuffer = None\n" + SCRATCH
    )
    answer = fill(before, "keep('new', image.get_layers()[0], 'RGBA float')")
    assert (answer["status"], answer["sentence"]) == ("success", "")
    new = gimp.kept("new", "float32", answer["layers"][0]["size"])
    x, y = answer["layers"][0]["offset"]
    assert new[110 - y : 118 - y, 128 - x : 136 - x, :3].max() < 0.9
    assert (new[125 - y : 133 - y, 128 - x : 136 - x, 3] == 0).all()


def test_run_on_its_result_it_fills_the_photo_again_and_the_other_filter_says_why_not(fill: Fill) -> None:
    after = """
first = image.get_layers()[0]
image.select_ellipse(Gimp.ChannelOps.REPLACE, 100, 150, 20, 12)
answer["again"] = call(image, [first.get_mask()], "plug-in-dfi-fill")
answer["now"] = [[l.get_name(), l.get_visible()] for l in image.get_layers()]
answer["source kept"] = digest(layer) == before
answer["where"] = [list(l.get_offsets())[1:] for l in image.get_layers()]
answer["edited"] = call(image, [image.get_layers()[0]], attribute="smiling")
"""
    answer = fill(after=after)
    assert answer["again"] == ["success", ""]
    assert answer["now"] == [["Filled #1", True], ["Filled", True], ["Background", True]]
    assert answer["source kept"]
    assert answer["where"][0][1] > answer["where"][1][1]
    status, sentence = answer["edited"]
    assert status == "execution-error"
    assert sentence.startswith("“Filled #1” is only a part of the face: choose Layer > Merge Down")


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("", "Nothing of “Background” is selected: select what hides"),
        ("Gimp.Selection.all(image)", "All of “Background” is selected: select only what hides"),
        (f"image.resize(350, 350, 90, 20)\n{SCRATCH.replace('125, 95', '20, 30')}", "Nothing of “Background” is sel"),
        ("image.select_rectangle(Gimp.ChannelOps.REPLACE, 40, 10, 190, 200)", "select"),
        ("image.select_rectangle(Gimp.ChannelOps.REPLACE, 245, 245, 10, 10)", "No face was found where the selection"),
        ("layer = Gimp.GroupLayer.new(image, 'two')\nimage.insert_layer(layer, None, 0)", "is a layer group"),
    ],
)
def test_what_cannot_be_filled_is_said(fill: Fill, before: str, words: str) -> None:
    answer = fill(before, "answer['box'] = '--box' in answer['sentence']")
    assert answer["status"] == "execution-error"
    assert words in answer["sentence"] and answer["sentence"].endswith(".")
    assert "mask" not in answer["sentence"] and not answer["box"]
    assert answer["source same"] and not answer["dirty"]


def test_cancel_leaves_nothing_behind(gimp: Gimp, fill: Fill, starter: str) -> None:
    """GIMP's Cancel kills the plug-in."""

    def kill() -> None:
        wait_for("a filling", lambda: editing(starter), every=0.01)
        subprocess.run(["kill", "-KILL", *map(str, gimp.plugin_processes())], check=True)
        wait_for("a free server", lambda: not editing(starter), seconds=30)

    killer = threading.Thread(target=kill)
    killer.start()
    answer = fill()
    killer.join()
    assert answer["status"] != "success"
    assert answer["source same"] and not answer["dirty"] and len(answer["layers"]) == 1


@pytest.mark.every_gimp
def test_from_the_menu(window: Window, starter: str, sample: np.ndarray, screenshots: Path) -> None:
    """Filters > DFI: fill the selection, and one undo."""
    window.server(starter)
    show(window, sample)
    window.fill_screen()
    window.run(f"image = {SHOWN}\n{SCRATCH}\nimage.clean_all()\nGimp.displays_flush()")
    window.focus(window.window("GIMP$"))
    window.key("alt+r")
    time.sleep(1)
    window.key("Up", "Up")
    time.sleep(1)
    window.screenshot(screenshots / "fill_menu.png")
    window.key("Return")
    wait_for("a new layer", lambda: names(window) == ["Filled", "Background"], seconds=120)
    window.screenshot(screenshots / "filled.png")
    state = f"image = {SHOWN}\nanswer = [d.get_name() for d in image.get_selected_drawables()]"
    wait_for("its mask to be selected", lambda: window.run(state) == ["Filled mask"])
    wait_for("the filter to end", lambda: not window.plugin_processes())
    window.key("ctrl+z")
    wait_for("the photo", lambda: names(window) == ["Background"] and window.run(state) == ["Background"])
    assert not window.run(f"answer = {SHOWN}.is_dirty()")
