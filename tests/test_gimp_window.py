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

    wait_for("the sliders", lambda: window.geometry(dialog)[2] > 600)  # they make it wider

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
    apply_dialog(window, dialog, "alt+m", "ctrl+a", "period", "5", "Tab", picture=screenshots / "dialog.png")
    wait_for("a new layer", lambda: names(window)[0] == "Smiling 0.5", seconds=60)
    picture = window.screenshot(screenshots / "result.png")
    assert np.asarray(Image.open(picture).convert("L")).std() > 20  # GIMP's window, not a black screen


# smile back to 0; find "5 o'clock shadow", which gets a slider; pull that to the left
FIND_SHADOW = ("alt+n", *"clock", "Return")
ONLY_SHADOW = ("alt+m", "ctrl+a", "0", "Tab", *FIND_SHADOW, "ctrl+a", "minus", "period", "3", "Tab")


def test_dialog(window: Window, tiny: str, face: np.ndarray, screenshots: Path) -> None:
    """Another attribute from the list; repeating starts from the source again; one undo takes one run back."""
    window.server(tiny)
    show(window, face)
    apply_dialog(window, open_dialog(window), *ONLY_SHADOW)
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
    height = wait_for("the sliders", lambda: window.geometry(dialog)[2] > 600 and window.geometry(dialog)[3])
    wait_for("the faces", lambda: window.geometry(dialog)[3] > height + 80)
    window.screenshot(screenshots / "faces_before.png")
    x, y, *_ = window.geometry(dialog)
    window.tool("xdotool", "mousemove", str(x + 121), str(y + 462), "click", "1")
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


def test_preview_follows_the_sliders(
    window: Window, tiny: str, portrait: np.ndarray, screenshots: Path, tmp_path: Path
) -> None:
    """The picture changes by itself after a slider was moved, and is the photo again with all at 0."""
    window.server(tiny)
    show(window, portrait)
    dialog = open_dialog(window)
    wait_for("the sliders", lambda: window.geometry(dialog)[2] > 600)
    window.focus(dialog)
    window.key("alt+z")  # zero all

    def preview() -> np.ndarray:
        """The preview's picture: the dialog's upper left."""
        picture = np.asarray(Image.open(window.screenshot(tmp_path / "shot.png", dialog)).convert("RGB"))
        return picture[30:360, 30:350].astype(int)

    photo = wait_for("the face", lambda: (seen := preview())[100:200, 100:200].std() > 20 and (seen,))[0]
    window.key("alt+g", "ctrl+a", "period", "5", "Tab")
    wait_for("glasses", lambda: (abs(preview() - photo) > 40).mean() > 0.002)
    window.screenshot(screenshots / "preview.png", dialog)
    window.key("alt+z")
    wait_for("the photo", lambda: (preview() == photo).all())
    window.key("Escape")
    wait_for("the dialog to close", lambda: not window.windows(DIALOG))
    assert names(window) == ["Background"]
