"""Nothing that a client sends is taken for a path: the kernel says that what it names is never opened."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify, flags
from support.servers import Raw, free_endpoint

from dfi_server.errors import ErrorCode
from dfi_server.wire.client import Client
from dfi_server.wire.messages import Error
from dfi_server.wire.protocol import PROTOCOL_VERSION, Message

PHOTO: dict[str, object] = {"width": 8, "height": 8, "channels": 3, "dtype": "uint8", "box": [0, 0, 8, 8]}
EDIT = PHOTO | {"alphas": {"smiling": 0.4}, "iterations": 1, "face": "largest", "preview": False}
REQUESTS: dict[str, dict[str, object]] = {
    **{kind: {} for kind in ("hello", "status", "attributes", "heartbeat", "cancel")},
    "faces": PHOTO,
    "edit": EDIT,
    "fill": PHOTO | {"iterations": 1},
}
OTHER_FIELDS = ("store", "path", "file", "url", "device", "endpoint", "keys", "output")
ENDLESS = ("/dev/zero", "/proc/self/mem")  # nothing watches these, but who opens them does not answer as usual


@pytest.fixture
def trap() -> Iterator[Path]:
    """A folder with the file "canary" and the FIFO "pipe", whose path is no longer than an attribute's name may be."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        (Path(name) / "canary").write_text("smiling")
        os.mkfifo(Path(name) / "pipe")
        yield Path(name)


@pytest.fixture
def endpoint(tiny_home: Path, trap: Path) -> Iterator[str]:
    """A real server and its worker, at work in the trap: a bare name leads there as well."""
    endpoint = free_endpoint()
    command = [sys.executable, "-P", "-m", "dfi_server", "serve", "--endpoint", endpoint]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=trap, env=environment) as process:
        try:
            with Client(endpoint, timeout=60) as client:
                assert "smiling" in client.attributes()
            yield endpoint
        finally:
            process.terminate()


def ways_to(file: Path) -> list[str]:
    return [
        str(file),
        file.name,
        f"../{file.parent.name}/{file.name}",
        f"{'../' * 8}{str(file)[1:]}",
        f"/proc/self/cwd/{file.name}",
        f"file://{file}",
        f"file:{file.name}",
        f"ipc://{file}",
    ]


def requests_with(path: str) -> Iterator[dict[str, object]]:
    """Requests that are good but for one value, or one name, which is the path."""
    for kind, fields in REQUESTS.items():
        good = {"protocol": PROTOCOL_VERSION, "type": kind, "id": "good"} | fields
        for name in good:
            yield from (good | {name: value} for value in (path, [path], {path: 0.4}))
        yield from (good | {name: path} for name in (path, *OTHER_FIELDS))


def ask(client: Raw, request: dict[str, object], path: str) -> Message:
    """The last answer to it; where it takes a photo, that begins with the path."""
    photo = [path.encode().ljust(192, b"\0")] if request["type"] in ("faces", "edit", "fill") else []
    mask = [bytes(64)] if request["type"] == "fill" else []
    client.socket.send_multipart([json.dumps(request).encode(), *photo, *mask])
    return client.final()


def test_no_path_from_the_wire_is_opened(endpoint: str, trap: Path) -> None:
    canary, pipe = trap / "canary", trap / "pipe"
    reached_the_editor = 0
    with INotify() as opened:
        for path in (trap, canary, pipe):  # the folder's own watch is for what lies in it
            opened.add_watch(path, flags.OPEN | flags.ACCESS | flags.MODIFY | flags.CREATE | flags.DELETE)
        for path in (*ways_to(canary), *ways_to(pipe), *ENDLESS):
            with Raw(endpoint, name=path) as client:
                for request in requests_with(path):
                    if request == {"protocol": PROTOCOL_VERSION, "type": "cancel", "id": path}:
                        continue  # of no edit: there is no answer
                    body = ask(client, request, path).body
                    assert not isinstance(body, Error) or body.code != ErrorCode.INTERNAL, (request, body)
                    if request.get("alphas") == {path: 0.4}:
                        assert isinstance(body, Error) and body.code == ErrorCode.UNKNOWN_ATTRIBUTE
                        reached_the_editor += 1
            assert opened.read(timeout=0) == [], path
        assert reached_the_editor == 2 * len(ways_to(canary)) + len(ENDLESS)
        with pytest.raises(OSError) as nobody:  # who waits for a FIFO's other end has not opened it yet
            os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        assert nobody.value.errno == errno.ENXIO
        subprocess.run(["cat", f"/proc/self/cwd/{canary.name}"], cwd=trap, check=True)
        assert opened.read(timeout=0), "the watch does not see what another process opens"
