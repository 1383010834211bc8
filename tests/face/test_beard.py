"""Hairs of a painted beard: where it is painted, and nowhere else."""

import numpy as np
import pytest

from dfi_server.face import beard
from dfi_server.face.find import align, find_largest
from dfi_server.face.landmarks import OUTER_LIPS, find_landmarks
from dfi_server.face.portraits import load_portraits
from dfi_server.photo.pixels import composite
from dfi_server.vectors.store import open_store


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        ({"mustache": 0.3}, True),
        ({"mustache": -0.3}, False),
        ({"no_beard": -0.3}, True),
        ({"no_beard": 0.3}, False),
        ({"goatee": 0.2, "no_beard": 0.3}, False),
        ({"smiling": 0.3}, False),
    ],
)
def test_what_brings_a_beard(alphas: dict[str, float], expected: bool) -> None:
    assert beard.grows(alphas) is expected


def test_hairs_grow_where_it_got_dark_and_not_on_the_lips(closed: np.ndarray) -> None:
    portraits, canonical = load_portraits(), open_store("starter").canonical_landmarks
    assert portraits
    frame = align(find_largest(closed, canonical)[0].landmarks, canonical).of_size(400)
    landmarks = find_landmarks(closed, frame) @ frame.matrix[:, :2].T + frame.matrix[:, 2]
    x, y = landmarks[33].astype(int)  # below the nose
    lip = landmarks[OUTER_LIPS][:, 1].min().astype(int)
    dark = closed.copy()
    dark[y + 10 : lip - 4, x - 60 : x + 60] //= 2
    patch = beard.grow(closed, dark, frame, portraits)
    assert patch
    haired = composite(dark, patch)
    change = np.abs(haired.astype(int) - dark).max(axis=2)
    assert change[y + 16 : lip - 10, x - 40 : x + 40].mean() > 4
    assert change[: y - 20].max() == 0
    assert change[int(landmarks[57, 1]) + 30 :].max() == 0
    assert beard.grow(closed, closed, frame, portraits) is None
