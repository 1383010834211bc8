"""The socket between server and worker, on systems with Unix sockets and without, as Windows is."""

import os
from pathlib import Path

import pytest
import zmq
from support.servers import PIXELS, SMALL, Slow, serving

from dfi_server.service import link
from dfi_server.wire.client import Client


@pytest.fixture(params=[True, False], ids=["Unix sockets", "none"])
def has_unix_sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("dfi_server.system.HAS_UNIX_SOCKETS", request.param)
    return bool(request.param)


def test_server_and_worker_talk(has_unix_sockets: bool, slow: Slow) -> None:
    slow.go.set()
    with serving(slow.command, rest_after=0.3) as server, Client(server.endpoint) as client:
        assert client.edit(SMALL, PIXELS).pixels == PIXELS
        while not client.status().resting:
            pass
        assert client.edit(SMALL, PIXELS).pixels == PIXELS  # by another worker, at another place


def test_who_has_no_key_is_not_heard(has_unix_sockets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with zmq.Context() as context, context.socket(zmq.PAIR) as server:
        server.linger = 0
        made = link.bind(server)
        if has_unix_sockets:
            folder = Path(made.endpoint.removeprefix("ipc://")).parent
            assert folder.stat().st_mode & 0o077 == 0
            made.remove()
            assert not folder.exists()
            return
        with context.socket(zmq.PAIR) as stranger:
            stranger.linger = 0
            link.connect(stranger, made.endpoint)
            stranger.send(b"from a stranger")
            assert not server.poll(300)
        with context.socket(zmq.PAIR) as worker:
            worker.linger = 0
            monkeypatch.setattr(os, "environ", {**os.environ, **made.environment})
            link.connect(worker, made.endpoint)
            worker.send(b"from the worker")
            assert server.poll(5000) and server.recv() == b"from the worker"
