"""What was stored without loss stays so, where a format has both ways."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pillow_heif
import pyjpegxl
import pytest
import pyvips
from PIL import Image
from support import icc, stated
from support.cameras import saved

from dfi_server.photo import colour, disk
from dfi_server.photo.pixels import Patch, Photo, crop, edited, to_8bit, to_depth

NOISE = np.random.default_rng(4).integers(0, 256, (40, 56, 4)).astype(np.uint8)
ADOBE = icc.rgb(icc.ADOBE_RGB, 2.2)
BOTH_WAYS = [".webp", ".avif", ".heic", ".jxl"]
ONE_WAY = [".png", ".tif", ".bmp", ".jp2"]


def webp(pixels: np.ndarray, **options: object) -> bytes:
    return saved(pixels, ".webp", exact=True, **options)


def avif(pixels: np.ndarray, icc_profile: bytes | None = None, **options: object) -> bytes:
    image = pyvips.Image.new_from_array(pixels)
    if icc_profile:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc_profile)
    return bytes(image.heifsave_buffer(compression="av1", keep="icc", **options))


def jxl(pixels: np.ndarray, icc_profile: bytes | None = None, **options: object) -> bytes:
    return pyjpegxl.encode_from_numpy(np.ascontiguousarray(pixels), icc=icc_profile, **options)


def heic(pixels: np.ndarray, icc_profile: bytes | None = None, lossless: bool = False) -> bytes:
    mode = {3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    image = pillow_heif.from_bytes(mode, pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes())
    image.info["icc_profile"] = icc_profile
    buffer = io.BytesIO()
    image.save(buffer, chroma=444, **({"quality": -1, "matrix_coefficients": 0, "bit_depth": 12} if lossless else {}))
    return buffer.getvalue()


WRITERS = {".webp": webp, ".avif": avif, ".heic": heic, ".jxl": jxl}


def copied(content: bytes, target: str, folder: Path) -> tuple[Photo, Photo]:
    """A file as it is read, and as it is read from what is written for it."""
    (folder / "photo").write_bytes(content)
    photo = disk.read(folder / "photo")
    disk.write(folder / f"copy{target}", photo)
    return photo, disk.read(folder / f"copy{target}")


def same(one: Photo, other: Photo) -> bool:
    alphas = (one.alpha is None, other.alpha is None)
    return np.array_equal(one.pixels, other.pixels) and (
        alphas == (True, True) or (alphas == (False, False) and np.array_equal(one.alpha, other.alpha))
    )


@pytest.mark.parametrize("target", [*BOTH_WAYS, ".png", ".tif"])
@pytest.mark.parametrize("profile", [None, ADOBE], ids=["sRGB", "Adobe RGB"])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("source", BOTH_WAYS)
def test_a_lossless_photo_stays_lossless(
    source: str, channels: int, profile: bytes | None, target: str, tmp_path: Path
) -> None:
    """Every pixel, those under full transparency as well, in one format after the other."""
    pixels = NOISE[..., :channels].copy()
    if channels == 4:
        pixels[:20, :, 3] = 0
    photo, copy = copied(WRITERS[source](pixels, icc_profile=profile, lossless=True), target, tmp_path)
    assert np.array_equal(photo.pixels, pixels[..., :3])
    assert same(photo, copy)
    disk.write(tmp_path / f"again{source}", copy)
    if target in BOTH_WAYS:
        assert same(photo, disk.read(tmp_path / f"again{source}"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_lossless_jpeg_xl_keeps_its_depth_and_channels(channels: int, dtype: type, tmp_path: Path) -> None:
    scale = 1 / 255 if dtype is np.float32 else 257 if dtype is np.uint16 else 1
    pixels = (NOISE[..., :channels].astype(float) * scale).astype(dtype)
    photo, copy = copied(jxl(pixels, lossless=True), ".jxl", tmp_path)
    assert copy.pixels.dtype == dtype
    assert np.array_equal(copy.pixels, pixels[..., : 1 if channels < 3 else 3])
    assert same(photo, copy)


def test_deep_lossless_avif_stays_lossless(tmp_path: Path) -> None:
    deep = NOISE[..., :3].astype(np.uint16) * 257
    photo, copy = copied(stated.avif(deep, stated.P3, stated.SRGB_CURVE), ".avif", tmp_path)
    assert photo.pixels.dtype == np.uint16
    assert same(photo, copy)


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_lossless_heic_stays_lossless(channels: int, bits: int, tmp_path: Path) -> None:
    deep = (NOISE[..., :channels].astype(np.uint16) * 257) >> 16 - bits << 16 - bits
    photo, copy = copied(heic(deep, lossless=True), ".heic", tmp_path)
    assert np.array_equal(photo.pixels, deep[..., :3])
    assert same(photo, copy)


@pytest.mark.parametrize("tile_size", [0, 64])
@pytest.mark.parametrize("matrix", [0, 6])
@pytest.mark.parametrize("quality", [-1, 80])
def test_a_heic_is_lossless_by_its_coding(quality: int, matrix: int, tile_size: int, tmp_path: Path) -> None:
    """Whatever its colours are stored as, and of several tiles as well."""
    pixels = np.tile(NOISE[..., :3], (3, 3, 1))
    image = pillow_heif.from_bytes("RGB", pixels.shape[1::-1], pixels.tobytes())
    image.info["icc_profile"] = ADOBE
    image.save(tmp_path / "photo.heic", quality=quality, matrix_coefficients=matrix, tile_size=tile_size)
    photo = disk.read(tmp_path / "photo.heic")
    assert photo.is_lossless == (quality == -1)
    disk.write(tmp_path / "copy.heic", photo)
    assert same(photo, disk.read(tmp_path / "copy.heic")) == (quality == -1)


def test_a_lossless_heic_is_untouched_outside_an_edit(tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(heic(NOISE[..., :3], ADOBE, lossless=True))
    photo = disk.read(tmp_path / "photo.heic")
    srgb = colour.to_srgb(photo)
    patch = Patch(8, 8, 255 - crop(to_8bit(srgb), (8, 8, 20, 20)), np.full((20, 20), 255, np.uint8))
    patch = replace(patch, pixels=to_depth(patch.pixels, srgb.dtype))
    disk.write(tmp_path / "edited.heic", edited(photo, colour.from_srgb(photo, srgb, patch)))
    outside = np.ones((40, 56), bool)
    outside[8:28, 8:28] = False
    after = disk.read(tmp_path / "edited.heic").pixels
    assert np.array_equal(after[outside], NOISE[..., :3][outside])
    assert not np.array_equal(after, NOISE[..., :3])


def test_a_lossless_gray_webp_stays_lossless(tmp_path: Path) -> None:
    photo, copy = copied(webp(np.repeat(NOISE[..., :1], 3, axis=2), lossless=True), ".webp", tmp_path)
    assert same(photo, copy)


def test_frames_of_a_lossless_webp_are_known_as_that(tmp_path: Path) -> None:
    frames = [Image.fromarray(NOISE[..., :3]), Image.fromarray(255 - NOISE[..., :3])]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    photo, copy = copied(buffer.getvalue(), ".webp", tmp_path)
    assert np.array_equal(photo.pixels, NOISE[..., :3])
    assert same(photo, copy)


@pytest.mark.parametrize("extension", [*ONE_WAY])
def test_formats_that_know_no_loss_have_none(extension: str, tmp_path: Path) -> None:
    disk.write(tmp_path / f"photo{extension}", Photo(NOISE[..., :3]))
    assert np.array_equal(disk.read(tmp_path / f"photo{extension}").pixels, NOISE[..., :3])


@pytest.mark.parametrize("target", BOTH_WAYS)
@pytest.mark.parametrize("source", [*BOTH_WAYS, ".jpg", ".png"])
def test_what_was_not_lossless_stays_small(source: str, target: str, tmp_path: Path) -> None:
    """A file of a format with losses does not grow to several times its size; nor does a PNG that becomes one."""
    y, x = np.mgrid[0:128, 0:128]
    soft = np.stack([y, x, (x + y) // 2], axis=2) + np.random.default_rng(0).normal(0, 6, (128, 128, 3))
    pixels = np.clip(soft, 0, 255).astype(np.uint8)
    content = WRITERS[source](pixels) if source in BOTH_WAYS else saved(pixels, source)
    copied(content, target, tmp_path)
    without_loss = len(WRITERS[target](pixels, lossless=True))
    assert (tmp_path / f"copy{target}").stat().st_size < 0.7 * without_loss


def test_a_jpeg_inside_a_jpeg_xl_is_not_lossless(tmp_path: Path) -> None:
    """Its pixels were rounded when it was a JPEG; writing it anew without loss would make it several times larger."""
    y, x = np.mgrid[0:128, 0:128]
    soft = np.stack([y, x, (x + y) // 2], axis=2) + np.random.default_rng(0).normal(0, 6, (128, 128, 3))
    jpeg = saved(np.clip(soft, 0, 255).astype(np.uint8), ".jpg", quality=80)
    (tmp_path / "photo.jxl").write_bytes(pyjpegxl.jpeg_to_jxl(jpeg))
    assert not disk.read(tmp_path / "photo.jxl").is_lossless
