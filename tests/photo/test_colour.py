"""Photos in other colour spaces than sRGB: seen right, edited, and given back in their own."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from support import icc

from dfi_server.photo import colour, disk
from dfi_server.photo.pixels import Patch, Photo, edited, from_unit, to_unit

PROFILES = {
    "Adobe RGB": (icc.rgb(icc.ADOBE_RGB, 2.2), 3),
    "ProPhoto": (icc.rgb(icc.PROPHOTO, 1.8), 3),
    "linear": (icc.rgb(icc.SRGB, 1.0), 3),
    "gray gamma 1.8": (icc.gray(1.8), 1),
}


@pytest.fixture(params=PROFILES)
def profiled(request: pytest.FixtureRequest) -> Photo:
    """Random 16-bit colours, all that their space holds."""
    profile, channels = PROFILES[request.param]
    return Photo(np.random.default_rng(2).integers(0, 65536, (40, 30, channels)).astype(np.uint16), None, profile)


def some_edit(srgb: np.ndarray, by: float) -> Patch:
    pixels = from_unit(to_unit(srgb[10:30, 5:25]) + by, srgb.dtype)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 255
    return Patch(5, 10, pixels, mask)


def test_a_neutral_gray_means_the_same_light_in_every_space() -> None:
    """Half of linear light is 188 of 255 in sRGB (IEC 61966-2-1), 0.5 ** (1 / 2.2) in Adobe RGB."""
    for profile, channels, gamma in (
        (icc.rgb(icc.ADOBE_RGB, 2.2), 3, 2.2),
        (icc.rgb(icc.SRGB, 1.0), 3, 1.0),
        (icc.gray(1.8), 1, 1.8),
    ):
        value = from_unit(np.full((2, 2, channels), 0.5 ** (1 / gamma)), np.dtype(np.uint16))
        seen = to_unit(colour.to_srgb(Photo(value, None, profile)))
        assert seen.shape == (2, 2, channels)
        np.testing.assert_allclose(seen, 0.7354, atol=0.004)


def test_an_edit_that_changes_nothing_gives_every_pixel_back(profiled: Photo) -> None:
    """Also those that sRGB cannot show."""
    srgb = colour.to_srgb(profiled)
    assert srgb is not profiled.pixels
    same = edited(profiled, colour.from_srgb(profiled, srgb, some_edit(srgb, 0)))
    assert np.array_equal(same.pixels, profiled.pixels)


def test_what_an_edit_changes_is_seen_as_changed_by_so_much(profiled: Photo) -> None:
    """And nothing outside of the mask changes at all."""
    middle = Photo(profiled.pixels // 4 + 20000, None, profiled.icc_profile)  # within sRGB, apart from clipping
    srgb = colour.to_srgb(middle)
    edit = some_edit(srgb, 0.05)
    result = edited(middle, colour.from_srgb(middle, srgb, edit))
    assert result.pixels.dtype == np.uint16
    inside = np.zeros((40, 30), bool)
    inside[15:25, 10:20] = True
    assert np.array_equal(result.pixels[~inside], middle.pixels[~inside])
    change = to_unit(colour.to_srgb(result)) - to_unit(srgb)
    assert np.median(change[inside]) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("profile", [None, icc.rgb(icc.SRGB, 2.2)[:200], b"no profile", icc.gray(2.2)])
def test_without_a_profile_that_fits_the_photo_is_taken_for_srgb(profile: bytes | None) -> None:
    pixels = np.full((4, 4, 3), 90, np.uint8)
    assert colour.to_srgb(Photo(pixels, None, profile)) is pixels


def test_a_deep_adobe_rgb_tiff_keeps_depth_and_profile(tmp_path: Path) -> None:
    profile = PROFILES["Adobe RGB"][0]
    pixels = np.random.default_rng(3).integers(0, 65536, (50, 40, 3)).astype(np.uint16)
    disk.write(tmp_path / "in.tif", Photo(pixels, None, profile))
    source = disk.read(tmp_path / "in.tif")
    srgb = colour.to_srgb(source)
    assert np.abs(srgb.astype(int) - pixels).max() > 1000  # it was converted
    disk.write(tmp_path / "out.tif", edited(source, colour.from_srgb(source, srgb, some_edit(srgb, 0.1))))
    result = disk.read(tmp_path / "out.tif")
    assert (result.pixels.dtype, result.icc_profile) == (np.uint16, profile)
    assert np.array_equal(result.pixels[:15], pixels[:15])
    assert (result.pixels[15:25, 10:20] != pixels[15:25, 10:20]).any()


def test_gray_stays_gray_in_every_space() -> None:
    """Black and white stored as RGB: what is added is gray in sRGB, and gets no colour on the way back."""
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    photo = Photo(gray, icc_profile=icc.rgb(icc.ADOBE_RGB, 2.2))
    srgb = colour.to_srgb(photo)
    brighter = np.clip(srgb.astype(int) + 2000, 0, 65535).astype(np.uint16)
    result = colour.from_srgb(photo, srgb, Patch(0, 0, brighter, np.full((16, 16), 255, np.uint8))).pixels
    assert (result == result[..., :1]).all()
    assert (result > gray).any()


def test_where_libvips_reads_profiles_from_a_folder(profiled: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every system but Linux: the same colours, and nothing stays there."""
    expected = colour.to_srgb(profiled)
    monkeypatch.delattr("os.memfd_create")
    made: list[str] = []
    folder = tempfile.TemporaryDirectory

    def temporary() -> tempfile.TemporaryDirectory[str]:
        made.append((new := folder()).name)
        return new

    monkeypatch.setattr("tempfile.TemporaryDirectory", temporary)
    assert (colour.to_srgb(profiled) == expected).all()
    assert made and not any(Path(name).exists() for name in made)
