"""The worker: a process of its own that owns the model and runs one edit at a time.

    python -P -m dfi_server.service.worker [--store NAME] [--device NAME] ENDPOINT

The server starts it (see worker_process.py) and is at the other end of ENDPOINT, a PAIR socket that is theirs alone
(see link.py). The two speak the messages of docs/protocol.md: the worker says `hello` when it is there, loads its model
or a rebuilt store at the server's `hello`, says `hello` and `attributes` when it has loaded one, and answers `edit`,
`fill` and `faces`. It gets a socket that ends with the server, and so does the worker: a server that is killed leaves
no process behind. Over the same socket goes a byte each second, whatever the worker does: its sign of life.
"""

import argparse
import contextlib
import gc
import importlib
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import zmq

from dfi_server import __version__, paths, system
from dfi_server.errors import SEE_LOG, DFIError, ErrorCode
from dfi_server.service import link
from dfi_server.wire.messages import (
    Attributes,
    Edit,
    EditResult,
    Error,
    FacesFound,
    Fill,
    FindFaces,
    Progress,
    ServerInfo,
    Work,
)
from dfi_server.wire.messages import ServerState as State
from dfi_server.wire.protocol import Body, Message, MessageType, decode_request, encode

if TYPE_CHECKING:
    from dfi_server import edit as pipeline  # imports torch, which takes seconds: the server is told before
    from dfi_server.fill import Filler, Filling

PROGRESS_SECONDS = 0.1
LIFE_SECONDS = 1.0
ITSELF = "worker"
"""The id of what the worker says of itself; jobs have others."""

_DTYPES = {"uint8": "u1", "uint16": "<u2", "float32": "<f4"}
_NO_MEMORY = (  # CUDA, torch on the CPU, OpenCV, C++, cuDNN and cuBLAS
    *("out of memory", "can't allocate memory", "not enough memory", "Insufficient memory", "bad_alloc"),
    "ALLOC_FAILED",
)

EditorFactory: TypeAlias = Callable[[], "pipeline.Editor"]
"""Loads a model and its store."""

log = logging.getLogger(__name__)


class Worker:
    """Loads the editor and runs jobs, one after the other.

    A store that was rebuilt, by `dfi setup` say, is loaded again before the next job, or at a hello. prepare: what is
    done before the first hello, so that loading then takes less; for a worker that rests, long before. make_previewer
    loads the small model, when the first preview is asked for. make_on_cpu loads the editor that tries once more what
    did not fit into a GPU; what did not fit into the host is tried again without the small model and torch's caches.
    """

    def __init__(
        self,
        socket: "zmq.Socket[bytes]",
        make_editor: EditorFactory,
        make_previewer: EditorFactory | None = None,
        make_on_cpu: EditorFactory | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self._socket = socket
        self._prepare = prepare
        self._make_editor = make_editor
        self._make_previewer = make_previewer or make_editor
        self._make_on_cpu = make_on_cpu
        self._editor: pipeline.Editor | None = None
        self._previewer: pipeline.Editor | None = None
        self._filler: Filler | None = None

    def run(self) -> None:
        """Serve for ever: the process ends with its server."""
        self._say(MessageType.HELLO, ServerInfo(__version__, State.LOADING, "", "", "", 0))
        with contextlib.suppress(Exception):  # loading meets it again, and tells
            self._prepare()
        while True:
            request = self._receive()
            if request.type != MessageType.CANCEL:  # of a job that has just ended
                self._load()
            if isinstance(request.body, Work) and request.id:
                outcome = self._do(request.id, request.body)
                kind = {EditResult: MessageType.RESULT, FacesFound: MessageType.FACES, Error: MessageType.ERROR}
                self._say(kind[type(outcome)], outcome, request.id)
                del outcome
            del request  # holds the photo

    def _receive(self) -> Message:
        return decode_request([frame.buffer for frame in self._socket.recv_multipart(copy=False)])

    def _say(self, kind: MessageType, body: Body, id: str = ITSELF) -> None:
        self._socket.send_multipart(encode(Message(kind, id, body)), copy=False)

    def _load(self) -> None:
        """Load the editor, unless there is one and its store has not been rebuilt since."""
        if self._editor and not self._editor.is_outdated():
            return
        try:
            self._editor = editor = self._make_editor()
            self._previewer = self._filler = None  # made when they are needed, with the same store
            names = Attributes(tuple(editor.attributes))
            info = ServerInfo(__version__, State.READY, editor.store_name, editor.device_name, "", 0)
        except Exception as error:  # whatever it is, the worker stays up and says so
            if self._editor:  # goes on with what it has
                log.warning("The rebuilt store could not be loaded: %s", error)
            else:
                self._say(MessageType.ERROR, as_error(error, "The model could not be loaded"))
            return
        self._say(MessageType.ATTRIBUTES, names)
        self._say(MessageType.HELLO, info)

    def _do(self, id: str, request: Work) -> EditResult | FacesFound | Error:
        try:
            return self._attempt(id, request, None)
        except Exception as error:  # a failed edit must not be the end of the worker
            if not is_out_of_memory(error):
                return as_error(error, "The edit failed inside the server")
            log.warning("An edit did not fit into memory: %s", error)
        self._free_memory()  # here the exception is gone, and with it what its frames held
        try:
            has_gpu = self._editor and self._editor.device.type != "cpu"
            return self._attempt(id, request, self._make_on_cpu if has_gpu else None)
        except Exception as error:
            return as_error(error, "The edit failed inside the server")

    def _free_memory(self) -> None:
        """Give back what can be had again: the small model, faces to fill from, and what torch keeps for later."""
        self._previewer = self._filler = None
        gc.collect()
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _attempt(self, id: str, request: Work, make_editor: EditorFactory | None) -> EditResult | FacesFound | Error:
        if self._editor is None:
            raise DFIError(ErrorCode.BUSY, "The server's model is not loaded; try again in a moment.")
        dtype = np.dtype(_DTYPES[request.dtype])
        photo = np.frombuffer(request.pixels, dtype).reshape(request.height, request.width, request.channels)
        editor = make_editor() if make_editor else self._editor
        if isinstance(request, FindFaces):
            return FacesFound(tuple(face.box for face in editor.faces(photo, request.box)))
        assert isinstance(request, Edit | Fill)
        if request.store not in (None, editor.store_name):
            raise DFIError(
                ErrorCode.BAD_STORE,
                f"This server edits with the store '{editor.store_name}', not '{request.store}': leave the store to "
                f"it, or, if its machine has that one, start another server (dfi serve --store {request.store} "
                "--endpoint ENDPOINT) and name it (--server ENDPOINT).",
            )
        if isinstance(request, Fill):
            return self._fill(id, request, editor, photo)
        if request.preview and not make_editor:
            editor = self._previewer = self._previewer or self._make_previewer()
        return self._edit(id, request, editor, photo)

    def _reporter(self, id: str) -> Callable[[int, int, float], None]:
        """What tells the client how far its job has come: the iteration, of how many, and the loss."""
        last_said = -math.inf

        def progress(iteration: int, iterations: int, loss: float) -> None:
            nonlocal last_said
            now = time.monotonic()
            if now - last_said >= PROGRESS_SECONDS or iteration == iterations:
                last_said = now
                self._say(MessageType.PROGRESS, Progress(iteration, iterations, float(loss)), id)

        return progress

    def _is_cancelled(self, id: str) -> bool:
        while self._socket.poll(0):
            message = self._receive()
            if (message.type, message.id) == (MessageType.CANCEL, id):
                return True
        return False

    def _fill(self, id: str, fill: Fill, editor: "pipeline.Editor", photo: np.ndarray) -> EditResult:
        from dfi_server.fill import Filler

        if self._filler is None or self._filler.network is not editor.network:
            self._filler = Filler(editor.store, editor.network, editor.device)
        report = self._reporter(id)

        def progress(iteration: int, iterations: int) -> None:
            if self._is_cancelled(id):
                raise DFIError(ErrorCode.CANCELLED, "The filling was cancelled.")
            report(iteration, iterations, math.nan)

        mask = np.frombuffer(fill.mask, np.uint8).reshape(photo.shape[:2])
        done = self._filler.fill(photo, mask, box=fill.box, iterations=fill.iterations, progress=progress)
        return _result([done], math.nan, done.outside)

    def _edit(self, id: str, edit: Edit, editor: "pipeline.Editor", photo: np.ndarray) -> EditResult:
        report = self._reporter(id)
        how: dict[str, Any] = {
            "face": edit.face,
            "box": edit.box,
            "iterations": edit.iterations,
            "keep": edit.keep or (),
            "neighbours": None if edit.preview else edit.neighbours,
            "progress": lambda step: report(step.iteration, step.iterations, step.loss),
            "cancelled": lambda: self._is_cancelled(id),
        }
        if edit.factors is None:
            done = [editor.edit(photo, edit.alphas, **how)]
        else:
            settings = [{name: factor * alpha for name, alpha in edit.alphas.items()} for factor in edit.factors]
            done = editor.sweep(photo, settings, **how)
        return _result(done, float(np.mean([each.loss for each in done])))


def _result(
    done: "Sequence[pipeline.Edit] | Sequence[Filling]", loss: float, outside: float | None = None
) -> EditResult:
    """What the client gets of edits with the same rectangle."""
    patches = [each.patch for each in done]
    pixels = np.stack([patch.pixels for patch in patches])
    dtype = pixels.dtype.name
    pixels = pixels.astype(_DTYPES[dtype], copy=False)
    count, height, width, channels = pixels.shape
    return EditResult(
        x=int(patches[0].x),
        y=int(patches[0].y),
        width=width,
        height=height,
        channels=channels,
        dtype=dtype,
        iterations=sum(each.iterations for each in done),
        loss=loss,
        seconds=float(sum(each.seconds for each in done)),
        pixels=pixels.reshape(-1).view(np.uint8).data,
        mask=np.stack([patch.mask for patch in patches]).reshape(-1).data,
        count=count,
        outside=outside,
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the device's or the host's: each library says so in its own way."""
    if isinstance(error, DFIError):
        return error.code == ErrorCode.OUT_OF_MEMORY
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def as_error(error: BaseException, what: str) -> Error:
    """The error for the client; one that nobody foresaw is logged in full and called internal."""
    if isinstance(error, DFIError):
        return Error(error.code, error.message)
    if is_out_of_memory(error):
        log.error("%s: %s", what, error)
        return Error(
            ErrorCode.OUT_OF_MEMORY, f"{what}: out of memory. Close other programs, or edit less of the photo."
        )
    log.error("%s", what, exc_info=error)
    return Error(ErrorCode.INTERNAL, f"{what} ({type(error).__name__}: {error}); {SEE_LOG}.")


def run(
    endpoint: str,
    make_editor: EditorFactory,
    make_previewer: EditorFactory | None = None,
    make_on_cpu: EditorFactory | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> None:
    """Be the worker of the server at the other end of `endpoint` and of the standard input. Does not return."""
    lifeline = system.given_socket()
    for task in (_end_with_server, _give_signs_of_life):
        threading.Thread(target=task, args=(lifeline,), name=f"dfi{task.__name__}", daemon=True).start()
    with zmq.Context() as context, context.socket(zmq.PAIR) as pair:
        pair.linger = 0
        link.connect(pair, endpoint)
        Worker(pair, make_editor, make_previewer, make_on_cpu, prepare).run()


def _end_with_server(lifeline: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while lifeline.recv(1):
            pass
    os._exit(0)  # whatever the main thread does: nothing of ours is on disk


def _give_signs_of_life(lifeline: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            lifeline.sendall(b".")
            time.sleep(LIFE_SECONDS)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(prog="dfi_server.service.worker")
    parser.add_argument("--store")
    parser.add_argument("--device", default="auto")
    parser.add_argument("endpoint")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    def load(store: str | None, device: str) -> "pipeline.Editor":
        from dfi_server.edit import Editor

        return Editor(store, device)

    run(
        options.endpoint,
        lambda: load(options.store, options.device),
        lambda: load(paths.PREVIEW, options.device),
        lambda: load(options.store, "cpu"),
        lambda: importlib.import_module("dfi_server.edit"),
    )


if __name__ == "__main__":
    main()
