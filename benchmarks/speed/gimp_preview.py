"""How long GIMP's dialog takes from the move of a slider to the rough preview on the screen.

    DFI_TEST_GIMP_ROOT=~/.cache/dfi-tests/gimp-3.0 python benchmarks/speed/gimp_preview.py [--moves 12] [--attribute X]

A real GIMP on a virtual screen, the bundled starter and its sample portrait; moves of one slider by 0.1, up and down,
each after the refined preview of the one before has come. Then the server alone is asked for as many previews of the
same size, which tells how much of that time is whose.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageGrab

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from gimp.gimp import SHORTCUT, Window, find_gimps, wait_for
from gimp.server import editing, serving

from dfi_server import paths
from dfi_server.photo import disk
from dfi_server.wire.client import Client, EditRequest

SLIDERS = {"smile": ("alt+m", "smiling"), "glasses": ("alt+g", "eyeglasses"), "older": ("alt+o", "senior")}
SIDE = 340  # of the dialog's preview


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moves", type=int, default=12)
    parser.add_argument("--attribute", choices=SLIDERS, default="smile")
    options = parser.parse_args()
    key, attribute = SLIDERS[options.attribute]
    portrait = disk.read(paths.SAMPLE).pixels
    with tempfile.TemporaryDirectory() as home, serving(Path(home)) as (endpoint, _):
        window = Window(find_gimps()[0])
        try:
            report("on the screen", dialog_seconds(window, endpoint, portrait, key, options.moves))
        finally:
            window.stop()
        crop = np.asarray(Image.fromarray(portrait[20:240, 110:330]).resize((SIDE, SIDE)))
        replies, solving = server_seconds(endpoint, crop, attribute, options.moves)
        report("the server's reply", replies)
        report("solving, of that", solving)
    print(f"GIMP {find_gimps()[0]}, {options.attribute}, load {os.getloadavg()[0]:.1f}")


def report(what: str, seconds: list[float]) -> None:
    print(f"{what:20} median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f}", flush=True)


def dialog_seconds(window: Window, endpoint: str, portrait: np.ndarray, key: str, moves: int) -> list[float]:
    """From each key press to the first change of the picture."""
    window.server(endpoint)
    window.start()
    Image.fromarray(portrait).save(window.share / "shown.png")
    path = window.path(window.share / "shown.png")
    window.run(f"image = load({path!r})\nGimp.Display.new(image)\nGimp.displays_flush()")
    window.focus(window.window("GIMP$"))
    window.key(SHORTCUT)
    dialog = window.window("^Deep Feature Interpolation$")
    keys = subprocess.Popen(
        window._enter("xdotool", "-"), stdin=subprocess.PIPE, text=True, env=window._env(), start_new_session=True
    )
    assert keys.stdin

    def press(*names: str) -> None:
        assert keys.stdin
        print("key", *names, file=keys.stdin, flush=True)

    def screen() -> np.ndarray:
        return np.asarray(ImageGrab.grab(xdisplay=window._environment["DISPLAY"]).convert("RGB")).astype(int)

    def at_rest() -> bool:
        before = screen()
        time.sleep(1.5)
        return not editing(endpoint) and bool((screen() == before).all())

    time.sleep(3)
    wait_for("the first preview", at_rest)
    window.focus(dialog)
    press(key)
    wait_for("the dialog", at_rest)
    x, y, *_ = window.geometry(dialog)
    seconds = []
    for move in range(moves):
        before = screen()[y + 30 : y + SIDE, x + 30 : x + SIDE - 10]
        started = time.monotonic()
        press("Prior" if move % 2 else "Next")

        def changed(before: np.ndarray = before) -> bool:
            return bool((abs(screen()[y + 30 : y + SIDE, x + 30 : x + SIDE - 10] - before) > 8).sum() > 30)

        wait_for("the preview", changed, every=0.005)
        seconds.append(time.monotonic() - started)
        wait_for("the refined preview", at_rest)
    keys.stdin.close()
    keys.wait(10)
    return seconds


def server_seconds(endpoint: str, crop: np.ndarray, attribute: str, moves: int) -> tuple[list[float], list[float]]:
    replies, solving = [], []
    with Client(endpoint) as client:
        for move in range(moves + 1):  # the first finds the face
            asked = EditRequest(SIDE, SIDE, 3, "uint8", {attribute: 0.4 - 0.1 * (move % 2)}, preview=True)
            started = time.monotonic()
            result = client.edit(asked, crop.tobytes())
            replies.append(time.monotonic() - started)
            solving.append(result.seconds)
    return replies[1:], solving[1:]


if __name__ == "__main__":
    main()
