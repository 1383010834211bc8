"""Endpoints: which may be used, and where a user's own server is, one for each DFI_HOME, that no other user can enter.

That is a Unix socket in the runtime folder of the user (XDG Base Directory Specification), or where a system or a
sandbox has none (Windows; GIMP from Flatpak) or no folder can be the user's alone, a port of this machine with keys
that only the user can read. Standard library and pyzmq only: this is what GIMP's own Python loads.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import zmq

from dfi_server import system
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire.limits import refuse

OWN, OWN_TCP = "own", "own-tcp"
"""What stands for the endpoint of the user's own server: wherever it is best; the port with keys in any case."""

EXAMPLE = "tcp://127.0.0.1:5577"
"""An endpoint that every program of this machine can reach."""

IPC = "ipc://"
KEYS_FOLDER, CLIENT_KEYS, SERVER_KEYS = "own-keys", "client", "server"  # in DFI_HOME, made by the server

_LONGEST = 100  # bytes of a Unix socket's path: the system takes 107 or fewer
_FIRST_PORT, _PORTS = 49_152, 16_384  # those that nobody is given (RFC 6335)
_HOST = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)  # ZeroMQ gives others, such as "a;b", a meaning


class Place(NamedTuple):
    """An endpoint of ZeroMQ, and the folders of keys that client and server use there; None without keys."""

    endpoint: str
    client_keys: Path | None = None
    server_keys: Path | None = None

    @property
    def to_serve(self) -> str:
        """What `dfi serve --endpoint` takes for it."""
        return OWN_TCP if self.server_keys else self.endpoint


def find(endpoint: str, home: Path) -> Place:
    """The place that `endpoint` stands for, for the state folder `home`; any endpoint that is not the own stays so."""
    if endpoint == OWN:
        shut_in = system.sandbox() == "Flatpak"  # its runtime folder is another one
        has_sockets = zmq.has("ipc") and system.HAS_UNIX_SOCKETS and not shut_in
        endpoint = f"{IPC}{socket}" if has_sockets and (socket := _socket(home)) else OWN_TCP
    if endpoint != OWN_TCP:
        return Place(endpoint)
    port = _FIRST_PORT + int(_name(home), 16) % _PORTS
    keys = home / KEYS_FOLDER
    return Place(f"tcp://127.0.0.1:{port}", keys / CLIENT_KEYS, keys / SERVER_KEYS)


def is_local(endpoint: str) -> bool:
    """Whether the endpoint is a socket or an address of this machine that no other machine can reach."""
    if endpoint.startswith(IPC):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    if host in ("localhost", "[::1]"):
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def check_endpoint(endpoint: str, bind: bool = False, encrypted: bool = False) -> str:
    """The endpoint with "localhost" spelled out.

    Only this machine's own addresses are accepted, unless the connection is `encrypted` (and so authenticated), and
    Unix sockets in a folder that is this user's alone, which is made. bind: also accept port "*" (any free port).
    Raises DFIError(bad_request).
    """
    if endpoint.startswith(IPC):
        socket = Path(endpoint.removeprefix(IPC))
        if not socket.is_absolute():
            refuse(f"{endpoint!r} does not name a socket by its whole path: write it as {IPC}/FOLDER/NAME.")
        _make_private(socket)
        return endpoint
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    port_ok = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536
    if endpoint.startswith("tcp://") and (port_ok or (bind and port == "*")) and _HOST.fullmatch(host):
        if host == "localhost":
            return f"tcp://127.0.0.1:{port}"
        if encrypted or is_local(endpoint):
            return endpoint
    if encrypted:
        refuse(f"{endpoint!r} is not an address: write it as tcp://HOST:PORT, such as tcp://192.168.1.5:5577.")
    refuse(
        f"The endpoint {endpoint!r} is refused: photos would travel unprotected. "
        f"Use an address of this machine, such as {EXAMPLE}, or keys ('dfi keygen' makes them)."
    )


def check_private(endpoint: str) -> None:
    """Raise DFIError unless only this user can have put something at the path of a Unix socket.

    BAD_REQUEST where somebody else can have; UNREACHABLE where the folder is gone, in whose place anybody may put one.
    """
    folder = Path(endpoint.removeprefix(IPC)).parent
    try:
        there = folder.lstat()
    except OSError as error:
        raise DFIError(
            ErrorCode.UNREACHABLE, f"The server at {endpoint} cannot be reached: {folder}: {error.strerror}."
        ) from None
    if not _is_private(there):
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            f"The endpoint {endpoint} is refused: the folder {folder} is not this user's alone, and photos would "
            "travel unprotected. Name a socket in a folder that only you can enter (mode 0700).",
        )


def _make_private(socket: Path) -> None:
    """Make the folder of a Unix socket, this user's alone.

    Client and server both do, before they use it: in the place of one that is not there yet another user could put
    one, with a socket that a waiting client would connect to.
    """
    try:
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # a link or a file, which is refused below
    except OSError as error:
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            f"The endpoint {IPC}{socket} cannot be used: the folder {socket.parent} is not there and cannot be made "
            f"({error.strerror}).",
        ) from error
    check_private(f"{IPC}{socket}")


@contextlib.contextmanager
def claimed(endpoint: str) -> Iterator[None]:
    """Hold the place of a Unix socket, while a server listens there; for other endpoints nothing.

    ZeroMQ would take the place of a server that is there. Raises DFIError(BUSY) then. `endpoint`: as checked.
    """
    if not system.HAS_UNIX_SOCKETS or not endpoint.startswith(IPC):
        yield
        return
    socket = Path(endpoint.removeprefix(IPC))
    try:
        with socket.with_suffix(".lock").open("ab") as lock:
            if not system.lock(lock):
                raise DFIError(ErrorCode.BUSY, f"A server of yours runs at {endpoint} already: use that one.")
            yield
            socket.unlink(missing_ok=True)
    except OSError as error:
        raise DFIError(ErrorCode.BAD_REQUEST, f"Cannot listen at {endpoint} ({error.strerror}).") from error


def check_listener(endpoint: str, has_keys: bool) -> None:
    """Raise DFIError where what listens at an endpoint can be another user's: see check_private and check_owner.

    Keys have told already who it is.
    """
    if endpoint.startswith(IPC):
        check_private(endpoint)
    elif not has_keys:
        check_owner(endpoint)


def check_owner(endpoint: str) -> None:
    """Raise DFIError(UNREACHABLE) where another user's program listens at a port of this machine, if that is known."""
    owner = system.listener(int(endpoint.rpartition(":")[2]))
    if owner is not None and owner != system.user_id():
        raise DFIError(
            ErrorCode.UNREACHABLE,
            f"The server at {endpoint} is another user's ({owner}): it gets no photo. Use your own ('{OWN}'), or keys.",
        )


def _socket(home: Path) -> Path | None:
    """The user's own socket; None where no folder can be this user's alone, such as one that another user has taken."""
    folders = [folder / "dfi" for folder in system.runtime_folders()]
    folders += [folder / f"dfi-{system.user_id()}" for folder in system.temporary_folders()]
    for socket in (folder / _name(home) for folder in folders):
        if len(os.fsencode(socket)) <= _LONGEST and _can_be_private(socket.parent):
            return socket
    return None


def _can_be_private(folder: Path) -> bool:
    """Whether a folder is this user's alone, or can be made so in one that is there, and can be written."""
    try:
        needed = folder if _is_private(folder.lstat()) else None
    except OSError:
        needed = folder.parent
    return needed is not None and os.access(needed, os.W_OK | os.X_OK)


def _is_private(folder: os.stat_result) -> bool:
    return stat.S_ISDIR(folder.st_mode) and folder.st_uid == system.user_id() and not folder.st_mode & 0o077


def _name(home: Path) -> str:
    return hashlib.sha256(os.fsencode(home.expanduser().resolve())).hexdigest()[:16]
