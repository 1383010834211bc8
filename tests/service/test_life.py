"""A worker that hangs is replaced; a server that nobody needs gives its memory back, and ends if nobody started it."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from support.servers import PIXELS, SMALL, Raw, Slow, child_ids, eventually, failure_of, is_alive, serving

from dfi_server.errors import ErrorCode
from dfi_server.service import worker_process
from dfi_server.service.server import Server
from dfi_server.wire.client import Client
from dfi_server.wire.messages import ServerState


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two and a half seconds instead of thirty, for a sign of life each second."""
    monkeypatch.setattr("dfi_server.service.worker_process.STILL_SECONDS", 2.5)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient", "silence_allowed")
def test_a_worker_that_stands_still_is_replaced_and_the_others_edits_go_on(slow: Slow, tmp_path: Path) -> None:
    with serving(slow.command) as server, Raw(server.endpoint) as one, Raw(server.endpoint) as other:
        one.edit("a", 1)
        other.edit("b", 2)
        eventually(lambda: slow.started == [1])
        stopped = slow.pid
        os.kill(stopped, signal.SIGSTOP)
        slow.go.set()
        error = one.error()
        assert (error.code, "no sign of life" in error.message) == (ErrorCode.INTERNAL, True)
        assert other.final().type == "result"
        assert slow.pid != stopped
        eventually(lambda: not is_alive(stopped))


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_one_that_stands_still_without_an_edit_is_replaced_before_the_next(slow: Slow, slow_server: Server) -> None:
    slow.go.set()
    with Client(slow_server.endpoint) as client:
        client.attributes()
        stopped = slow.pid
        os.kill(stopped, signal.SIGSTOP)
        eventually(lambda: slow.pid != stopped)
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_one_that_stands_still_while_it_loads_is_a_failure_that_a_hello_mends(slow: Slow) -> None:
    slow.hold.set()
    slow.go.set()
    with serving(slow.command) as server, Client(server.endpoint) as client:
        eventually(lambda: slow.pid if slow._pids.exists() else 0)
        os.kill(slow.pid, signal.SIGSTOP)
        eventually(lambda: client.status().state == ServerState.FAILED)
        assert "no sign of life" in client.status().message
        slow.hold.clear()
        eventually(lambda: client.hello().state == ServerState.READY)
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_an_edit_that_does_not_get_on_is_ended_and_the_next_one_is_made(
    slow: Slow, slow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.fails.set("stuck")  # its process lives, and gives signs of life
    with Client(slow_server.endpoint) as client:
        client.attributes()
        monkeypatch.setattr("dfi_server.service.worker_process.HUNG_SECONDS", 0.5)
        error = failure_of(lambda: client.edit(SMALL, PIXELS))
        assert (error.code, "did not get on" in error.message) == (ErrorCode.INTERNAL, True)
        monkeypatch.undo()
        slow.fails.clear()
        slow.go.set()
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_a_load_that_takes_for_ever_is_a_failure_that_a_hello_mends(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfi_server.service.worker_process.LONGEST_LOAD_SECONDS", 0.5)
    slow.hold.set()  # its process lives, and gives signs of life
    slow.go.set()
    with serving(slow.command) as server, Client(server.endpoint) as client:
        eventually(lambda: client.status().state == ServerState.FAILED)
        assert "did not load its model" in client.status().message
        monkeypatch.undo()
        slow.hold.clear()
        eventually(lambda: client.hello().state == ServerState.READY)
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


@pytest.mark.slow
@pytest.mark.usefixtures("impatient", "silence_allowed")
def test_a_server_that_stood_still_itself_ends_nobody(
    slow: Slow, slow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Raw(slow_server.endpoint) as client:
        client.edit("a", 1)
        eventually(lambda: slow.started)
        worker, woken, hear = slow.pid, threading.Event(), slow_server._hear_clients

        def stand_still() -> None:
            if not woken.is_set():
                time.sleep(4)  # as in a suspended or swapping machine
                woken.set()
            hear()

        os.kill(worker, signal.SIGSTOP)  # which stood still, too
        monkeypatch.setattr(slow_server, "_hear_clients", stand_still)
        assert woken.wait(20)
        os.kill(worker, signal.SIGCONT)
        slow.go.set()
        assert client.final().type == "result"
        assert slow.pid == worker


@pytest.mark.reliability
def test_a_stopped_worker_is_replaced_within_forty_seconds_for_real(slow: Slow, slow_server: Server) -> None:
    with Client(slow_server.endpoint) as client:
        client.attributes()
        stopped = slow.pid
        threading.Timer(0.5, os.kill, (stopped, signal.SIGSTOP)).start()
        began = time.monotonic()
        error = failure_of(lambda: client.edit(SMALL, PIXELS))
        assert error.message.startswith("The process that worked on the photo ended (it gave no sign of life for 30")
        assert time.monotonic() - began > 25
        slow.go.set()
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_an_idle_model_gives_its_memory_back_and_wakes_for_an_edit(slow: Slow) -> None:
    slow.go.set()
    with serving(slow.command, rest_after=2) as server, Client(server.endpoint) as client:
        names = client.attributes()
        awake, info = slow.pid, client.status()
        assert not info.resting
        eventually(lambda: client.status().resting)
        eventually(lambda: not is_alive(awake))
        time.sleep(0.5)
        asleep = client.status()
        assert (asleep.state, asleep.store, asleep.device) == (ServerState.READY, info.store, info.device)
        assert slow.pid == awake  # asking how it is did not wake it
        assert client.edit(SMALL, PIXELS).pixels == PIXELS
        assert slow.pid != awake
        assert not client.status().resting
        eventually(lambda: client.status().resting)
        assert client.attributes() == names


def test_a_resting_worker_has_its_libraries_ready(tiny_home: Path) -> None:
    others = child_ids()
    with serving(*worker_process.commands(device="cpu"), rest_after=0.5) as server, Client(server.endpoint) as client:
        eventually(lambda: client.status().resting, 60)
        resting = child_ids(but=others)
        eventually(lambda: any("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in resting), 60)
        assert client.hello().state == ServerState.LOADING
        assert child_ids(but=others) == resting


def test_a_resting_worker_that_ends_is_no_trouble(slow: Slow) -> None:
    others = child_ids()
    slow.go.set()
    with serving(slow.command, rest_after=2) as server, Client(server.endpoint) as client:
        client.attributes()
        eventually(lambda: client.status().resting)
        (resting,) = child_ids(but=others)
        os.kill(resting, signal.SIGKILL)
        eventually(lambda: not is_alive(resting))
        assert client.status().resting
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_after_long_a_resting_worker_ends_and_a_hello_starts_it(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfi_server.service.server.LIBRARIES_SECONDS", 3.0)
    others = child_ids()
    slow.go.set()
    with serving(slow.command, rest_after=1) as server, Client(server.endpoint) as client:
        client.attributes()
        eventually(lambda: client.status().resting)
        eventually(lambda: not child_ids(but=others))
        assert client.status().resting
        assert client.hello().state == ServerState.LOADING
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


@pytest.mark.usefixtures("silence_allowed")
def test_a_model_does_not_rest_during_an_edit(slow: Slow) -> None:
    with serving(slow.command, rest_after=0.3) as server, Raw(server.endpoint) as client:
        client.edit("a", 1)
        eventually(lambda: slow.started)
        worker = slow.pid
        time.sleep(1)
        assert is_alive(worker)
        slow.go.set()
        assert client.final().type == "result"


@pytest.mark.parametrize("state", ["awake", "asleep"])
def test_a_server_that_a_client_started_ends_without_clients(slow: Slow, state: str) -> None:
    server = Server("tcp://127.0.0.1:*", [slow.command], rest_after=0.2 if state == "asleep" else None, end_after=1.5)
    thread = threading.Thread(target=server.run)
    thread.start()
    with Client(server.endpoint) as client:
        for _ in range(6):
            time.sleep(0.4)
            client.status()  # longer than it waits without any
        assert client.status().resting == (state == "asleep")
    thread.join(20)
    assert not thread.is_alive()
    assert not is_alive(slow.pid)


@pytest.mark.parametrize(("why", "ends"), [("no store", True), ("fire", False)])
def test_one_without_a_store_ends_once_it_has_said_so(slow: Slow, why: str, ends: bool) -> None:
    """The next client may want another store, and gets a server of its own."""
    slow.load_fails.set(why)
    server = Server("tcp://127.0.0.1:*", [slow.command], end_after=60)
    thread = threading.Thread(target=server.run)
    thread.start()
    with Client(server.endpoint) as client:
        eventually(lambda: client.status().state == ServerState.FAILED)
        time.sleep(0.5)
        assert client.status().state == ServerState.FAILED  # who looks has not been told yet
        assert ("There is no store." in failure_of(client.attributes).message) == ends
        thread.join(5)
        assert thread.is_alive() != ends
    server.stop()
    thread.join(20)


def test_one_started_by_hand_waits_for_its_store(slow: Slow) -> None:
    slow.load_fails.set("no store")
    slow.go.set()
    with serving(slow.command) as server, Client(server.endpoint) as client:
        eventually(lambda: client.status().state == ServerState.FAILED)
        assert failure_of(client.attributes).code == ErrorCode.NO_STORE
        slow.load_fails.clear()
        eventually(lambda: client.hello().state == ServerState.READY)
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_without_being_told_to_a_server_neither_rests_nor_ends(slow_server: Server, slow: Slow) -> None:
    with Client(slow_server.endpoint) as client:
        client.attributes()
        time.sleep(1.5)
        assert not client.status().resting
        assert is_alive(slow.pid)
