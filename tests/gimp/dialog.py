"""The filter's dialog in GIMP's window, as a user works with it: by keys, and by what is seen."""

import contextlib
import time
from pathlib import Path

import numpy as np
from gimp.gimp import SHORTCUT, Window, wait_for
from PIL import Image

DIALOG = "^Deep Feature Interpolation$"
MESSAGE = "^GIMP Message$"
LOG = "^Log of the DFI server$"
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


def picture_of(window: Window, dialog: str) -> np.ndarray:
    """What the dialog looks like: (height, width, 3)."""
    shot = window.screenshot(window.share / "seen" / "dialog.png", dialog)
    return np.asarray(Image.open(shot).convert("RGB")).astype(int)


def preview_of(window: Window, dialog: str) -> np.ndarray:
    """The preview's picture: the dialog's upper left."""
    return picture_of(window, dialog)[30:360, 30:350]


def wait_for_sliders(window: Window, dialog: str) -> None:
    """They come when the server has answered; keys count once all of them are drawn."""

    def sliders() -> np.ndarray:
        return picture_of(window, dialog)[30:, 380:]

    wait_for("the sliders", lambda: sliders()[:50, :120].std() > 5, seconds=120, every=0.2)
    wait_for("the sliders to be whole", lambda: np.array_equal(sliders(), sliders()), every=0.2)


def apply_dialog(window: Window, dialog: str, *keys: str, from_zero: bool = False, picture: Path | None = None) -> None:
    """Press the keys and then Apply, as soon as the dialog takes them.

    from_zero: all sliders are set to 0 before, whatever another test, or a try whose keys were lost, has left.
    """

    wait_for_sliders(window, dialog)

    def applied() -> bool:
        window.focus(dialog)
        if from_zero:
            window.key("alt+z")
            time.sleep(1)  # a button pressed by its letter works a little later
        window.key(*keys)
        if picture:
            window.screenshot(picture)
        window.key("alt+a")
        # Keys pressed while it closes would go to GIMP's own window.
        with contextlib.suppress(TimeoutError):
            return wait_for("the dialog to close", lambda: not window.windows(DIALOG), seconds=6)
        return False

    wait_for("the dialog to take Apply", applied)
