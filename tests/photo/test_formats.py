"""What each format can hold: every format by depth, channels, transparency and profile; HEIC and JPEG XL among them."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import brotli
import numpy as np
import pillow_heif
import pyjpegxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from support import icc, stated
from support.cameras import packet, saved
from support.checks import refusal

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import colour, disk
from dfi_server.photo.formats import EXTENSIONS, WRITTEN
from dfi_server.photo.pixels import Metadata, Photo, from_unit, to_depth, to_unit

DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
ALL = sorted(extension for extension, name in EXTENSIONS.items() if name in WRITTEN)
WRITABLE = list({EXTENSIONS[extension]: extension for extension in reversed(ALL)}.values())  # one of each format
OPAQUE = [each for each in WRITABLE if not WRITTEN[EXTENSIONS[each]].transparency]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXTRAS = {".heic": ("pillow_heif", "pillow-heif"), ".jxl": ("pyjpegxl", "pyjpegxl")}
DTYPES = [np.uint8, np.uint16, np.float32]

every_format = pytest.mark.parametrize("extension", WRITABLE)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_channel = pytest.mark.parametrize("channels", [1, 3])


def smooth(channels: int, dtype: type) -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64] / (48, 64)[0]
    colours = np.stack([0.3 + 0.4 * x, 0.2 + 0.5 * y, 0.7 - 0.3 * x], axis=2)[..., :channels]
    return from_unit(colours.astype(np.float32), np.dtype(dtype))


@every_format
@every_dtype
@every_channel
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("profiled", [False, True])
def test_every_format_keeps_what_it_can_hold(
    extension: str, dtype: type, channels: int, transparent: bool, profiled: bool, tmp_path: Path
) -> None:
    """As the table in docs/formats.md says: depth, transparency, colours; gray as one channel or three."""
    holds = WRITTEN[EXTENSIONS[extension]]
    profile = (icc.gray(1.8) if channels == 1 else icc.rgb(icc.ADOBE_RGB, 2.2)) if profiled else None
    alpha = from_unit(np.linspace(0.5, 1, 48 * 64).reshape(48, 64), np.dtype(dtype)) if transparent else None
    written = Photo(smooth(channels, dtype), alpha, profile)
    path = tmp_path / f"photo{extension}"
    disk.write(path, written)
    read = disk.read(path)
    assert read.pixels.dtype == min(np.dtype(dtype), np.dtype(holds.deepest), key=lambda each: each.itemsize)
    assert (read.alpha is not None) == (transparent and holds.transparency)
    assert (read.icc_profile is not None) >= (profiled and holds.profile)
    assert read.pixels.shape[2] == (channels if holds.gray else 3)
    if transparent and holds.transparency:
        assert read.alpha is not None
        np.testing.assert_allclose(to_unit(read.alpha), to_unit(alpha), atol=0.02)
    if not transparent:
        before, after = (to_unit(colour.to_srgb(each)) for each in (written, read))
        assert np.abs(after - before).mean() < 2 / 255


@every_channel
@every_dtype
@pytest.mark.parametrize("extension", OPAQUE)
def test_what_transparency_hides_stays_hidden(extension: str, dtype: type, channels: int, tmp_path: Path) -> None:
    """White where a photo is transparent, halfway to it where it is half so, untouched elsewhere; said in one line."""
    pixels = smooth(channels, dtype)
    alpha = from_unit(np.repeat([[0.0, 0.5, 1.0]], 48, axis=0).repeat([20, 20, 24], axis=1), np.dtype(dtype))
    notes = disk.write(tmp_path / f"cut{extension}", Photo(pixels, alpha))
    read = disk.read(tmp_path / f"cut{extension}")
    assert read.alpha is None
    seen, own = read.pixels.astype(int), to_depth(pixels, np.dtype(np.uint8)).astype(int)
    assert (seen[:, :16] >= 250).all()
    np.testing.assert_allclose(seen[:, 24:36], (own[:, 24:36] + 255) / 2, atol=4)
    np.testing.assert_allclose(seen[:, 48:], own[:, 48:], atol=4)
    if extension == ".bmp":
        assert np.array_equal(seen[:, 40:], own[:, 40:])
    (sentence,) = notes
    assert "white" in sentence
    assert WRITTEN[EXTENSIONS[extension]].name in sentence


@pytest.mark.parametrize("extension", ALL)
def test_nothing_is_said_where_nothing_is_lost(extension: str, tmp_path: Path) -> None:
    opaque = np.full((48, 64), 255, np.uint8)
    assert disk.write(tmp_path / f"photo{extension}", Photo(smooth(3, np.uint8), opaque, SRGB)) == ()


def test_a_cut_out_photo_edited_into_a_jpeg_shows_no_background(
    face: np.ndarray, dfi: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    alpha = np.zeros((250, 250), np.uint8)
    alpha[25:225, 25:225] = 255
    disk.write(tmp_path / "cut.png", Photo(face, alpha))
    done = dfi("edit", tmp_path / "cut.png", tmp_path / "cut.jpg", "--set", "smiling=0.4", "--box", "60,60,130,130")
    assert done.returncode == 0, done.stderr
    assert re.search(r"cut\.png: .*white", done.stderr)
    assert (disk.read(tmp_path / "cut.jpg").pixels[:16] >= 250).all()


@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("extension", EXTRAS)
def test_metadata_goes_through_heic_and_jpeg_xl(extension: str, target: str, tmp_path: Path) -> None:
    """EXIF, XMP, resolution, profile, from a camera's JPEG there and on."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 6
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x927C] = b"a maker's note, " * 4
    options = {"exif": exif.tobytes()[6:], "xmp": packet(), "icc_profile": SRGB, "dpi": (300, 150)}
    (tmp_path / "camera.jpg").write_bytes(saved(smooth(3, np.uint8), ".jpg", **options))
    first = disk.read(tmp_path / "camera.jpg")
    disk.write(tmp_path / f"photo{extension}", first)
    disk.write(tmp_path / f"copy{target}", disk.read(tmp_path / f"photo{extension}"))
    read = disk.read(tmp_path / f"copy{target}")
    assert read.pixels.shape == first.pixels.shape == (64, 48, 3)
    assert read.icc_profile == SRGB
    assert read.metadata.dots_per_mm == pytest.approx((150 / 25.4, 300 / 25.4), abs=0.05)
    assert "Tïtel" in (read.metadata.xmp or b"").decode()
    tags = Image.Exif()
    tags.load(read.metadata.exif)
    assert tags[0x010F] == "a camera"
    assert tags.get(0x0112, 1) == 1
    assert tags.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
    if target != ".tif":
        assert tags.get_ifd(0x8769)[0x927C] == b"a maker's note, " * 4


def test_an_iphones_heic_is_read_upright_in_its_own_colours(tmp_path: Path) -> None:
    """Turned by a box of its own and by EXIF, of which one counts; Display P3; several pictures in the file."""
    upright = smooth(3, np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Apple", 6
    profile = icc.rgb(((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)), 2.2)
    content = stated.heic(np.ascontiguousarray(np.rot90(upright)), exif=exif.tobytes(), icc_profile=profile)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(content)
    photo = disk.read(path)
    assert np.array_equal(photo.pixels, upright)
    assert photo.icc_profile == profile
    disk.write(tmp_path / "IMG_0001.jpg", photo)
    with Image.open(tmp_path / "IMG_0001.jpg") as image:
        assert image.size == (64, 48)
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Apple"


def test_the_main_picture_of_several_in_a_heic_is_edited_and_that_is_said(tmp_path: Path) -> None:
    pictures = [smooth(3, np.uint8), 255 - smooth(3, np.uint8)]
    file = pillow_heif.HeifFile()
    for pixels in pictures:
        file.add_frombytes("RGB", (64, 48), pixels.tobytes())
    file.save(tmp_path / "burst.heic", quality=-1, chroma=444, matrix_coefficients=0, primary_index=1)
    photo = disk.read(tmp_path / "burst.heic")
    assert np.array_equal(photo.pixels, pictures[1])
    (sentence,) = disk.write(tmp_path / "one.jpg", photo)
    assert "2 pictures" in sentence


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    """Phones and web sites give HEIC other names."""
    (tmp_path / "photo.jpg").write_bytes(stated.heic(smooth(3, np.uint8)))
    assert np.array_equal(disk.read(tmp_path / "photo.jpg").pixels, smooth(3, np.uint8))
    (tmp_path / "photo.png").write_bytes(pyjpegxl.encode_from_numpy(smooth(3, np.uint8), lossless=True))
    assert np.array_equal(disk.read(tmp_path / "photo.png").pixels, smooth(3, np.uint8))


@pytest.mark.parametrize("size", [(2600, 2600), (20, 9000), (9000, 20), (1, 9000)])
def test_a_large_heic_opens_again(size: tuple[int, int], tmp_path: Path) -> None:
    """More bytes than its decoder takes in one piece, strips that its encoder refuses: with all that belongs to it."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    known = Metadata(b"Exif\0\0" + exif.tobytes()[6:], packet())
    disk.write(tmp_path / "large.heic", Photo(pixels, None, SRGB, known))
    read = disk.read(tmp_path / "large.heic")
    assert read.pixels.shape == pixels.shape
    assert np.abs(read.pixels[:, ::7].astype(int) - pixels[:, ::7]).mean() < 3
    assert read.icc_profile == SRGB
    assert b"a camera" in (read.metadata.exif or b"")
    assert read.metadata.xmp == packet()
    assert read.pages.count == 1
    assert not read.notes


def test_a_heic_that_would_not_open_again_is_a_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1900, 1900, 4)).astype(np.uint8)
    photo = Photo(noise[..., :3], noise[..., 3], is_lossless=True)
    sentence = refusal(lambda: disk.write(tmp_path / "cut.heic", photo), ErrorCode.NO_SPACE)
    assert "less detail" in sentence
    assert ".png" in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [SyntaxError, EOFError, ValueError, RuntimeError, AttributeError])
def test_whatever_the_heic_writer_raises_is_a_sentence(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("Unsupported feature: HEVC images of this kind")

    monkeypatch.setattr(pillow_heif.HeifFile, "save", fail)
    sentence = refusal(lambda: disk.write(tmp_path / "a.heic", Photo(smooth(3, np.uint8))), ErrorCode.NO_SPACE)
    assert "HEVC images of this kind" in sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("extension", EXTRAS)
def test_without_its_package_a_format_says_what_to_install(
    extension: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, package = EXTRAS[extension]
    disk.write(tmp_path / f"photo{extension}", Photo(smooth(3, np.uint8)))
    monkeypatch.setitem(sys.modules, module, None)  # how Python notes that there is no such module
    for action in (
        lambda: disk.read(tmp_path / f"photo{extension}"),
        lambda: disk.check_writable(tmp_path / f"copy{extension}"),
    ):
        with pytest.raises(DFIError, match=r"dfi-server\[heif\]") as caught:
            action()
        assert f"-m pip install {package}" in caught.value.message
        assert f"photo{extension}" in caught.value.message or f"copy{extension}" in caught.value.message


def samples() -> dict[str, bytes]:
    pixels = smooth(3, np.uint8)
    block = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
    return {
        ".heic": stated.heic(pixels, exif=b"Exif\0\0" + block, xmp=packet()),
        ".jxl": pyjpegxl.encode_from_numpy(pixels, exif=bytes(4) + block, xmp=packet()),
    }


@pytest.mark.parametrize("extension", EXTRAS)
def test_half_a_file_is_a_sentence(extension: str, tmp_path: Path) -> None:
    content = samples()[extension]
    path = tmp_path / f"half{extension}"
    for length in (14, 40, len(content) // 2, len(content) - 20):
        path.write_bytes(content[:length])
        assert str(path) in refusal(lambda: disk.read(path), ErrorCode.BAD_IMAGE)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), extension=st.sampled_from(list(EXTRAS)))
def test_a_damaged_file_is_read_or_is_a_sentence(data: st.DataObject, extension: str, tmp_path: Path) -> None:
    content = bytearray(samples()[extension])
    places = st.integers(0, len(content) - 1)
    for position, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        content[position] = byte
    path = tmp_path / f"damaged{extension}"
    path.write_bytes(content)
    try:
        assert disk.read(path).pixels.shape[2] in (1, 3)
    except DFIError as error:
        assert error.code in (ErrorCode.BAD_IMAGE, ErrorCode.TOO_LARGE)


def test_compressed_metadata_of_a_jpeg_xl_is_read(tmp_path: Path) -> None:
    """As cjxl writes it: boxes named brob."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    boxes = [
        (b"JXL ", b"\r\n\x87\n"),
        (b"ftyp", b"jxl \0\0\0\0jxl "),
        (b"brob", b"Exif" + brotli.compress(bytes(4) + exif.tobytes()[6:])),
        (b"brob", b"xml " + brotli.compress(packet())),
        (b"jxlc", pyjpegxl.encode_from_numpy(smooth(3, np.uint8))),
    ]
    whole = b"".join((8 + len(content)).to_bytes(4, "big") + name + content for name, content in boxes)
    (tmp_path / "photo.jxl").write_bytes(whole)
    known = disk.read(tmp_path / "photo.jxl").metadata
    assert b"a camera" in (known.exif or b"")
    assert "Tïtel" in (known.xmp or b"").decode()


def test_an_animated_jpeg_xl_is_a_sentence(tmp_path: Path) -> None:
    """64 pixels square, not all as usual, extra fields, the last of them an animation."""
    bits = 1 | 7 << 1 | 1 << 6 | 1 << 10 | 1 << 16
    (tmp_path / "moving.jxl").write_bytes(b"\xff\x0a" + bits.to_bytes(40, "little"))
    assert "animation" in refusal(lambda: disk.read(tmp_path / "moving.jxl"), ErrorCode.BAD_IMAGE)


def test_a_giant_jpeg_xl_is_refused_by_its_header(tmp_path: Path) -> None:
    """40,000 pixels square: a size header of 18 bits a side, the ratio 1:1, the rest as usual (ISO/IEC 18181-1, D)."""
    bits = 0 | 2 << 1 | (40_000 - 1) << 3 | 1 << 21 | 1 << 24
    (tmp_path / "bomb.jxl").write_bytes(b"\xff\x0a" + bits.to_bytes(40, "little"))
    assert "250 megapixels" in refusal(lambda: disk.read(tmp_path / "bomb.jxl"), ErrorCode.TOO_LARGE)


LABS = {  # L, a, b of D50, as Photoshop writes them -> sRGB; from the definition of CIELAB and Bradford's adaptation
    (54.29, 80.81, 69.89): (1, 0, 0),
    (48.33, 18.97, 23.18): (0.6, 0.4, 0.3),
    (49.23, -22.56, 8.25): (0.3, 0.5, 0.4),
    (39.18, 9.14, -37.07): (0.3, 0.35, 0.6),
    (50.0, 0.0, 0.0): (0.4663, 0.4663, 0.4663),
    (100.0, 0.0, 0.0): (1, 1, 1),
}


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("lab", LABS)
def test_lab_of_either_depth_comes_as_srgb(lab: tuple[float, float, float], depth: int, tmp_path: Path) -> None:
    lightness, a, b = lab
    scale = 1 if depth == 8 else 256
    numbers = np.array([lightness * (2**depth - 1) / 100, (a * scale) % 2**depth, (b * scale) % 2**depth])
    pixels = np.broadcast_to(np.rint(numbers).astype(f"uint{depth}"), (8, 8, 3))
    path = tmp_path / "lab.tif"
    path.write_bytes(lab_tiff(pixels))
    photo = disk.read(path)
    assert photo.icc_profile is None
    np.testing.assert_allclose(to_unit(photo.pixels)[4, 4], LABS[lab], atol=0.02)


def lab_tiff(pixels: np.ndarray) -> bytes:
    """A TIFF of one strip: CIELAB, a and b as two's complements. TIFF 6.0, section 23."""
    depth = 8 * pixels.dtype.itemsize
    height, width, _ = pixels.shape
    entries = {
        256: (3, 1, width),
        257: (3, 1, height),
        258: (3, 3, 0),  # where the three depths are, below
        259: (3, 1, 1),
        262: (3, 1, 8),
        273: (4, 1, 200),
        277: (3, 1, 3),
        278: (3, 1, height),
        279: (4, 1, pixels.nbytes),
    }
    directory = len(entries).to_bytes(2, "little")
    for tag, (kind, count, value) in entries.items():
        value = 190 if tag == 258 else value
        directory += b"".join(n.to_bytes(size, "little") for n, size in ((tag, 2), (kind, 2), (count, 4), (value, 4)))
    head = b"II*\0" + (8).to_bytes(4, "little") + directory + bytes(4)
    head = head.ljust(190, b"\0") + 3 * depth.to_bytes(2, "little")
    return head.ljust(200, b"\0") + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


def test_the_table_in_the_documentation_is_what_is_tested() -> None:
    """docs/formats.md: a row for each format that is written, with what it holds."""
    rows = [line.strip("| \n").split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    told = {row[0]: row for row in rows if row[0] in {each.name for each in WRITTEN.values()}}
    assert told.keys() == {each.name for each in WRITTEN.values()}
    depths = {"uint8": "8", "uint16": "16", "float32": "floating point"}
    for name, holds in WRITTEN.items():
        _, extensions, depth, transparency, profile, _ = told[holds.name]
        assert set(extensions.split()) <= {each for each, known in EXTENSIONS.items() if known == name}
        assert depth.startswith(depths[holds.deepest])
        assert transparency == ("yes" if holds.transparency else "on white")
        assert profile == ("yes" if holds.profile else "as sRGB")


def test_a_photo_is_told_apart_from_its_copy_in_another_format(tmp_path: Path) -> None:
    """An opaque photo with a profile keeps both through all formats that hold them, in turn."""
    photo = Photo(smooth(3, np.uint8), None, SRGB)
    for extension in (".jxl", ".heic", ".avif", ".webp", ".tif", ".png", ".jpg"):
        disk.write(tmp_path / f"photo{extension}", photo)
        photo = replace(disk.read(tmp_path / f"photo{extension}"), metadata=photo.metadata)
        assert photo.icc_profile == SRGB
        np.testing.assert_allclose(to_unit(photo.pixels), to_unit(smooth(3, np.uint8)), atol=0.04)
