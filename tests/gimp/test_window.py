"""The plug-in in GIMP's window on a virtual screen: the dialog, what comes of it, and how failures look."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from gimp.dialog import (
    DIALOG,
    LOG,
    MESSAGE,
    SHOWN,
    apply_dialog,
    names,
    open_dialog,
    picture_of,
    preview_of,
    show,
    wait_for_sliders,
)
from gimp.gimp import SHORTCUT, Window, free_endpoint, wait_for
from gimp.server import editing, listening, serving
from PIL import Image

from dfi_server.face.find import find_faces
from dfi_server.vectors.store import open_store

pytestmark = [pytest.mark.gimp, pytest.mark.usefixtures("no_dialog_stays")]
pytest_plugins = ["gimp.fixtures"]


@pytest.mark.data
@pytest.mark.every_gimp
def test_window(window: Window, real: str, screenshots: Path, unseen: np.ndarray) -> None:
    """From the shortcut through the dialog to a new layer, with pictures of both."""
    window.server(real)
    show(window, unseen)
    window.fill_screen()
    window.key("alt+r")  # Filters
    time.sleep(1)
    window.screenshot(screenshots / "menu.png")
    window.key("Escape", "Escape")
    window.key("2")  # zoom
    dialog = open_dialog(window)
    half = ("alt+m", "ctrl+a", "period", "5", "Tab")
    apply_dialog(window, dialog, *half, from_zero=True, picture=screenshots / "dialog.png")
    wait_for("a new layer", lambda: names(window)[0] == "Smiling 0.5", seconds=180)
    picture = window.screenshot(screenshots / "result.png")
    assert np.asarray(Image.open(picture).convert("L")).std() > 20  # GIMP's window, not a black screen


# smile back to 0; find "5 o'clock shadow", which gets a slider; pull that to the left
FIND_SHADOW = ("alt+n", *"clock", "Return")
ONLY_SHADOW = ("alt+m", "ctrl+a", "0", "Tab", *FIND_SHADOW, "ctrl+a", "minus", "period", "3", "Tab")


@pytest.mark.every_gimp
def test_dialog(window: Window, tiny: str, face: np.ndarray, screenshots: Path) -> None:
    """Another attribute from the list; repeating starts from the source again; one undo takes one run back."""
    window.server(tiny)
    show(window, face)
    window.focus(window.window("GIMP$"))
    asked = time.monotonic()
    window.key(SHORTCUT)
    dialog = window.window(DIALOG)
    print(f"The dialog came after {time.monotonic() - asked:.2f} s.")
    assert time.monotonic() - asked < 5  # 1 s on a machine that does nothing else
    wait_for_sliders(window, dialog)
    window.focus(dialog)
    window.key("alt+n", *"clock")

    def names_are_listed() -> bool:
        """Whether something is written in another window of the plug-in's than the dialog."""
        of_plugin = f"search --onlyvisible --pid {window.plugin_processes()[0]}".split()
        for popup in set(window.tool("xdotool", *of_plugin).split()) - {dialog}:
            shot = window.screenshot(screenshots / "search.png", popup)
            if (np.asarray(Image.open(shot).convert("L")) > 200).sum() > 50:
                return True
        return False

    wait_for("the names that match", names_are_listed, seconds=20)
    window.key("Down", "Return")  # it gets a slider
    to_smile = ("alt+n", "Escape")  # Escape in the search goes to the first slider
    apply_dialog(window, dialog, *to_smile, *ONLY_SHADOW[1:])
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)
    first, source = names(window)
    assert (first, source) == ("5 o'clock shadow -0.3", "Background")

    window.key("ctrl+f")
    wait_for("the same again", lambda: len(names(window)) == 3, seconds=60)
    assert names(window) == [first, f"{first} #1", source]
    assert window.run(f"old, new, _ = {SHOWN}.get_layers()\nanswer = digest(new) == digest(old)")

    time.sleep(2)  # the layer is there before the filter has ended, and until then GIMP undoes nothing
    window.key("ctrl+z")
    wait_for("one layer less", lambda: names(window) == [first, source])
    window.key("ctrl+z")
    wait_for("the image as it was", lambda: names(window) == [source])
    assert not window.run(f"answer = {SHOWN}.is_dirty()")


def test_edit_again_and_presets(window: Window, tiny: str, face: np.ndarray) -> None:
    """The dialog on a result starts with its settings; they are saved by name, and taken from there by keyboard."""
    window.server(tiny)
    show(window, face)
    window.run(
        f"image = {SHOWN}\nlayer = image.get_layers()[0]\n"
        "values = {'attribute': 'smiling=0.8 senior=-0.2', 'layer-mask': True}\n"
        "assert call(image, [layer], **values)[0] == 'success'\n"
        "image.set_selected_layers([image.get_layers()[0]])\nGimp.displays_flush()"
    )
    dialog = open_dialog(window)
    wait_for_sliders(window, dialog)
    window.focus(dialog)
    window.key("alt+p", *"bold", "alt+v")
    presets = window.plugin.parent.parent / "dfi-presets.json"
    wait_for("the presets", presets.exists)
    assert json.loads(presets.read_text()) == {"bold": {"smiling": 0.8, "senior": -0.2}}
    apply_dialog(window, dialog)
    wait_for("a new layer", lambda: len(names(window)) == 3, seconds=60)
    first = "Smiling 0.8, Senior -0.2"
    assert sorted(names(window)) == ["Background", first, f"{first} #1"]
    code = f"answer = [[l.get_visible(), l.get_mask() is not None] for l in {SHOWN}.get_layers()]"
    expected = [[False, True], [True, False], [True, True]]  # the earlier one is hidden just after the new one appears
    wait_for("the earlier result to hide", lambda: sorted(window.run(code)) == expected)

    show(window, face)
    dialog = open_dialog(window)
    wait_for_sliders(window, dialog)
    window.focus(dialog)
    window.key("alt+z")
    time.sleep(1)  # a button pressed by its letter works a little later
    window.key("alt+k")  # without the layer mask, which was asked for last time
    apply_dialog(window, dialog, "alt+p", "ctrl+a", *"bold", "Return")
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)
    assert names(window)[0] == first
    assert window.run(code)[0] == [True, False]


@pytest.mark.every_gimp
def test_two_faces_to_choose_from(window: Window, tiny: str, two_faces: np.ndarray, screenshots: Path) -> None:
    """The dialog shows both, numbered; the second is chosen by a click on it."""
    window.server(tiny)
    show(window, two_faces)
    window.fill_screen()
    dialog = open_dialog(window)

    def faces_are_shown() -> bool:
        """By the only colours on that side of the dialog, at rest: before it is drawn, GIMP's image shows through."""
        first = picture_of(window, dialog)[47:187, 493:723]
        time.sleep(0.5)
        at_rest = (first == picture_of(window, dialog)[47:187, 493:723]).all()
        return bool(at_rest and np.ptp(first, axis=2).max() > 60)

    wait_for("the faces", faces_are_shown)
    window.screenshot(screenshots / "faces_before.png")
    assert window.geometry(dialog)[3] < 690  # of a laptop's 768, with a title bar and a panel
    window.tool("xdotool", "mousemove", "--window", dialog, "536", "100", "click", "1")
    apply_dialog(window, dialog, picture=screenshots / "faces.png")
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)
    assert names(window)[0].endswith(", face 2")


RESTART = "alt+w"
SHOW_LOG = "alt+i"


@pytest.mark.every_gimp
def test_server_that_does_not_start(window: Window, tiny: str, face: np.ndarray, screenshots: Path) -> None:
    """The dialog says why, shows the log, and goes on once the server can be had."""
    window.server(free_endpoint(), ["sh", "-c", "echo no disk left; exit 1"])
    show(window, face)
    dialog = open_dialog(window)
    wait_for("the log", lambda: window.key(SHOW_LOG) or window.windows(LOG))
    window.screenshot(screenshots / "log.png", window.windows(LOG)[0])
    window.key("Escape")
    wait_for("the log to close", lambda: not window.windows(LOG))
    window.screenshot(screenshots / "error.png", dialog)
    window.server(tiny)
    window.key(RESTART)
    apply_dialog(window, dialog)
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)


def test_part_of_the_plug_in_that_is_missing(window: Window, tiny: str, face: np.ndarray) -> None:
    """The dialog comes as usual, to say so, and goes on once it is there."""
    window.server(tiny)
    show(window, face)
    part = window.plugin / "dfi_server"
    part.rename(part.with_suffix(".aside"))
    try:
        dialog = open_dialog(window)
        time.sleep(2)  # that it takes to look for it
    finally:
        part.with_suffix(".aside").rename(part)
    window.focus(dialog)
    window.key(RESTART)
    apply_dialog(window, dialog)
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)


def test_server_that_hangs(window: Window, _tiny_built: Path, face: np.ndarray, screenshots: Path) -> None:
    """It is ended and another started from the dialog, which stays open."""
    window.server(free_endpoint(), home=_tiny_built)
    show(window, face)
    dialog = open_dialog(window)
    wait_for_sliders(window, dialog)
    before = window.started_servers()
    os.kill(before[-1], signal.SIGSTOP)

    def restarted() -> bool:
        window.focus(dialog)
        window.key(RESTART)  # does nothing until the dialog has noticed
        return len(window.started_servers()) > len(before)

    time.sleep(4)
    window.screenshot(screenshots / "lost.png", dialog)
    wait_for("another server", restarted, every=0.5)
    assert not Path(f"/proc/{before[-1]}/exe").exists()
    apply_dialog(window, dialog)
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)


def test_server_that_dies_during_the_edit(window: Window, _tiny_built: Path, face: np.ndarray) -> None:
    """The dialog comes back, starts another, and still has the settings."""
    endpoint = free_endpoint()
    window.server(endpoint, home=_tiny_built)
    show(window, face)
    apply_dialog(window, open_dialog(window), *ONLY_SHADOW)
    wait_for("an edit", lambda: editing(endpoint), every=0.01)
    os.kill(window.started_servers()[-1], signal.SIGKILL)
    apply_dialog(window, window.window(DIALOG))
    wait_for("a new layer", lambda: len(names(window)) == 2, seconds=60)
    assert "5 o'clock shadow -0.3" in names(window)[0]  # beside what the test before left


def test_help_opens_the_documentation(window: Window, tiny: str, face: np.ndarray) -> None:
    """By the button and by F1, in the user's browser."""
    applications = window.share / ".local" / "share" / "applications"
    applications.mkdir(parents=True)
    opened = window.share / "opened"
    (applications / "browser.desktop").write_text(
        "[Desktop Entry]\nType=Application\nName=Browser\nMimeType=text/html;x-scheme-handler/file;\n"
        f"Exec=sh -c 'echo \"$0\" >>{window.path(opened)}' %u\n"
    )
    (applications / "mimeapps.list").write_text(
        "[Default Applications]\ntext/html=browser.desktop\nx-scheme-handler/file=browser.desktop\n"
    )
    window.server(tiny)
    show(window, face)
    dialog = open_dialog(window)
    window.focus(dialog)
    window.key("alt+h")
    wait_for("the page", opened.exists)
    window.key("F1")
    pages = wait_for("it again", lambda: len(found := opened.read_text().split()) == 2 and found)
    assert pages[0] == pages[1] and pages[0].endswith("/plug-ins/dfi/help.html")
    assert "<title>Deep Feature Interpolation" in (window.plugin / "help.html").read_text()
    window.key("Escape")
    wait_for("the dialog to close", lambda: not window.windows(DIALOG))


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


@pytest.mark.every_gimp
def test_preview_follows_the_sliders(window: Window, tiny: str, portrait: np.ndarray, screenshots: Path) -> None:
    """The picture changes by itself after a slider was moved, and is the photo again with all at 0."""
    window.server(tiny)
    show(window, portrait)
    dialog = open_dialog(window)

    def preview() -> np.ndarray:
        return preview_of(window, dialog)

    def face_fills_it() -> bool:
        """In the whole photo the face would be 70 pixels wide; at rest, so that no earlier setting is on its way."""
        first = preview()
        time.sleep(1)
        found = find_faces(first.astype(np.uint8), open_store("starter").canonical_landmarks)
        return bool((first == preview()).all() and found and found[0].box[2] > 150)

    wait_for_sliders(window, dialog)
    window.focus(dialog)
    window.key("alt+z")  # zero all
    wait_for("the face", face_fills_it)
    photo = preview()
    window.key("alt+g", "ctrl+a", "period", "5", "Tab")
    wait_for("glasses", lambda: (abs(preview() - photo) > 40).mean() > 0.002)
    window.screenshot(screenshots / "preview.png", dialog)
    window.tool("xdotool", "keydown", "b")
    wait_for("the photo, while B is held", lambda: (preview() == photo).all())
    window.tool("xdotool", "keyup", "b")
    wait_for("the glasses again", lambda: (abs(preview() - photo) > 40).mean() > 0.002)
    window.key("alt+z")
    wait_for("the photo", lambda: (preview() == photo).all())
    window.key("Escape")
    wait_for("the dialog to close", lambda: not window.windows(DIALOG))
    assert names(window) == ["Background"]


@pytest.mark.every_gimp
def test_many_quick_moves(window: Window, tmp_path: Path, portrait: np.ndarray) -> None:
    """Thirty in two seconds: the dialog answers meanwhile, few of them are computed, and the last is what shows."""
    with serving(tmp_path) as (endpoint, _), listening(endpoint) as (listened_to, edits):  # the starter takes its time
        window.server(listened_to)
        show(window, portrait)
        dialog = open_dialog(window)
        wait_for_sliders(window, dialog)
        window.focus(dialog)
        wait_for("the first preview", lambda: edits and not editing(endpoint))
        window.key("alt+z", "alt+g")  # zero all; to the number beside Glasses
        time.sleep(1)
        photo = preview_of(window, dialog)
        edits.clear()

        moving = threading.Thread(
            target=window.tool, args=("xdotool", *["key", "--delay", "66", "--repeat", "30", "Up"])
        )
        started = time.monotonic()
        moving.start()
        seen = []
        while moving.is_alive():
            seen.append(picture_of(window, dialog))
        assert time.monotonic() - started < 6
        # sliders and numbers were drawn anew again and again
        assert len({picture[30:480, 370:].tobytes() for picture in seen}) >= 4

        window.tool("xdotool", "keydown", "b")
        wait_for("the photo, while the server works", lambda: (preview_of(window, dialog) == photo).all(), seconds=1.5)
        window.tool("xdotool", "keyup", "b")
        last = wait_for("the refined preview", lambda: edits and not edits[-1].preview and edits[-1])
        assert last.alphas == {"eyeglasses": 0.3}
        assert len(edits) < 20
        assert not any(edit.alphas != last.alphas for edit in edits if not edit.preview)
        wait_for("the server to be free", lambda: not editing(endpoint))
        time.sleep(0.5)
        shown = preview_of(window, dialog)

        window.key("ctrl+a", "0", "Tab")
        wait_for("the photo", lambda: (preview_of(window, dialog) == photo).all())
        window.key("alt+g", "ctrl+a", *["period", "3", "Tab"])
        wait_for("the same by a single move", lambda: (preview_of(window, dialog) == shown).all(), seconds=30)
        window.key("Escape")
        wait_for("the dialog to close", lambda: not window.windows(DIALOG))
