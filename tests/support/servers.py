"""Servers for tests, with workers that do as they are told, and clients that are not well behaved."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dfi_server.errors import DFIError
from dfi_server.service.server import Server
from dfi_server.service.worker_process import Command
from dfi_server.wire import protocol
from dfi_server.wire.client import Client, EditRequest
from dfi_server.wire.messages import Edit, Error, ServerState
from dfi_server.wire.protocol import Message, MessageType

SMALL = EditRequest(2, 2, 3, "uint8", {"smiling": 0.4})
PIXELS = bytes(12)


class File:
    """A threading.Event of two processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def set(self, content: str = "") -> None:
        self.path.write_text(content)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def is_set(self) -> bool:
        return self.path.exists()

    def wait(self, seconds: float) -> bool:
        with contextlib.suppress(AssertionError):
            eventually(self.is_set, seconds)
        return self.is_set()


class Slow:
    """The other end of slow_worker.py: workers whose edits run until `go`, fail, or are cancelled."""

    def __init__(self, folder: Path) -> None:
        arguments = [sys.executable, str(Path(__file__).with_name("slow_worker.py")), str(folder)]
        self.command = Command(arguments, {})
        self.go, self.cancelled, self.hold = (File(folder / name) for name in ("go", "cancelled", "hold"))
        self.fails, self.load_fails = File(folder / "fails"), File(folder / "load fails")
        self._started, self._pids = folder / "started", folder / "pids"

    @property
    def pid(self) -> int:
        """The worker that was started last."""
        return int(self._pids.read_text().split()[-1])

    @property
    def started(self) -> list[int]:
        """The first pixel of each photo, in the order of work."""
        return [int(line) for line in self._started.read_text().split()] if self._started.exists() else []


@contextlib.contextmanager
def serving(*commands: Command, **options: Any) -> Iterator[Server]:
    """A server in a thread, at a free port, with these workers."""
    server = Server("tcp://127.0.0.1:*", commands, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


class Raw:
    """A client that does only what it is told: no heartbeats, any frames. `name`: its identity for ZeroMQ."""

    def __init__(self, endpoint: str, name: str = "") -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        if name:
            self.socket.setsockopt_string(zmq.IDENTITY, name)
        self.socket.connect(endpoint)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, kind: MessageType, id: str, pixels: bytes | None = None) -> None:
        body = None if pixels is None else Edit(2, 2, 3, "uint8", {"smiling": 0.4}, pixels=pixels)
        self.socket.send_multipart(protocol.encode(Message(kind, id, body)))

    def edit(self, id: str, first_pixel: int = 0) -> None:
        self.send(MessageType.EDIT, id, bytes([first_pixel]) + bytes(11))

    def receive(self, seconds: float = 20.0) -> Message:
        assert self.socket.poll(round(seconds * 1000)), "no reply"
        return protocol.decode_reply(self.socket.recv_multipart())

    def final(self) -> Message:
        while (message := self.receive()).type in (MessageType.ACCEPTED, MessageType.PROGRESS):
            pass
        return message

    def error(self) -> Error:
        body = self.final().body
        assert isinstance(body, Error), body
        return body


def eventually(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def child_ids(but: Collection[int] = ()) -> set[int]:
    """The processes that this one has started, `but` for some, of other tests."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found.update(map(int, (task / "children").read_text().split()))
    return found - {*but}


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def failure_of(call: Callable[[], object]) -> DFIError:
    with pytest.raises(DFIError) as caught:
        call()
    return caught.value


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def client_state(endpoint: str) -> ServerState | None:
    with Client(endpoint, timeout=0.5) as client, contextlib.suppress(DFIError):
        return client.status().state
    return None


@contextlib.contextmanager
def future_server() -> Iterator[str]:
    """Answers one request, in protocol 2."""
    socket: zmq.Socket[bytes]
    with zmq.Context.instance().socket(zmq.ROUTER) as socket:
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            client, _ = socket.recv_multipart()
            socket.send_multipart([client, b'{"protocol": 2, "type": "hello", "id": "?"}'])

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"tcp://127.0.0.1:{port}"
        thread.join()
