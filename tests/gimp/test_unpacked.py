"""The archives that users download, unpacked in a real GIMP: with the program on the computer, and without it."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp import archive
from gimp.dialog import DIALOG, apply_dialog, names, show
from gimp.gimp import SHORTCUT, Gimp, Window, free_endpoint, wait_for
from PIL import Image
from support.home import program

from dfi_server import __version__
from dfi_server.gimp.files import EXTENSION

pytestmark = [pytest.mark.gimp, pytest.mark.every_gimp]
pytest_plugins = ["gimp.fixtures"]

GET = "^Get Deep Feature Interpolation$"
EDIT = """
image = load({path!r})
said = call(image, image.get_layers(), attribute="smiling", alpha=0.4)
answer = [*said, image.get_layers()[0].get_name()]
"""


@pytest.fixture
def gimp(gimp_root: Path) -> Iterator[Gimp]:
    gimp = Gimp(gimp_root)
    yield gimp
    gimp.stop()


@pytest.fixture
def code(gimp: Gimp, face: np.ndarray) -> str:
    Image.fromarray(face).save(gimp.share / "face.png")
    return EDIT.format(path=gimp.path(gimp.share / "face.png"))


def hide_pyzmq(gimp: Gimp) -> str:
    """As in a GIMP whose Python has none: the folder that hides the system's, as GIMP spells it."""
    folder = gimp.share / "hidden"
    (folder / "zmq").mkdir(parents=True)
    (folder / "zmq/__init__.py").write_text("raise ImportError('there is none')")
    return gimp.path(folder)


def test_zip(gimp: Gimp, code: str, archives: tuple[Path, Path], tmp_path: Path) -> None:
    """The program is where pipx and uv put it, which is not on GIMP's PATH; it is asked once."""
    script = archive.dfi(gimp, free_endpoint(), tmp_path)
    archive.install(gimp, archives[0])
    path = archive.own_program(gimp, "dfi")
    gimp.start(PYTHONPATH=hide_pyzmq(gimp))
    assert gimp.run(code)[:2] == [
        "execution-error",
        "The program dfi, which edits, was not found on this computer: run the filter from GIMP's menu, it says how to "
        "get it.",
    ]
    program(path, "echo of another kind")
    assert "was not found" in gimp.run(code)[1]
    program(path, script)
    assert gimp.run(code) == ["success", "", "Smiling 0.4"]
    program(path, f"touch {gimp.path(gimp.share / 'asked')}\n{script}")
    assert gimp.run(code) == ["success", "", "Smiling 0.4"]
    assert not (gimp.share / "asked").exists()


LOAD = """
procedure = Gimp.get_pdb().lookup_procedure("file-gex-load")
config = procedure.create_config()
config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
config.set_property("file", Gio.File.new_for_path({path!r}))
answer = procedure.run(config).index(0).value_nick
"""


def test_gex(gimp: Gimp, code: str, archives: tuple[Path, Path], tmp_path: Path) -> None:
    """GIMP itself unpacks it, as a stream; a user's extensions are off until they are switched on."""
    script = archive.dfi(gimp, free_endpoint(), tmp_path)
    archive.install(gimp, archives[0])
    for path in gimp.plugin.rglob("*"):  # no filter but the extension
        if path.is_file():
            path.unlink()
    (gimp.share / "dfi.gex").write_bytes(archives[1].read_bytes())
    program(archive.own_program(gimp, "dfi"), script)
    config = gimp.plugin.parents[1]
    load = LOAD.format(path=gimp.path(gimp.share / "dfi.gex"))
    (gimp.share / "load.py").write_text(f"from gi.repository import Gimp, Gio\n{load}\nprint('loaded:', answer)\n")
    batch = f"exec(open('{gimp.path(gimp.share / 'load.py')}').read())"
    said = gimp.shell(f'gimp-console -i -d -f --batch-interpreter=python-fu-eval -b "{batch}" --quit').stdout
    assert "loaded: success" in said
    written = (config / "extensionrc").read_text()
    assert re.search(rf'"{EXTENSION}"\s+\(active no\)', written)
    (config / "extensionrc").write_text(re.sub(rf'("{EXTENSION}"\s+)\(active no\)', r"\1(active yes)", written))
    gimp.start(PYTHONPATH=hide_pyzmq(gimp))
    assert gimp.run(code) == ["success", "", "Smiling 0.4"]


@pytest.fixture
def window(gimp_root: Path, archives: tuple[Path, Path], face: np.ndarray, tmp_path: Path) -> Iterator[Window]:
    """With an image, and the filter of the archive, but no program; `script` is that of one."""
    window = Window(gimp_root)
    script = archive.dfi(window, free_endpoint(), tmp_path)
    (window.share / "script").write_text(f"#!/bin/sh\n{script}\n")
    archive.install(window, archives[0])
    try:
        window.start()
        show(window, face)
        yield window
    finally:
        window.stop()


def ask(window: Window) -> str:
    window.focus(window.window("GIMP$"))
    window.key(SHORTCUT)
    return window.window(GET)


PIPX = """echo "$*" >{share}/asked
echo "creating virtual environment..."
echo "Downloading torch (200.0 MB)"
while [ ! -e {share}/go ]; do sleep 0.1; done
"""
INSTALL = "install -m 755 {share}/script {share}/.local/bin/dfi\necho installed\n"
FAIL = "echo 'ERROR: No space left on device'\nexit 1\n"


def test_get_it(window: Window, screenshots: Path) -> None:
    """Without a tool the dialog says how to get one; it runs pipx, can stop it, tells of failure, and goes on."""
    share = window.path(window.share)
    dialog = ask(window)
    window.screenshot(screenshots / "get_tool.png", dialog)
    pipx = archive.own_program(window, "pipx")
    program(pipx, (PIPX + FAIL).format(share=share))
    if window.root != Path("/"):  # a file there would make a sandbox of this machine
        with window.sandboxed():
            window.key("alt+l")  # look again
            time.sleep(1)
            window.screenshot(screenshots / "get_sandbox.png", dialog)
            window.key("alt+i")
            time.sleep(1)
            assert not (window.share / "asked").exists()
    window.key("alt+l")
    time.sleep(1)
    window.screenshot(screenshots / "get.png", dialog)

    window.key("alt+i")  # install
    wait_for("pipx to be asked", (window.share / "asked").exists)
    time.sleep(1)
    window.screenshot(screenshots / "get_running.png", dialog)
    window.key("alt+c")  # cancel
    wait_for("pipx to be stopped", lambda: not running(pipx, window))
    assert window.windows(GET)

    (window.share / "go").touch()
    (window.share / "asked").unlink()
    wait_for("the button", lambda: window.key("alt+i") or (window.share / "asked").exists(), every=1)
    time.sleep(2)
    window.screenshot(screenshots / "get_failed.png", dialog)

    program(pipx, (PIPX + INSTALL).format(share=share))
    window.key("alt+i")
    apply_dialog(window, window.window(DIALOG), "alt+m", "ctrl+a", "period", "5", "Tab", from_zero=True)
    wait_for("a new layer", lambda: names(window)[0] == "Smiling 0.5", seconds=180)
    command, *_, wheel = (window.share / "asked").read_text().split()
    assert command == "install"
    assert wheel == f"{window.path(window.plugin)}/bundle/dfi_server-{__version__}-py3-none-any.whl"


def running(script: Path, window: Window) -> bool:
    """Whether a process of that script is left."""
    words = window.path(script).encode()
    return any(words in path.read_bytes().split(b"\0") for path in Path("/proc").glob("[0-9]*/cmdline"))
