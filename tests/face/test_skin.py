"""Lines of age: where skin is, as deep as asked for, and nowhere else."""

import cv2
import numpy as np
import pytest

from dfi_server.face import skin
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import Frame
from dfi_server.face.landmarks import LIDS, OUTER_LIPS, find_landmarks
from dfi_server.face.portraits import Portraits, load_portraits
from dfi_server.photo.pixels import Patch, brightness, composite
from dfi_server.vectors.store import open_store


@pytest.fixture
def portraits() -> Portraits:
    found = load_portraits()
    assert found
    return found


@pytest.fixture
def frame(closed: np.ndarray) -> Frame:
    canonical = open_store("starter").canonical_landmarks
    return align(find_largest(closed, canonical)[0].landmarks, canonical).of_size(400)


def changed(photo: np.ndarray, frame: Frame, portraits: Portraits, **alphas: float) -> np.ndarray:
    patch = skin.change_lines(photo, photo, frame, alphas, portraits)
    assert isinstance(patch, Patch)
    return composite(photo, patch)


def band(photo: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    light = brightness(photo.astype(np.float32))[..., 0]
    return cv2.GaussianBlur(light, (0, 0), fine) - cv2.GaussianBlur(light, (0, 0), coarse)


def forehead(photo: np.ndarray, frame: Frame) -> tuple[slice, slice]:
    """The middle of it, above the root of the nose."""
    x, y = np.rint(frame.matrix[:, :2] @ find_landmarks(photo, frame)[27] + frame.matrix[:, 2]).astype(int)
    return slice(y - 110, y - 60), slice(x - 60, x + 60)


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        ({"senior": 0.4}, 1.0),
        ({"senior": -0.2}, -0.5),
        ({"youth": 0.4}, -1.0),
        ({"senior": 0.3, "youth": 0.3}, 0.0),
        ({"senior": 2.0}, 1.5),
        ({"smiling": 0.3}, 0.0),
    ],
)
def test_what_ages(alphas: dict[str, float], expected: float) -> None:
    assert skin.ages(alphas) == pytest.approx(expected)


def test_older_skin_has_deeper_lines_and_eyes_lips_and_surroundings_stay(
    closed: np.ndarray, frame: Frame, portraits: Portraits
) -> None:
    older = changed(closed, frame, portraits, senior=0.4)
    half = changed(closed, frame, portraits, senior=0.2)
    landmarks = find_landmarks(closed, frame) @ frame.matrix[:, :2].T + frame.matrix[:, 2]
    still = [landmarks[part] for part in (*LIDS, OUTER_LIPS)]
    for points in still:
        inside = np.zeros(closed.shape[:2], np.uint8)
        cv2.fillConvexPoly(inside, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
        assert np.abs(older.astype(int) - closed)[inside > 0].max() <= 1  # of 255: where lines fade out
    depth = [band(each, 1.5, 8)[forehead(closed, frame)].std() for each in (closed, half, older)]
    assert depth[0] < depth[1] < depth[2]
    assert depth[2] > 1.25 * depth[0]
    edge = np.abs(older.astype(int) - closed)[:, [0, -1]]
    assert edge.max() == 0


def test_younger_skin_loses_lines_and_keeps_its_pores(closed: np.ndarray, frame: Frame, portraits: Portraits) -> None:
    older = changed(closed, frame, portraits, senior=0.6)
    younger = changed(older, frame, portraits, youth=0.4)
    part = forehead(closed, frame)
    lines, pores = (
        [band(each, *widths)[part].std() for each in (older, younger)] for widths in ((3.0, 10.0), (0.01, 0.7))
    )
    assert lines[1] < 0.75 * lines[0]
    assert pores[1] > 0.9 * pores[0]


def test_gray_stays_gray_and_sixteen_bits_are_as_eight(closed: np.ndarray, frame: Frame, portraits: Portraits) -> None:
    gray = np.repeat(closed.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    older = changed(gray, frame, portraits, senior=0.4)
    assert (older != gray).any()
    np.testing.assert_array_equal(older.max(axis=2), older.min(axis=2))
    deep = changed(closed.astype(np.uint16) * 257, frame, portraits, senior=0.4)
    np.testing.assert_allclose(deep / 257, changed(closed, frame, portraits, senior=0.4), atol=1)
