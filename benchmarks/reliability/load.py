"""A server under load: many clients, every result compared with what it must be.

    python benchmarks/reliability/load.py [--clients 32] [--edits 1000] [--greedy 4]

The clients send photos of 64 x 64 pixels, one iteration each; a greedy one has 8 edits under way, the others one. The
exit code is 0 only if every edit was answered once, by its own result. Also said: how evenly the clients were served
while all of them had work (Jain's index: 1 if equally), and how long an edit took against the ideal, which is a
server without any overhead that serves the clients in turn.
"""

import argparse
import collections
import json
import time
from dataclasses import dataclass, field

import numpy as np
import zmq
from server_process import percentile, photos, request, serving

from dfi_server.wire.client import Client
from dfi_server.wire.messages import Edit, EditResult, Error
from dfi_server.wire.protocol import HEARTBEAT_SECONDS, Message, MessageType, decode_reply, encode


@dataclass
class LoadClient:
    """One connection; all of them live in one thread."""

    socket: "zmq.Socket[bytes]"
    number: int
    at_once: int
    sent: dict[str, float] = field(default_factory=dict)
    """id -> when it was sent, of the edits under way."""
    seconds: list[float] = field(default_factory=list)
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    waiting: collections.deque[int] = field(default_factory=collections.deque)
    """The numbers of the edits that are not sent yet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--greedy", type=int, default=4)
    options = parser.parse_args()
    pictures = photos(8)
    with serving() as server:
        with Client(server.endpoint) as client:
            expected = [client.edit(request(), picture.data) for picture in pictures]
        alone = one_by_one(server.endpoint, pictures)
        report = run(server.endpoint, options, pictures, expected)
        alone += one_by_one(server.endpoint, pictures)  # what else the machine does may have changed
    service = float(np.mean(alone))
    report["alone, s an edit"] = round(service, 4)
    report["ideal for one of the others, s"] = round(service * options.clients, 3)
    report["total against the ideal"] = round(report["total, s"] / (service * options.edits), 3)
    print(json.dumps(report, indent=1))
    raise SystemExit(report["lost"] + report["answered twice"] + report["wrong"] > 0)


def one_by_one(endpoint: str, pictures: list[np.ndarray]) -> list[float]:
    """Seconds of each edit with nobody else there."""
    seconds = []
    with Client(endpoint) as client:
        for picture in pictures * 3:
            start = time.monotonic()
            client.edit(request(), picture.data)
            seconds.append(time.monotonic() - start)
    return seconds


def run(endpoint: str, options: argparse.Namespace, pictures: list[np.ndarray], expected: list[EditResult]) -> dict:
    poller, clients = zmq.Poller(), []
    for number in range(options.clients):
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(endpoint)
        poller.register(socket, zmq.POLLIN)
        clients.append(LoadClient(socket, number, 8 if number < options.greedy else 1))
    for n in range(options.edits):
        clients[n % len(clients)].waiting.append(n)
    by_socket = {client.socket: client for client in clients}
    wrong = busy = 0
    at_first_end: list[int] = []
    start = beaten = time.monotonic()

    def send(client: LoadClient) -> None:
        n = client.waiting.popleft()
        client.sent[str(n)] = time.monotonic()
        edit = Edit(**vars(request()), pixels=pictures[n % len(pictures)].data)
        client.socket.send_multipart(encode(Message(MessageType.EDIT, str(n), edit)))

    def receive(client: LoadClient) -> None:
        nonlocal wrong, busy
        reply = decode_reply(client.socket.recv_multipart())
        id, body = reply.id or "", reply.body
        if isinstance(body, Error) and id in client.sent:
            busy += 1
            del client.sent[id]
            client.waiting.append(int(id))
        elif isinstance(body, EditResult):
            client.answers[id] += 1
            if id in client.sent:
                client.seconds.append(time.monotonic() - client.sent.pop(id))
                right = expected[int(id) % len(pictures)]
                wrong += (bytes(body.pixels), bytes(body.mask)) != (bytes(right.pixels), bytes(right.mask))
            else:
                wrong += client.answers[id] == 1  # another client's

    while any(c.sent or c.waiting for c in clients) and time.monotonic() < start + 5 * options.edits:
        for client in clients:
            while len(client.sent) < client.at_once and client.waiting:
                send(client)
        now = time.monotonic()
        if now - beaten > HEARTBEAT_SECONDS:
            beaten = now
            for client in clients:
                if client.sent:
                    client.socket.send_multipart(encode(Message(MessageType.HEARTBEAT, next(iter(client.sent)))))
        for socket, _ in poller.poll(50):
            receive(by_socket[socket])
        if not at_first_end and any(not c.sent and not c.waiting for c in clients):
            at_first_end = [len(c.seconds) for c in clients]
    total = time.monotonic() - start
    while ready := poller.poll(500):  # what comes too much
        for socket, _ in ready:
            receive(by_socket[socket])
    for client in clients:
        client.socket.close()
    done = sum(len(c.seconds) for c in clients)
    modest = sorted(s for c in clients if c.at_once == 1 for s in c.seconds)
    return {
        "clients": len(clients),
        "edits": done,
        "lost": options.edits - done,
        "answered twice": sum(n - 1 for c in clients for n in c.answers.values()),
        "wrong": wrong,
        "refused as busy, and sent again": busy,
        "Jain's index": round(sum(at_first_end) ** 2 / (len(clients) * sum(n * n for n in at_first_end)), 4),
        "served when the first was done": [min(at_first_end), max(at_first_end)],
        "total, s": round(total, 1),
        "p50 of the others, s": round(percentile(modest, 50), 3),
        "p99 of the others, s": round(percentile(modest, 99), 3),
    }


if __name__ == "__main__":
    main()
