"""What is selected after Apply in GIMP's window, and what one undo takes back."""

import numpy as np
import pytest
from gimp.dialog import DIALOG, SHOWN, apply_dialog, open_dialog, show, wait_for_sliders
from gimp.gimp import Window, wait_for

pytestmark = [pytest.mark.gimp, pytest.mark.usefixtures("no_dialog_stays")]
pytest_plugins = ["gimp.fixtures"]

STATE = f"""
image = {SHOWN}
answer = {{
    "layers": [[l.get_name(), l.get_visible(), digest(l)] for l in image.get_layers()],
    "selected": [l.get_name() for l in image.get_selected_layers()],
    "painted on": [d.get_name() for d in image.get_selected_drawables()],
    "seen": digest(visible(image)),
    "dirty": image.is_dirty(),
}}
"""
FILL = "ctrl+comma"  # with the foreground colour: what a stroke of the brush does, all over


@pytest.fixture(params=["", "layer mask"], ids=["plain", "layer mask"])
def mask_key(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Without a layer mask, and with one."""
    return ("alt+k",) if request.param else ()


def apply(window: Window, *keys: str, once: tuple[str, ...] = ()) -> dict[str, object]:
    """The state after the filter was run from the dialog; of the keys those of `once` toggle something.

    All is set to zero first: should keys be lost, the dialog does not take Apply, and they are pressed again.
    """
    before = len(window.run(STATE)["layers"])
    dialog = open_dialog(window)
    wait_for_sliders(window, dialog)
    window.focus(dialog)
    if once:
        window.key(*once)
    apply_dialog(window, dialog, *keys, from_zero=True)
    wait_for("a new layer", lambda: len(window.run(STATE)["layers"]) == before + 1, seconds=60)
    wait_for("the filter to end", lambda: not window.plugin_processes())
    state: dict[str, object] = window.run(STATE)
    return state


def press(window: Window, key: str, what: str, expected: dict[str, object]) -> None:
    window.key(key)
    wait_for(what, lambda: window.run(STATE) == expected, seconds=15)


@pytest.mark.every_gimp
def test_the_new_layer_is_selected_and_one_undo_takes_all_back(
    window: Window, tiny: str, face: np.ndarray, mask_key: tuple[str, ...]
) -> None:
    """Of a photo with a layer above it: painting changes the new layer alone; run again, the filter edits it again."""
    window.server(tiny)
    show(window, face)
    window.run(
        f"image = {SHOWN}\nphoto = image.get_layers()[0]\n"
        "image.insert_layer(Gimp.Layer.new(image, 'top', 9, 9, Gimp.ImageType.RGBA_IMAGE, 100, 0), None, 0)\n"
        "image.set_selected_layers([photo])\nimage.clean_all()\nGimp.displays_flush()"
    )
    photo = window.run(STATE)
    assert photo["selected"] == ["Background"]

    first = apply(window, "alt+m", "ctrl+a", "period", "5", "Tab", once=mask_key)
    top, new, background = first["layers"]
    assert [top, background] == photo["layers"]
    name = new[0]
    assert "Smiling 0.5" in name
    assert first["selected"] == [name]
    assert first["painted on"] == ([f"{name} mask"] if mask_key else [name])

    window.key(FILL)
    wait_for("the paint", lambda: window.run(STATE)["seen"] != first["seen"])
    painted = window.run(STATE)
    assert painted["layers"][::2] == photo["layers"]
    assert (painted["layers"][1] == new) == bool(mask_key)
    press(window, "ctrl+z", "the layer without paint", first)

    second = apply(window, "alt+m", "ctrl+a", "minus", "period", "3", "Tab")
    assert [layer[0] for layer in second["layers"] if layer[1]] == ["top", *second["selected"], "Background"]
    assert "Smiling -0.3" in second["selected"][0]
    press(window, "ctrl+z", "the first result, seen and selected again", first)
    press(window, "ctrl+z", "the photo, selected again", photo)
    press(window, "ctrl+y", "the first result", first)
    assert not window.windows(DIALOG)
