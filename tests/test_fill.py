"""Region filling: better than smoothing over, blind to what is under the mask, and nothing else changes."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from support.checks import refusal

from dfi_server.errors import ErrorCode
from dfi_server.face.find import align, find_largest
from dfi_server.fill import Filler, Filling
from dfi_server.photo.pixels import composite
from dfi_server.vectors import gallery

ITERATIONS = 5
FACE = (137, 21, 176, 176)
"""Where the sample's is: looking for it would take longer than all the rest."""


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler.load("starter", "cpu")


@pytest.fixture(scope="module")
def faces() -> gallery.Gallery:
    return gallery.of_package()


@pytest.fixture(scope="module")
def fill(filler: Filler, faces: gallery.Gallery) -> Callable[[np.ndarray, np.ndarray], Filling]:
    return lambda photo, mask, box=None: filler.fill(photo, mask, faces, iterations=ITERATIONS, box=box)


@pytest.fixture(scope="module")
def mask(filler: Filler, closed: np.ndarray) -> np.ndarray:
    """Over an eye of the sharp face."""
    canonical = filler.store.canonical_landmarks
    frame = align(find_largest(closed, canonical)[0].landmarks, canonical)
    x, y, width, height = frame.bounds((closed.shape[1], closed.shape[0]), (106, 66, 52, 44))
    mask = np.zeros(closed.shape[:2], np.uint8)
    mask[y : y + height, x : x + width] = 255
    return mask


def psnr(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    return float(cv2.PSNR(first[mask > 0], second[mask > 0]))


@pytest.mark.slow
def test_an_eye_comes_back_and_nothing_else_changes(fill, closed: np.ndarray, mask: np.ndarray) -> None:
    damaged = np.where(mask[..., None] > 0, np.uint8(128), closed)
    filling = fill(damaged, mask)
    result = composite(damaged, filling.patch)
    np.testing.assert_array_equal(result[mask == 0], closed[mask == 0])
    assert filling.outside < 0.01
    telea = cv2.inpaint(damaged, mask, 3, cv2.INPAINT_TELEA)
    assert psnr(result, closed, mask) > psnr(telea, closed, mask) + 2
    # what is under the mask is not looked at
    other = np.where(mask[..., None] > 0, np.uint8(0), closed)
    np.testing.assert_array_equal(composite(other, fill(other, mask).patch), result)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_black_and_white_photo_of_more_bits_stays_so(fill, portrait: np.ndarray, dtype: type) -> None:
    gray = portrait.mean(axis=2, keepdims=True)
    photo = (gray * 257).astype(dtype) if dtype is np.uint16 else (gray / 255).astype(dtype)
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[118:130, 200:260] = 255
    patch = fill(photo, mask, FACE).patch
    result = composite(photo, patch)
    assert result.dtype == dtype and result.shape == photo.shape
    np.testing.assert_array_equal(result[mask == 0], photo[mask == 0])
    assert np.unique(result[mask > 0]).size > 100


def test_soft_edges_of_a_mask_blend(fill, portrait: np.ndarray) -> None:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[100:110, 215:225] = 128
    patch = fill(portrait, mask, FACE).patch
    half = composite(portrait, patch)[mask > 0].astype(float)
    x, y, width, height = patch.box
    filled = patch.pixels[mask[y : y + height, x : x + width] > 0]
    np.testing.assert_allclose(half, (portrait[mask > 0] + filled.astype(float)) / 2, atol=2)


def test_masks_that_make_no_sense_are_refused(fill, portrait: np.ndarray) -> None:
    height, width = portrait.shape[:2]
    for mask, words in (
        (np.zeros((height, width - 1), np.uint8), f"{width - 1} x {height}"),
        (np.zeros((height, width), np.uint8), "black all over"),
        (np.full((height, width), 255, np.uint8), "whole photo"),
    ):
        assert words in refusal(lambda mask=mask: fill(portrait, mask), ErrorCode.BAD_MASK)


@pytest.mark.slow
def test_a_mask_beside_every_face_is_refused(fill, portrait: np.ndarray) -> None:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[-20:, -20:] = 255
    assert "--box" in refusal(lambda: fill(portrait, mask), ErrorCode.NO_FACE)
    wall = np.full((200, 200, 3), 90, np.uint8)
    assert "--box" in refusal(lambda: fill(wall, np.eye(200, dtype=np.uint8) * 255), ErrorCode.NO_FACE)


def test_a_box_says_where_the_face_is(filler: Filler, faces: gallery.Gallery, portrait: np.ndarray) -> None:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[100:110, 215:225] = 255
    beside = (0, 300, 100, 100)
    assert "covers nothing" in refusal(
        lambda: filler.fill(portrait, mask, faces, box=beside, iterations=1), ErrorCode.BAD_MASK
    )


def test_a_mask_over_the_whole_face_is_refused(fill, portrait: np.ndarray) -> None:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[:300, 50:400] = 255
    assert "too little of the face" in refusal(lambda: fill(portrait, mask, FACE), ErrorCode.BAD_MASK)


def test_it_can_be_cancelled(filler: Filler, faces: gallery.Gallery, portrait: np.ndarray) -> None:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[100:110, 215:225] = 255

    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filler.fill(portrait, mask, faces, box=FACE, progress=progress)
