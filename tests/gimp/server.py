"""The real server in a process of its own."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zmq
from gimp.gimp import REPOSITORY, free_endpoint

from dfi_server.wire.client import Client
from dfi_server.wire.messages import Edit, Fill
from dfi_server.wire.protocol import decode_request


@contextlib.contextmanager
def serving(
    home: Path, endpoint: str | None = None, options: Sequence[str] = (), keys: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real server process, ready to edit: its endpoint and the process. `keys`: to ask it with."""
    endpoint = endpoint or free_endpoint()
    process = subprocess.Popen(
        [sys.executable, "-m", "dfi_server", "serve", "--endpoint", endpoint, *options],
        cwd=REPOSITORY if not keys else None,
        env={**os.environ, "DFI_HOME": str(home)},
    )
    try:
        with Client(endpoint, timeout=60, keys=keys) as client:
            client.attributes(patience=120)
        yield endpoint, process
    finally:
        process.kill()
        process.wait()


def editing(endpoint: str) -> bool:
    """Whether the server works on an edit now."""
    with Client(endpoint) as client:
        return client.status().state == "busy"


@contextlib.contextmanager
def listening(endpoint: str) -> Iterator[tuple[str, list[Any]]]:
    """Another endpoint of the same server, and the edits and fillings that are asked for there."""
    edits: list[Any] = []
    stopping = threading.Event()
    context = zmq.Context()
    front = context.socket(zmq.ROUTER)
    port = front.bind_to_random_port("tcp://127.0.0.1")

    def relay() -> None:
        to_server: dict[bytes, zmq.Socket[bytes]] = {}
        while not stopping.is_set():
            while front.poll(5):
                client, *frames = front.recv_multipart()
                if client not in to_server:
                    to_server[client] = context.socket(zmq.DEALER)
                    to_server[client].connect(endpoint)
                to_server[client].send_multipart(frames)
                request = decode_request(list(map(memoryview, frames)))
                if isinstance(request.body, Edit | Fill):
                    edits.append(request.body)
            for client, socket in to_server.items():
                while socket.poll(0):
                    front.send_multipart([client, *socket.recv_multipart()])

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}", edits
    finally:
        stopping.set()
        thread.join()
        context.destroy(linger=0)
