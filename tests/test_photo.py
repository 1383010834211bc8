"""Reading, writing and compositing photographs, down to files that are none."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import full_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from dfi_server import photo
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import Patch, Photo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape).astype(dtype)


def refusal(path: Path, code: ErrorCode = ErrorCode.BAD_IMAGE) -> str:
    """The sentence with which an image is refused; it must name the file."""
    with pytest.raises(DFIError) as caught:
        photo.read(path)
    assert caught.value.code is code
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("extension", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 30)])
def test_a_photo_survives_writing_and_reading(
    channels: int, transparent: bool, extension: str, size: tuple[int, int], tmp_path: Path
) -> None:
    written = Photo(noise(*size, channels), noise(*size) if transparent else None, PROFILE)
    path = tmp_path / f"photo{extension}"
    photo.write(path, written)
    read = photo.read(path)
    assert np.array_equal(read.pixels, written.pixels)
    assert (read.alpha is None) == (not transparent)
    assert not transparent or np.array_equal(read.alpha, written.alpha)
    assert read.icc_profile == PROFILE


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".webp", ".avif", ".jp2", ".bmp"])
def test_formats_with_losses_or_without_transparency_come_close(extension: str, tmp_path: Path) -> None:
    smooth = np.mgrid[0:64, 0:96].sum(axis=0).astype(np.uint8)
    written = Photo(np.stack([smooth, smooth // 2, 200 - smooth], axis=2), np.full((64, 96), 255, np.uint8))
    path = tmp_path / f"photo{extension}"
    photo.write(path, written)
    difference = photo.read(path).pixels.astype(int) - written.pixels
    assert np.abs(difference).mean() < 1.5


def test_a_palette_image_comes_as_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(noise(8, 8, 3)).quantize(16)
    image.save(tmp_path / "palette.png")
    image.save(tmp_path / "clear.gif", transparency=3)
    read = photo.read(tmp_path / "palette.png")
    assert np.array_equal(read.pixels, np.asarray(image.convert("RGB")))
    assert read.alpha is None
    clear = photo.read(tmp_path / "clear.gif")
    assert clear.alpha is not None
    assert np.array_equal(clear.alpha == 0, np.asarray(image) == 3)


def test_black_and_white_comes_as_gray(tmp_path: Path) -> None:
    bits = noise(9, 7) > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert np.array_equal(photo.read(tmp_path / "bits.png").pixels, bits[..., None] * 255)


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_16_bit_gray_keeps_its_brightness(extension: str, tmp_path: Path) -> None:
    """Pillow's own conversion clips at 255, which turns such a photo white."""
    ramp = np.linspace(0, 65535, 256 * 8).reshape(8, 256).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"deep{extension}")
    pixels = photo.read(tmp_path / f"deep{extension}").pixels
    assert pixels.shape == (8, 256, 1)
    scale = np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(pixels[..., 0] / scale, ramp / 65535, atol=0.5 / 255)


def test_a_cmyk_photo_comes_as_rgb_without_its_cmyk_profile(tmp_path: Path) -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red.save(tmp_path / "cmyk.jpg", icc_profile=PROFILE, quality=100)
    read = photo.read(tmp_path / "cmyk.jpg")
    np.testing.assert_allclose(read.pixels, np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=8)
    assert read.icc_profile is None


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_known_range_are_a_sentence(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "numbers.tif"
    Image.new(mode, (8, 8), 1).save(path)
    assert "8 or 16 bits" in refusal(path)


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
    read = photo.read(tmp_path / "camera.png")
    assert np.array_equal(read.pixels, upright)
    photo.write(tmp_path / "edited.jpg", read)
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
    extras = {"exif": exif, "icc_profile": PROFILE} if extension in (".jpg", ".png", ".tif", ".webp") else {}
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
            pixels = photo.read(path).pixels
    except DFIError as error:
        assert error.code in (ErrorCode.BAD_IMAGE, ErrorCode.TOO_LARGE)
    else:
        assert pixels.ndim == 3
        assert pixels.shape[2] in (1, 3)
    assert not said  # a sentence is all that a user shall see


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
    result = photo.composite(pixels, patch)
    assert np.array_equal(pixels, before)
    assert (result.dtype, result.shape) == (pixels.dtype, pixels.shape)

    mask = np.zeros(pixels.shape[:2], np.uint8)
    x, y, w, h = patch.box
    mask[y : y + h, x : x + w] = patch.mask
    kept = mask == 0
    assert result[kept].tobytes() == pixels[kept].tobytes()

    region, old = photo.crop(result, patch.box), photo.crop(pixels, patch.box)
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
    merged = photo.composite(BACKGROUND, photo.merge(BACKGROUND, [one, other]))
    assert np.array_equal(merged, photo.composite(photo.composite(BACKGROUND, one), other))
    assert photo.merge(BACKGROUND, [one]) is one


@pytest.mark.parametrize("order", [1, -1])
def test_where_patches_overlap_the_stronger_counts(order: int) -> None:
    strong, weak = square(2, 3, 200, 255), square(12, 13, 0, 51)
    merged = photo.composite(BACKGROUND, photo.merge(BACKGROUND, [strong, weak][::order]))
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
    part = photo.within(whole, (x, y, width, height))
    kept, full = photo.composite(BACKGROUND, part).astype(int), photo.composite(BACKGROUND, whole).astype(int)
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
    source = Photo(noise(6, 6, 3), noise(6, 6), PROFILE, b"exif")
    patch = Patch(1, 2, np.zeros((3, 3, 3), np.uint8), np.full((3, 3), 255, np.uint8))
    result = photo.edited(source, patch)
    assert (result.pixels[2:5, 1:4] == 0).all()
    assert np.array_equal(result.alpha, source.alpha)
    assert (result.icc_profile, result.exif) == (PROFILE, b"exif")


@pytest.mark.parametrize("name", ["photo", "photo.txt", "photo.png.bak", "photo.ico", "photo.h5", ".png"])
def test_a_name_without_a_photos_format_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(DFIError, match=r"use \.png") as caught:
        photo.check_writable(tmp_path / name)
    assert caught.value.code is ErrorCode.BAD_IMAGE


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DFIError, match="There is no folder"):
        photo.check_writable(tmp_path / "absent" / "photo.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DFIError, match="is a folder"):
        photo.check_writable(tmp_path / "folder.png")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    photo.write(path, Photo(noise(8, 8, 3)))
    before = path.read_bytes()
    with pytest.raises(DFIError) as caught:
        photo.write(path, Photo(np.zeros((1, 70_000, 3), np.uint8)))  # JPEG ends at 65,535
    assert str(path) in caught.value.message
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo.write(path, Photo(noise(8, 8, 3)))
    before = path.read_bytes()
    with full_disk(30_000), pytest.raises(DFIError) as caught:
        photo.write(path, Photo(noise(200, 200, 3)))
    assert caught.value.code is ErrorCode.NO_SPACE
    assert str(path) in caught.value.message
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    """Not those of a temporary file, which nobody else may read."""
    (tmp_path / "usual").touch()
    photo.write(tmp_path / "photo.png", Photo(noise(4, 4, 3)))
    assert (tmp_path / "photo.png").stat().st_mode == (tmp_path / "usual").stat().st_mode
