"""Laying edits over photographs in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dfi_server.photo.pixels import Metadata, Patch, Photo, composite, crop, edited, merge, within


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


DTYPES = {np.uint8: (0, 255), np.uint16: (0, 65535), np.float32: (-0.5, 1.5)}


@st.composite
def photos_and_patches(draw: st.DrawFn) -> tuple[np.ndarray, Patch]:
    dtype = draw(st.sampled_from(list(DTYPES)))
    low, high = DTYPES[dtype]
    value = st.floats(low, high, width=32) if dtype is np.float32 else st.integers(low, high)
    height, width, channels = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.sampled_from([1, 3]))
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
    pixels = draw(hnp.arrays(dtype, (height, width, channels), elements=value))
    mask = draw(hnp.arrays(np.uint8, (h, w), elements=st.sampled_from([0, 0, 1, 128, 254, 255])))
    return pixels, Patch(x, y, draw(hnp.arrays(dtype, (h, w, channels), elements=value)), mask)


@settings(max_examples=150, deadline=None)
@given(photos_and_patches())
def test_a_patch_counts_as_far_as_its_mask_says(drawn: tuple[np.ndarray, Patch]) -> None:
    """Bit-identical outside and where the mask is 0; the patch where it is 255; between the two elsewhere."""
    pixels, patch = drawn
    before = pixels.copy()
    result = composite(pixels, patch)
    assert np.array_equal(pixels, before)
    assert (result.dtype, result.shape) == (pixels.dtype, pixels.shape)

    mask = np.zeros(pixels.shape[:2], np.uint8)
    x, y, w, h = patch.box
    mask[y : y + h, x : x + w] = patch.mask
    kept = mask == 0
    assert result[kept].tobytes() == pixels[kept].tobytes()

    region, old = crop(result, patch.box), crop(pixels, patch.box)
    taken = patch.mask == 255
    np.testing.assert_allclose(region[taken], patch.pixels[taken], rtol=1e-6, atol=1e-6)
    weight = patch.mask[..., None] / 255
    expected = old * (1 - weight) + patch.pixels * weight
    unit = 1e-5 if pixels.dtype == np.float32 else 0.5 + 1e-2
    assert (np.abs(region - expected) <= unit).all()


BACKGROUND = np.full((40, 60, 3), 100, np.uint8)


def square(x: int, y: int, value: int, mask: int) -> Patch:
    """A patch of 20 x 20 pixels of one value."""
    return Patch(x, y, np.full((20, 20, 3), value, np.uint8), np.full((20, 20), mask, np.uint8))


def test_patches_apart_are_merged_into_one_that_does_what_both_do() -> None:
    one, other = square(2, 3, 200, 255), square(35, 15, 0, 128)
    merged = composite(BACKGROUND, merge(BACKGROUND, [one, other]))
    assert np.array_equal(merged, composite(composite(BACKGROUND, one), other))
    assert merge(BACKGROUND, [one]) is one


@pytest.mark.parametrize("order", [1, -1])
def test_where_patches_overlap_the_stronger_counts(order: int) -> None:
    strong, weak = square(2, 3, 200, 255), square(12, 13, 0, 51)
    merged = composite(BACKGROUND, merge(BACKGROUND, [strong, weak][::order]))
    assert (merged[3:23, 2:22] == 200).all()
    assert (merged[23:33, 12:32] == 80).all()  # a fifth of the way from 100 to 0
    assert (merged[33:] == 100).all()


@settings(max_examples=60, deadline=None)
@given(
    x=st.integers(0, 50),
    y=st.integers(0, 30),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
)
def test_an_edit_kept_within_a_box_fades_out_at_its_sides(x: int, y: int, width: int, height: int) -> None:
    whole = square(20, 10, 200, 255)
    part = within(whole, (x, y, width, height))
    kept, full = composite(BACKGROUND, part).astype(int), composite(BACKGROUND, whole).astype(int)
    outside = np.ones(BACKGROUND.shape[:2], bool)
    outside[y : y + height, x : x + width] = False
    assert (kept[outside] == 100).all()
    assert ((kept >= 100) & (kept <= full)).all()
    middle = (slice(y + height // 4, y + height - height // 4), slice(x + width // 4, x + width - width // 4))
    if min(width, height) > 16:
        assert np.array_equal(kept[middle], full[middle])
        on_sides = np.concatenate([kept[y, x : x + width], kept[y : y + height, x]])
        assert on_sides.max() <= 160


def test_an_edit_keeps_what_else_the_file_carried() -> None:
    source = Photo(noise(6, 6, 3), noise(6, 6), b"profile", Metadata(exif=b"exif"))
    patch = Patch(1, 2, np.zeros((3, 3, 3), np.uint8), np.full((3, 3), 255, np.uint8))
    result = edited(source, patch)
    assert (result.pixels[2:5, 1:4] == 0).all()
    assert np.array_equal(result.alpha, source.alpha)
    assert (result.icc_profile, result.metadata) == (b"profile", Metadata(exif=b"exif"))
