"""The server's side of a worker: starts the process, talks to it, and notices its end.

Nothing of torch is imported here: what the model's libraries do to their process, a crash or the end of memory, the
server survives. What is said is in worker.py.
"""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from dfi_server import system
from dfi_server.errors import ErrorCode
from dfi_server.service import link
from dfi_server.service.jobs import Job
from dfi_server.wire.messages import Attributes, Error, ServerInfo, ServerState
from dfi_server.wire.protocol import Message, MessageType, ProtocolError, decode_reply, encode, kind_of

LOAD_SECONDS = 1.0
STILL_SECONDS = 30.0  # a worker whose process shows no sign of life for so long is ended: stopped, or swapped out
LOAD_FACTOR = 4  # while it loads it gets so many times as long: a library that loads from a slow disk lets nobody speak
LONGEST_LOAD_SECONDS = 900.0
HUNG_SECONDS = 120.0  # and one that does not get on with a job: a driver that hangs. An iteration takes seconds at most
STUCK_SECONDS = 10.0  # and one that does not let go of a cancelled job
GONE_SECONDS = 5.0  # a process that does not even end when killed, in a driver, is left to itself after so long

_LOAD = Message(MessageType.HELLO, "load")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command:
    """How to start a worker: a program that calls worker.run(); the endpoint is added to its arguments."""

    arguments: Sequence[str]
    environment: dict[str, str]


def commands(store: str | None = None, device: str = "auto") -> list[Command]:
    """One worker for each GPU that CUDA would use, or one."""
    # -P: nothing from this folder
    arguments = [sys.executable, "-P", "-m", "dfi_server.service.worker", "--device", device]
    if store is not None:
        arguments += ["--store", store]
    # the same program as the server's, even where another one is installed
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    gpus = _gpus() if device in ("auto", "cuda") else []
    if len(gpus) < 2:
        return [Command(arguments, {"PYTHONPATH": path})]
    return [Command(arguments, {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus]


def _gpus() -> list[str]:
    """NVIDIA's GPUs, as CUDA_VISIBLE_DEVICES names them. From the driver: torch would take seconds to ask."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    return [str(number) for number in range(system.nvidia_gpus())]


class WorkerProcess:
    """A worker, running or not. For one thread, the server's.

    `info` and `attributes` are known once its model is loaded, `failure` when that did not work. `job` is what it runs.
    One that is `resting` has a process without a model, whose libraries are loaded, as these take the longest; or after
    close() none.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", command: Command) -> None:
        self._context = context
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs_given = 0
        self._abandoned_at = self._advanced_at = self._alive_at = self._started_at = self._killed_at = 0.0
        self._why_killed = ""
        self._connected = False  # whether the process has been heard of
        self.resting = False
        self.info: ServerInfo | None = None
        self.attributes: tuple[str, ...] = ()
        self.failure: Error | None = None
        self._failed_at = self._asked_at = 0.0
        self.job: Job | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and nothing runs."""
        return self.is_running and self.info is not None and self.job is None and not self.resting

    def start(self) -> None:
        """Start the process and have it load its model; `failure` says why, if that is not possible."""
        self._launch()
        self._wake()

    def _launch(self) -> None:
        """Start the process, which waits to be told to load."""
        self.failure = self.job = None
        self._why_killed, self._connected = "", False
        self._alive_at = self._started_at = time.monotonic()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = 0
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._lifeline, theirs = socket.socketpair()
        self._lifeline.setblocking(False)
        self._link: link.Link | None = None
        try:
            self._link = link.bind(self._socket)
            environment = {**os.environ, **self._command.environment, **self._link.environment}
            self._process = system.start_with_socket(
                [*self._command.arguments, self._link.endpoint], theirs, env=environment
            )
        except (OSError, zmq.ZMQError) as error:
            self._let_go()
            advice = "free memory or disk space"
            if isinstance(error, FileNotFoundError):  # tempfile's, which has tried all there are
                advice = "let TMPDIR name a folder that can be written"
            self.fail(Error(ErrorCode.INTERNAL, f"The worker could not be started ({error}): {advice}."))
        finally:
            theirs.close()

    def fail(self, failure: Error) -> None:
        """Take note of why there is no model."""
        self.info, self.failure, self._failed_at = None, failure, time.monotonic()

    def register(self, poller: zmq.Poller) -> None:
        """Have the poller look for what the worker says, and for its end."""
        if self.is_running:
            poller.register(self._socket, zmq.POLLIN)
            poller.register(self._lifeline, zmq.POLLIN)
            poller.register(self._monitor, zmq.POLLIN)

    def load(self) -> None:
        """Have a failed load tried again, and a store that was rebuilt be noticed; at most once in LOAD_SECONDS.

        One that is resting loads its model again.
        """
        if self.resting:
            if self.is_running:
                self._wake()
            else:
                self.start()
            return
        if time.monotonic() - max(self._asked_at, self._failed_at) < LOAD_SECONDS:
            return
        self._asked_at = time.monotonic()
        self.failure = None
        if self.is_running:
            self._say(_LOAD)
        else:
            self.start()

    def _wake(self) -> None:
        """Have a process that was launched load its model: now, or once it is there."""
        self.info, self.resting = None, False
        self._alive_at = self._started_at = time.monotonic()
        if self._connected:
            self._say(_LOAD)

    def rest(self) -> None:
        """Give the model's memory back until load() is called; what is known of it stays known. It must be ready.

        The process ends and another one takes its place: nothing else gives all memory back.
        """
        info = self.info
        self.close()
        self._launch()  # where that fails, it is tried again when there is need for it
        self.info, self.failure, self.resting = info, None, True

    def give(self, job: Job) -> None:
        """Have it do a job. It must be ready."""
        self.job = job
        self._jobs_given += 1
        self._abandoned_at, self._advanced_at = 0.0, time.monotonic()
        request = job.take_request()
        self._say(Message(kind_of(request), str(self._jobs_given), request))

    def abandon(self) -> None:
        """Have it stop its job, between two iterations."""
        self._abandoned_at = time.monotonic()
        self._say(Message(MessageType.CANCEL, str(self._jobs_given)))

    def _say(self, message: Message) -> None:
        try:
            self._socket.send_multipart(encode(message), zmq.NOBLOCK, copy=False)
        except zmq.Again:  # it has not read for ages, or is gone
            self.kill()

    def hear(self) -> Iterator[Message]:
        """What it says of its job. What it says of itself is taken note of here."""
        while self.is_running:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                message = decode_reply([frame.buffer for frame in frames])
            except ProtocolError as error:
                log.error("A worker talks nonsense and is ended: %s", error.message)
                self.kill()
                return
            match message.body:
                case _ if message.id == str(self._jobs_given):
                    self._advanced_at = time.monotonic()
                    yield message
                case Error():
                    self.fail(message.body)
                case Attributes(names):
                    self.attributes = names
                case ServerInfo(state=ServerState.READY):
                    self.info = message.body
                    log.info("Loaded the store %s on %s", message.body.store, message.body.device)
                case _ if self._link and not self._connected:  # nobody else needs to be able to connect
                    self._connected = True
                    self._link.remove()
                    if not self.resting:
                        self._say(_LOAD)

    def pardon(self) -> None:
        """Begin to wait anew for signs of life: the server itself stood still, and could not have noticed any."""
        self._alive_at = self._started_at = self._advanced_at = time.monotonic()
        self._abandoned_at = self._abandoned_at and time.monotonic()

    def ended(self) -> str | None:
        """None while the process lives. Else how it ended, for people; then start() may be called again.

        A process that hangs is ended here.
        """
        if self._process is None:
            return None
        now = time.monotonic()
        over = self._lifeline_has_ended()
        if not self._why_killed and (why := self._what_hangs(now)):
            log.error("A worker is ended: %s.", why)
            self._why_killed, self._killed_at = why, now
            self.kill()
        hung_up = bool(self._monitor.poll(0))
        if not hung_up and not over and not (self._why_killed and now - self._killed_at > GONE_SECONDS):
            return None
        try:
            code = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.kill()
            if not hung_up and not self._why_killed:  # its memory is being given back
                return None
            if not self._why_killed:
                code = self._process.wait()  # it lives: ZeroMQ hangs up on a message that it has no memory for
            no_memory = True
        else:
            no_memory = False
        self._let_go()
        if self._why_killed:
            return self._why_killed
        if no_memory:
            return "it had no memory left for it"
        return system.how_it_ended(code)

    def _what_hangs(self, now: float) -> str:
        """Why the process should be ended, for people; empty where nothing hangs."""
        loading = not self.info and not self.failure
        patience = STILL_SECONDS * (LOAD_FACTOR if loading or self.resting else 1)
        if now - self._alive_at > patience:
            return f"it gave no sign of life for {patience:g} seconds"
        if loading and now - self._started_at > LONGEST_LOAD_SECONDS:
            return f"it did not load its model within {LONGEST_LOAD_SECONDS:g} seconds"
        if self.job and self._abandoned_at and now - self._abandoned_at > STUCK_SECONDS:
            return "it did not let go of an edit that was cancelled"
        if self.job and now - self._advanced_at > HUNG_SECONDS:
            return f"it did not get on with the photo for {HUNG_SECONDS:g} seconds"
        return ""

    def _lifeline_has_ended(self) -> bool:
        """Whether the process is gone; else takes note of its signs of life, a byte each."""
        try:
            while self._lifeline.recv(4096):
                self._alive_at = time.monotonic()
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def kill(self) -> None:
        """End the process at once. It has nothing on disk to leave half done."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def close(self) -> None:
        """End the process and wait until it is gone."""
        if self._process:
            self.kill()
            self._process.wait()
            self._let_go()

    def _let_go(self) -> None:
        self._process = None
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._lifeline.close()
        if self._link:
            self._link.remove()


def lost(how: str) -> Error:
    """Why a job ended with its worker."""
    return Error(
        ErrorCode.INTERNAL,
        f"The process that worked on the photo ended ({how}). Another one takes its place: try again, or with less of "
        "the photo.",
    )
