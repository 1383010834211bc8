"""The one pipeline: a photo and {attribute: alpha} to edited pixels. Command line, server and tests all call it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from dfi_server import attributes, reconstruct, vgg
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.frame import Frame, cut, paste
from dfi_server.photo import Box, Patch, Pixels
from dfi_server.protocol import DTYPE_BYTES, MAX_ITERATIONS, MAX_PIXELS


@dataclass(frozen=True)
class Progress:
    """How far a solve has come, after each L-BFGS iteration."""

    iteration: int
    iterations: int
    loss: float


@dataclass(frozen=True)
class Edit:
    """The edited rectangle, and what the solver did for it; `seconds` is the solver's time."""

    patch: Patch
    iterations: int
    evaluations: int
    loss: float
    seconds: float


class Editor:
    """One network and one store of attribute vectors, loaded once, on one device."""

    def __init__(self, store: str | None = None, device: str = "auto") -> None:
        """Load the store by name (None: the default). Raises DFIError(NO_STORE | BAD_STORE | BAD_REQUEST)."""
        self.store = attributes.open_store(store)
        self.device = vgg.choose_device(device)
        self.network = vgg.load(self.store.weights(), self.device)

    @property
    def store_name(self) -> str:
        return self.store.name

    @property
    def device_name(self) -> str:
        """The device and its precision, such as "cpu (bfloat16)"."""
        precision = str(self.network.precision).removeprefix("torch.")
        return f"{self.device.type} ({precision})"

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.store.info.attributes

    def edit(
        self,
        photo: Pixels,
        alphas: Mapping[str, float],
        *,
        box: Box | None = None,
        iterations: int | None = None,
        progress: Callable[[Progress], None] = lambda state: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Edit:
        """Give the face in `photo` the attributes `alphas`, each as strong as its alpha.

        `photo`: (H, W, 3) or (H, W, 1), sRGB, uint8, uint16, or float32 in [0, 1]; it is not changed.
        `alphas`: attribute -> alpha in [-2, 2], the shift's length as a fraction of |phi(x)|.
        `box`: x, y, width, height of the face frame in the photo; None: the photo is laid out as LFW's.
        `iterations`: of L-BFGS, 1 to MAX_ITERATIONS; None: reconstruct.ITERATIONS.
        `cancelled` is asked between iterations. Raises DFIError: BAD_IMAGE, BAD_BOX, NO_FACE, BAD_ALPHA,
        UNKNOWN_ATTRIBUTE, BAD_REQUEST, CANCELLED, OUT_OF_MEMORY.
        """
        count = reconstruct.ITERATIONS if iterations is None else iterations
        if not 1 <= count <= MAX_ITERATIONS:
            raise DFIError(ErrorCode.BAD_REQUEST, f"Iterations must be from 1 to {MAX_ITERATIONS}, not {count}.")
        attributes.check_alphas(alphas)
        self.store.check_names(list(alphas))
        _check_photo(photo)
        size = (photo.shape[1], photo.shape[0])
        frame = Frame.of_lfw_layout(size) if box is None else Frame.of_box(box, size)

        def report(state: reconstruct.Iteration) -> None:
            progress(Progress(state.iteration, count, state.loss))
            if cancelled():
                raise DFIError(ErrorCode.CANCELLED, "The edit was cancelled.")

        start = time.perf_counter()
        try:
            face = cut(photo, frame).to(self.device)
            solved = reconstruct.reconstruct(
                self.network,
                face,
                lambda phi: attributes.shift(self.store, alphas, phi),
                iterations=count,
                callback=report,
            )
            seconds = time.perf_counter() - start
            patch = paste(photo, frame, (solved.image - face).float())
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise DFIError(
                ErrorCode.OUT_OF_MEMORY,
                f"The edit did not fit into the memory of {self.device_name}: close other programs, or use the CPU.",
            ) from error
        return Edit(patch, solved.iteration, solved.evaluations, solved.loss, seconds)


def _check_photo(photo: Pixels) -> None:
    if photo.ndim != 3 or photo.shape[2] not in (1, 3) or photo.dtype.name not in DTYPE_BYTES:
        raise DFIError(
            ErrorCode.BAD_IMAGE,
            f"A photo is height x width x 1 or 3 of {', '.join(DTYPE_BYTES)}, not {photo.shape} of {photo.dtype}.",
        )
    if 0 in photo.shape:
        raise DFIError(ErrorCode.BAD_IMAGE, "The photo has no pixels.")
    if photo.shape[0] * photo.shape[1] > MAX_PIXELS:
        raise DFIError(
            ErrorCode.TOO_LARGE,
            f"The photo has {photo.shape[1]} x {photo.shape[0]} pixels, more than {MAX_PIXELS // 10**6} megapixels.",
        )
    if photo.dtype == np.float32 and not np.isfinite(photo).all():
        raise DFIError(ErrorCode.BAD_IMAGE, "The photo has pixels that are not finite numbers.")
