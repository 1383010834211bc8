"""A photo edited by a server: pixels there, patches back."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo.pixels import Box, Patch, Pixels
from dfi_server.wire.client import Client
from dfi_server.wire.messages import EditRequest, EditResult, FaceChoice, Progress


def edit(
    client: Client,
    pixels: Pixels,
    alphas: Mapping[str, float],
    *,
    face: FaceChoice = "largest",
    box: Box | None = None,
    iterations: int | None = None,
    store: str | None = None,
    progress: Callable[[Progress], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Patch, EditResult]:
    """`Editor.edit` on the other side of the socket: the patch, and what the server said of it.

    `store`: the one that must be used, DFIError(BAD_STORE) where the server has another; None: the server's.
    Raises DFIError as `Editor.edit` and `Client.edit` do.
    """
    height, width, channels = pixels.shape
    request = EditRequest(
        *(width, height, channels, pixels.dtype.name, alphas), face=face, box=box, iterations=iterations, store=store
    )
    result = _asked(client, request, pixels, progress, cancelled)
    (patch,) = _patches(result)
    return patch, result


def sweep(
    client: Client,
    pixels: Pixels,
    name: str,
    alphas: Sequence[float],
    *,
    face: FaceChoice = "largest",
    box: Box | None = None,
    iterations: int | None = None,
    store: str | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> list[Patch]:
    """`Editor.sweep` over the alphas of one attribute; for the rest as `edit`."""
    height, width, channels = pixels.shape
    request = EditRequest(
        *(width, height, channels, pixels.dtype.name, {name: 1.0}),
        face=face,
        box=box,
        iterations=iterations,
        store=store,
        factors=tuple(alphas),
    )
    return _patches(_asked(client, request, pixels, progress))


def _asked(
    client: Client,
    request: EditRequest,
    pixels: Pixels,
    progress: Callable[[Progress], object] | None,
    cancelled: Callable[[], bool] | None = None,
) -> EditResult:
    try:
        return client.edit(request, pixels.tobytes(), progress=progress, cancelled=cancelled)
    except DFIError as error:
        if error.code != ErrorCode.BAD_REQUEST or "does not know" not in error.message:
            raise
        raise DFIError(
            ErrorCode.VERSION,
            f"The server at {client.endpoint} is older than this program, and can be asked neither for a store nor for "
            "a strip: end it, so that this version is started.",
        ) from error


def _patches(result: EditResult) -> list[Patch]:
    shape = (result.count, result.height, result.width)
    pixels = np.frombuffer(result.pixels, dtype=result.dtype).reshape(*shape, result.channels)
    masks = np.frombuffer(result.mask, dtype=np.uint8).reshape(shape)
    return [Patch(result.x, result.y, *both) for both in zip(pixels, masks, strict=True)]
