"""The server's work: the table of accepted edits, and the thread that owns the model and runs them."""

import contextlib
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import zmq

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.messages import Edit, EditResult, Error, FacesFound, FindFaces, Progress

if TYPE_CHECKING:
    from dfi_server import edit as pipeline  # imports torch, which only the worker needs

MAX_CLIENT_EDITS = 8  # accepted and unfinished, per connection
MAX_EDITS = 64
MAX_CLIENT_BYTES = 2 * 1024**3  # of pixels in accepted edits; one edit of a client is always within it
MAX_BYTES = 4 * 1024**3
PROGRESS_SECONDS = 0.1
BELL = "inproc://bell"
_DTYPES = {"uint8": "u1", "uint16": "<u2", "float32": "<f4"}

EditorFactory: TypeAlias = Callable[[], "pipeline.Editor"]
"""Loads a model and its store; called in the worker's thread."""

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """An accepted edit, or search for faces, of one client (its ROUTER identity).

    `abandoned` tells the worker to stop it.
    """

    client: bytes
    id: str
    request: Edit | FindFaces
    abandoned: threading.Event = field(default_factory=threading.Event)


class JobTable:
    """The accepted edits: bounded, and taken in turn over the clients, so that a batch holds nobody up."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, dict[str, Job]] = {}
        self._waiting: OrderedDict[bytes, deque[Job]] = OrderedDict()

    def __iter__(self) -> Iterator[Job]:
        return iter([job for jobs in self._jobs.values() for job in jobs.values()])

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def clients(self) -> list[bytes]:
        return list(self._jobs)

    def get(self, client: bytes, id: str | None) -> Job | None:
        return self._jobs.get(client, {}).get(id or "")

    def __contains__(self, job: Job) -> bool:
        return self.get(job.client, job.id) is job

    def add(self, job: Job) -> None:
        """Raises DFIError: bad_request for an id in use, busy when a limit is reached."""
        mine = self._jobs.get(job.client, {})
        if job.id in mine:
            raise DFIError(ErrorCode.BAD_REQUEST, f"The id {job.id!r} belongs to an unfinished edit already.")
        size = job.request.pixel_bytes
        my_bytes = size + sum(other.request.pixel_bytes for other in mine.values())
        all_bytes = size + sum(other.request.pixel_bytes for other in self)
        if len(mine) >= MAX_CLIENT_EDITS or (mine and my_bytes > MAX_CLIENT_BYTES):
            raise DFIError(ErrorCode.BUSY, f"You have {len(mine)} unfinished edits; send the next when one is done.")
        if len(self) >= MAX_EDITS or (len(self) and all_bytes > MAX_BYTES):
            raise DFIError(ErrorCode.BUSY, f"The server has {len(self)} unfinished edits; try again in a moment.")
        self._jobs.setdefault(job.client, {})[job.id] = job
        self._waiting.setdefault(job.client, deque()).append(job)

    def next(self) -> Job | None:
        """The next job to run; its client goes to the end of the line."""
        if not self._waiting:
            return None
        client, jobs = self._waiting.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._waiting[client] = jobs
        return job

    def remove(self, job: Job) -> None:
        """Forget a job, waiting or running."""
        del self._jobs[job.client][job.id]
        if not self._jobs[job.client]:
            del self._jobs[job.client]
        waiting = self._waiting.get(job.client)
        if waiting and job in waiting:
            waiting.remove(job)
            if not waiting:
                del self._waiting[job.client]


@dataclass(frozen=True)
class Loaded:
    store: str
    device: str
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class LoadFailed:
    error: Error


@dataclass(frozen=True)
class Advanced:
    job: Job
    progress: Progress


@dataclass(frozen=True)
class Finished:
    job: Job
    outcome: EditResult | FacesFound | Error


Event: TypeAlias = Loaded | LoadFailed | Advanced | Finished
LOAD = "load"


class Worker(threading.Thread):
    """Loads the editor and runs jobs, one after the other. Commands: LOAD, a Job, None to end.

    A store that was rebuilt, by `dfi setup` say, is loaded again before the next job, or at LOAD.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", make_editor: EditorFactory, make_previewer: EditorFactory
    ) -> None:
        super().__init__(name="dfi-worker", daemon=True)
        self.commands: SimpleQueue[str | Job | None] = SimpleQueue()
        self.events: SimpleQueue[Event] = SimpleQueue()
        self._context = context
        self._make_editor = make_editor
        self._make_previewer = make_previewer
        self._editor: pipeline.Editor | None = None
        self._previewer: pipeline.Editor | None = None

    def run(self) -> None:
        self._bell = self._context.socket(zmq.PUSH)
        self._bell.linger = 0
        self._bell.connect(BELL)
        while (command := self.commands.get()) is not None:
            if event := self._load():
                self._post(event)
            if isinstance(command, Job):
                self._post(self._do(command))
            del command  # holds the photo
        self._bell.close()

    def _post(self, event: Event) -> None:
        self.events.put(event)
        with contextlib.suppress(zmq.Again):  # a full bell rings already
            self._bell.send(b"", zmq.NOBLOCK)

    def _load(self) -> Loaded | LoadFailed | None:
        """Load the editor, unless there is one and its store has not been rebuilt since."""
        if self._editor and not self._editor.is_outdated():
            return None
        try:
            self._editor = editor = self._make_editor()
            return Loaded(editor.store_name, editor.device_name, tuple(editor.attributes))
        except BaseException as error:  # whatever it is, the server stays up and says so
            if self._editor:  # goes on with what it has
                log.warning("The rebuilt store could not be loaded: %s", error)
                return None
            return LoadFailed(as_error(error, "The model could not be loaded"))

    def _do(self, job: Job) -> Finished:
        try:
            assert self._editor is not None, "a job came before the model was loaded"
            request = job.request
            dtype = np.dtype(_DTYPES[request.dtype])
            photo = np.frombuffer(request.pixels, dtype).reshape(request.height, request.width, request.channels)
            if isinstance(request, FindFaces):
                return Finished(job, FacesFound(tuple(face.box for face in self._editor.faces(photo, request.box))))
            editor = self._for_previews() if request.preview else self._editor
            return Finished(job, self._edit(job, request, editor, photo))
        except BaseException as error:  # a failed edit must not be the end of the server
            return Finished(job, as_error(error, "The edit failed inside the server"))

    def _for_previews(self) -> "pipeline.Editor":
        """The small model, loaded when the first preview is asked for."""
        self._previewer = self._previewer or self._make_previewer()
        return self._previewer

    def _edit(self, job: Job, edit: Edit, editor: "pipeline.Editor", photo: np.ndarray) -> EditResult:
        last_posted = -math.inf

        def progress(step: "pipeline.Progress") -> None:
            nonlocal last_posted
            now = time.monotonic()
            if now - last_posted >= PROGRESS_SECONDS or step.iteration == step.iterations:
                last_posted = now
                self._post(Advanced(job, Progress(step.iteration, step.iterations, float(step.loss))))

        done = editor.edit(
            photo,
            edit.alphas,
            face=edit.face,
            box=edit.box,
            iterations=edit.iterations,
            preview=edit.preview,
            progress=progress,
            cancelled=job.abandoned.is_set,
        )
        patch = done.patch
        pixels = np.ascontiguousarray(patch.pixels, photo.dtype)
        height, width, channels = pixels.shape
        return EditResult(
            x=int(patch.x),
            y=int(patch.y),
            width=width,
            height=height,
            channels=channels,
            dtype=edit.dtype,
            iterations=int(done.iterations),
            loss=float(done.loss),
            seconds=float(done.seconds),
            pixels=pixels.reshape(-1).view(np.uint8).data,
            mask=np.ascontiguousarray(patch.mask, np.uint8).reshape(-1).data,
        )


def as_error(error: BaseException, what: str) -> Error:
    """The error for the client; one that nobody foresaw is logged in full and called internal."""
    if isinstance(error, DFIError):
        return Error(error.code, error.message)
    log.error("%s", what, exc_info=error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own
        return Error(ErrorCode.OUT_OF_MEMORY, f"{what}: out of memory. Close other programs and try again.")
    text = f"{what} ({type(error).__name__}: {error}); the server's log says more."
    return Error(ErrorCode.INTERNAL, text)
