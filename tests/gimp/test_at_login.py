"""`dfi service`: the files for each system, written, taken by a system of the test, and removed."""

import os
import plistlib
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from support import machines
from support.home import Home, program
from support.servers import free_endpoint

from dfi_server.errors import DFIError
from dfi_server.gimp import at_login, installation
from dfi_server.gimp.machine import Machine
from dfi_server.wire import keys, place
from dfi_server.wire.client import Client

SYSTEMS: dict[str, tuple[Callable[[Path], Machine], str]] = {
    "Linux": (machines.linux, "systemctl"),
    "macOS": (machines.macos, "launchctl"),
    "Windows": (machines.windows, "schtasks"),
}


@pytest.fixture(params=SYSTEMS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """A user's machine, whose name has what units and XML must escape; it notes what it is told to read."""
    make, manager = SYSTEMS[request.param]
    made = make(tmp_path / "50% & more")
    return with_program(made, manager, f'echo "{manager} $*" >>"{made.root}/tools/told"')


def with_program(made: Machine, name: str, script: str) -> Machine:
    folder = made.root / "tools"
    folder.mkdir()
    program(folder / name, script)
    return Machine(made.system, made.home, {**made.environ, "PATH": f"{folder}:/usr/bin:/bin"}, made.root)


def told(machine: Machine) -> list[str]:
    return (machine.root / "tools/told").read_text().splitlines()


@pytest.fixture
def programs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Popen looks for a program on this process' PATH."""
    monkeypatch.setenv("PATH", machine.environ["PATH"])


@pytest.mark.usefixtures("programs")
def test_install_and_uninstall(machine: Machine) -> None:
    """What is made is removed: the keys, too, and the folder that was not there."""
    state = machine.home / "state"
    before = Home(machine.home).contents()
    said: list[str] = []
    at_login.install(machine, state, said.append)
    written = [path for path in at_login.files(machine, state).texts if path.exists()]
    assert written and all(f"Wrote {path}" in said for path in written)
    assert (state / "own-keys/client/server.key").exists()  # the sandboxed filter looks for it first
    assert told(machine)
    at_login.install(machine, state, said.append)

    at_login.uninstall(machine, state, said.append)
    assert all(f"Removed {path}" in said for path in (*written, state / "own-keys"))
    assert Home(machine.home).contents() == before


def test_keys_stay_while_a_server_runs_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was started in a terminal: the next edit would find no keys, or others than the server's."""
    monkeypatch.setattr(at_login, "_END_SECONDS", 0.1)
    machine, state = machines.linux(tmp_path), tmp_path / "home/state"
    here = place.find(place.OWN_TCP, state)
    assert here.server_keys and here.client_keys
    keys.ensure(here.server_keys, here.client_keys)
    host, port = here.endpoint.removeprefix("tcp://").split(":")
    for uninstall in (at_login.uninstall, installation.uninstall):
        said: list[str] = []
        with socket.create_server((host, int(port))):
            uninstall(machine, state, said.append)
        assert f"{state}/own-keys stays: the server at {here.endpoint} runs with these keys." in "\n".join(said)
        assert (here.client_keys / "own.key_secret").exists()
    at_login.uninstall(machine, state, said.append)
    assert not state.exists()


def test_installing_again_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """launchctl refuses an agent that is loaded."""
    loaded = tmp_path / "loaded"
    script = f'case "$1" in bootstrap) [ ! -e "{loaded}" ] && touch "{loaded}" ;; bootout) rm "{loaded}" ;; esac'
    mac = with_program(machines.macos(tmp_path / "mac"), "launchctl", script)
    monkeypatch.setenv("PATH", mac.environ["PATH"])
    for _ in range(2):
        at_login.install(mac, mac.home / "state", lambda line: None)
    (agent,) = at_login.files(mac, mac.home / "state").texts
    assert agent.exists()


@pytest.mark.usefixtures("programs")
def test_what_the_system_does_not_take_is_removed(machine: Machine) -> None:
    manager = next((machine.root / "tools").iterdir())
    program(manager, "echo no bus >&2; exit 1")
    with pytest.raises(DFIError, match=r"no bus.*dfi serve --endpoint own-tcp"):
        at_login.install(machine, machine.home / "state", lambda line: None)
    assert not any(path.exists() for path in at_login.files(machine, machine.home / "state").texts)
    assert not (machine.home / "state").exists()


def test_the_files_say_what_is_run(machine: Machine) -> None:
    state = machine.home / "state"
    texts = at_login.files(machine, state).texts
    if machine.system == "linux":
        assert set(path.name for path in texts) == {"dfi.socket", "dfi.service"}
        address = place.find(place.OWN_TCP, state).endpoint.removeprefix("tcp://")
        assert f"ListenStream={address}\n".encode() in b"".join(texts.values())
    elif machine.system == "darwin":
        (agent,) = map(plistlib.loads, texts.values())
        assert agent["ProgramArguments"][-3:] == ["serve", "--endpoint", "own-tcp"]
        assert agent["EnvironmentVariables"] == {"DFI_HOME": str(state)}
    else:
        (task,) = (ElementTree.fromstring(text.decode("utf-16").partition("?>")[2]) for text in texts.values())
        space = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
        assert (task.findtext(f".//{space}Arguments") or "").endswith("serve --endpoint own-tcp")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    machine = machines.linux(tmp_path / "50% & more")
    units = at_login.files(machine, machine.home / "state").texts
    for path, text in units.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", *units],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    ours = [line for line in done.stderr.splitlines() if "dfi." in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="there is no systemd here")
def test_a_server_on_systemd_s_socket(tmp_path: Path) -> None:
    """It is started by the first client, and ends without any."""
    endpoint = free_endpoint()
    kept = [f"--setenv={name}={value}" for name, value in os.environ.items()]
    serve = [sys.executable, "-m", "dfi_server", "serve", "--endpoint", endpoint, "--end-after", "0.05"]
    activate = [
        "systemd-socket-activate",
        "-l",
        endpoint.removeprefix("tcp://"),
        *kept,
        f"--setenv=DFI_HOME={tmp_path}",
    ]
    with subprocess.Popen([*activate, *serve], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr and "Listening" in server.stderr.readline()
            with Client(endpoint, timeout=30) as client:
                client.hello()
            server.communicate(timeout=60)
            assert server.returncode == 0
        finally:
            server.kill()
