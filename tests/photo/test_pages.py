"""Files with more than one picture: other pages are kept where they can be, and nothing is left out without a word."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image
from support import cameras
from support.cameras import packet, saved, segment, with_segments

from dfi_server.photo import disk

RNG = np.random.default_rng(1)
PICTURES = [RNG.integers(0, 256, (24, 40, 3)).astype(np.uint8) for _ in range(3)]
ONLY_FIRST = "Only the first of its 3 pictures was edited and written."
KEPT = "Only the first of its 3 pages was edited; the others are kept as they were."
TARGETS = [".jpg", ".png", ".tif", ".webp", ".avif", ".bmp"]


def notes(content: bytes, source: str, target: str, folder: Path) -> tuple[str, ...]:
    """The sentences with which a file is written to `edited`; its first picture must be that of the file read."""
    (folder / f"camera{source}").write_bytes(content)
    photo = disk.read(folder / f"camera{source}")
    said = disk.write(folder / f"edited{target}", photo)
    assert disk.read(folder / f"edited{target}").pixels.shape == photo.pixels.shape
    return said


def together(extension: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    first, *others = map(Image.fromarray, PICTURES)
    options = {"save_all": True, "append_images": others, **options}
    first.save(buffer, Image.registered_extensions()[extension], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [".webp", ".png", ".gif", ".avif"])
def test_that_an_animation_was_not_kept_is_said(source: str, target: str, tmp_path: Path) -> None:
    assert notes(together(source), source, target, tmp_path) == (ONLY_FIRST,)


@pytest.mark.parametrize("target", TARGETS)
def test_a_tiffs_pages_are_kept_in_a_tiff(target: str, tmp_path: Path) -> None:
    said = notes(together(".tif"), ".tif", target, tmp_path)
    assert said == ((KEPT,) if target == ".tif" else (ONLY_FIRST,))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif", ".webp", ".avif", ".bmp"])
def test_of_a_file_with_one_picture_nothing_is_said(source: str, target: str, tmp_path: Path) -> None:
    assert notes(saved(PICTURES[0], source), source, target, tmp_path) == ()


PAGES = {
    "gray": Image.fromarray(PICTURES[1]).convert("L"),
    "palette": Image.fromarray(PICTURES[1]).quantize(16),
    "bits": Image.fromarray(PICTURES[1]).convert("1"),
    "transparent": Image.fromarray(PICTURES[1]).convert("RGBA"),
    "CMYK": Image.fromarray(PICTURES[1]).convert("CMYK"),
    "Lab": Image.new("LAB", (30, 20), (136, 209, 195)),
    "16 bits": Image.fromarray(RNG.integers(0, 65536, (20, 30)).astype(np.uint16)),
    "float": Image.fromarray(RNG.uniform(0, 1, (20, 30)).astype(np.float32)),
}


@pytest.mark.parametrize(
    ("kind", "compression"),
    [
        *(
            (kind, compression)
            for kind in PAGES
            for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        *((kind, "jpeg") for kind in ("gray", "CMYK")),
        ("bits", "group4"),
    ],
)
def test_pages_of_any_kind_are_kept_to_the_byte(kind: str, compression: str | None, tmp_path: Path) -> None:
    page = PAGES[kind].copy()
    page.encoderinfo = {"compression": compression}
    content = together(".tif", append_images=[page, Image.fromarray(PICTURES[2])])
    assert notes(content, ".tif", ".tif", tmp_path) == (KEPT,)
    for page in (1, 2):
        with Image.open(tmp_path / "camera.tif") as before, Image.open(tmp_path / "edited.tif") as after:
            before.seek(page)
            after.seek(page)
            assert (after.mode, after.size, after.n_frames) == (before.mode, before.size, 3)
            assert after.tag_v2.get(259) == before.tag_v2.get(259)
            assert np.array_equal(np.asarray(after), np.asarray(before))


@pytest.mark.parametrize("options", [{"tile": True}, {"pyramid": False, "compression": "lzw"}, {"bigtiff": True}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_that_libvips_wrote_are_kept(dtype: type, options: dict[str, object], tmp_path: Path) -> None:
    pages = (RNG.uniform(0, 1, (3 * 50, 70, 3)) * (1 if dtype is np.float32 else np.iinfo(dtype).max)).astype(dtype)
    image = pyvips.Image.new_from_array(pages).copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", 50)
    assert notes(image.tiffsave_buffer(**options), ".tif", ".tif", tmp_path) == (KEPT,)
    for page in range(3):
        kept = pyvips.Image.tiffload(str(tmp_path / "edited.tif"), page=page).numpy()
        assert np.array_equal(kept, pages[50 * page : 50 * (page + 1)])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_the_other_byte_order_are_kept_where_they_do_not_depend_on_it(
    dtype: type, order: str, tmp_path: Path
) -> None:
    pictures = [picture.astype(dtype) * (np.iinfo(dtype).max // 255) for picture in PICTURES]
    content = cameras.tiff(pictures[0], order=order, others=pictures[1:])
    said = notes(content, ".tif", ".tif", tmp_path)
    kept = order == "<" or dtype is np.uint8
    assert said == ((KEPT,) if kept else (ONLY_FIRST,))
    assert np.array_equal(disk.read(tmp_path / "edited.tif").pixels, pictures[0])
    with Image.open(tmp_path / "edited.tif") as after:
        assert after.n_frames == (3 if kept else 1)
        assert after.tag_v2[271] == "a camera"
        if kept:
            after.seek(2)
            assert after.tag_v2[285] == "another page"
            pages = pyvips.Image.tiffload(str(tmp_path / "edited.tif"), page=2).numpy()
            assert np.array_equal(pages, pictures[2])


def test_pages_are_kept_when_a_photo_replaces_itself(tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(together(".tif"))
    for _ in range(2):
        assert disk.write(tmp_path / "scan.tif", disk.read(tmp_path / "scan.tif")) == (KEPT,)
    with Image.open(tmp_path / "scan.tif") as after:
        after.seek(2)
        assert np.array_equal(np.asarray(after), PICTURES[2])


def test_a_tiffs_preview_of_the_photo_is_no_page_and_is_not_kept(tmp_path: Path) -> None:
    small = Image.fromarray(PICTURES[1])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    content = together(".tif", append_images=[small])
    assert notes(content, ".tif", ".tif", tmp_path) == ()
    assert PICTURES[1].tobytes() not in (tmp_path / "edited.tif").read_bytes()


def test_pages_that_are_gone_when_the_photo_is_written_are_said_to_be_missing(tmp_path: Path) -> None:
    content = together(".tif")
    (tmp_path / "camera.tif").write_bytes(content)
    photo = disk.read(tmp_path / "camera.tif")
    (tmp_path / "camera.tif").write_bytes(content[: content.index(PICTURES[2].tobytes())])
    assert disk.write(tmp_path / "edited.tif", photo) == (ONLY_FIRST,)


MAIN, UNKNOWN, PREVIEW, STEREO = 0x030000, 0, 0x010002, 0x020002


@pytest.mark.parametrize("target", [".jpg", ".png"])
def test_pictures_behind_a_jpegs_first_are_said_to_be_left_out(target: str, tmp_path: Path) -> None:
    jpegs = [saved(picture, ".jpg") for picture in PICTURES]
    stereo = cameras.several(jpegs, [MAIN, STEREO, STEREO])
    assert notes(stereo, ".jpg", target, tmp_path) == (ONLY_FIRST,)
    previews = cameras.several(jpegs, [MAIN, PREVIEW, PREVIEW])
    assert notes(previews, ".jpg", target, tmp_path) == ()  # of the face before: nobody misses them


GAIN = {
    "Ultra HDR": packet('xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" hdrgm:GainMapMax="3"'),
    "Apple": packet('xmlns:HDRGainMap="http://ns.apple.com/HDRGainMap/1.0/" HDRGainMap:HDRGainMapVersion="65536"'),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", GAIN)
def test_a_gain_map_is_said_to_be_left_out_and_the_xmp_is_kept(kind: str, target: str, tmp_path: Path) -> None:
    directory = "http://ns.google.com/photos/1.0/container/"
    xmp = packet(
        'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" dc:rights="me"',
        f'<c:Directory xmlns:c="{directory}"><rdf:Seq><rdf:li rdf:parseType="Resource"/></rdf:Seq></c:Directory>',
    )
    app1 = b"http://ns.adobe.com/xap/1.0/\0"
    gain = with_segments(saved(PICTURES[1], ".jpg"), segment(0xE1, app1 + GAIN[kind]))
    first = with_segments(saved(PICTURES[0], ".jpg"), segment(0xE1, app1 + xmp))
    (said,) = notes(cameras.several([first, gain], [MAIN, UNKNOWN]), ".jpg", target, tmp_path)
    assert "gain map is left out" in said
    written = (tmp_path / f"edited{target}").read_bytes()
    assert b"hdr-gain-map" not in written  # nothing says that there is one
    assert b"container" not in written
    assert (b'dc:rights="me"' in written) == (target != ".bmp")


@pytest.mark.parametrize("brand", [b"tmap", b"hdrgainmap"])
def test_an_avifs_gain_map_is_said_to_be_left_out(brand: bytes, tmp_path: Path) -> None:
    content = bytearray(saved(PICTURES[0], ".avif"))
    content[16:20] = brand[:4] if len(brand) == 4 else content[16:20]
    content += brand if len(brand) > 4 else b""
    (said,) = notes(bytes(content), ".avif", ".avif", tmp_path)
    assert "gain map is left out" in said


@pytest.mark.parametrize("name", ["MotionPhoto", "MicroVideo"])
def test_a_motion_photos_film_is_said_to_be_left_out(name: str, tmp_path: Path) -> None:
    xmp = packet(f'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" GCamera:{name}="1" dc:rights="me"')
    content = saved(PICTURES[0], ".jpg", xmp=xmp) + b"\0\0\0\x18ftypmp42" + bytes(5000)
    (said,) = notes(content, ".jpg", ".jpg", tmp_path)
    assert "film" in said
    assert name.encode() not in (tmp_path / "edited.jpg").read_bytes()


def test_layers_are_said_to_be_left_out(tmp_path: Path) -> None:
    content = cameras.tiff(PICTURES[0], {37724: ("U", b"Adobe Photoshop Document Data Block\0" + bytes(40))})
    (said,) = notes(content, ".tif", ".tif", tmp_path)
    assert "layers are left out" in said
