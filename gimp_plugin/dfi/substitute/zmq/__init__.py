"""What the plug-in needs of pyzmq, for a Python that cannot load pyzmq: one socket, held by another process.

GIMP's own Python is MinGW's in Windows, which loads no extension module that was made for the usual one; on macOS it
may be kept from loading what its maker has not signed. There the installed program's Python has the socket
(dfi_server/wire/relay.py, which describes what goes over the pipes), and this hands it what is sent and received.
"""

import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

from dfi_server import system

POLLIN, POLLOUT = 1, 2
DEALER = 5

relay: list[str] = []
"""The command of the process that holds a socket; to be set before the first connect()."""

_END_SECONDS = 2.0  # that it gets to end, when its pipe is closed

_OPTIONS = ("ipv6", "immediate", "linger", "maxmsgsize", "curve_publickey", "curve_secretkey", "curve_serverkey")


def has(capability: str) -> bool:
    """Whether an endpoint of that kind can be used."""
    return True


class Context:
    """The sockets that were made by it, to be closed with it."""

    def __init__(self) -> None:
        self._sockets: list[Socket] = []

    def socket(self, kind: int) -> "Socket":
        self._sockets.append(made := Socket())
        return made

    def destroy(self) -> None:
        for socket in self._sockets:
            socket.close()


class Socket:
    """A DEALER socket. Its options are attributes, set before connect()."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._received: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        self._news = threading.Condition()
        self._connected = self._ended = False

    def connect(self, endpoint: str) -> None:
        """Raises OSError where the other process cannot be started."""
        options: dict[str, Any] = {name: getattr(self, name) for name in _OPTIONS if hasattr(self, name)}
        for name, value in options.items():
            if isinstance(value, bytes):
                options[name] = value.decode("ascii")
        hidden = system.without_window()
        self._process = subprocess.Popen(relay, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **hidden)
        threading.Thread(target=self._listen, daemon=True).start()
        self._write(json.dumps({"endpoint": endpoint, "options": options}).encode() + b"\n")

    def poll(self, milliseconds: int, flags: int = POLLIN) -> bool:
        """Whether there is something to receive (POLLIN), or somebody to send to (POLLOUT), after so long at most."""

        def ready() -> bool:
            return self._connected if flags == POLLOUT else not self._received.empty()

        with self._news:
            self._news.wait_for(lambda: ready() or self._ended, milliseconds / 1000)
            return ready()

    def send_multipart(self, frames: Sequence[Any], copy: bool = True) -> None:
        views = [memoryview(frame).cast("B") for frame in frames]
        lengths = [len(views), *map(len, views)]
        self._write(b"".join(length.to_bytes(8, "little") for length in lengths), *views)

    def recv_multipart(self) -> list[bytes]:
        return self._received.get()

    def close(self) -> None:
        """Give up the socket; what was sent is still delivered, within `linger`."""
        if not self._process or not self._process.stdin:
            return
        with contextlib.suppress(OSError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write(self, *parts: Any) -> None:
        assert self._process and self._process.stdin
        with contextlib.suppress(OSError):  # it has ended: so poll() says that nobody is there
            for part in parts:
                self._process.stdin.write(part)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process and self._process.stdout
        with self._process.stdout as pipe:
            while len(head := pipe.read(8)) == 8:
                count = int.from_bytes(head, "little")
                frames = None
                if count > 1:  # 0 and 1 say whether somebody is there
                    lengths = [int.from_bytes(pipe.read(8), "little") for _ in range(count - 1)]
                    frames = [pipe.read(length) for length in lengths]
                with self._news:
                    if frames is None:
                        self._connected = bool(count)
                    else:
                        self._received.put(frames)
                    self._news.notify_all()
        with self._news:
            self._ended, self._connected = True, False
            self._news.notify_all()
