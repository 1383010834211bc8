"""Edits that wait: whose turn it is, how many may, what is cancelled, and that no photo is kept."""

import contextlib
import gc

import pytest
from support.servers import PIXELS, SMALL, Raw, Slow, eventually, failure_of

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.service import jobs
from dfi_server.service.server import Server
from dfi_server.wire.client import Client
from dfi_server.wire.messages import Accepted, Edit
from dfi_server.wire.protocol import Message, MessageType


@pytest.mark.usefixtures("silence_allowed")
def test_clients_are_served_in_turn(slow: Slow, slow_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        batch, other, third = (stack.enter_context(Raw(slow_server.endpoint)) for _ in range(3))
        for client, pixels in ((batch, (10, 11, 12, 13)), (other, (20, 21)), (third, (30,))):
            for pixel in pixels:
                client.edit(str(pixel), pixel)
                assert client.receive().type in (MessageType.ACCEPTED, MessageType.PROGRESS)
            eventually(lambda: slow.started == [10])
        slow.go.set()
        eventually(lambda: len(slow.started) == 7)
        assert slow.started == [10, 11, 20, 30, 12, 21, 13]


@pytest.mark.usefixtures("silence_allowed")
def test_a_full_queue_says_busy(slow_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_EDITS", jobs.MAX_CLIENT_EDITS + 1)
    with Raw(slow_server.endpoint) as greedy, Raw(slow_server.endpoint) as other:
        for i in range(jobs.MAX_CLIENT_EDITS + 1):
            greedy.edit(str(i))
        error = greedy.error()
        assert (error.code, f"{jobs.MAX_CLIENT_EDITS} unfinished" in error.message) == (ErrorCode.BUSY, True)
        other.edit("a")
        assert other.receive().body == Accepted(jobs.MAX_CLIENT_EDITS)
        other.edit("b")
        assert other.error().code == ErrorCode.BUSY


@pytest.mark.usefixtures("silence_allowed")
def test_the_pixels_that_wait_are_bounded(slow_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_CLIENT_BYTES", 15)
    monkeypatch.setattr(jobs, "MAX_BYTES", 30)
    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(Raw(slow_server.endpoint)) for _ in range(3))
        one.edit("a")
        one.edit("b")
        assert one.error().code == ErrorCode.BUSY
        two.edit("a")
        assert two.receive().body == Accepted(1)
        three.edit("a")
        assert three.error().code == ErrorCode.BUSY


@pytest.mark.usefixtures("silence_allowed")
def test_an_id_in_use_is_refused_and_the_first_edit_goes_on(slow: Slow, slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as client:
        client.edit("same")
        client.edit("same")
        assert client.error().code == ErrorCode.BAD_REQUEST
        slow.go.set()
        assert client.final().type == MessageType.RESULT


@pytest.mark.usefixtures("silence_allowed")
def test_cancel_takes_waiting_and_running_edits(slow: Slow, slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as client:
        client.edit("running", 1)
        eventually(lambda: slow.started == [1])
        client.edit("waiting", 2)
        client.edit("next", 3)
        client.send(MessageType.CANCEL, "waiting")
        assert client.final() == Message(MessageType.CANCELLED, "waiting")
        client.send(MessageType.CANCEL, "never sent")  # no reply
        client.send(MessageType.CANCEL, "running")
        assert client.final() == Message(MessageType.CANCELLED, "running")
        assert slow.cancelled.wait(5)
        slow.go.set()
        final = client.final()
        assert (final.type, final.id) == (MessageType.RESULT, "next")
        assert slow.started == [1, 3]


def test_a_failing_edit_is_an_error_and_the_next_one_works(slow: Slow, slow_server: Server) -> None:
    slow.go.set()
    with Client(slow_server.endpoint) as client:
        for failure, code in (
            ("odd", ErrorCode.INTERNAL),
            ("memory", ErrorCode.OUT_OF_MEMORY),
            ("cuda", ErrorCode.OUT_OF_MEMORY),
            ("exit", ErrorCode.INTERNAL),
            ("no face", ErrorCode.NO_FACE),
        ):
            slow.fails.set(failure)
            assert failure_of(lambda: client.edit(SMALL, PIXELS)).code == code
        slow.fails.clear()
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_no_photo_is_kept_after_its_edit(slow: Slow, slow_server: Server) -> None:
    def kept() -> list[object]:
        return [thing for thing in gc.get_objects() if type(thing) in (jobs.Job, Edit)]

    logged = kept()  # pytest keeps the tracebacks that other tests have logged
    elsewhere = {id(thing) for thing in logged}

    def none_kept() -> bool:
        return all(id(thing) in elsewhere for thing in kept())

    with Client(slow_server.endpoint) as client:
        with contextlib.suppress(DFIError):
            client.edit(SMALL, PIXELS, cancelled=lambda: bool(slow.started))
        eventually(none_kept)
        slow.go.set()
        client.edit(SMALL, PIXELS)
        eventually(none_kept)
        slow.fails.set("no face")
        with contextlib.suppress(DFIError):
            client.edit(SMALL, PIXELS)
        eventually(none_kept)
