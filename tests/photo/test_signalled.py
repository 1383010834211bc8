"""Colours that files state without an ICC profile: read as what they mean, kept in every format, HDR refused."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import cameras, icc, stated
from support.cameras import Tags, saved
from support.checks import refusal
from support.stated import (
    BT709,
    BT709_CURVE,
    BT2020,
    GAMMA_22,
    GAMMA_28,
    HLG,
    LINEAR,
    P3,
    PQ,
    SRGB_CURVE,
    chrm,
    cicp,
    gama,
)

from dfi_server.errors import ErrorCode
from dfi_server.photo import colour, disk
from dfi_server.photo.formats import EXTENSIONS, WRITTEN
from dfi_server.photo.pixels import Patch, Photo, edited, from_unit, to_unit

WRITER = {
    "png": lambda pixels, *said: stated.png(pixels, cicp(*said)),
    "avif": stated.avif,
    "heic": stated.heic,
}
STATING = {**WRITER, "tif": stated.tiff}
PRIMARIES_OF_P3 = chrm(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


@pytest.fixture
def colours() -> np.ndarray:
    """Colours within sRGB in each of the spaces, (48, 64, 3) float32, in soft transitions."""
    y, x = np.mgrid[0:48, 0:64] / (48, 64)[0]
    return np.stack([0.42 + 0.25 * x, 0.4 + 0.2 * y, 0.55 - 0.15 * x * y], axis=2).astype(np.float32)


def seen(path: Path) -> np.ndarray:
    """A file's pixels in sRGB."""
    return to_unit(colour.to_srgb(disk.read(path)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extension", STATING)
@pytest.mark.parametrize(
    ("primaries", "transfer"),
    [(P3, SRGB_CURVE), (BT2020, BT709_CURVE), (BT709, LINEAR), (BT709, GAMMA_28), (P3, LINEAR), (BT709, SRGB_CURVE)],
)
def test_code_points_are_read_as_what_they_mean(
    primaries: int, transfer: int, extension: str, dtype: type, colours: np.ndarray, tmp_path: Path
) -> None:
    pixels = from_unit(colours, np.dtype(dtype))
    path = tmp_path / f"photo.{extension}"
    path.write_bytes(STATING[extension](pixels, primaries, transfer))
    expected = stated.meaning(to_unit(pixels), primaries, transfer)
    assert np.abs(expected - colours).max() > 0.03 or (primaries, transfer) == (BT709, SRGB_CURVE)
    np.testing.assert_allclose(seen(path), expected, atol=1.5 / 255)


@pytest.mark.parametrize(
    ("said", "primaries", "transfer"),
    [
        ([gama(1.0)], BT709, LINEAR),
        ([gama(1 / 2.2), PRIMARIES_OF_P3], P3, SRGB_CURVE),
        ([PRIMARIES_OF_P3], P3, SRGB_CURVE),
        ([gama(1.0), PRIMARIES_OF_P3], P3, LINEAR),
        ([gama(1 / 2.2)], BT709, SRGB_CURVE),
        ([gama(1.0), (b"sRGB", b"\0")], BT709, SRGB_CURVE),
        ([gama(1.0), PRIMARIES_OF_P3, (b"sRGB", b"\0"), cicp(BT2020, BT709_CURVE)], BT2020, BT709_CURVE),
        ([cicp(2, 2)], BT709, SRGB_CURVE),
        ([gama(0.0), chrm(*[0.0] * 8)], BT709, SRGB_CURVE),
        ([chrm(*[0.3] * 8)], BT709, SRGB_CURVE),
        ([chrm(*[0.3127, 0.329] * 4)], BT709, SRGB_CURVE),
        ([(b"gAMA", b"\1"), (b"cHRM", b"\1\2"), (b"cICP", b"\1")], BT709, SRGB_CURVE),
    ],
    ids=lambda value: "+".join(name.decode() for name, _ in value) if isinstance(value, list) else None,
)
def test_of_what_a_png_states_the_most_exact_counts(
    said: list[tuple[bytes, bytes]], primaries: int, transfer: int, colours: np.ndarray, tmp_path: Path
) -> None:
    """cICP, then sRGB, then gAMA and cHRM; what makes no sense does not count (PNG, third edition, 4.3)."""
    path = tmp_path / "photo.png"
    pixels = from_unit(colours, np.dtype(np.uint16))
    path.write_bytes(stated.png(pixels, *said))
    np.testing.assert_allclose(seen(path), stated.meaning(to_unit(pixels), primaries, transfer), atol=1.5 / 255)


def test_cicp_counts_more_than_a_profile_and_a_profile_more_than_gama(colours: np.ndarray, tmp_path: Path) -> None:
    pixels = from_unit(colours, np.dtype(np.uint8))
    path = tmp_path / "photo.png"
    profiled = saved(pixels, ".png", icc_profile=icc.rgb(icc.SRGB, 2.2))
    path.write_bytes(stated.with_chunks(profiled, stated.chunk(*gama(1.0))))
    np.testing.assert_allclose(seen(path), stated.meaning(to_unit(pixels), BT709, GAMMA_22), atol=2 / 255)
    path.write_bytes(stated.with_chunks(profiled, stated.chunk(*cicp(P3, LINEAR))))
    np.testing.assert_allclose(seen(path), stated.meaning(to_unit(pixels), P3, LINEAR), atol=2 / 255)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("said", "primaries", "transfer"),
    [
        (stated.points(P3), P3, SRGB_CURVE),
        (stated.points(P3, white=False), P3, SRGB_CURVE),
        (stated.table(8, LINEAR), BT709, LINEAR),
        ({**stated.points(BT2020), **stated.table(8, *[BT709_CURVE] * 3)}, BT2020, BT709_CURVE),
    ],
)
def test_a_tiffs_primaries_and_transfer_function_are_read_as_what_they_mean(
    said: Tags, primaries: int, transfer: int, order: str, colours: np.ndarray, tmp_path: Path
) -> None:
    pixels = from_unit(colours, np.dtype(np.uint8))
    (tmp_path / "photo.tif").write_bytes(cameras.tiff(pixels, said, order=order))
    expected = stated.meaning(to_unit(pixels), primaries, transfer)
    np.testing.assert_allclose(seen(tmp_path / "photo.tif"), expected, atol=1.5 / 255)
    disk.write(tmp_path / "copy.tif", disk.read(tmp_path / "photo.tif"))
    np.testing.assert_allclose(seen(tmp_path / "copy.tif"), expected, atol=1.5 / 255)
    assert np.array_equal(disk.read(tmp_path / "copy.tif").pixels, pixels)


def test_each_channel_of_a_tiff_has_its_transfer_function(colours: np.ndarray, tmp_path: Path) -> None:
    pixels = from_unit(colours, np.dtype(np.uint8))
    curves = (LINEAR, GAMMA_28, SRGB_CURVE)
    (tmp_path / "photo.tif").write_bytes(cameras.tiff(pixels, stated.table(8, *curves)))
    each = [stated.meaning(to_unit(pixels), BT709, curve)[..., n] for n, curve in enumerate(curves)]
    np.testing.assert_allclose(seen(tmp_path / "photo.tif"), np.stack(each, axis=2), atol=1.5 / 255)


@pytest.mark.parametrize(
    "said",
    [
        stated.points(BT709),
        stated.points(BT709, white=False),
        {318: ("R", (3127, 10_000, 3290, 10_000))},
        {319: ("R", (640, 1000))},
        {319: ("R", (1, 0) * 6)},
        {319: ("R", (1, 3) * 6)},
        {318: ("R", (0, 1, 0, 1)), 319: ("R", (680, 1000, 320, 1000) * 3)},
        stated.table(4, LINEAR),
        {301: ("H", (0,) * 256)},
        {301: ("H", tuple(range(256))[::-1])},
        {301: ("A", b"none\0")},
    ],
    ids=str,
)
def test_what_of_a_tiff_is_srgb_or_makes_no_sense_makes_no_profile(said: Tags, tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(cameras.tiff(np.full((8, 8, 3), 99, np.uint8), said))
    assert disk.read(path).icc_profile is None


def test_a_tiffs_profile_counts_more_than_its_primaries(tmp_path: Path) -> None:
    profile = icc.rgb(icc.SRGB, 2.2)
    pixels = np.full((8, 8, 3), 99, np.uint8)
    (tmp_path / "photo.tif").write_bytes(cameras.tiff(pixels, {**stated.points(P3), 34675: ("U", profile)}))
    assert disk.read(tmp_path / "photo.tif").icc_profile == profile


def test_primaries_do_not_touch_what_a_tiffs_pixels_are_not_of(tmp_path: Path) -> None:
    """Lab and CMYK have colours of their own."""
    for mode in ("LAB", "CMYK"):
        image = Image.new(mode, (8, 8), (136, 209, 195, 0)[: 3 if mode == "LAB" else 4])
        image.save(tmp_path / "plain.tif")
        image.save(tmp_path / "photo.tif", tiffinfo={319: tuple(each / 1000 for each in stated.POINTS[P3])})
        assert disk.read(tmp_path / "photo.tif").icc_profile is None
        assert np.array_equal(seen(tmp_path / "photo.tif"), seen(tmp_path / "plain.tif"))


@pytest.mark.parametrize("said", [gama(1.0), cicp(BT709, LINEAR), "TIFF"], ids=["gAMA", "cICP", "TIFF"])
def test_linear_gray_is_read_as_that(said: tuple[bytes, bytes] | str, tmp_path: Path) -> None:
    pixels = np.linspace(0, 65535, 64 * 8).astype(np.uint16).reshape(8, 64, 1)
    content = stated.tiff(pixels, BT709, LINEAR) if isinstance(said, str) else stated.png(pixels, said)
    (tmp_path / "gray.png").write_bytes(content)
    photo = disk.read(tmp_path / "gray.png")
    assert photo.pixels.shape == (8, 64, 1)
    np.testing.assert_allclose(
        to_unit(colour.to_srgb(photo)), stated.meaning(to_unit(pixels), BT709, LINEAR), atol=1 / 255
    )


@pytest.mark.parametrize("target", {name: each for each, name in EXTENSIONS.items() if name in WRITTEN}.values())
@pytest.mark.parametrize("extension", [*STATING, "gray"])
def test_the_meaning_is_kept_from_every_format_to_every_format(
    extension: str, target: str, colours: np.ndarray, tmp_path: Path
) -> None:
    """Where a format has no place for a profile, by converting to sRGB."""
    pixels, said = from_unit(colours, np.dtype(np.uint16)), (P3, LINEAR)
    content = stated.png(pixels[..., :1], gama(1.0)) if extension == "gray" else STATING[extension](pixels, *said)
    (tmp_path / "photo").write_bytes(content)
    disk.write(tmp_path / f"copy{target}", disk.read(tmp_path / "photo"))
    before, after = seen(tmp_path / "photo"), seen(tmp_path / f"copy{target}")
    assert np.abs(after - before).mean() < 2 / 255


@pytest.mark.parametrize("extension", ["png", "avif", "tif"])
def test_a_linear_photo_is_edited_in_its_own_light(extension: str, colours: np.ndarray, tmp_path: Path) -> None:
    """What is seen to change is what the edit changes in sRGB; outside, no number changes."""
    path = tmp_path / f"photo.{extension}"
    path.write_bytes(STATING[extension](from_unit(colours, np.dtype(np.uint16)), BT709, LINEAR))
    photo = disk.read(path)
    srgb = colour.to_srgb(photo)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 255
    patch = Patch(5, 10, from_unit(to_unit(srgb[10:30, 5:25]) + 0.1, srgb.dtype), mask)
    disk.write(tmp_path / "edited.png", edited(photo, colour.from_srgb(photo, srgb, patch)))
    inside = np.zeros((48, 64), bool)
    inside[15:25, 10:20] = True
    change = seen(tmp_path / "edited.png") - to_unit(srgb)
    np.testing.assert_allclose(change[inside], 0.1, atol=0.004)
    assert np.array_equal(disk.read(tmp_path / "edited.png").pixels[~inside], photo.pixels[~inside])


def hdr_profile(transfer: int) -> bytes:
    """A display profile with a cicp tag (ICC.1:2022, 9.2.17), as phones and JPEG XL's library write for HDR."""
    plain = icc.rgb(icc.SRGB, 2.2)
    (count,) = struct.unpack_from(">I", plain, 128)
    table, content = plain[132 : 132 + 12 * count], plain[132 + 12 * count :]
    moved = re.sub(
        b"(?s)(....)(....)(....)", lambda m: m[1] + struct.pack(">I", int.from_bytes(m[2]) + 12) + m[3], table
    )
    moved += b"cicp" + struct.pack(">II", len(plain) + 12, 12)
    whole = plain[4:128] + struct.pack(">I", count + 1) + moved + content
    whole += b"cicp" + bytes(4) + bytes([BT2020, transfer, 0, 1])
    return struct.pack(">I", len(whole) + 4) + whole


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
@pytest.mark.parametrize("extension", [*WRITER, "jpg", "tif", "webp", "jxl"])
def test_hdr_is_refused_with_a_sentence(
    extension: str, transfer: int, name: str, colours: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / f"hdr.{extension}"
    pixels = from_unit(colours, np.dtype(np.uint8))
    if extension in WRITER:
        path.write_bytes(WRITER[extension](pixels, BT2020, transfer))
    else:
        disk.write(path, Photo(pixels, None, hdr_profile(transfer)))
    sentence = refusal(lambda: disk.read(path), ErrorCode.BAD_IMAGE)
    assert str(path) in sentence
    assert f"HDR photo, {name}" in sentence


@pytest.mark.parametrize("said", [cicp(1, 13, 1), cicp(1, 13, 0, 0), cicp(1, 17), cicp(10, 13)])
def test_code_points_that_cannot_be_followed_are_a_sentence(
    said: tuple[bytes, bytes], colours: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "video.png"
    path.write_bytes(stated.png(from_unit(colours, np.dtype(np.uint8)), said))
    assert "convert it to sRGB" in refusal(lambda: disk.read(path), ErrorCode.BAD_IMAGE)


@pytest.mark.parametrize("write", [stated.avif, stated.heic], ids=["avif", "heic"])
def test_a_damaged_box_costs_no_more_than_the_photo(
    write: Callable[..., bytes], colours: np.ndarray, tmp_path: Path
) -> None:
    """Each byte of the boxes in turn: the file is read, or it is a sentence."""
    good = write(from_unit(colours, np.dtype(np.uint8)), P3, SRGB_CURVE)
    for at in range(0, good.index(b"mdat"), 3):
        damaged = bytearray(good)
        damaged[at] ^= 0xFF
        (tmp_path / "photo").write_bytes(damaged)
        try:
            disk.read(tmp_path / "photo")
        except disk.DFIError as error:
            assert error.code in (ErrorCode.BAD_IMAGE, ErrorCode.TOO_LARGE)


def test_pillow_sees_a_profile_in_what_is_written(colours: np.ndarray, tmp_path: Path) -> None:
    """Other programs get the colours as an ICC profile, with a name that a person can read."""
    (tmp_path / "photo.png").write_bytes(stated.png(from_unit(colours, np.dtype(np.uint8)), cicp(P3, SRGB_CURVE)))
    disk.write(tmp_path / "copy.jpg", disk.read(tmp_path / "photo.png"))
    with Image.open(tmp_path / "copy.jpg") as image:
        profile = image.info["icc_profile"]
    assert "P3".encode("utf-16-be") in profile
