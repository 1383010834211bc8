"""Keys: who gets an answer from a server that asks for them, and that nobody else does."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checks import refusal, run_dfi
from support.servers import PIXELS, SMALL, Raw, Slow, free_endpoint, serving

from dfi_server.errors import ErrorCode
from dfi_server.service.server import Server
from dfi_server.wire import keys
from dfi_server.wire.client import Client, start_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Keys of a server and of two clients."""
    keys.generate(tmp_path / "keys", ["anna", "bert"])
    return tmp_path / "keys"


@pytest.fixture
def server(slow: Slow, folder: Path) -> Iterator[Server]:
    slow.go.set()
    with serving(slow.command, keys=folder / "server") as server:
        yield server


def test_a_client_with_its_key_is_served(server: Server, folder: Path) -> None:
    for name in ("anna", "bert"):
        with Client(server.endpoint, keys=folder / name) as client:
            assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_a_client_without_the_right_key_gets_nothing(server: Server, folder: Path, tmp_path: Path) -> None:
    keys.generate(tmp_path / "other", ["mallory"])
    (tmp_path / "other" / "mallory" / "server.key").write_text((folder / "anna" / "server.key").read_text())
    for stranger in (tmp_path / "other" / "mallory", None):
        with Client(server.endpoint, timeout=0.7, keys=stranger) as client:
            assert "does not answer" in refusal(client.hello, ErrorCode.UNREACHABLE)
    with Raw(server.endpoint) as raw:
        raw.socket.send(b'{"protocol": 1, "type": "hello", "id": "h"}')
        assert not raw.socket.poll(700)
    with Client(server.endpoint, keys=folder / "anna") as client:
        client.hello()


def test_a_client_does_not_talk_to_a_server_that_lacks_the_secret_key(slow: Slow, folder: Path, tmp_path: Path) -> None:
    keys.generate(tmp_path / "false", ["x"])
    allowed = tmp_path / "false" / "server" / "clients" / "anna.key"
    allowed.write_text((folder / "anna" / "own.key").read_text())
    with (
        serving(slow.command, keys=tmp_path / "false" / "server") as impostor,
        Client(impostor.endpoint, timeout=0.7, keys=folder / "anna") as client,
    ):
        refusal(client.hello, ErrorCode.UNREACHABLE)


def test_a_client_is_shut_out_by_deleting_its_key(slow: Slow, folder: Path) -> None:
    (folder / "server" / "clients" / "bert.key").unlink()
    with serving(slow.command, keys=folder / "server") as server:
        with Client(server.endpoint, keys=folder / "anna") as client:
            client.hello()
        with Client(server.endpoint, timeout=0.7, keys=folder / "bert") as client:
            refusal(client.hello, ErrorCode.UNREACHABLE)


def test_without_keys_only_this_machine_is_served(folder: Path) -> None:
    for call in (lambda: Server("tcp://0.0.0.0:5577", []), lambda: Client("tcp://192.168.1.5:5577")):
        assert "dfi keygen" in refusal(call, ErrorCode.BAD_REQUEST)
    for missing in (folder, folder / "anna"):  # no server's folder
        refusal(lambda keys=missing: Server("tcp://127.0.0.1:*", [], keys), ErrorCode.BAD_REQUEST)
    refusal(lambda: Client("tcp://192.168.1.5:5577", keys=folder), ErrorCode.BAD_REQUEST)
    for strange in ("tcp://eth0;1.2.3.4:5577", "ipc:///tmp/x", "tcp://1.2.3.4"):
        refusal(lambda endpoint=strange: Client(endpoint, keys=folder / "anna"), ErrorCode.BAD_REQUEST)


def test_keys_are_their_owner_s_and_never_overwritten(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    secret = (folder / "server" / "own.key_secret").read_text()
    assert "is there already" in refusal(lambda: keys.generate(folder, ["anna"]), ErrorCode.BAD_REQUEST)
    for name in ("../out", "server", "", ".", "a/b"):
        refusal(lambda name=name: keys.generate(folder, [name]), ErrorCode.BAD_REQUEST)
    assert keys.generate(folder, ["carl"]) == [folder / "carl"]
    assert (folder / "server" / "own.key_secret").read_text() == secret


@pytest.mark.slow
def test_the_command_line_s_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, endpoint = tmp_path / "keys", free_endpoint().replace("127.0.0.1", "0.0.0.0")
    refused = run_dfi("serve", "--endpoint", endpoint, home=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1 and "dfi keygen" in refused.stderr
    made = run_dfi("keygen", folder, home=tmp_path)
    assert made.stdout.split() == [str(folder / "server"), str(folder / "client")]
    alone = run_dfi("edit", "a.jpg", "b.png", "--set", "smiling=0.4", "--keys", folder / "client", home=tmp_path)
    assert (alone.returncode, "--server" in alone.stderr) == (1, True)
    command = [sys.executable, "-m", "dfi_server", "serve", "--endpoint", endpoint, "--keys", folder / "server"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            monkeypatch.setenv("DFI_KEYS", str(folder / "client"))  # as GIMP's plug-in is told
            assert start_server(["false"], endpoint, log=tmp_path / "log").protocol_version == 1
        finally:
            process.kill()
    error = refusal(lambda: start_server(["false"], endpoint, log=tmp_path / "log"), ErrorCode.UNREACHABLE)
    assert "on that machine" in error
    assert not (tmp_path / "log").exists()
