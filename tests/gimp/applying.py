"""The filter run on a drawn face in a real GIMP, without a window, and what became of the image."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from gimp.gimp import Gimp
from PIL import Image

from dfi_server.wire.client import Client, EditRequest, EditResult

# Runs the filter on `layer` of `image`, and tells what became of them.
APPLY = """
before = digest(layer)
status, sentence = call(image, [layer], **values)
answer = {"status": status, "sentence": sentence, **outcome(image, layer, before)}
"""


@pytest.fixture(scope="module")
def face_file(gimp: Gimp, face: np.ndarray) -> str:
    """GIMP's path of a drawn face: 250x250, 8 bits, RGB."""
    Image.fromarray(face).save(gimp.share / "face.png")
    return gimp.path(gimp.share / "face.png")


Apply = Callable[..., dict[str, Any]]


@pytest.fixture
def apply(gimp: Gimp, tiny: str, face_file: str) -> Apply:
    """apply(before, after, attribute=..., alpha=...): load the face, run the filter on it, and tell.

    before and after are code: before may change `image` and `layer`, after may keep() pixels and add to `answer`.
    """
    gimp.server(tiny)

    def run(before: str = "", after: str = "", **values: object) -> dict[str, Any]:
        values = {"attribute": "smiling", "alpha": 0.4, **values}
        start = f"image = load({face_file!r})\nlayer = image.get_layers()[0]\nvalues = {values!r}"
        answer: dict[str, Any] = gimp.run("\n".join([start, before, APPLY, after, "image.delete()"]))
        return answer

    return run


def by_client(
    endpoint: str,
    pixels: np.ndarray,
    box: tuple[int, int, int, int] | None,
    keep: Sequence[str] = (),
    **alphas: float,
) -> EditResult:
    """The same edit without GIMP."""
    height, width, channels = pixels.shape
    request = EditRequest(width, height, channels, pixels.dtype.name, alphas, box=box, keep=keep)
    with Client(endpoint) as client:
        return client.edit(request, pixels.tobytes())


def arrays(result: EditResult) -> tuple[np.ndarray, np.ndarray]:
    """pixels (h, w, C) and mask (h, w) of a result."""
    shape = (result.height, result.width)
    pixels = np.frombuffer(result.pixels, result.dtype).reshape(*shape, result.channels)
    return pixels, np.frombuffer(result.mask, np.uint8).reshape(shape)


def assert_added(answer: dict[str, Any], name: str) -> None:
    assert (answer["status"], answer["sentence"]) == ("success", "")
    assert len(answer["layers"]) == 2
    assert answer["layers"][0]["name"] == name
    assert answer["source same"]
    assert answer["selected"] == [name]


def assert_refused(answer: dict[str, Any], sentence: str) -> None:
    """The image is as it was, and the user was told in a sentence."""
    assert answer["status"] == "execution-error"
    assert sentence in answer["sentence"]
    assert answer["sentence"].endswith((".", "?", ")"))
    assert "Error:" not in answer["sentence"]
    assert answer["source same"]
    assert not answer["dirty"]
