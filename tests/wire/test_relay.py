"""The client in a Python without pyzmq, as GIMP's in Windows is: another process holds its socket."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import Slow, free_endpoint, serving

from dfi_server.gimp import files
from dfi_server.gimp.machine import Machine
from dfi_server.wire import keys, place

# -S: without the packages of the Python that runs it. The plug-in does the same in its server.py.
CLIENT = """
import json, pathlib, sys, time
plugin, endpoint, folder, what = sys.argv[1:]
sys.path[:0] = [plugin, plugin + "/substitute"]
import zmq
assert zmq.__file__.startswith(plugin), zmq.__file__
zmq.relay = json.loads(pathlib.Path(plugin, "server.json").read_text())["relay"]
from dfi_server.wire import client
from dfi_server.errors import DFIError
pixels = bytes(range(256)) * 37_500  # 9.6 MB
request = client.EditRequest(2000, 1600, 3, "uint8", {"smiling": 0.4})
try:
    with client.Client(endpoint, timeout=5.0, keys=pathlib.Path(folder) if folder else None) as link:
        if what == "edit":
            print(link.attributes())
            edited = link.edit(request, pixels, progress=lambda step: print("progress", flush=True))
            print(bytes(edited.pixels) == pixels)
        elif what == "cancel":
            started = time.monotonic()
            link.edit(request, pixels, cancelled=lambda: time.monotonic() > started + 1)
        else:
            link.hello()
            link._socket._process.kill()
            link.status()
except DFIError as error:
    print("error:", error.code, error)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The plug-in as it is installed where no pyzmq can be loaded."""
    files.make(tmp_path / "plug-ins/dfi", Machine.here(), tmp_path / "state", None)
    return tmp_path / "plug-ins/dfi"


def run(plugin: Path, endpoint: str, what: str, folder: Path | str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", CLIENT, plugin, endpoint, folder, what],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=plugin.parent,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("with_keys", [False, True])
def test_an_edit(plugin: Path, slow: Slow, tmp_path: Path, with_keys: bool) -> None:
    here = place.find(place.OWN_TCP, tmp_path / "state")
    assert here.server_keys and here.client_keys
    keys.ensure(here.server_keys, here.client_keys)
    slow.go.set()
    with serving(slow.command, keys=here.server_keys if with_keys else None) as server:
        said = run(plugin, server.endpoint, "edit", here.client_keys if with_keys else "")
    assert "('smiling',)" in said
    assert said.endswith("True\n")


def test_a_cancelled_edit_is_cancelled_at_the_server(plugin: Path, slow: Slow) -> None:
    with serving(slow.command) as server:
        assert "error: cancelled" in run(plugin, server.endpoint, "cancel")
        assert slow.cancelled.wait(10)


def test_nobody_listens(plugin: Path) -> None:
    assert "error: unreachable" in run(plugin, free_endpoint(), "edit")


def test_a_relay_that_is_killed_is_as_a_server_that_is_gone(plugin: Path, slow: Slow) -> None:
    with serving(slow.command) as server:
        assert "error: unreachable" in run(plugin, server.endpoint, "kill")


def test_it_ends_with_the_process_that_asked(plugin: Path) -> None:
    command = json.loads((plugin / "server.json").read_text())["relay"]
    asked = json.dumps({"endpoint": free_endpoint(), "options": {"linger": 0, "immediate": True}})
    done = subprocess.run(command, input=asked.encode() + b"\n", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
