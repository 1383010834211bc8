"""Hostile messages for a server, over its real socket.

    python benchmarks/reliability/fuzz.py [--messages 100000]

Half of them are made by Hypothesis: valid messages with fields of wrong types, wrong lengths, frames too few and too
many, deep nesting, random bytes. The other half by atheris, guided by what of the decoder's code they reach; where
atheris is not installed, Hypothesis makes them all. Now and then come giant headers and frames, and connections that
speak ZMTP wrongly or break off in the middle. In between a good client is answered, and its edit is what it was at
first. The exit code is 0 only if that held, every hostile message that can have an answer got one, the server and its
worker are the processes that they were, and the server's memory has not grown by more than 10 MB after the first
tenth.
"""

import argparse
import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from server_process import ServerProcess, memory, photos, request, serving

from dfi_server.wire.client import Client
from dfi_server.wire.protocol import MAX_FRAME_BYTES, MAX_HEADER_BYTES, decode_reply

BATCH = 25
EDIT = {
    "protocol": 1,
    "type": "edit",
    "id": "e",
    "width": 2,
    "height": 2,
    "channels": 3,
    "dtype": "uint8",
    "alphas": {"smiling": 0.4},
    "face": "largest",
    "box": [0, 0, 2, 2],
    "iterations": 1,
    "preview": False,
}
TYPES = (
    "hello",
    "status",
    "attributes",
    "faces",
    "edit",
    "fill",
    "cancel",
    "heartbeat",
    "result",
    "accepted",
    "error",
    "../x",
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=80)
    | st.sampled_from([0, 1, 2, -1, 2**31, 2**63, "edit", "uint8", "/etc/passwd", "largest", 1e308]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner, max_size=5),
    max_leaves=10,
)
headers = st.builds(
    lambda changes, kind, dropped: {k: v for k, v in {**EDIT, "type": kind, **changes}.items() if k not in dropped},
    st.dictionaries(st.sampled_from(list(EDIT)) | st.text(max_size=9), values, max_size=3),
    st.sampled_from(TYPES),
    st.sets(st.sampled_from(list(EDIT)), max_size=12),
).map(lambda header: json.dumps(header).encode("utf-8", "surrogatepass"))
first_frames = (
    headers
    | st.builds(lambda header, at: header[: at % (len(header) + 1)], headers, st.integers(0, 400))
    | st.builds(
        lambda header, at, byte: header[: at % len(header)] + byte + header[at % len(header) + 1 :],
        headers.filter(bool),
        st.integers(0, 400),
        st.binary(min_size=1, max_size=1),
    )
    | st.binary(max_size=60)
    | st.sampled_from([b"[" * 9000, b'{"a":' * 9000, b"", b"{}", b"\xff\xfe", b'{"protocol":1' + b"0" * 5000 + b"}"])
)
messages = st.builds(
    lambda first, rest: [first, *rest],
    first_frames,
    st.lists(st.sampled_from([bytes(12), bytes(11), bytes(24), b""]) | st.binary(max_size=40), max_size=3),
) | st.sampled_from(  # good ones, out of order
    [
        [json.dumps(EDIT).encode(), bytes(12)],
        *([json.dumps({"protocol": 1, "type": kind, "id": "e"}).encode()] for kind in ("cancel", "heartbeat")),
    ]
)


class Attacker:
    """Sends hostile messages and reads what comes back."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.sent = self.connections = 0
        self.errors: dict[str, int] = {}
        self.connect()

    def connect(self) -> None:
        self.connections += 1
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(self.endpoint)

    def attack(self, batch: Sequence[Sequence[bytes]]) -> None:
        """Send the messages; return when the server has dealt with them all."""
        for frames in batch:
            self._socket.send_multipart(frames)
        self.sent += len(batch)
        last = f"last {self.sent}"
        self._socket.send(json.dumps({"protocol": 1, "type": "hello", "id": last}).encode())
        while True:
            assert self._socket.poll(60_000), f"no answer; the last messages were {batch!r}"
            reply = decode_reply(self._socket.recv_multipart())
            if reply.id == last:
                break
            code = str(getattr(reply.body, "code", reply.type))
            self.errors[code] = self.errors.get(code, 0) + 1
        if self.sent % (40 * BATCH) < BATCH:  # its edits are dropped in time, and the next connection is another client
            self._socket.close()
            self.connect()


def break_in(endpoint: str, rng: random.Random) -> None:
    """A connection that is no ZMTP, breaks off, or announces more than it may."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    ready = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
    giant = b"\x02" + struct.pack(">Q", rng.choice([MAX_FRAME_BYTES + 1, 2**63 - 1, 2**64 - 1, MAX_FRAME_BYTES]))
    stream = rng.choice(
        [
            b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n{}",
            rng.randbytes(rng.randrange(200)),
            greeting[: rng.randrange(len(greeting))],
            greeting + rng.randbytes(40),
            greeting + ready + giant + bytes(1000),
            greeting + ready + b"\x01\x05hello" * 500,  # frames without an end
        ]
    )
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(stream)


def by_hypothesis(attacker: Attacker, count: int, between: Callable[[], object]) -> None:
    @settings(
        max_examples=max(1, count // BATCH),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(messages, min_size=BATCH, max_size=BATCH))
    def attack(batch: list[list[bytes]]) -> None:
        attacker.attack(batch)
        between()

    while count > 0:
        before = attacker.sent
        attack()
        count -= attacker.sent - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    options = parser.parse_args()
    with serving() as server:
        print(json.dumps(fuzz(server, options.messages), indent=1))


def fuzz(server: ServerProcess, count: int) -> dict[str, object]:
    rng = random.Random(0)
    picture = photos(1)[0]
    worker, sizes, start = server.worker, [], time.monotonic()
    with Client(server.endpoint, timeout=30) as good:
        right = bytes(good.edit(request(), picture.data).pixels)
        attacker = Attacker(server.endpoint)
        checks = giants = 0

        def check() -> None:
            nonlocal checks
            checks += 1
            assert good.hello().store == "starter"
            assert bytes(good.edit(request(), picture.data).pixels) == right, "a wrong image"
            sizes.append(memory(server.process.pid))

        def between() -> None:
            nonlocal giants
            break_in(server.endpoint, rng)
            giants += 1
            if attacker.sent % (count // 40) < BATCH:
                attacker.attack([[b" " * (MAX_HEADER_BYTES + 1)], [b"x"] * 5000, [b"{}", bytes(50_000_000)]])
                check()

        half = count // 2
        by_hypothesis(attacker, half, between)
        tool = "atheris"
        command = [sys.executable, str(Path(__file__).with_name("fuzz_guided.py")), server.endpoint, str(count - half)]
        try:
            import atheris  # noqa: F401
        except ImportError:
            tool = "Hypothesis, as atheris is not installed"
            by_hypothesis(attacker, count - half, between)
        else:
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None:
                    check()
                    time.sleep(1)
            assert process.returncode == 0, "a message was not answered"
        check()
        info = good.status()
    assert server.process.poll() is None and server.worker == worker, "a process was lost"
    early = max(sizes[: max(1, len(sizes) // 10)])
    report = {
        "messages": attacker.sent + (count - half if tool == "atheris" else 0),
        "second half by": tool,
        "broken connections": giants,
        "answers, by code": dict(sorted(attacker.errors.items())),
        "the good client's edits in between": checks,
        "server's memory, MB: first tenth, end": [round(early, 1), round(sizes[-1], 1)],
        "queued at the end": info.queued,
        "seconds": round(time.monotonic() - start),
    }
    assert sizes[-1] < early + 10, f"the memory has grown: {report}"
    return report


if __name__ == "__main__":
    main()
