"""Edits and vector building spread over a Ray cluster, through edit.py and build.py as they are.

The cluster is the one that RAY_ADDRESS names ("auto": the one that `ray start` began on this machine), else one of this
machine's own cores for as long as the command runs. Photos, faces and sums travel through Ray's object store: the
machines need no common folder, but this program in the same version and, for edits, the same store of vectors.
A task takes a core, or a GPU where the cluster has any. One that is lost with its machine is run again by Ray.

Ray's processes send each other pickles, so whoever can talk to a cluster can run programs on all of it: a cluster is
used only when asked for, and the one that is started here is guarded by Ray's token.
"""

import contextlib
import functools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from dfi_server.errors import DFIError, ErrorCode

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray's next version; without it, it warns

try:
    import ray
except ImportError as error:
    raise DFIError(ErrorCode.BAD_REQUEST, "Ray is not installed here: pip install 'dfi-server[ray]'.") from error

import torch
from torch import Tensor

from dfi_server import __version__
from dfi_server.commands import batch
from dfi_server.edit import Editor
from dfi_server.photo.pixels import Patch, Pixels
from dfi_server.vectors import build
from dfi_server.vectors.store import StoreInfo, open_store
from dfi_server.wire.messages import Choices, Error

_SHARD = 256  # photos whose sums one task makes; with VGG-19's features they are 0.3 GB
_TASK_BYTES = 2.0 * 1024**3  # of memory for a task: VGG-19, the features of a batch and the sums have 1.9 GB
_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 5.0

_Model = tuple[str, StoreInfo]  # this program's version, and the store


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Within it there is a cluster. Raises DFIError(UNREACHABLE)."""
    address = os.environ.get("RAY_ADDRESS") or "local"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdecimal():  # Ray itself would try for a quarter of an hour
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # the network's, Ray's own, those of a wrong address: they share no class
        raise DFIError(
            ErrorCode.UNREACHABLE,
            f"The Ray cluster '{address}' cannot be used ({_first_line(error)}): start it, or correct RAY_ADDRESS.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def slots(device: str = "auto") -> int:
    """How many tasks the cluster's machines can run at once, as it is now. Raises DFIError(BAD_REQUEST) for none."""
    needs = _needs(device)
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(int(min(machine.get(name, 0) // amount for name, amount in needs.items())) for machine in machines)
    if not count:
        wanted = f"a core, {_TASK_BYTES / 1024**3:g} GB of memory" + " and a GPU" * ("GPU" in needs)
        raise DFIError(ErrorCode.BAD_REQUEST, f"No machine of the Ray cluster has what a task needs: {wanted}.")
    return count


def editing(store: str | None = None, device: str = "auto") -> batch.Edit:
    """Edits on the cluster's machines with a store (None: the default) that they have as this machine has it.

    Raises DFIError(NO_STORE | BAD_STORE).
    """
    task, place = _task(_edit, device), _device(device)
    model = (__version__, open_store(store).info)

    def edit(pixels: Pixels, job: batch.Job, cancelled: Callable[[], bool]) -> tuple[Patch, float]:
        result = task.remote(place, store, model, pixels, dict(job.alphas), job.choices)
        while not ray.wait([result], timeout=_POLL_SECONDS)[0]:
            if cancelled():
                raise DFIError(ErrorCode.CANCELLED, "The edit was cancelled.")
        done: tuple[Patch, float] | Error = _get(result)
        if isinstance(done, Error):
            raise DFIError(done.code, done.message)
        return done

    return edit


def accumulate(
    rows: Iterator[build.FaceRow],
    names: tuple[str, ...],
    weights: dict[str, Tensor],
    *,
    method: build.Method = "ridge",
    device: str = "auto",
    progress: Callable[[int], None] = lambda done: None,
) -> build.Sums:
    """As `build.accumulate`, the rows in shards on the cluster's machines.

    The shards' sums are added in the rows' order: the result does not depend on which machine made which, or when.
    """
    task, place = _task(_accumulate, device), _device(device)
    network = ray.put(weights)
    total = build.Sums(names, method, torch.device("cpu"))
    pending: deque[Any] = deque()

    def take() -> None:
        total.merge(_get(pending.popleft()))
        progress(total.photos)

    for shard in build.batches(rows, _SHARD):
        pending.append(task.remote(shard, names, network, method, place))
        while len(pending) > slots(device):  # one waits
            take()
    while pending:
        take()
    return total


def _device(device: str) -> str:
    return device if device != "auto" else "cuda" if "GPU" in ray.cluster_resources() else "cpu"


def _needs(device: str) -> dict[str, float]:
    return {"CPU": 1.0, "memory": _TASK_BYTES} | ({"GPU": 1.0} if _device(device) == "cuda" else {})


def _task(function: Callable[..., object], device: str) -> Any:
    needs = _needs(device)
    return ray.remote(function).options(num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0), memory=needs["memory"])


def _get(result: Any) -> Any:
    """What a task returned. Raises DFIError(INTERNAL) where it failed, or was lost more often than Ray puts up with."""
    try:
        return ray.get(result)
    except ray.exceptions.RayError as error:
        reason = getattr(error, "cause", None) or error
        raise DFIError(ErrorCode.INTERNAL, f"A task on the Ray cluster failed ({_first_line(reason)}).") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# What runs on the cluster's machines. An error that has a sentence goes back as a value: Ray's own have a traceback.


def _edit(
    device: str,
    store: str | None,
    model: _Model,
    pixels: Pixels,
    alphas: dict[str, float],
    choices: Choices,
) -> tuple[Patch, float] | Error:
    try:
        editor = _editor(store, device)
        if (__version__, editor.store.info) != model:
            raise DFIError(
                ErrorCode.BAD_STORE,
                f"{socket.gethostname()} has version {__version__} with the store {editor.store_name} of "
                f"{editor.store.info.built}, not {model[0]} with that of this machine: give it the same.",
            )
        done = editor.edit(pixels, alphas, **choices)
        return done.patch, done.seconds
    except DFIError as error:
        return Error(error.code, error.message)


@functools.cache
def _editor(store: str | None, device: str) -> Editor:
    """Loaded once in each of Ray's processes, which serve one run."""
    return Editor(store, device)


def _accumulate(
    shard: list[build.FaceRow], names: tuple[str, ...], weights: dict[str, Tensor], method: build.Method, device: str
) -> build.Sums:
    return build.accumulate(iter(shard), names, weights, method=method, device=device).on_cpu()
