"""A photo edited or filled by a server: pixels there, patches back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from dfi_server.photo.pixels import Box, Patch, Pixels
from dfi_server.wire.client import Client
from dfi_server.wire.messages import Choices, EditRequest, EditResult, FillRequest, Progress


def edit(
    client: Client,
    pixels: Pixels,
    alphas: Mapping[str, float],
    *,
    store: str | None = None,
    progress: Callable[[Progress], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
    **choices: Unpack[Choices],
) -> tuple[Patch, EditResult]:
    """`Editor.edit` on the other side of the socket: the patch, and what the server said of it.

    `store`: the one that must be used, DFIError(BAD_STORE) where the server has another; None: the server's.
    Raises DFIError as `Editor.edit` and `Client.edit` do.
    """
    request = _request(pixels, alphas, choices, store=store)
    result = client.edit(request, pixels.tobytes(), progress=progress, cancelled=cancelled)
    (patch,) = _patches(result)
    return patch, result


def sweep(
    client: Client,
    pixels: Pixels,
    name: str,
    alphas: Sequence[float],
    *,
    store: str | None = None,
    progress: Callable[[Progress], object] | None = None,
    **choices: Unpack[Choices],
) -> list[Patch]:
    """`Editor.sweep` over the alphas of one attribute; for the rest as `edit`."""
    request = _request(pixels, {name: 1.0}, choices, store=store, factors=tuple(alphas))
    return _patches(client.edit(request, pixels.tobytes(), progress=progress))


def fill(
    client: Client,
    pixels: Pixels,
    mask: np.ndarray,
    *,
    store: str | None = None,
    box: Box | None = None,
    iterations: int | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> tuple[Patch, EditResult]:
    """`Filler.fill` from the package's faces, on the other side of the socket; for the rest as `edit`."""
    height, width, channels = pixels.shape
    request = FillRequest(width, height, channels, pixels.dtype.name, box=box, iterations=iterations, store=store)
    result = client.fill(request, pixels.tobytes(), mask.tobytes(), progress=progress)
    (patch,) = _patches(result)
    return patch, result


def _request(pixels: Pixels, alphas: Mapping[str, float], choices: Choices, **how: Any) -> EditRequest:
    height, width, channels = pixels.shape
    # Only what was chosen: an older server does not know all of it.
    chosen: dict[str, Any] = {name: value for name, value in choices.items() if value}
    return EditRequest(width, height, channels, pixels.dtype.name, alphas, **chosen, **how)


def _patches(result: EditResult) -> list[Patch]:
    shape = (result.count, result.height, result.width)
    pixels = np.frombuffer(result.pixels, dtype=result.dtype).reshape(*shape, result.channels)
    masks = np.frombuffer(result.mask, dtype=np.uint8).reshape(shape)
    return [Patch(result.x, result.y, *both) for both in zip(pixels, masks, strict=True)]
