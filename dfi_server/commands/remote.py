"""A photo edited by a server: pixels there, the patch back."""

from collections.abc import Callable, Mapping

import numpy as np

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
    progress: Callable[[Progress], object] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Patch, EditResult]:
    """`Editor.edit` on the other side of the socket: the patch, and what the server said of it.

    Raises DFIError as `Editor.edit` and `Client.edit` do.
    """
    height, width, channels = pixels.shape
    request = EditRequest(width, height, channels, pixels.dtype.name, alphas, face=face, box=box, iterations=iterations)
    result = client.edit(request, pixels.tobytes(), progress=progress, cancelled=cancelled)
    shape = (result.height, result.width)
    patch = Patch(
        result.x,
        result.y,
        np.frombuffer(result.pixels, dtype=result.dtype).reshape(*shape, result.channels),
        np.frombuffer(result.mask, dtype=np.uint8).reshape(shape),
    )
    return patch, result
