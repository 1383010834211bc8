"""What an edit from GIMP leaves as it is, and what it is learnt from."""

import json
from pathlib import Path

import numpy as np
import pytest
from gimp.dialog import SHOWN, apply_dialog, names, open_dialog, show, wait_for_sliders
from gimp.gimp import Window, wait_for

from dfi_server.photo.pixels import Patch, composite
from dfi_server.wire.client import Client, EditRequest

pytestmark = [pytest.mark.gimp, pytest.mark.usefixtures("no_dialog_stays")]
pytest_plugins = ["gimp.fixtures"]

RESULT = f"""
image = {SHOWN}
new = image.get_selected_layers()[0]
answer = {{"told": bytes(new.get_parasite("dfi-edit").get_data()).decode()}}
keep("visible", visible(image), "R'G'B' u8")
"""


def test_the_dialog_keeps_what_is_ticked_and_says_so_to_the_server(
    window: Window, tiny: str, face: np.ndarray, screenshots: Path
) -> None:
    """The same pixels as by a client (the tiny store has no sex to keep); run again, the ticks are still there."""
    window.server(tiny)
    show(window, face)
    dialog = open_dialog(window)
    wait_for_sliders(window, dialog)
    window.focus(dialog)
    window.key("alt+x", "Tab", "Tab", "space", "Tab", "space")  # sex; past skin to More, which opens; learn from ...
    half = ("alt+m", "ctrl+a", "period", "5", "Tab")
    apply_dialog(window, dialog, *half, from_zero=True, picture=screenshots / "kept.png")
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=120)
    told = json.loads(window.run(RESULT)["told"])
    assert (told["keep"], told["neighbours"]) == (["sex"], 100)
    seen = window.kept("visible", "uint8", face.shape[:2]).astype(int)
    height, width, channels = face.shape
    alpha = float(told["attribute"].removeprefix("smiling="))  # what became of the keys on a slow machine
    request = EditRequest(width, height, channels, "uint8", {"smiling": alpha}, neighbours=100)
    with Client(tiny) as client:
        result = client.edit(request, face.tobytes())
    shape = (result.height, result.width)
    patch = Patch(
        *(result.x, result.y),
        np.frombuffer(result.pixels, np.uint8).reshape(*shape, channels),
        np.frombuffer(result.mask, np.uint8).reshape(shape),
    )
    assert np.abs(seen - composite(face, patch)).max() <= 1

    dialog = open_dialog(window)  # on the result, which is selected
    wait_for_sliders(window, dialog)
    window.focus(dialog)
    window.key("alt+x")  # no longer
    apply_dialog(window, dialog)
    wait_for("a new layer", lambda: len(names(window)) == 3, seconds=120)
    told = json.loads(window.run(RESULT)["told"])
    assert (told["keep"], told["neighbours"]) == ([], 100)
