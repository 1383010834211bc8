"""The plug-in in GIMP's window on a virtual screen: the dialog, what comes of it, and how failures look."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp.gimp import SHORTCUT, Window, free_endpoint, wait_for
from gimp.server import editing
from PIL import Image

from dfi_server.client import Client

pytestmark = pytest.mark.gimp
pytest_plugins = ["gimp.fixtures"]


@pytest.fixture(scope="module")
def window(gimp_root: Path) -> Iterator[Window]:
    window = Window(gimp_root)
    try:
        window.start()
        yield window
        log = window.log.read_text(errors="replace")
        assert "Traceback" not in log, log
    finally:
        window.stop()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    return Path(os.environ.get("DFI_TEST_SCREENSHOTS", tmp_path))


DIALOG = "^Deep Feature Interpolation$"
MESSAGE = "^GIMP Message$"
SHOWN = "max(Gimp.get_images(), key=lambda image: image.get_id())"  # the image that was opened last


def show(window: Window, pixels: np.ndarray) -> None:
    """Open an image in GIMP's window."""
    Image.fromarray(pixels).save(window.share / "shown.png")
    path = window.path(window.share / "shown.png")
    window.run(f"image = load({path!r})\nGimp.Display.new(image)\nGimp.displays_flush()")


def names(window: Window) -> list[str]:
    answer: list[str] = window.run(f"answer = [layer.get_name() for layer in {SHOWN}.get_layers()]")
    return answer


def open_dialog(window: Window) -> str:
    window.focus(window.window("GIMP$"))
    window.key(SHORTCUT)
    return window.window(DIALOG)


def apply_dialog(window: Window, dialog: str, *keys: str, picture: Path | None = None) -> None:
    """Press the keys and then Apply, as soon as the dialog takes them: it does when the server has answered."""

    def applied() -> bool:
        window.focus(dialog)
        window.key(*keys)
        if picture:
            window.screenshot(picture)
        window.key("alt+a")
        # Keys pressed while it closes would go to GIMP's own window.
        with contextlib.suppress(TimeoutError):
            return wait_for("the dialog to close", lambda: not window.windows(DIALOG), seconds=2)
        return False

    wait_for("the dialog to take Apply", applied)


@pytest.mark.data
def test_window(window: Window, real: str, screenshots: Path, unseen: np.ndarray) -> None:
    """From the shortcut through the dialog to a new layer, with pictures of both."""
    window.server(real)
    show(window, unseen)
    window.key("2")  # zoom
    window.fill_screen()
    dialog = open_dialog(window)
    window.tool("xdotool", "windowmove", dialog, "780", "560")  # beside the face
    with Client(real) as client:
        behind = sum(name > "smiling" for name in client.attributes())  # the list is sorted
    choice = ("alt+t", "End", *["Up"] * behind)
    strength = ("alt+p", "ctrl+a", "period", "5", "Tab")
    apply_dialog(window, dialog, *choice, *strength, picture=screenshots / "dialog.png")
    wait_for("a new layer", lambda: names(window)[0] == "Smiling 0.5", seconds=60)
    picture = window.screenshot(screenshots / "result.png")
    assert np.asarray(Image.open(picture).convert("L")).std() > 20  # GIMP's window, not a black screen


def test_dialog(window: Window, tiny: str, face: np.ndarray, screenshots: Path) -> None:
    """Another attribute from the list; repeating starts from the source again; one undo takes one run back."""
    window.server(tiny)
    show(window, face)
    apply_dialog(window, open_dialog(window), "alt+t", "Home", "alt+p", "ctrl+a", "minus", "period", "3", "Tab")
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)
    first, source = names(window)
    assert (first, source) == ("5 o'clock shadow -0.3", "Background")

    window.key("ctrl+f")
    wait_for("the same again", lambda: len(names(window)) == 3, seconds=60)
    assert names(window) == [first, f"{first} #1", source]
    assert window.run(f"old, new, _ = {SHOWN}.get_layers()\nanswer = digest(new) == digest(old)")

    window.key("ctrl+z")
    wait_for("one layer less", lambda: names(window) == [first, source])
    window.key("ctrl+z")
    wait_for("the image as it was", lambda: names(window) == [source])
    assert not window.run(f"answer = {SHOWN}.is_dirty()")


def test_two_faces_to_choose_from(window: Window, tiny: str, two_faces: np.ndarray, screenshots: Path) -> None:
    """The dialog shows both, numbered; the second is chosen by a click on it."""
    window.server(tiny)
    show(window, two_faces)
    dialog = open_dialog(window)
    wait_for("the faces", lambda: window.geometry(dialog)[3] > 350)
    x, y, width, _ = window.geometry(dialog)
    thumbnail = (x + (width - 360) // 2, y + 24)
    window.tool("xdotool", "mousemove", str(thumbnail[0] + 55), str(thumbnail[1] + 71), "click", "1")
    apply_dialog(window, dialog, picture=screenshots / "faces.png")
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)
    assert names(window)[0].endswith(", face 2")


def test_failure_is_a_box(window: Window, face: np.ndarray, screenshots: Path) -> None:
    """The server cannot be started: the dialog closes, and a message says why."""
    window.server(free_endpoint(), ["sh", "-c", "echo no disk left; exit 1"])
    show(window, face)
    open_dialog(window)
    message = window.window(MESSAGE)
    assert not window.windows(DIALOG)
    window.screenshot(screenshots / "error.png", message)
    window.focus(message)
    window.key("Return")
    wait_for("the message to go", lambda: not window.windows(MESSAGE))
    assert names(window) == ["Background"]


def test_layer_removed_meanwhile(window: Window, tiny: str, face: np.ndarray) -> None:
    """GIMP lets the user work on during the edit."""
    window.server(tiny)
    show(window, face)
    apply_dialog(window, open_dialog(window))
    wait_for("an edit", lambda: editing(tiny), every=0.01)
    window.run(f"image = {SHOWN}\nimage.remove_layer(image.get_layers()[0])")
    message = window.window(MESSAGE)
    window.focus(message)
    window.key("Return")
    wait_for("the message to go", lambda: not window.windows(MESSAGE))
    assert names(window) == []
