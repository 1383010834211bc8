"""Each user's own server: where it is, who may enter, and who listens there."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from support.checks import refusal
from support.servers import PIXELS, SMALL, Slow, failure_of, serving

from dfi_server import system
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.service.server import Server
from dfi_server.wire import keys, place
from dfi_server.wire.client import Client

RUNTIME = "XDG_RUNTIME_DIR"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv(RUNTIME, str(folder))
    return folder


@pytest.fixture
def own(runtime: Path, tmp_path: Path) -> str:
    return place.find(place.OWN, tmp_path / "home").endpoint


@pytest.fixture
def other_user() -> Iterator[int]:
    """The process id of another user's program."""
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    yield 65_534  # nobody


def path_of(endpoint: str) -> Path:
    return Path(endpoint.removeprefix(place.IPC))


def test_each_home_has_a_socket_in_the_runtime_folder(runtime: Path, tmp_path: Path) -> None:
    first, again, other = (place.find(place.OWN, tmp_path / name).endpoint for name in ("a", "a", "b"))
    assert first == again != other
    assert path_of(first).parent.parent == runtime
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert place.find(place.OWN, tmp_path / "link").endpoint == first


@given(st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=90))
def test_whatever_the_runtime_folders_name_the_sockets_path_is_short_enough(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUNTIME, f"/nowhere/{name}/{'x' * 90}")
        endpoint = place.find(place.OWN, Path("/home/somebody") / name).endpoint
    assert len(os.fsencode(path_of(endpoint))) <= 107
    assert path_of(endpoint).is_absolute()


def _another_users(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give folders away")
    folder.mkdir(mode=0o700)
    os.chown(folder, 65_534, 65_534)


@pytest.mark.parametrize(
    "take",
    [
        _another_users,
        lambda folder: folder.mkdir() or folder.chmod(0o777),
        lambda folder: folder.symlink_to(folder.parent / "elsewhere"),
        Path.touch,
    ],
    ids=["another user's", "everybody's", "a link", "a file"],
)
def test_where_another_user_was_first_the_own_server_is_elsewhere(
    take: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Slow
) -> None:
    monkeypatch.setattr(system, "runtime_folders", lambda: iter(()))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    folder = path_of(place.find(place.OWN, tmp_path / "home").endpoint).parent
    assert folder.parent == tmp_path / "tmp"
    take(folder)
    found = place.find(place.OWN, tmp_path / "home")
    assert str(tmp_path) not in found.endpoint
    if found.server_keys and found.client_keys:
        keys.ensure(found.server_keys, found.client_keys)
    slow.go.set()
    server = Server(found.endpoint, [slow.command], found.server_keys)
    thread = threading.Thread(target=server.run)
    thread.start()
    with Client(found.endpoint, keys=found.client_keys) as client:
        assert client.edit(SMALL, PIXELS).pixels == PIXELS
    server.stop()
    thread.join(20)


def test_where_no_folder_can_be_this_users_alone_it_is_a_port_with_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a temporary folder that is read-only. The current folder gets no socket."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(place, "_is_private", lambda folder: False)
    assert place.find(place.OWN, Path("/home/somebody")) == place.find(place.OWN_TCP, Path("/home/somebody"))
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "runtime_folders", lambda: iter(()))
    for name in (str(tmp_path / "absent"), "relative", ""):
        monkeypatch.setenv("TMPDIR", name)
        endpoint = place.find(place.OWN, tmp_path / "home").endpoint
        assert str(tmp_path) not in endpoint
        assert endpoint.startswith("tcp://") or path_of(endpoint).is_absolute()


def test_any_other_endpoint_stays_as_it_is(tmp_path: Path) -> None:
    assert place.find("tcp://127.0.0.1:5577", tmp_path) == ("tcp://127.0.0.1:5577", None, None)


def test_an_edit_through_the_own_socket(own: str, slow: Slow) -> None:
    slow.go.set()
    server = Server(own, [slow.command])
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        folder = path_of(own).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with Client(own) as client:
            assert client.edit(SMALL, PIXELS).pixels == PIXELS
    finally:
        server.stop()
        thread.join(20)
    assert not path_of(own).exists()


def test_two_servers_do_not_take_the_place_from_each_other(own: str, slow: Slow) -> None:
    first = Server(own, [slow.command])
    assert "runs at" in refusal(lambda: Server(own, [slow.command]), ErrorCode.BUSY)
    with Client(own) as client:
        assert client.is_connected(2)
    thread = threading.Thread(target=first.run)
    thread.start()
    first.stop()
    thread.join(20)
    second = Server(own, [])  # what is free is free
    second.stop()
    second.run()


def test_what_a_killed_server_leaves_is_no_hindrance(own: str, slow: Slow) -> None:
    program = (
        "import os, sys; from dfi_server.service.server import Server; "
        "server = Server(sys.argv[1], []); print('bound', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, own], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "bound\n"
        process.kill()
    assert path_of(own).exists()
    slow.go.set()
    server = Server(own, [slow.command])
    thread = threading.Thread(target=server.run)
    thread.start()
    with Client(own) as client:
        assert client.edit(SMALL, PIXELS).pixels == PIXELS
    server.stop()
    thread.join(20)


def test_a_folder_that_others_can_enter_is_refused_by_client_and_server(own: str) -> None:
    folder = path_of(own).parent
    folder.mkdir()
    for mode in (0o755, 0o770, 0o701, 0o777):
        folder.chmod(mode)
        for call in (lambda: Client(own), lambda: Server(own, [])):
            assert "not this user's alone" in refusal(call, ErrorCode.BAD_REQUEST)


def test_a_link_in_the_folders_place_is_refused(own: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    path_of(own).parent.symlink_to(tmp_path / "elsewhere")
    for call in (lambda: Client(own), lambda: Server(own, [])):
        assert "not this user's alone" in refusal(call, ErrorCode.BAD_REQUEST)


def test_another_users_folder_is_refused(own: str, other_user: int) -> None:
    folder = path_of(own).parent
    folder.mkdir(mode=0o700)
    os.chown(folder, other_user, other_user)
    for call in (lambda: Client(own), lambda: Server(own, [])):
        assert "not this user's alone" in refusal(call, ErrorCode.BAD_REQUEST)


def test_a_client_that_waits_for_a_server_leaves_nobody_a_place_to_listen(other_user: int, slow: Slow) -> None:
    program = (
        "import os, sys; os.setuid(int(sys.argv[1]))\n"
        "try: os.mkdir(sys.argv[2], 0o777)\n"
        "except FileExistsError: sys.exit('taken')\n"
    )
    with tempfile.TemporaryDirectory() as everybodys:
        Path(everybodys).chmod(0o1777)  # as /tmp is
        endpoint = f"{place.IPC}{everybodys}/own/socket"

        def impostor(name: str) -> str:
            arguments = [sys.executable, "-c", program, str(other_user), f"{everybodys}/{name}"]
            return subprocess.run(arguments, capture_output=True, text=True, timeout=60).stderr.strip()

        assert impostor("other") == ""
        client = Client(endpoint, timeout=1)
        assert impostor("own") == "taken"
        slow.go.set()
        server = Server(endpoint, [slow.command])
        thread = threading.Thread(target=server.run)
        thread.start()
        with client:
            assert client.edit(SMALL, PIXELS).pixels == PIXELS
        server.stop()
        thread.join(20)


def test_where_the_folder_went_and_came_back_as_another_users_it_gets_no_photo(own: str, other_user: int) -> None:
    with Client(own, timeout=1) as client:
        folder = path_of(own).parent
        folder.rmdir()
        assert failure_of(lambda: client.edit(SMALL, PIXELS)).code == ErrorCode.UNREACHABLE
        folder.mkdir(mode=0o777)
        os.chown(folder, other_user, other_user)
        with zmq.Context() as context, context.socket(zmq.ROUTER) as impostor:
            impostor.bind(own)
            assert client.is_connected(3)  # ZeroMQ would have sent it
            error = failure_of(lambda: client.edit(SMALL, PIXELS))
            assert (error.code, "not this user's alone" in error.message) == (ErrorCode.BAD_REQUEST, True)
            assert not impostor.poll(300)


def test_another_users_server_at_a_port_gets_no_photo(other_user: int) -> None:
    program = (
        "import os, sys, zmq; os.setuid(int(sys.argv[1])); socket = zmq.Context().socket(zmq.ROUTER); "
        "print(socket.bind_to_random_port('tcp://127.0.0.1'), flush=True); socket.poll(60_000); "
        "print(len(socket.recv_multipart()), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(other_user)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        endpoint = f"tcp://127.0.0.1:{process.stdout.readline().strip()}"
        with Client(endpoint) as client:
            error = failure_of(lambda: client.edit(SMALL, PIXELS))
        assert (error.code, "another user's" in error.message) == (ErrorCode.UNREACHABLE, True)
        assert process.poll() is None  # it has received nothing
        process.kill()


def test_an_own_server_at_a_port_may_be_this_users(slow: Slow) -> None:
    slow.go.set()
    with serving(slow.command) as server, Client(server.endpoint) as client:
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_without_unix_sockets_it_is_a_port_with_keys_that_nobody_else_can_read(
    tmp_path: Path, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "has", lambda what: what != "ipc")
    found = place.find(place.OWN, tmp_path / "home")
    assert found == place.find(place.OWN_TCP, tmp_path / "home")
    assert found.endpoint.startswith("tcp://127.0.0.1:")
    assert found != place.find(place.OWN, tmp_path / "other")
    assert found.server_keys and found.client_keys
    keys.ensure(found.server_keys, found.client_keys)
    before = (found.client_keys / "own.key_secret").read_bytes()
    keys.ensure(found.server_keys, found.client_keys)  # they stay
    assert (found.client_keys / "own.key_secret").read_bytes() == before
    for path in found.server_keys.parent.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077
    slow.go.set()
    server = Server(found.endpoint, [slow.command], found.server_keys)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with Client(found.endpoint, keys=found.client_keys) as client:
            assert client.edit(SMALL, PIXELS).pixels == PIXELS
        with Client(found.endpoint, timeout=1) as stranger, pytest.raises(DFIError):
            stranger.hello()
    finally:
        server.stop()
        thread.join(20)


@pytest.mark.parametrize(("name", "value"), [("HAS_UNIX_SOCKETS", False), ("sandbox", lambda: "Flatpak")])
def test_so_it_is_in_windows_and_in_flatpak(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    assert place.find(place.OWN, tmp_path).endpoint.startswith(place.IPC)
    monkeypatch.setattr(system, name, value)
    assert place.find(place.OWN, tmp_path) == place.find(place.OWN_TCP, tmp_path)
    with place.claimed(place.EXAMPLE):  # of such a place nothing is held
        pass


@pytest.mark.parametrize("endpoint", ["ipc://", "ipc://relative/path", "ipc://@abstract", "ipc://*"])
def test_a_unix_socket_is_named_by_its_whole_path(endpoint: str) -> None:
    assert "whole path" in refusal(lambda: Client(endpoint), ErrorCode.BAD_REQUEST)


def test_who_listens_is_known_for_both_families() -> None:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as listener:
            listener.bind((address, 0))
            listener.listen()
            port = listener.getsockname()[1]
            place.check_owner(f"tcp://{address}:{port}")


@pytest.mark.parametrize(
    ("endpoint", "bind", "address"),
    [
        ("tcp://127.0.0.1:5577", False, "tcp://127.0.0.1:5577"),
        ("tcp://127.9.8.7:1", False, "tcp://127.9.8.7:1"),
        ("tcp://localhost:5577", False, "tcp://127.0.0.1:5577"),
        ("tcp://[::1]:5577", False, "tcp://[::1]:5577"),
        ("tcp://127.0.0.1:*", True, "tcp://127.0.0.1:*"),
    ],
)
def test_addresses_of_this_machine_are_accepted(endpoint: str, bind: bool, address: str) -> None:
    assert place.check_endpoint(endpoint, bind) == address


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://0.0.0.0:5577",
        "tcp://*:5577",
        "tcp://192.168.1.5:5577",
        "tcp://[::]:5577",
        "tcp://[::ffff:8.8.8.8]:5577",
        "tcp://example.org:5577",
        "tcp://127.0.0.1.example.org:5577",
        "tcp://eth0:5577",
        "tcp://127.0.0.1:0;8.8.8.8:5577",
        "tcp://8.8.8.8:5577;127.0.0.1:5577",
        "tcp://127.0.0.1:5577 ",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:٥٥٧٧",
        "tcp://127.0.0.1",
        "udp://127.0.0.1:5577",
        "ipc:///tmp/dfi",
        "inproc://bell",
        "",
    ],
)
def test_any_other_address_is_refused_with_a_sentence(endpoint: str) -> None:
    for bind in (False, True):
        with pytest.raises(DFIError, match="unprotected") as caught:
            place.check_endpoint(endpoint, bind)
        assert caught.value.code == ErrorCode.BAD_REQUEST


def test_any_free_port_is_only_for_the_server() -> None:
    with pytest.raises(DFIError):
        place.check_endpoint("tcp://127.0.0.1:*")
