"""The socket between the server and a worker, which no other user of the machine can enter."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from dfi_server import system

_KEY = "DFI_WORKER_KEY"
_LONGEST = 60  # bytes of a folder's path that leave room for a Unix socket's name


@dataclass(frozen=True)
class Link:
    """Where the worker connects; environment: what its process needs for that."""

    endpoint: str
    environment: dict[str, str] = field(default_factory=dict)
    _folder: Path | None = None

    def remove(self) -> None:
        """Remove what is on disk: once the worker has connected, it is not needed any more."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def bind(socket: "zmq.Socket[bytes]") -> Link:
    """Bind the server's end: a Unix socket in a folder of its own, or where that cannot be, a port with a key.

    Raises OSError, zmq.ZMQError.
    """
    place = system.temporary_folder(_LONGEST) if system.HAS_UNIX_SOCKETS else None
    if place is None:
        public, secret = zmq.curve_keypair()  # only who knows the public one can connect
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.bind("tcp://127.0.0.1:*")
        return Link(socket.get_string(zmq.LAST_ENDPOINT), {_KEY: public.decode()})
    with _folder(place) as folder:
        socket.bind(endpoint := f"ipc://{folder}/worker")
        return Link(endpoint, _folder=folder)


@contextlib.contextmanager
def _folder(place: Path) -> Iterator[Path]:
    """A new folder for this user alone, which stays unless something fails."""
    folder = tempfile.mkdtemp(prefix="dfi-", dir=place)
    try:
        yield Path(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def connect(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Connect the worker's end, in the process that has the link's environment."""
    if key := os.environ.get(_KEY):
        socket.curve_serverkey = key.encode()
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.connect(endpoint)
