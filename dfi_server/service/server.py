"""The server: a ROUTER socket, a fair queue of edits, and a worker process for each device.

One thread owns the socket and all bookkeeping, and only ever waits in one poll. The model lives in the workers, which
may crash, run out of memory or be killed: the job is then reported failed, and another worker takes the place. The wire
format is docs/protocol.md; SECURITY.md says what is defended against whom.
"""

import contextlib
import errno
import logging
import math
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import zmq
from zmq.auth.thread import ThreadAuthenticator

from dfi_server import __version__, system
from dfi_server.errors import SEE_LOG, DFIError, ErrorCode
from dfi_server.service.jobs import Job, JobTable
from dfi_server.service.worker_process import Command, WorkerProcess, lost
from dfi_server.wire.keys import authenticate
from dfi_server.wire.messages import Accepted, Attributes, Error, ServerInfo, ServerState, Work
from dfi_server.wire.place import check_endpoint, claimed
from dfi_server.wire.protocol import (
    CLIENT_SILENCE_SECONDS,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    Body,
    Message,
    MessageType,
    ProtocolError,
    decode_request,
    encode,
)

LIBRARIES_SECONDS = 3600.0  # without a wish, after which a resting worker gives its libraries' memory back as well
TOLD_SECONDS = 0.2  # for a reply to arrive: ZeroMQ loses what comes with a server's end
STALL_SECONDS = 1.0  # between two rounds of the loop, beside its waiting: then this process stood still
_MAX_MESSAGES_A_ROUND = 100
_NO_STORE = (ErrorCode.NO_STORE, ErrorCode.BAD_STORE)
_BELL = "inproc://bell"

log = logging.getLogger(__name__)


class Server:
    """Binds the endpoint when made; run() serves until stop(). `endpoint` is the address actually bound.

    keys: the server's folder of `dfi keygen`: only clients whose keys are in there get an answer, and they may be on
    other machines. rest_after: seconds without an edit or another wish for the model after which its memory is given
    back, until the next one; end_after: seconds without any client after which run() returns, as it does when a client
    was told that the store cannot be opened. None: never. Raises DFIError: bad_request for keys that are not
    there, or without any for an address that is not this machine's own; busy if the port is taken. Where systemd has
    made the listening socket, that one is used.
    """

    def __init__(
        self,
        endpoint: str,
        commands: Sequence[Command],
        keys: Path | None = None,
        rest_after: float | None = None,
        end_after: float | None = None,
    ) -> None:
        self._held = contextlib.ExitStack()
        endpoint = check_endpoint(endpoint, bind=True, encrypted=keys is not None)
        self._held.enter_context(claimed(endpoint))
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.ipv6 = "[" in endpoint
        self._router.router_mandatory = True  # sending to a client that is gone is an error, not silence
        self._router.maxmsgsize = MAX_FRAME_BYTES
        self._router.linger = 1000
        self._authenticator: ThreadAuthenticator | None = None
        try:
            self._authenticator = authenticate(self._router, keys) if keys else None
            if (listener := system.given_listener()) is not None:
                self._router.setsockopt(zmq.USE_FD, listener)
            self._router.bind(endpoint)
        except (zmq.ZMQError, DFIError) as error:
            if self._authenticator:
                self._authenticator.stop()
            self._context.destroy(linger=0)
            self._held.close()
            raise _bind_error(endpoint, error) if isinstance(error, zmq.ZMQError) else error from None
        self.endpoint = self._router.get_string(zmq.LAST_ENDPOINT)
        self._bell = self._context.socket(zmq.PULL)
        self._bell.linger = 0
        self._bell.bind(_BELL)
        self._workers = [WorkerProcess(self._context, command) for command in commands]
        self._stopping = threading.Event()
        self._jobs = JobTable()
        self._rest_after, self._end_after = rest_after, end_after
        self._patience = 1.0  # seconds that the loop waits for something to happen
        self._last_round = self._last_wish = self._last_client = time.monotonic()
        self._ends_at = math.inf  # soon, where a client was told that there is no store: the next may want another
        self._last_heard: dict[bytes, float] = {}  # only of clients with unfinished edits

    def stop(self) -> None:
        """Make run() return soon. Safe from any thread and from a signal handler."""
        self._stopping.set()
        with contextlib.suppress(zmq.ZMQError), self._context.socket(zmq.PUSH) as bell:
            bell.linger = 0
            bell.connect(_BELL)
            bell.send(b"", zmq.NOBLOCK)

    def run(self) -> None:
        """Serve until stop(); then tell the clients, end the workers and give the port back."""
        log.info("Listening at %s", self.endpoint)
        for worker in self._workers:
            worker.start()
        try:
            while not self._stopping.is_set():
                self._wait()
                self._notice_a_standstill()
                for worker in self._workers:
                    self._hear_worker(worker)
                self._hear_clients()
                self._drop_silent_clients()
                self._give_work()
                self._rest_or_end()
        finally:
            self._close()

    def _wait(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._bell, zmq.POLLIN)
        for worker in self._workers:
            worker.register(poller)
        self._patience = 0.2 if len(self._jobs) or self._ends_at < math.inf else 1.0
        poller.poll(round(1000 * self._patience))

    def _close(self) -> None:
        for job in self._jobs:
            stopped = Error(ErrorCode.UNREACHABLE, "The server was stopped; start it again, then edit again.")
            self._finish(job, Message(MessageType.ERROR, job.id, stopped))
        self._router.close()
        self._bell.close()
        for worker in self._workers:
            worker.close()
        if self._authenticator:
            self._authenticator.stop()
        self._context.term()
        self._held.close()
        log.info("Stopped")

    # The workers

    def _hear_worker(self, worker: WorkerProcess) -> None:
        for message in worker.hear():
            job = worker.job
            if job is None:
                continue
            if message.type != MessageType.PROGRESS:
                worker.job = None
            if job not in self._jobs:
                continue
            if message.type == MessageType.PROGRESS:
                self._send(job.client, message._replace(id=job.id))
            else:
                self._finish(job, message._replace(id=job.id))
        if how := worker.ended():
            self._replace(worker, how)
        if self._failure:
            for job in self._jobs:
                self._finish(job, Message(MessageType.ERROR, job.id, self._failure))

    def _replace(self, worker: WorkerProcess, how: str) -> None:
        """Start a worker again that has ended; one that rests or could not even load its model, when somebody asks."""
        log.error("A worker ended: %s", how)
        if worker.resting:
            return
        job, was_loaded = worker.job, worker.attributes
        if was_loaded:
            worker.start()
        else:
            text = f"The model could not be loaded: its process ended ({how}); {SEE_LOG}."
            worker.fail(Error(ErrorCode.INTERNAL, text))
        worker.job, worker.attributes = None, ()
        if job and job in self._jobs:
            self._finish(job, Message(MessageType.ERROR, job.id, lost(how)))

    @property
    def _failure(self) -> Error | None:
        """Why there is no model; None while one is loaded or loading."""
        failures = [worker.failure for worker in self._workers]
        return failures[0] if all(failures) else None

    def _give_work(self) -> None:
        for worker in self._workers:
            if worker.is_ready and (job := self._jobs.next()):
                worker.give(job)

    def _finish(self, job: Job, final: Message | None) -> None:
        """Forget the job, stop it if it runs, and send its final reply if there is somebody to read it."""
        if job not in self._jobs:  # sending to its client has just failed, and dropped all that client's jobs
            return
        self._jobs.remove(job)
        for worker in self._workers:
            if worker.job is job:
                worker.abandon()
        if job.client not in self._jobs.clients:
            self._last_heard.pop(job.client, None)
        if final is not None:
            self._send(job.client, final)

    # Clients' requests

    def _hear_clients(self) -> None:
        """Answer what has arrived."""
        for _ in range(_MAX_MESSAGES_A_ROUND):
            try:
                client = self._router.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            frames: list[memoryview] = []
            while self._router.get(zmq.RCVMORE):
                frame = self._router.recv(copy=False)
                if len(frames) < MAX_FRAMES + 1:  # enough to refuse it
                    frames.append(frame.buffer)
            self._answer(client, frames)

    def _answer(self, client: bytes, frames: Sequence[memoryview]) -> None:
        id: str | None = None
        try:
            request = decode_request(frames)
            id = request.id
            self._last_client = time.monotonic()
            if client in self._last_heard:
                self._last_heard[client] = time.monotonic()
            reply = self._reply(client, request)
        except ProtocolError as error:
            reply = Message(MessageType.ERROR, error.id, Error(error.code, error.message))
        except DFIError as error:
            reply = Message(MessageType.ERROR, id, Error(error.code, error.message))
        except Exception as error:  # nobody foresaw it: one client's message must not be the end of the server
            log.exception("A request failed inside the server")
            text = f"The request failed inside the server ({type(error).__name__}); {SEE_LOG}."
            reply = Message(MessageType.ERROR, id, Error(ErrorCode.INTERNAL, text))
        if reply:
            self._send(client, reply)

    def _reply(self, client: bytes, request: Message) -> Message | None:
        body: Body = None
        kind = request.type
        if kind in (MessageType.HELLO, MessageType.STATUS):
            if kind == MessageType.HELLO:
                self._load_again()
            body = self._info()
        elif kind == MessageType.ATTRIBUTES:
            self._load_again()
            if self._failure:
                raise DFIError(self._failure.code, self._failure.message)
            loaded = [worker for worker in self._workers if worker.info]
            if not loaded:
                raise DFIError(ErrorCode.BUSY, "The server is still loading its model; ask again in a moment.")
            body = Attributes(loaded[0].attributes)
        elif isinstance(request.body, Work):
            assert request.id
            body = self._accept(Job(client, request.id, request.body))
            kind = MessageType.ACCEPTED
        elif kind == MessageType.CANCEL:
            job = self._jobs.get(client, request.id)
            if job is None:
                return None  # its final reply is on the way already
            self._finish(job, None)
            kind = MessageType.CANCELLED
        elif kind == MessageType.HEARTBEAT and self._jobs.get(client, request.id) is None:
            raise DFIError(
                ErrorCode.UNREACHABLE,
                "The server does not have this edit: it was restarted or lost touch with you. Edit again.",
            )
        return Message(kind, request.id, body)

    def _accept(self, job: Job) -> Accepted:
        self._load_again()
        if self._failure:
            raise DFIError(self._failure.code, self._failure.message)
        ahead = len(self._jobs)
        self._jobs.add(job)
        self._last_heard[job.client] = time.monotonic()
        return Accepted(ahead)

    def _load_again(self) -> None:
        """Wake a resting model, let a failed load be tried again, and a rebuilt store be noticed while nothing runs."""
        self._last_wish = time.monotonic()
        for worker in self._workers:
            if worker.is_ready or worker.failure or worker.resting:
                worker.load()

    def _info(self) -> ServerInfo:
        state, message = ServerState.LOADING, "The model is being loaded."
        loaded = [worker.info for worker in self._workers if worker.info]
        if self._failure:
            state, message = ServerState.FAILED, self._failure.message
        elif loaded:
            state, message = (
                (ServerState.BUSY if any(worker.job for worker in self._workers) else ServerState.READY),
                "",
            )
        store, device = (loaded[0].store, loaded[0].device) if loaded else ("", "")
        if len(loaded) > 1:
            device = f"{len(loaded)} x {device}"
        resting = any(worker.resting for worker in self._workers)
        return ServerInfo(__version__, state, store, device, message, self._jobs.waiting, resting=resting)

    def _notice_a_standstill(self) -> None:
        """Where this process stood still itself, nobody has been silent: it could not have heard anybody."""
        now = time.monotonic()
        if now - self._last_round > self._patience + STALL_SECONDS:
            self._last_heard = dict.fromkeys(self._last_heard, now)
            for worker in self._workers:
                worker.pardon()
        self._last_round = now

    def _drop_silent_clients(self) -> None:
        oldest = time.monotonic() - CLIENT_SILENCE_SECONDS
        for client in [client for client, heard in self._last_heard.items() if heard < oldest]:
            self._drop(client, "has been silent for too long")

    def _rest_or_end(self) -> None:
        """Give the model's memory back when nobody has wanted anything of it for long; end when nobody is there."""
        now = time.monotonic()
        if len(self._jobs):
            self._last_wish = self._last_client = now
        ready = [worker for worker in self._workers if worker.is_ready]
        if ready and self._rest_after is not None and now - self._last_wish > self._rest_after:
            log.info("Nobody has edited for a while: the model's memory is given back until somebody does")
            for worker in ready:
                worker.rest()
        if now - self._last_wish > LIBRARIES_SECONDS:
            for worker in self._workers:
                if worker.resting:
                    worker.close()
        if self._end_after is not None and now > min(self._ends_at, self._last_client + self._end_after):
            log.info("No client has been there for a while, or there is no store: ending")
            self._stopping.set()

    def _drop(self, client: bytes, why: str) -> None:
        jobs = [job for job in self._jobs if job.client == client]
        if jobs:
            log.info("A client %s; dropping its %d edits", why, len(jobs))
        for job in jobs:
            self._finish(job, None)

    def _send(self, client: bytes, message: Message) -> None:
        try:
            self._router.send_multipart([client, *encode(message)], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self._drop(client, "is gone" if error.errno == zmq.EHOSTUNREACH else "does not read its replies")
        if isinstance(message.body, Error) and self._end_after and self._failure and self._failure.code in _NO_STORE:
            self._ends_at = min(self._ends_at, time.monotonic() + TOLD_SECONDS)


def _bind_error(endpoint: str, error: zmq.ZMQError) -> DFIError:
    if error.errno == errno.EADDRINUSE:
        return DFIError(
            ErrorCode.BUSY,
            f"A program listens at {endpoint} already: if it is a DFI server, use that one; if not, end it, or start "
            "one elsewhere (dfi serve --endpoint ENDPOINT) and name that (--server ENDPOINT; in GIMP, DFI_ENDPOINT).",
        )
    return DFIError(
        ErrorCode.BAD_REQUEST,
        f"Cannot listen at {endpoint} ({error.strerror}): choose another address (dfi serve --endpoint ENDPOINT).",
    )


def serve(
    endpoint: str,
    commands: Sequence[Command],
    keys: Path | None = None,
    rest_after: float | None = None,
    end_after: float | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then stop cleanly and return. Call it from the main thread.

    `commands`: the workers to start (see worker_process.commands). For the rest, and what is raised, see Server.
    """
    server = Server(endpoint, commands, keys, rest_after, end_after)
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: object) -> None:
        signal.signal(number, previous[signal.Signals(number)])  # a second one ends the process at once
        server.stop()

    for number in previous:
        signal.signal(number, on_signal)
    try:
        server.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
