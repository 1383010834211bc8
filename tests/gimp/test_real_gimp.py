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
from gimp.gimp import REPOSITORY, Gimp, free_endpoint, wait_for, within
from PIL import Image
from support import machines
from support.home import program

from dfi_server.gimp import find, installation
from dfi_server.gimp.machine import Machine
from dfi_server.wire import place
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


class FlatpakGimp(Gimp):
    """GIMP in a sandbox like Flatpak's: run by a user's `flatpak`, with Flatpak's folders and environment.

    It sees the user's files where they are; of the configuration outside that of GIMP (xdg-config/GIMP:create).
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.machine = machines.linux(Path(tempfile.mkdtemp(prefix="dfi-machine-", dir="/tmp")))
        machines.add_flatpak(self.machine, self.version())
        own = self.machine.home / ".var/app" / find.FLATPAK
        for name in ("config", "data", "cache"):
            (own / name).mkdir(parents=True)
        (self.machine.home / ".config/GIMP").mkdir(parents=True)
        (own / "config/GIMP").symlink_to(self.machine.home / ".config/GIMP")
        folders = [f"XDG_{name.upper()}_HOME={own / name}" for name in ("config", "data", "cache")]
        environment = ["env", *folders, f"FLATPAK_ID={find.FLATPAK}", "LANG=C.UTF-8", "PATH=/usr/bin"]
        seen = 'mkdir -p "$0$1" && mount --rbind "$1" "$0$1" && shift && exec "$@"'
        see = ["unshare", "--mount", "--propagation", "private", "sh", "-c", seen, root, self.machine.root]
        into = within(root, *environment, mnt=self._mnt)
        self._flatpak = self.machine.root / "usr/bin/flatpak"
        run = f'PATH=/usr/sbin:/usr/bin:/sbin:/bin exec {shlex.join(map(str, [*see, *into]))} "$run" "$@"'
        program(self._flatpak, machines.flatpak_run(run))

    def _enter(self, *command: str) -> list[str]:
        if not hasattr(self, "_flatpak"):  # while it is being made
            return super()._enter(*command)
        return [str(self._flatpak), "run", f"--command={command[0]}", find.FLATPAK, *command[1:]]

    def _env(self) -> dict[str, str]:
        return {**self.machine.environ, **self._environment} if hasattr(self, "_flatpak") else super()._env()

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.machine.root)
        (self.root / self.machine.root.relative_to("/")).rmdir()


def test_in_a_sandbox_like_flatpak_s(gimp_root: Path, face: np.ndarray) -> None:
    """What `dfi gimp install` has put there starts nothing, and says what to start; that is reached, by its keys."""
    if gimp_root == Path("/"):
        pytest.skip("a file in / would make a sandbox of this machine")
    gimp = FlatpakGimp(gimp_root)
    machine, said = gimp.machine, list[str]()
    state = machine.home / ".local/share/dfi"
    try:
        with gimp.sandboxed():
            installation.install(machine, state, said.append)
            version = gimp.version()
            plugin = machine.home / ".config/GIMP" / version.rpartition(".")[0] / "plug-ins/dfi"
            assert f"  ok  Filter in {plugin}, pyzmq " in "\n".join(said)
            assert any(line.startswith(f"  ok  GIMP {version} (Flatpak) has the filter") for line in said)

            Image.fromarray(face).save(gimp.share / "face.png")
            code = EDIT.format(path=gimp.path(gimp.share / "face.png"))
            gimp.start()
            status, sentence, _ = gimp.run(code)
            assert status != "success"
            assert "Flatpak lets GIMP start no programs: run this in a terminal" in sentence
            assert sentence.endswith("dfi serve --endpoint own-tcp")

            here = place.find(place.OWN_TCP, state)
            serve = [sys.executable, "-m", "dfi_server", "serve", "--endpoint", "own-tcp"]
            server = subprocess.Popen(serve, cwd=REPOSITORY, env={**os.environ, "DFI_HOME": str(state)})
            try:
                assert here.client_keys
                wait_for("the server's keys", (here.client_keys / "server.key").exists)
                with Client(here.endpoint, timeout=60, keys=here.client_keys) as client:
                    client.attributes()
                assert gimp.run(code) == ["success", "", ["Smiling 0.4", "Background"]]
            finally:
                server.terminate()
                server.wait(30)
        installation.uninstall(machine, state, said.append)
        assert not plugin.exists() and not state.exists()
    finally:
        gimp.stop()


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
