"""A ZeroMQ socket at the other end of two pipes, for a process whose Python cannot load pyzmq: some GIMPs' own.

    python -P -m dfi_server.wire.relay

The standard input begins with a line of JSON: "endpoint", and "options" of the DEALER socket as pyzmq names them. Then
come messages to send, each a number of frames, their lengths and their bytes; numbers are 8 bytes, little-endian. The
standard output has, as things happen, 0 (nobody is connected), 1 (somebody is), or one more than a number of frames,
their lengths and their bytes: a message that came. It ends with its standard input.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Sequence
from typing import IO

import zmq

_OPTIONS = frozenset(
    ("ipv6", "immediate", "linger", "maxmsgsize", "curve_publickey", "curve_secretkey", "curve_serverkey")
)
_LOOK_MILLISECONDS = 30  # how soon it is noticed that somebody has connected, or is gone
_INSIDE = "inproc://input"


def main() -> None:
    source, target = sys.stdin.buffer, sys.stdout.buffer
    asked = json.loads(source.readline())
    with zmq.Context() as context, context.socket(zmq.DEALER) as outside, context.socket(zmq.PAIR) as inside:
        for name in _OPTIONS & asked["options"].keys():
            value = asked["options"][name]
            setattr(outside, name, value.encode("ascii") if isinstance(value, str) else value)
        inside.bind(_INSIDE)
        threading.Thread(target=_read, args=(source, context), daemon=True).start()
        outside.connect(asked["endpoint"])
        with contextlib.suppress(OSError):  # the other process is gone
            _relay(outside, inside, target)


def _relay(outside: "zmq.Socket[bytes]", inside: "zmq.Socket[bytes]", target: IO[bytes]) -> None:
    """Until the standard input ends."""
    poller = zmq.Poller()
    poller.register(outside, zmq.POLLIN)
    poller.register(inside, zmq.POLLIN)
    connected = False
    while True:
        ready = dict(poller.poll(_LOOK_MILLISECONDS))
        if connected != (connected := bool(outside.poll(0, zmq.POLLOUT))):
            _write(target, [int(connected)])
        if outside in ready:
            came = [frame.buffer for frame in outside.recv_multipart(copy=False)]
            _write(target, [len(came) + 1, *map(len, came)], *came)
        if inside in ready:
            frames = inside.recv_multipart(copy=False)
            if len(frames) == 1 and not frames[0].buffer:
                return
            with contextlib.suppress(zmq.Again):  # nobody is there: the client does not get an answer, and says so
                outside.send_multipart(frames, zmq.NOBLOCK, copy=False)


def _write(target: IO[bytes], numbers: Sequence[int], *frames: memoryview) -> None:
    target.write(b"".join(number.to_bytes(8, "little") for number in numbers))
    for frame in frames:
        target.write(frame)
    target.flush()


def _read(source: IO[bytes], context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    """In a thread, as pipes cannot be polled everywhere: hand on what comes, and an empty frame at the end."""
    with context.socket(zmq.PAIR) as inside:
        inside.connect(_INSIDE)
        while len(head := source.read(8)) == 8:
            lengths = [int.from_bytes(source.read(8), "little") for _ in range(int.from_bytes(head, "little"))]
            inside.send_multipart([source.read(length) for length in lengths], copy=False)
        inside.send(b"")


if __name__ == "__main__":
    main()
