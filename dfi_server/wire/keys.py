"""CURVE keys (RFC 26 of ZeroMQ): who may use a server that other machines can reach, and that it is the right one.

One folder for each machine, to be carried there: the server's holds its own pair and the public keys of its clients, a
client's holds its own pair and the server's public key. The files are pyzmq's certificates, which are text.
"""

import os
import shutil
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from dfi_server.errors import DFIError, ErrorCode, unwritable
from dfi_server.wire.client import OWN_KEYS, SERVER_KEY, load_keys
from dfi_server.wire.limits import is_name
from dfi_server.wire.place import SERVER_KEYS

CLIENTS = "clients"
_DOMAIN = "dfi"


def generate(folder: Path, clients: list[str]) -> list[Path]:
    """Make the server's folder, unless it is there, and one for each client; the folders made.

    Raises DFIError(BAD_REQUEST) for a client that is there already or whose name cannot be a folder's, NO_SPACE where
    nothing can be written.
    """
    for name in clients:
        if not is_name(name) or name == SERVER_KEYS or name != Path(name).name or name.startswith("."):
            raise DFIError(ErrorCode.BAD_REQUEST, f"'{name}' is no name for a client's folder: use letters and digits.")
        if (folder / name).exists():
            raise DFIError(
                ErrorCode.BAD_REQUEST, f"{folder / name} is there already: choose another name, or delete it first."
            )
    before = os.umask(0o077)  # secret keys are for their owner's eyes. In Windows it does nothing: see SECURITY.md
    try:
        made = [] if (folder / SERVER_KEYS).exists() else [_pair(folder / SERVER_KEYS)]
        (folder / SERVER_KEYS / CLIENTS).mkdir(exist_ok=True)
        public = (folder / SERVER_KEYS / f"{OWN_KEYS}.key").read_text()
        for name in clients:
            made.append(_pair(folder / name))
            (folder / name / SERVER_KEY).write_text(public)
            key = (folder / name / f"{OWN_KEYS}.key").read_text()
            (folder / SERVER_KEYS / CLIENTS / f"{name}.key").write_text(key)
        return made
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        os.umask(before)


def ensure(server: Path, client: Path) -> None:
    """Make the folders of keys of a server and of one client, beside each other, unless they are there.

    Raises DFIError as `generate` does.
    """
    if not (client / SERVER_KEY).exists():
        shutil.rmtree(client, ignore_errors=True)  # what an interrupted run left
        generate(server.parent, [client.name])


def _pair(folder: Path) -> Path:
    folder.mkdir(parents=True)
    zmq.auth.create_certificates(folder, OWN_KEYS)
    return folder


def authenticate(socket: "zmq.Socket[bytes]", folder: Path) -> ThreadAuthenticator:
    """Let only clients with a key in `folder`/clients use the socket, which is not bound yet; stop() ends it.

    Raises DFIError(BAD_REQUEST) where the folder lacks a key.
    """
    public, secret = load_keys(folder / f"{OWN_KEYS}.key_secret")
    allowed = {load_keys(path)[0] for path in sorted((folder / CLIENTS).glob("*.key"))}
    if not secret or not allowed:
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            f"{folder} does not hold a server's secret key and the key of a client: make them with 'dfi keygen'.",
        )
    authenticator = ThreadAuthenticator(socket.context)
    authenticator.start()
    authenticator.certs[_DOMAIN] = dict.fromkeys(allowed, True)
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = public, secret
    socket.zap_domain = _DOMAIN.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # should the authenticator fail, nobody gets in
    return authenticator
