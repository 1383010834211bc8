"""Photographs without colours: they are told from those with, and their tone is kept."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dfi_server.photo.pixels import brightness, from_unit
from dfi_server.photo.tone import tone_of

SEPIA = np.array([1.0, 0.89, 0.69])


def toned(portrait: np.ndarray, kind: str) -> np.ndarray:
    """The portrait without its colours, as a float in [0, 1]."""
    light = brightness(portrait.astype(np.float32) / 255)
    curves = {
        "gray": light * np.ones(3),
        "sepia": light * SEPIA,
        "clipped sepia": np.clip(1.4 * light * SEPIA, 0, 1),
        "split": light ** np.array([0.85, 1.0, 1.2]) * (1.0, 0.97, 0.9) + (0.0, 0.01, 0.06),
        "cyanotype": np.clip(light * (0.7, 0.9, 1.0) + (0.0, 0.02, 0.15), 0, 1),
    }
    return np.clip(curves[kind], 0, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["gray", "sepia", "clipped sepia", "split", "cyanotype"])
def test_a_toned_photo_has_a_tone(kind: str, dtype: str, portrait: np.ndarray) -> None:
    assert tone_of(from_unit(toned(portrait, kind), np.dtype(dtype)))


@pytest.mark.parametrize("trouble", ["grain", "jpeg"])
def test_a_scan_has_a_tone(trouble: str, portrait: np.ndarray) -> None:
    sepia = np.rint(255 * toned(portrait, "sepia"))
    if trouble == "grain":
        scan = np.clip(sepia + np.random.default_rng(0).normal(0, 6, sepia.shape), 0, 255).astype(np.uint8)
    else:
        file = io.BytesIO()
        Image.fromarray(sepia.astype(np.uint8)).save(file, "JPEG", quality=75)
        scan = np.asarray(Image.open(file))
    assert tone_of(scan)


@pytest.mark.parametrize("saturation", [1.0, 0.5, 0.25])
def test_a_photo_with_colours_has_none(saturation: float, portrait: np.ndarray) -> None:
    light = brightness(portrait.astype(np.float32) / 255)
    pale = light + saturation * (portrait / np.float32(255) - light)
    assert tone_of(from_unit(pale, np.dtype(np.uint8))) is None


@pytest.mark.parametrize("shape", [(40, 40, 1), (0, 10, 3), (8, 8, 3)])
def test_nothing_to_see_has_none(shape: tuple[int, ...]) -> None:
    """One channel has no colour to lose; one level tells nothing."""
    assert tone_of(np.full(shape, 77, np.uint8)) is None


@given(st.floats(-0.3, 1.3), st.integers(0, 2**32 - 1))
def test_gray_stays_gray_and_gets_its_intensity(painted: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gray = np.repeat(rng.random((32, 32, 1), dtype=np.float32), 3, axis=2)
    tone = tone_of(gray)
    assert tone
    colours = np.clip(painted + rng.normal(0, 0.1, (32, 32, 3)), 0, 1).astype(np.float32)
    kept = tone.of(colours) + tone.apart(gray)
    assert (kept == kept[..., :1]).all()
    assert np.abs(kept - colours.mean(axis=2, keepdims=True)).max() < 1e-3


@pytest.mark.parametrize("kind", ["sepia", "clipped sepia", "cyanotype"])
def test_what_is_painted_takes_on_the_tone(kind: str, portrait: np.ndarray) -> None:
    before = toned(portrait, kind).astype(np.float32)
    tone = tone_of(before)
    assert tone
    after = np.clip(before + np.float32([0.1, -0.2, 0.15]), 0, 1)
    kept = tone.of(after)
    assert np.abs(kept - tone.of(kept)).max() < 3 / 255
    assert np.abs((kept - after).mean(axis=2)).max() < 3 / 255
    assert np.abs(tone.apart(before)).max() < 3 / 255
