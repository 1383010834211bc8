"""Take docs/gimp.png, gimp_faces.png and gimp_fill.png, in the first GIMP of DFI_TEST_GIMP_ROOT, or the one on PATH:

    PYTHONPATH=.:tests python -m gimp.make_pictures

The server has the starter; the people do not exist (tests/support/faces/README.md), nor do the sunglasses.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gimp.dialog import DIALOG, SHOWN, apply_dialog, names, open_dialog, show, wait_for_sliders
from gimp.gimp import FILL_SHORTCUT, REPOSITORY, Window, find_gimps, wait_for
from gimp.server import editing, serving
from PIL import Image, ImageDraw

FACES = REPOSITORY / "tests" / "support" / "faces"
SIZE = (1240, 930)
SHOWN_SIZE = (800, 600)  # of each half of docs/gimp.png
FIT = "ctrl+shift+j"  # the image in GIMP's window
DARK = (20, 22, 28)
LENSES = ((250, 365, 425, 490), (485, 365, 660, 490))
FRAME = ((415, 400, 500, 400), (255, 405, 215, 385), (655, 405, 690, 390))
AROUND = [200, 365, 250, 375, 300, 350, 370, 350, 425, 380, 485, 380, 540, 350, 610, 350, 655, 375, 705, 370, 705, 405]
AROUND += [680, 430, 660, 485, 600, 506, 530, 500, 475, 455, 435, 455, 380, 500, 310, 506, 250, 485, 230, 430, 200, 405]


def prepare(window: Window, pixels: np.ndarray) -> None:
    """Show an image in a window of SIZE."""
    show(window, pixels)
    main = window.window("GIMP$")
    window.tool("xdotool", "windowmove", main, "0", "0", "windowsize", main, str(SIZE[0]), str(SIZE[1] - 30))
    window.focus(main)
    time.sleep(1)
    window.key(FIT)


def set_sliders(window: Window, endpoint: str, **numbers: str) -> str:
    """The dialog, once its preview is as the edit will be. numbers: by the letter of a slider."""
    dialog = open_dialog(window)
    wait_for_sliders(window, dialog)
    window.focus(dialog)
    window.key("alt+z")
    time.sleep(1)
    for letter, number in numbers.items():
        window.key(f"alt+{letter}", "ctrl+a", *["period" if sign == "." else sign for sign in number], "Tab")
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 3:
        if editing(endpoint):
            quiet_since = time.monotonic()
        time.sleep(0.1)
    return dialog


def save_pair(shots: Sequence[Path], name: str) -> None:
    """Two screenshots side by side, in docs/."""
    pair = Image.new("RGB", (2 * SHOWN_SIZE[0] + 8, SHOWN_SIZE[1]), "white")
    for number, shot in enumerate(shots):
        half = Image.open(shot).convert("RGB").crop((0, 0, *SIZE)).resize(SHOWN_SIZE, Image.Resampling.LANCZOS)
        pair.paste(half, (number * (SHOWN_SIZE[0] + 8), 0))
    pair.save(REPOSITORY / "docs" / name, optimize=True)


def fill(window: Window, face: Image.Image, seen: Path) -> None:
    """Put sunglasses on a face, select them, and take them away."""
    large = face.resize((2 * face.width, 2 * face.height))
    draw = ImageDraw.Draw(large)
    for lens in LENSES:
        draw.ellipse([2 * each for each in lens], fill=DARK)
    for line in FRAME:
        draw.line([2 * each for each in line], fill=DARK, width=30)
    prepare(window, np.asarray(large.resize(face.size, Image.Resampling.LANCZOS)))
    window.run(
        f"image = {SHOWN}\nGimp.context_set_feather(True)\nGimp.context_set_feather_radius(6, 6)\n"
        f"image.select_polygon(Gimp.ChannelOps.REPLACE, {AROUND})\nimage.clean_all()\nGimp.displays_flush()"
    )
    time.sleep(1)
    shots = [window.screenshot(seen / "selected.png")]
    window.key(FILL_SHORTCUT)
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=300)
    window.key("ctrl+shift+a")  # nothing selected
    time.sleep(3)
    shots.append(window.screenshot(seen / "filled.png"))
    save_pair(shots, "gimp_fill.png")


def main() -> None:
    one, two = (Image.open(FACES / name) for name in ("closed.jpg", "smiling.jpg"))
    both = Image.new("RGB", (1300, 700))
    both.paste(one.resize((700, 700)), (0, 0))
    both.paste(two.resize((600, 600)), (700, 50))
    seen = Path(tempfile.mkdtemp())
    window = Window(find_gimps()[0])
    try:
        with tempfile.TemporaryDirectory() as home, serving(Path(home)) as (endpoint, _):
            window.server(endpoint)
            window.start()
            prepare(window, np.asarray(one))
            dialog = set_sliders(window, endpoint, m=".35", g=".4")
            window.tool("xdotool", "windowmove", dialog, "190", "130")
            # the line of the preview, to its middle
            window.tool("xdotool", "mousemove", "--window", dialog, "143", "383", "mousedown", "1")
            window.tool("xdotool", "mousemove", "--window", dialog, "247", "383", "mouseup", "1")
            window.tool("xdotool", "mousemove", "1279", "959")
            time.sleep(1)
            shots = [window.screenshot(seen / "dialog.png")]
            apply_dialog(window, dialog)
            wait_for("a new layer", lambda: len(names(window)) == 2, seconds=120)
            time.sleep(3)
            shots.append(window.screenshot(seen / "result.png"))
            save_pair(shots, "gimp.png")

            prepare(window, np.asarray(both))
            dialog = set_sliders(window, endpoint, m=".4")
            shot = Image.open(window.screenshot(seen / "faces.png", dialog)).convert("RGB")
            shot.save(REPOSITORY / "docs" / "gimp_faces.png", optimize=True)
            window.key("Escape")
            wait_for("the dialog to close", lambda: not window.windows(DIALOG))

            fill(window, one, seen)
    finally:
        window.stop()


if __name__ == "__main__":
    main()
