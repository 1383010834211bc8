"""The way to a server: ask, follow an edit, cancel it, time out; and start a server that is not there yet.

Blocking and thin. Standard library and pyzmq only: this is what GIMP's own Python loads.
"""

import errno
import os
import queue
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import zmq
from zmq.auth.certs import load_certificate

from dfi_server import system
from dfi_server.errors import DFIError, ErrorCode, unwritable
from dfi_server.wire.limits import Buffer
from dfi_server.wire.messages import (
    Attributes,
    Edit,
    EditRequest,
    EditResult,
    Error,
    FacesFound,
    Fill,
    FillRequest,
    FindFaces,
    PhotoRequest,
    Progress,
    ServerInfo,
    Work,
)
from dfi_server.wire.place import IPC, check_endpoint, check_listener, find, is_local
from dfi_server.wire.protocol import (
    HEARTBEAT_SECONDS,
    MAX_FRAME_BYTES,
    UNKNOWN_TO_SERVER,
    Body,
    Message,
    MessageType,
    decode_reply,
    encode,
    kind_of,
)

POLL_SECONDS = 0.05  # how often callbacks and deadlines are looked at
SLOWEST_BYTES_PER_SECOND = 50e6  # the time-out grows with the photo: even a busy loopback carries this
CONNECT_SECONDS = 0.3  # to find a server of this machine; one that listens may take longer to answer
LOG_BYTES = 1_000_000  # a longer log is begun anew at the next start

ENDS_ALONE = ("--end-after", "60")
"""What belongs to the command of a server that is started for a client: it ends after so many minutes without one."""

KEYS_VARIABLE = "DFI_KEYS"
OWN_KEYS, SERVER_KEY = "own", "server.key"  # in a folder of keys: own.key_secret, own.key and the server's

T = TypeVar("T")

__all__ = [
    "Client",
    "EditRequest",
    "EditResult",
    "FillRequest",
    "PhotoRequest",
    "Progress",
    "ServerInfo",
    "find",
    "start_server",
]


class Client:
    """A connection to one server; a context manager. Not for several threads at once: make one for each.

    endpoint: see place.find for the user's own server. A port of this machine where another user's program listens gets
    no photo, unless keys have told who it is.
    timeout: seconds without any sign of the server after which DFIError(unreachable) is raised.
    keys: the folder that `dfi keygen` made for this client, for a server that asks for keys. For a server on another
    machine it is the one that the environment variable DFI_KEYS names, if there is one.
    Every method raises DFIError: unreachable, version, or the server's own code and sentence.
    """

    def __init__(self, endpoint: str, timeout: float = 5.0, keys: Path | None = None) -> None:
        if keys is None and not is_local(endpoint) and os.environ.get(KEYS_VARIABLE):
            keys = Path(os.environ[KEYS_VARIABLE])
        self.endpoint = check_endpoint(endpoint, encrypted=keys is not None)
        own, server = (
            (load_keys(keys / name) for name in (f"{OWN_KEYS}.key_secret", SERVER_KEY)) if keys else (None,) * 2
        )
        self.timeout = timeout
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.ipv6 = "[" in endpoint
        self._socket.immediate = True  # queue nothing for a server that is not there
        self._socket.linger = 200  # long enough for a cancel to leave
        self._socket.maxmsgsize = MAX_FRAME_BYTES
        if own and server:
            self._socket.curve_publickey, self._socket.curve_secretkey = own
            self._socket.curve_serverkey = server[0]
        self._has_keys = keys is not None
        self._socket.connect(self.endpoint)

    def close(self) -> None:
        """Let go of the connection. Edits of this client still under way are dropped by the server."""
        self._context.destroy()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_connected(self, patience: float) -> bool:
        """Whether a ZeroMQ server listens there; waits for up to `patience` seconds until one does."""
        return bool(self._socket.poll(round(patience * 1000), zmq.POLLOUT))

    def check_listener(self) -> None:
        """Raise DFIError where another user may listen there, as every request with a photo does before it is sent."""
        check_listener(self.endpoint, self._has_keys)

    def hello(self) -> ServerInfo:
        """Who answers, at once, in whatever state. A server whose model failed to load tries again."""
        return self._ask(MessageType.HELLO, ServerInfo)

    def status(self) -> ServerInfo:
        """The same, without making the server do anything."""
        return self._ask(MessageType.STATUS, ServerInfo)

    def attributes(self, patience: float = 60.0) -> tuple[str, ...]:
        """The names that an edit may use. While the model loads, waits for up to `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._ask(MessageType.ATTRIBUTES, Attributes).names
            except DFIError as error:
                if error.code != ErrorCode.BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def edit(
        self,
        request: EditRequest,
        pixels: Buffer,
        *,
        progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> EditResult:
        """Have a photo edited and wait for the result; pixels is any contiguous buffer of the right length.

        Both callbacks are called in this thread, and may take their time: a second thread follows the edit
        meanwhile. cancelled() is asked about 20 times a second; True cancels and raises DFIError(cancelled).
        An exception from a callback also cancels the edit.
        """
        edit = Edit(**vars(request), pixels=memoryview(pixels).cast("B"))
        return self._run(edit, EditResult, progress, cancelled)

    def fill(
        self,
        request: FillRequest,
        pixels: Buffer,
        mask: Buffer,
        *,
        progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> EditResult:
        """Have what a mask covers of a face filled in; mask: request.mask_bytes of them. For the rest see edit."""
        fill = Fill(**vars(request), pixels=memoryview(pixels).cast("B"), mask=memoryview(mask).cast("B"))
        return self._run(fill, EditResult, progress, cancelled)

    def faces(self, request: PhotoRequest, pixels: Buffer) -> tuple[tuple[int, int, int, int], ...]:
        """The faces of a photo, numbered as for an edit with the same box: x, y, width, height each."""
        body = FindFaces(**vars(request), pixels=memoryview(pixels).cast("B"))
        return self._run(body, FacesFound).boxes

    def _run(
        self,
        body: Work,
        expected: type[T],
        progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> T:
        events: queue.SimpleQueue[Body | DFIError] = queue.SimpleQueue()
        leave = threading.Event()
        follower = threading.Thread(target=self._follow, args=(body, events, leave), daemon=True)
        follower.start()
        try:
            while True:
                if cancelled is not None and cancelled():
                    raise DFIError(ErrorCode.CANCELLED, "The edit was cancelled.")
                try:
                    event = events.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(event, Progress) and progress is not None:
                    progress(event)
                elif isinstance(event, expected):
                    return event
                elif isinstance(event, DFIError):
                    raise DFIError(event.code, event.message)  # not event: a cycle would keep the photo
        finally:
            leave.set()
            follower.join()

    def _follow(
        self,
        body: Work,
        events: "queue.SimpleQueue[Body | DFIError]",
        leave: threading.Event,
    ) -> None:
        """Runs in a thread of its own, so that heartbeats go out whatever the callbacks do."""
        id = uuid.uuid4().hex
        try:
            self.check_listener()
            patience = self.timeout + body.frame_bytes / SLOWEST_BYTES_PER_SECOND
            self._send(Message(kind_of(body), id, body), self.timeout)
            heard = beaten = time.monotonic()
            while not leave.is_set():
                reply = self._receive(POLL_SECONDS)
                now = time.monotonic()
                if reply is not None:
                    heard = now
                    if isinstance(reply.body, Error) and reply.id in (id, None):
                        raise self._refused(reply.body)
                    if reply.id == id:
                        events.put(reply.body)
                        if isinstance(reply.body, EditResult | FacesFound):
                            return
                elif now - heard > patience:
                    raise self._unreachable("stopped answering")
                if now - beaten > HEARTBEAT_SECONDS:
                    beaten = now
                    self._send(Message(MessageType.HEARTBEAT, id), 0, "was stopped during the edit")
            self._send(Message(MessageType.CANCEL, id), 0)
        except DFIError as error:
            events.put(error)
        except Exception as error:  # or the caller would wait for ever
            events.put(DFIError(ErrorCode.INTERNAL, f"The client failed ({type(error).__name__}: {error})."))

    def _ask(self, kind: MessageType, expected: type[T]) -> T:
        id = uuid.uuid4().hex
        deadline = time.monotonic() + self.timeout
        self._send(Message(kind, id), self.timeout)
        while (left := deadline - time.monotonic()) > 0:
            reply = self._receive(left)
            if reply is None:
                break
            # Late replies to an edit that was left are passed over; an error without an id can only be ours.
            if isinstance(reply.body, Error) and reply.id in (id, None):
                raise DFIError(reply.body.code, reply.body.message)
            if reply.id == id and isinstance(reply.body, expected):
                return reply.body
        raise self._unreachable("does not answer")

    def _send(self, message: Message, timeout: float, failure: str = "does not answer") -> None:
        if not self.is_connected(timeout):
            raise self._unreachable(failure)
        self._socket.send_multipart(encode(message), copy=False)

    def _receive(self, timeout: float) -> Message | None:
        if not self._socket.poll(round(timeout * 1000)):
            return None
        return decode_reply(self._socket.recv_multipart())

    def _refused(self, error: Error) -> DFIError:
        """The server's error; where it does not know what this program can ask for, that it is an older one."""
        if error.code == ErrorCode.BAD_REQUEST and any(words in error.message for words in UNKNOWN_TO_SERVER):
            return DFIError(
                ErrorCode.VERSION,
                f"The server at {self.endpoint} is older than this program, and cannot be asked for all of this: "
                "end it, so that this version is started.",
            )
        return DFIError(error.code, error.message)

    def _unreachable(self, what: str) -> DFIError:
        where = "" if self.endpoint.startswith(IPC) else f" --endpoint {self.endpoint}"
        remedy = f"start it (dfi serve{where}) and try again"
        if self._has_keys:
            remedy = "see that it runs there (dfi serve) and knows this client's key (--keys)"
        return DFIError(ErrorCode.UNREACHABLE, f"The server at {self.endpoint} {what}: {remedy}.")


def load_keys(path: Path) -> tuple[bytes, bytes]:
    """The public and the secret key of a certificate file, the latter empty where there is none.

    Raises DFIError(bad_request).
    """
    try:
        public, secret = load_certificate(path)
        for key in filter(None, (public, secret)):
            if len(key) != 40:  # Z85 of 32 bytes
                raise ValueError("a key has 40 characters")
        return public, secret or b""
    except (OSError, ValueError) as error:
        raise DFIError(
            ErrorCode.BAD_REQUEST, f"There is no key in {path} ({error}): make keys with 'dfi keygen'."
        ) from None


def start_server(
    command: Sequence[str],
    endpoint: str,
    *,
    log: Path,
    keys: Path | None = None,
    timeout: float = 60.0,
    waiting: Callable[[float], object] | None = None,
) -> ServerInfo:
    """Return a server's hello, starting one with `command` if nobody answers at the endpoint.

    The server outlives the caller: it gets a session of its own and none of the caller's pipes; its output
    is appended to the file `log`. It may still be loading its model when this returns. waiting(seconds) is
    called a few times a second; an exception from it leaves the server starting. Raises DFIError:
    unreachable with the log's last line if the process ends or cannot be started, timeout if nobody answers.
    """
    started = time.monotonic()
    process: subprocess.Popen[bytes] | None = None

    def check(seconds: float) -> bool:
        """Whether the process has ended; raises when it is too late for it."""
        assert process
        if seconds > timeout:
            process.kill()
            process.wait()
            raise DFIError(ErrorCode.TIMEOUT, f"The server did not answer within {timeout:.0f} s; its log is {log}.")
        if waiting is not None:
            waiting(seconds)
        return process.poll() is not None

    if keys and not (keys / SERVER_KEY).exists():  # which the server makes when it is started
        process = _spawn(command, log)
        while not (keys / SERVER_KEY).exists():
            if check(time.monotonic() - started):
                raise _not_started(log)
            time.sleep(POLL_SECONDS)
    with Client(endpoint, keys=keys) as client:
        while True:
            ended = process is not None and process.poll() is not None
            if client.is_connected(CONNECT_SECONDS if is_local(endpoint) else client.timeout):
                try:
                    return client.hello()
                except DFIError as error:
                    if error.code != ErrorCode.UNREACHABLE:  # such as another version's server
                        raise
            seconds = time.monotonic() - started
            if not is_local(endpoint):
                raise DFIError(ErrorCode.UNREACHABLE, f"No server answers at {endpoint}: start it on that machine.")
            if process is None:
                process = _spawn(command, log)
            elif ended:  # and nobody else has been quicker to start one
                raise _not_started(log)
            else:
                check(seconds)


def _spawn(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    # GIMP points these at its own Python, which is not the server's.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        mode = "wb" if log.exists() and log.stat().st_size > LOG_BYTES else "ab"
        with log.open(mode) as output:
            output.write(f"--- {time.strftime('%F %T')} {' '.join(command)}\n".encode())
    except OSError as error:
        raise unwritable(log, error, "name another folder for it in DFI_HOME (in GIMP, XDG_CACHE_HOME)") from None
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                **system.detached(),
            )
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC)
        remedy = "Install it again" if missing else "Close other programs, and try again"
        raise DFIError(
            ErrorCode.UNREACHABLE, f"Cannot start the server with {command[0]} ({error.strerror}). {remedy}."
        ) from None


def _not_started(log: Path) -> DFIError:
    return DFIError(ErrorCode.UNREACHABLE, f"The server could not start: {_last_line(log)} (log: {log})")


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.removeprefix("dfi: ") for line in reversed(lines) if line.strip()), "it wrote nothing")
