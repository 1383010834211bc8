"""`dfi gimp` and its plug-in in a real GIMP: found, installed, asked; and in a Python that has no pyzmq."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp.gimp import REPOSITORY, Gimp, free_endpoint
from PIL import Image
from support import machines
from support.home import program

from dfi_server.gimp import installation
from dfi_server.gimp.machine import Machine
from dfi_server.wire import keys, place
from dfi_server.wire.client import Client

pytest_plugins = ["gimp.fixtures"]
pytestmark = [pytest.mark.gimp, pytest.mark.every_gimp]


@pytest.fixture
def gimp(gimp_root: Path) -> Iterator[Gimp]:
    gimp = Gimp(gimp_root)
    yield gimp
    gimp.stop()


def enter(gimp: Gimp, name: str) -> str:
    """A script that runs a program in GIMP's root, where paths begin at that root."""
    root = "" if gimp.root == Path("/") else str(gimp.root)
    names = ("HOME", "GIMP3_DIRECTORY", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    own = "\n".join(f'[ -z "${name}" ] || export {name}="${{{name}#{root}}}"' for name in names)
    return (
        f'for word; do shift; set -- "$@" "${{word#{root}}}"; done\n{own}\n'
        f'export PATH=/usr/sbin:/usr/bin:/sbin:/bin\nexec {shlex.join(gimp._enter(name))} "$@"'
    )


@pytest.fixture
def machine(gimp: Gimp) -> Iterator[Machine]:
    """A user's machine with that GIMP, which lies below it."""
    folder = Path(tempfile.mkdtemp(prefix="dfi-machine-", dir=gimp.root / "tmp"))
    machine = machines.linux(folder)
    for name in ("gimp", "gimp-console", "python3"):
        program(folder / "usr/bin" / name, enter(gimp, name))
    yield machine
    shutil.rmtree(folder)


def test_install_and_ask(machine: Machine, gimp: Gimp) -> None:
    said: list[str] = []
    state = machine.home / ".local/share/dfi"
    installation.install(machine, state, said.append)
    version = gimp.version()
    plugin = machine.home / ".config/GIMP" / version.rpartition(".")[0] / "plug-ins/dfi"
    assert f"GIMP {version} (the system's)" in said
    assert f"  ok  Filter in {plugin}, pyzmq " in "\n".join(said)
    assert any(line.startswith(f"  ok  GIMP {version} (the system's) has the filter") for line in said)
    assert list((plugin / "vendor/zmq/backend/cython").glob("*.abi3.so"))

    said.clear()
    (plugin / "dfi.py").chmod(0o644)  # which GIMP passes over in silence
    with pytest.raises(Exception, match="A GIMP lacks the filter"):
        installation.status(machine, state, said.append)
    assert any("does not load the filter" in line for line in said)

    installation.uninstall(machine, state, said.append)
    assert not plugin.exists()


EDIT = """
image = load({path!r})
said = call(image, image.get_layers(), attribute="smiling", alpha=0.4)
answer = [*said, [layer.get_name() for layer in image.get_layers()]]
"""


def test_in_a_sandbox_like_flatpak_s(gimp: Gimp, face: np.ndarray) -> None:
    """It starts nothing and says what to start; a server that was started elsewhere is reached, by its keys."""
    if gimp.root == Path("/"):
        pytest.skip("a file in / would make a sandbox of this machine")
    state = gimp.share / "state"
    here = place.find(place.OWN_TCP, Path(gimp.path(state)))
    settings = {
        "endpoint": place.OWN,
        "home": gimp.path(state),
        "command": ["touch", gimp.path(gimp.share / "started")],
    }
    (gimp.plugin / "server.json").write_text(json.dumps(settings))
    Image.fromarray(face).save(gimp.share / "face.png")
    code = EDIT.format(path=gimp.path(gimp.share / "face.png"))
    with gimp.sandboxed():
        gimp.start()
        status, said, _ = gimp.run(code)
        assert status != "success"
        assert "Flatpak lets GIMP start no programs: run this in a terminal" in said
        assert said.endswith("dfi serve --endpoint own-tcp")
        assert not (gimp.share / "started").exists()

        keys.ensure(state / "own-keys/server", state / "own-keys/client")
        serve = [sys.executable, "-m", "dfi_server", "serve", "--endpoint", here.endpoint]
        environment = {**os.environ, "DFI_HOME": str(state)}
        server = subprocess.Popen([*serve, "--keys", state / "own-keys/server"], cwd=REPOSITORY, env=environment)
        try:
            with Client(here.endpoint, timeout=60, keys=state / "own-keys/client") as client:
                client.attributes()
            assert gimp.run(code) == ["success", "", ["Smiling 0.4", "Background"]]
        finally:
            server.terminate()
            server.wait(30)


def test_an_edit_without_pyzmq(gimp: Gimp, face: np.ndarray, tmp_path: Path) -> None:
    """As in Windows and on macOS, where GIMP's Python cannot load it: another process has the socket."""
    endpoint = free_endpoint()
    gimp.server(endpoint, home=tmp_path)
    path = gimp.plugin / "server.json"
    note = tmp_path / "relayed"
    relay = gimp.outside("sh", "-c", 'touch "$0"; exec "$@"', str(note), sys.executable, "-m", "dfi_server.wire.relay")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"relay": relay}))
    hidden = gimp.plugin / "vendor/zmq/__init__.py"
    hidden.parent.mkdir(parents=True)
    hidden.write_text("raise ImportError('made for another Python')")
    Image.fromarray(face).save(gimp.share / "face.png")
    gimp.start(PYTHONPATH=gimp.path(gimp.plugin / "vendor"))  # so that the system's own is hidden too
    status, said, layers = gimp.run(EDIT.format(path=gimp.path(gimp.share / "face.png")))
    assert (status, said, layers[0]) == ("success", "", "Smiling 0.4")
    assert note.exists()
