"""Reading and writing photographs, down to files that are none."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from support import icc
from support.checks import full_disk

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, from_unit, to_unit

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """Random numbers over an integer's range, or for floats from -0.5 to 1.5."""
    rng = np.random.default_rng(1)
    if dtype is np.float32:
        return rng.uniform(-0.5, 1.5, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def refusal(path: Path, code: ErrorCode = ErrorCode.BAD_IMAGE) -> str:
    """The sentence with which an image is refused; it must name the file."""
    with pytest.raises(DFIError) as caught:
        disk.read(path)
    assert caught.value.code is code
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(
    ("extension", "dtype"),
    [(".png", np.uint8), (".PNG", np.uint16), (".tif", np.uint8), (".tiff", np.uint16), (".tif", np.float32)],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 30)])
def test_a_photo_survives_writing_and_reading(
    channels: int, transparent: bool, extension: str, dtype: type, size: tuple[int, int], tmp_path: Path
) -> None:
    profile = PROFILE if channels == 3 else icc.gray(2.2)
    written = Photo(noise(*size, channels, dtype=dtype), noise(*size, dtype=dtype) if transparent else None, profile)
    path = tmp_path / f"photo{extension}"
    disk.write(path, written)
    read = disk.read(path)
    assert read.pixels.dtype == dtype
    assert np.array_equal(read.pixels, written.pixels)
    assert (read.alpha is None) == (not transparent)
    assert not transparent or np.array_equal(read.alpha, written.alpha)
    assert read.icc_profile == profile


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".webp", ".avif", ".jp2", ".bmp"])
def test_formats_with_losses_or_without_transparency_come_close(extension: str, tmp_path: Path) -> None:
    smooth = np.mgrid[0:64, 0:96].sum(axis=0).astype(np.uint8)
    written = Photo(np.stack([smooth, smooth // 2, 200 - smooth], axis=2), np.full((64, 96), 255, np.uint8))
    path = tmp_path / f"photo{extension}"
    disk.write(path, written)
    difference = disk.read(path).pixels.astype(int) - written.pixels
    assert np.abs(difference).mean() < 1.5


def test_a_palette_image_comes_as_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(noise(8, 8, 3)).quantize(16)
    image.save(tmp_path / "palette.png")
    image.save(tmp_path / "clear.gif", transparency=3)
    read = disk.read(tmp_path / "palette.png")
    assert np.array_equal(read.pixels, np.asarray(image.convert("RGB")))
    assert read.alpha is None
    clear = disk.read(tmp_path / "clear.gif")
    assert clear.alpha is not None
    assert np.array_equal(clear.alpha == 0, np.asarray(image) == 3)


def test_black_and_white_comes_as_gray(tmp_path: Path) -> None:
    bits = noise(9, 7) > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(disk.read(tmp_path / "bits.png").pixels, bits[..., None] * 255)


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_16_bit_gray_keeps_its_brightness(extension: str, tmp_path: Path) -> None:
    """Pillow's own conversion clips at 255, which turns such a photo white."""
    ramp = np.linspace(0, 65535, 256 * 8).reshape(8, 256).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"deep{extension}")
    pixels = disk.read(tmp_path / f"deep{extension}").pixels
    assert pixels.shape == (8, 256, 1)
    scale = np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(pixels[..., 0] / scale, ramp / 65535, atol=0.5 / 255)


def test_a_cmyk_photo_comes_as_rgb_without_its_cmyk_profile(tmp_path: Path) -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red.save(tmp_path / "cmyk.jpg", icc_profile=PROFILE, quality=100)
    read = disk.read(tmp_path / "cmyk.jpg")
    assert read.pixels.dtype == np.uint8
    np.testing.assert_allclose(read.pixels, np.broadcast_to([237, 28, 36], (8, 8, 3)), atol=12)  # red, as inks print it
    assert read.icc_profile is None


def test_pixels_without_a_known_range_are_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "numbers.tif"
    Image.new("I", (8, 8), 1).save(path)
    assert "8 or 16 bits" in refusal(path)


@pytest.mark.parametrize(("extension", "depth"), [(".png", np.uint16), (".jpg", np.uint8), (".webp", np.uint8)])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_depth_that_a_format_lacks_is_reduced(extension: str, depth: type, dtype: type, tmp_path: Path) -> None:
    smooth = np.linspace(0, 1, 64 * 96).reshape(64, 96, 1).repeat(3, axis=2)
    path = tmp_path / f"photo{extension}"
    disk.write(path, Photo(from_unit(smooth, np.dtype(dtype))))
    read = disk.read(path)
    assert read.pixels.dtype == depth
    np.testing.assert_allclose(to_unit(read.pixels), smooth, atol=0.02)


def test_a_lab_photo_comes_as_srgb(tmp_path: Path) -> None:
    Image.new("LAB", (8, 8), (136, 209, 195)).save(tmp_path / "lab.tif")  # sRGB's red: L 53, a 81, b 67
    pixels = disk.read(tmp_path / "lab.tif").pixels
    np.testing.assert_allclose(to_unit(pixels)[0, 0], (1, 0, 0), atol=0.05)


TURNS = {  # EXIF orientation -> how an upright picture is turned to be stored so
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_turned_upright_once(orientation: int, tmp_path: Path) -> None:
    """After editing and writing it must not be turned again by the next program; the rest of the EXIF stays."""
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :8] = (255, 0, 0)
    upright[-8:, -8:] = (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "a camera"
    Image.fromarray(upright).transpose(TURNS[orientation]).save(tmp_path / "camera.png", exif=exif)
    read = disk.read(tmp_path / "camera.png")
    assert np.array_equal(read.pixels, upright)
    disk.write(tmp_path / "edited.jpg", read)
    with Image.open(tmp_path / "edited.jpg") as again:
        assert again.size == (40, 24)
        assert again.getexif().get(0x0112, 1) == 1
        assert again.getexif()[0x010F] == "a camera"


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size in its header and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(16_000, 16_000), (30_000, 30_000), (60_000, 2_000_000)])
def test_a_giant_image_is_refused_by_its_header(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    assert "250 megapixels" in refusal(path, ErrorCode.TOO_LARGE)


def test_what_is_a_program_more_than_a_photo_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "drawing.svg"
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="50" height="50"><rect width="20" height="20"/></svg>'
    )
    assert "not an image" in refusal(path, ErrorCode.BAD_IMAGE)


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", png(0, 0), png(0, 9), png(9, 9), b"P6 0 0 255\n", b"GIF89a" + bytes(7) + b";"],
    ids=["empty", "text", "0x0 png", "0x9 png", "no pixels", "0x0 ppm", "0x0 gif"],
)
def test_what_is_no_image_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    refusal(path)


def test_a_missing_image_and_a_folder_are_a_sentence(tmp_path: Path) -> None:
    assert "There is no image" in refusal(tmp_path / "absent.png")
    refusal(tmp_path)


def encoded(extension: str) -> bytes:
    """A photo with EXIF, a profile and a turn, in a file format."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    buffer = io.BytesIO()
    extras = {"exif": exif.tobytes(), "icc_profile": PROFILE} if extension in (".jpg", ".png", ".tif", ".webp") else {}
    Image.fromarray(noise(24, 32, 3)).save(buffer, Image.registered_extensions()[extension], **extras)
    return buffer.getvalue()


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tif", ".webp", ".bmp", ".gif"])
def test_a_truncated_image_is_a_sentence(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"half{extension}"
    path.write_bytes(encoded(extension)[: len(encoded(extension)) // 2])
    refusal(path)


FORMATS = [".jpg", ".png", ".tif", ".webp", ".bmp", ".gif", ".qoi", ".dds", ".tga", ".ppm", ".jp2"]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), extension=st.sampled_from(FORMATS))
def test_a_damaged_image_is_read_or_is_a_sentence(data: st.DataObject, extension: str, tmp_path: Path) -> None:
    content = bytearray(encoded(extension))
    near_start = st.integers(0, min(len(content), 4500) - 1)
    for position, byte in data.draw(st.lists(st.tuples(near_start, st.integers(0, 255)), min_size=1, max_size=8)):
        content[position] = byte
    path = tmp_path / f"damaged{extension}"
    path.write_bytes(content)
    try:
        with warnings.catch_warnings(record=True) as said:
            pixels = disk.read(path).pixels
    except DFIError as error:
        assert error.code in (ErrorCode.BAD_IMAGE, ErrorCode.TOO_LARGE)
    else:
        assert pixels.ndim == 3
        assert pixels.shape[2] in (1, 3)
    assert not said  # a sentence is all that a user shall see


@pytest.mark.parametrize("name", ["photo", "photo.txt", "photo.png.bak", "photo.ico", "photo.h5", ".png"])
def test_a_name_without_a_photos_format_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(DFIError, match=r"use \.png") as caught:
        disk.check_writable(tmp_path / name)
    assert caught.value.code is ErrorCode.BAD_IMAGE


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DFIError, match="There is no folder"):
        disk.check_writable(tmp_path / "absent" / "photo.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DFIError, match="is a folder"):
        disk.check_writable(tmp_path / "folder.png")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    disk.write(path, Photo(noise(8, 8, 3)))
    before = path.read_bytes()
    with pytest.raises(DFIError) as caught:
        disk.write(path, Photo(np.zeros((1, 70_000, 3), np.uint8)))  # JPEG ends at 65,535
    assert str(path) in caught.value.message
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    disk.write(path, Photo(noise(8, 8, 3)))
    before = path.read_bytes()
    with full_disk(30_000), pytest.raises(DFIError) as caught:
        disk.write(path, Photo(noise(200, 200, 3)))
    assert caught.value.code is ErrorCode.NO_SPACE
    assert str(path) in caught.value.message
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    """Not those of a temporary file, which nobody else may read."""
    (tmp_path / "usual").touch()
    disk.write(tmp_path / "photo.png", Photo(noise(4, 4, 3)))
    assert (tmp_path / "photo.png").stat().st_mode == (tmp_path / "usual").stat().st_mode
