"""Clients that vanish, dawdle or talk nonsense."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.servers import PIXELS, SMALL, Raw, Slow, eventually, failure_of, future_server

from dfi_server.errors import ErrorCode
from dfi_server.service.server import Server
from dfi_server.wire import protocol
from dfi_server.wire.client import Client
from dfi_server.wire.messages import Error, Progress, ServerState
from dfi_server.wire.protocol import MessageType


def test_a_silent_client_is_dropped_within_seconds(slow: Slow, slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as silent, Client(slow_server.endpoint) as watcher:
        silent.edit("a")
        silent.edit("b")
        start = time.monotonic()
        assert slow.cancelled.wait(4)
        assert 1.5 < time.monotonic() - start < 3.5
        eventually(lambda: watcher.status().state == ServerState.READY)
        assert slow.started == [0]
        silent.send(MessageType.HEARTBEAT, "a")
        error = silent.error()
        assert (error.code, "does not have this edit" in error.message) == (ErrorCode.UNREACHABLE, True)


def test_a_killed_client_is_dropped_within_seconds(slow: Slow, slow_server: Server) -> None:
    code = (
        "import sys; from dfi_server.wire.client import *\n"
        f"Client('{slow_server.endpoint}').edit(EditRequest(2, 2, 3, 'uint8', {{'smiling': 0.4}}), bytes(12))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        eventually(lambda: slow.started, 10)
        process.send_signal(signal.SIGKILL)  # as GIMP's Cancel does
        assert slow.cancelled.wait(3.5)


def test_a_callback_that_takes_its_time_does_not_lose_the_edit(slow: Slow, slow_server: Server) -> None:
    def dawdle(_: Progress) -> None:
        if not slow.go.is_set():
            time.sleep(protocol.CLIENT_SILENCE_SECONDS + 0.5)
            slow.go.set()

    with Client(slow_server.endpoint) as client:
        assert client.edit(SMALL, PIXELS, progress=dawdle).pixels == PIXELS


def test_an_exception_from_a_callback_cancels_the_edit(slow: Slow, slow_server: Server) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with Client(slow_server.endpoint) as client:
        with pytest.raises(KeyboardInterrupt):
            client.edit(SMALL, PIXELS, progress=interrupt)
        assert slow.cancelled.wait(1.5)
        slow.go.set()
        assert client.edit(SMALL, PIXELS).pixels == PIXELS  # the connection is still good


def test_another_version_is_told_both_versions(slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as client:
        client.socket.send(b'{"protocol": 99, "type": "hello", "id": "new", "mood": "good"}')
        reply = client.receive()
        assert (reply.type, reply.id) == (MessageType.ERROR, "new")
        assert isinstance(reply.body, Error) and reply.body.code == ErrorCode.VERSION
        assert "1" in reply.body.message and "99" in reply.body.message


def test_a_client_tells_when_the_server_speaks_another_version() -> None:
    with future_server() as endpoint, Client(endpoint) as client:
        error = failure_of(client.hello)
    assert error.code == ErrorCode.VERSION
    assert "client speaks protocol 1, the server 2" in error.message


hostile_frames = st.lists(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            b'{"protocol":1,"type":"edit","id":"e","width":9,"height":9,"channels":1,"dtype":"uint8","alphas":{}}',
            b'{"protocol":1,"type":"hello","id":"h"}',
            b'{"protocol":1,"type":"cancel","id":"c"}',
            b'{"protocol":1,"type":"heartbeat","id":"b"}',
            b'{"protocol":2}',
            b"[" * 5000,
            bytes(81),
        ]
    ),
    min_size=1,
    max_size=5,
)


def test_hostile_frames_never_disturb_another_client(slow: Slow, slow_server: Server) -> None:
    slow.go.set()
    with Client(slow_server.endpoint) as good:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(hostile_frames, min_size=1, max_size=6))
        def attack(messages: list[list[bytes]]) -> None:
            with Raw(slow_server.endpoint) as bad:
                for frames in messages:
                    bad.socket.send_multipart(frames)
                bad.send(MessageType.HELLO, "last")  # answered after all of them
                while bad.receive().id != "last":
                    pass
            assert good.edit(SMALL, PIXELS).pixels == PIXELS

        attack()
        with Raw(slow_server.endpoint) as many:
            many.socket.send_multipart([b""] * 20_000)
            assert many.error().code == ErrorCode.BAD_REQUEST
        with socket.create_connection(("127.0.0.1", int(slow_server.endpoint.rpartition(":")[2]))) as browser:
            browser.sendall(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n{}")
            assert good.edit(SMALL, PIXELS).pixels == PIXELS
        eventually(lambda: len(slow_server._jobs) == 0)
        assert slow_server._last_heard == {}


def test_a_flood_of_questions_costs_the_worker_nothing(slow: Slow, slow_server: Server) -> None:
    slow.go.set()
    with Client(slow_server.endpoint) as good, Raw(slow_server.endpoint) as flood:
        good.edit(SMALL, PIXELS)
        os.kill(slow.pid, signal.SIGSTOP)  # it reads nothing meanwhile
        for n in range(5000):
            flood.send(MessageType.HELLO, str(n))
            if n % 500 == 499:
                while flood.receive().id != str(n):
                    pass
        os.kill(slow.pid, signal.SIGCONT)
        first = slow.pid
        assert good.edit(SMALL, PIXELS).pixels == PIXELS
        assert slow.pid == first
