"""What photos say beside their pixels, from every format to every format: kept as it was, or left out, never wrong."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, IptcImagePlugin
from support import cameras
from support.cameras import FACE, ZOE, chunk, packet, saved, segment, with_chunks, with_late_chunks, with_segments
from support.carried import FORMATS, PIXELS, dpi_of, edited, every_source, every_target, exif_of, xmp_of

from dfi_server.photo import disk
from dfi_server.photo.pixels import Metadata, Photo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TIFF_NAMES = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'


def utf_8(text: str) -> str:
    return text.encode("latin-1").decode().rstrip("\0")


@every_source
@every_target
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_text_is_kept_in_any_language(source: str, target: str, order: str, tmp_path: Path) -> None:
    comment = b"UNICODE\0" + "grüße 你好".encode("utf-16-le" if order == "<" else "utf-16-be")
    content = cameras.taken(
        *(PIXELS, source),
        {315: ("A", ZOE + b"\0"), 33432: ("A", "© 2024 Zoë\0".encode()), 40091: ("B", "Tïtel\0".encode("utf-16-le"))},
        {42036: ("A", "Objektiv für 85 mm\0".encode()), 33434: ("R", (1, 250)), 37510: ("U", comment)},
        {2: ("R", (52, 1, 31, 1, 12, 1)), 1: ("A", b"N\0")},
        order=order,
    )
    tags = exif_of(edited(content, source, target, tmp_path))
    assert tags[271] == "a camera"
    assert utf_8(tags[315]) == "Zoë Müller"
    assert utf_8(tags[33432]) == "© 2024 Zoë"
    assert tags[40091].decode("utf-16-le") == "Tïtel\0"
    detail = tags.get_ifd(34665)
    assert utf_8(detail[42036]) == "Objektiv für 85 mm"
    assert detail[33434] == 1 / 250
    order_now = tags.endian
    assert detail[37510] == b"UNICODE\0" + "grüße 你好".encode("utf-16-le" if order_now == "<" else "utf-16-be")
    assert tags.get_ifd(34853)[2] == (52, 31, 12)


@every_source
@every_target
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_nothing_says_that_an_upright_photo_is_to_be_turned(
    source: str, target: str, orientation: int, tmp_path: Path
) -> None:
    stale = f'{TIFF_NAMES} tiff:Orientation="{orientation}" tiff:ImageWidth="40"'
    element = f"<tiff:Orientation {TIFF_NAMES}>{orientation}</tiff:Orientation>"
    for xmp in (packet(stale), packet(elements=element)):
        path = edited(cameras.taken(PIXELS, source, {274: ("H", orientation)}, xmp=xmp), source, target, tmp_path)
        assert exif_of(path).get(274, 1) == 1
        assert "Orientation" not in xmp_of(path)
        assert ("ImageWidth" in xmp_of(path)) == (xmp == packet(stale) and orientation < 5)
        assert "Tïtel" in xmp_of(path)
        with Image.open(path) as image:
            assert image.size == ((24, 40) if orientation > 4 else (40, 24))


@every_source
@every_target
def test_no_picture_of_the_face_before_the_edit_is_left(source: str, target: str, tmp_path: Path) -> None:
    """In EXIF's thumbnail, in a maker note, in XMP, in what a phone's camera added to XMP, in Photoshop's resources."""
    google = "http://ns.google.com/photos/1.0/image/"
    elements = (
        '<xmp:Thumbnails xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:g="http://ns.adobe.com/xap/1.0/g/img/">'
        '<rdf:Alt><rdf:li rdf:parseType="Resource"><g:image>SECRET</g:image></rdf:li></rdf:Alt></xmp:Thumbnails>'
    )
    xmp = packet(f'xmlns:GImage="{google}" GImage:Data="SECRET"', elements)
    detail = {37500: ("U", b"Note\0" + FACE), 36864: ("U", b"0230")}
    content = cameras.taken(PIXELS, source, detail=detail, thumbnail=FACE, xmp=xmp)
    if source == ".jpg":
        content = with_segments(content, cameras.photoshop((0x040C, FACE), (0x0404, cameras.iptc((120, b"a caption")))))
    path = edited(content, source, target, tmp_path)
    assert b"the face before" not in path.read_bytes()
    assert b"SECRET" not in path.read_bytes()
    assert "Tïtel" in xmp_of(path)
    assert exif_of(path)[271] == "a camera"


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".avif"])
@every_target
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_maker_note_is_readable_or_left_out(source: str, target: str, orientation: int, tmp_path: Path) -> None:
    """Its offsets count from the block's start (Sony's, Canon's): it must lie where it lay, but in a TIFF."""
    note = b"SONY DSC \0\0\0" + bytes(range(100))
    detail = {37500: ("U", note), 36864: ("U", b"0230")}
    content = cameras.taken(PIXELS, source, {274: ("H", orientation)}, detail, thumbnail=FACE)
    path = edited(content, source, target, tmp_path)
    if target == ".tif":
        assert note not in path.read_bytes()
        return
    before, after = (
        file.index(note) - file.rindex(b"II*\0", 0, file.index(note)) for file in (content, path.read_bytes())
    )
    assert before == after
    assert exif_of(path).get_ifd(34665)[37500] == note


@every_source
@every_target
def test_xmp_and_the_profile_are_kept_as_they_are(source: str, target: str, tmp_path: Path) -> None:
    xmp = b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>' + packet('dc:rights="me"') + b'<?xpacket end="w"?>'
    path = edited(saved(PIXELS, source, xmp=xmp, icc_profile=PROFILE), source, target, tmp_path)
    assert xmp_of(path).encode() == xmp
    with Image.open(path) as image:
        assert image.info["icc_profile"] == PROFILE


@pytest.mark.parametrize("source", [".jpg", ".tif"])
@every_target
def test_iptc_is_kept_where_it_has_a_place(source: str, target: str, tmp_path: Path) -> None:
    records = cameras.iptc((5, b"a title"), (80, ZOE), (25, b"one"), (25, b"two!!"))
    if source == ".jpg":
        content = with_segments(saved(PIXELS, source), cameras.photoshop((0x03ED, bytes(16)), (0x0404, records)))
    else:
        content = saved(PIXELS, source, tiffinfo={33723: records})
    path = edited(content, source, target, tmp_path)
    with Image.open(path) as image:
        found = IptcImagePlugin.getiptcinfo(image) if target in (".jpg", ".tif") else None
    if target in (".jpg", ".tif"):
        assert found == {(2, 5): b"a title", (2, 80): ZOE, (2, 25): [b"one", b"two!!"]}
    else:
        assert b"a title" not in path.read_bytes()


@pytest.mark.parametrize("text", ["Grüße", "plain"])
def test_a_jpegs_comment_is_kept_in_jpeg_and_png(text: str, tmp_path: Path) -> None:
    for encoding in ("utf-8", "latin-1"):
        content = with_segments(saved(PIXELS, ".jpg"), segment(0xFE, text.encode(encoding)))
        with Image.open(edited(content, ".jpg", ".jpg", tmp_path)) as image:
            assert image.info["comment"] == text.encode(encoding)
        with Image.open(edited(content, ".jpg", ".png", tmp_path)) as image:
            assert image.text["Comment"] == text


def test_a_pngs_texts_are_kept(tmp_path: Path) -> None:
    text = b"parameters\0a portrait, steps: 20"
    content = with_chunks(
        saved(PIXELS, ".png"),
        *(chunk(b"tEXt", text), chunk(b"tEXt", "Author\0Müller".encode("latin-1"))),
        chunk(b"zTXt", b"Description\0\0" + zlib.compress(b"long " * 500)),
        chunk(b"iTXt", "Copyright\0\0\0de\0Urheber\0© 你好".encode()),
        chunk(b"iTXt", b"Title\0\1\0\0\0" + zlib.compress("Tïtel".encode())),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\n00000000\n"),
        chunk(b"tEXt", b"Comment\0a comment"),
    )
    with Image.open(edited(content, ".png", ".png", tmp_path)) as image:
        assert image.text == {
            "parameters": "a portrait, steps: 20",
            "Author": "Müller",
            "Description": "long " * 500,
            "Copyright": "© 你好",
            "Title": "Tïtel",
            "Comment": "a comment",
        }
    with Image.open(edited(content, ".png", ".jpg", tmp_path)) as image:
        assert image.info["comment"] == b"a comment"


@every_target
def test_what_a_png_says_behind_its_pixels_counts_as_well(target: str, tmp_path: Path) -> None:
    texts = [chunk(b"tEXt", b"Author\0me"), chunk(b"zTXt", b"Description\0\0" + zlib.compress(b"long " * 500))]
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet())
    block = chunk(b"eXIf", cameras.exif({274: ("H", 6), 282: ("R", (300, 1)), 283: ("R", (150, 1)), 296: ("H", 2)}))
    content = with_late_chunks(saved(PIXELS, ".png"), *texts, xmp, block, chunk(b"iTXt", "Title\0\0\0\0\0Tï".encode()))
    path = edited(content, ".png", target, tmp_path)
    with Image.open(path) as image:
        assert image.size == (24, 40)
        if target == ".png":
            expected = {"Author": "me", "Description": "long " * 500, "Title": "Tï"}
            assert image.text == {**expected, "XML:com.adobe.xmp": packet().decode()}
            assert np.array_equal(np.asarray(image), np.rot90(PIXELS, -1))
    assert exif_of(path)[271] == "a camera"
    assert exif_of(path).get(274, 1) == 1
    assert dpi_of(path) == pytest.approx((150, 300), abs=0.1)
    assert xmp_of(path).encode() == packet()


@pytest.mark.parametrize("orientation", range(10))
def test_an_orientation_behind_a_pngs_pixels_is_that_before_them(orientation: int, tmp_path: Path) -> None:
    block = chunk(b"eXIf", cameras.exif({274: ("H", orientation)}))
    for name, place in (("early", with_chunks), ("late", with_late_chunks)):
        (tmp_path / f"{name}.png").write_bytes(place(saved(PIXELS, ".png"), block))
    early, late = (disk.read(tmp_path / f"{name}.png") for name in ("early", "late"))
    assert np.array_equal(early.pixels, late.pixels)
    assert early.metadata == late.metadata


@every_target
def test_extended_xmp_is_joined_and_its_pointer_is_right(target: str, tmp_path: Path) -> None:
    name = b"0123456789ABCDEF0123456789ABCDEF"
    note = f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{name.decode()}"'
    history = "<dc:description>" + "long &lt;&#10;" * 15_000 + "</dc:description>"
    extension = packet(elements=history).replace(b"<dc:title>T\xc3\xaftel</dc:title>", b"")
    header = b"http://ns.adobe.com/xmp/extension/\0" + name
    parts = [
        segment(0xE1, header + struct.pack(">II", len(extension), at) + extension[at : at + 60_000])
        for at in range(0, len(extension), 60_000)
    ]
    main = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet(note))
    whole = with_segments(saved(PIXELS, ".jpg"), main, *reversed(parts))
    path = edited(whole, ".jpg", target, tmp_path)
    if target == ".jpg":  # what Pillow does not join: by this program's own reading
        again = (disk.read(path).metadata.xmp or b"").decode()
        assert path.read_bytes().count(b"http://ns.adobe.com/xmp/extension/\0") == 3
        (pointer,) = {part[:32] for part in path.read_bytes().split(b"http://ns.adobe.com/xmp/extension/\0")[1:]}
        assert pointer.decode() in xmp_of(path)
    else:
        again = xmp_of(path)
        assert "HasExtendedXMP" not in again
    assert again.count("long &lt;") == 15_000
    assert "Tïtel" in again

    cut = edited(with_segments(saved(PIXELS, ".jpg"), main, *parts[:1]), ".jpg", target, tmp_path)
    assert "HasExtendedXMP" not in xmp_of(cut)
    assert "Tïtel" in xmp_of(cut)
    assert b"xmp/extension" not in cut.read_bytes()


def test_long_xmp_goes_from_a_png_to_a_jpeg(tmp_path: Path) -> None:
    xmp = packet('dc:rights="' + "r" * 70_000 + '"', "<dc:creator>" + "&#10;c" * 50_000 + "</dc:creator>")
    path = edited(saved(PIXELS, ".png", xmp=xmp), ".png", ".jpg", tmp_path)
    again = disk.read(path).metadata.xmp or b""
    assert again.count(b"r") > 70_000
    assert again.count(b"\nc") == 50_000
    assert "Tïtel" in xmp_of(path)
    assert "HasExtendedXMP" in xmp_of(path)


@pytest.mark.parametrize(
    "xmp",
    [
        b"<x:xmpmeta",
        b"no XML",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        b"<x/>",
        b"\xff\xfe<",
    ],
)
@every_target
def test_xmp_that_cannot_be_read_is_left_out(xmp: bytes, target: str, tmp_path: Path) -> None:
    path = edited(saved(PIXELS, ".tif", xmp=xmp), ".tif", target, tmp_path)
    assert not xmp_of(path)


@pytest.mark.parametrize("target", [".jpg", ".avif"])
def test_exif_longer_than_a_jpegs_segment_loses_its_maker_note_first(target: str, tmp_path: Path) -> None:
    detail = {37500: ("U", bytes(70_000)), 42036: ("A", b"a lens\0")}
    path = edited(saved(PIXELS, ".png", exif=cameras.exif(detail=detail)), ".png", target, tmp_path)
    assert exif_of(path).get_ifd(34665)[42036].rstrip("\0") == "a lens"
    long = cameras.exif(detail={37510: ("U", bytes(70_000))})
    assert not exif_of(edited(saved(PIXELS, ".png", exif=long), ".png", target, tmp_path))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_with_transparency_holds_metadata(mode: str, lossless: bool, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(PIXELS).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(PIXELS[..., 0]))
    image.save(buffer, "WEBP", exif=b"Exif\0\0" + cameras.exif(), xmp=packet(), lossless=lossless)
    path = edited(buffer.getvalue(), ".webp", ".webp", tmp_path)
    assert exif_of(path)[271] == "a camera"
    assert "Tïtel" in xmp_of(path)
    with Image.open(path) as image:
        assert image.mode == ("RGBA" if "A" in mode else "RGB")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@every_target
def test_metadata_goes_with_every_depth(dtype: type, channels: int, target: str, tmp_path: Path) -> None:
    metadata = Metadata(b"Exif\0\0" + cameras.exif(), packet(), None, (), (5.0, 10.0))
    path = tmp_path / f"photo{target}"
    disk.write(path, Photo(np.ones((16, 16, channels), dtype), np.ones((16, 16), dtype), metadata=metadata))
    again = disk.read(path).metadata
    assert again.exif is not None
    assert b"a camera" in again.exif
    assert again.xmp == packet()
    assert again.dots_per_mm == pytest.approx((5, 10), rel=0.01)


@pytest.mark.parametrize("target", [".jpg", ".tif"])
def test_a_bigtiffs_tags_are_read(target: str, tmp_path: Path) -> None:
    content = saved(PIXELS, ".tif", tiffinfo={270: "what is to be seen", 700: packet()}, big_tiff=True, dpi=(240, 240))
    path = edited(content, ".tif", target, tmp_path)
    assert exif_of(path)[270].rstrip("\0") == "what is to be seen"
    assert "Tïtel" in xmp_of(path)
    assert dpi_of(path) == (240, 240)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), source=st.sampled_from(FORMATS), target=st.sampled_from(FORMATS))
def test_damaged_metadata_never_costs_the_photo(data: st.DataObject, source: str, target: str, tmp_path: Path) -> None:
    block = bytearray(
        cameras.exif({274: ("H", 6), 282: ("R", (72, 1)), 283: ("R", (72, 1))}, {37500: ("U", FACE)}, thumbnail=FACE)
    )
    xmp = bytearray(packet(f'{TIFF_NAMES} tiff:Orientation="6"'))
    for content in (block, xmp):
        places = st.tuples(st.integers(4 if content is block else 0, len(content) - 1), st.integers(0, 255))
        for position, byte in data.draw(st.lists(places, min_size=1, max_size=6)):
            content[position] = byte
    extras = [segment(0xE1, b"Exif\0\0" + block), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)]
    extras.append(cameras.photoshop((0x0404, bytes(xmp[:50])))[: -data.draw(st.integers(1, 40))].ljust(90, b"8"))
    if source == ".jpg":
        content = with_segments(saved(PIXELS, ".jpg"), *extras[:2])
    elif source == ".tif":
        content = saved(PIXELS, source, tiffinfo={700: bytes(xmp), 33723: bytes(block)})
    else:
        content = saved(PIXELS, ".png", xmp=bytes(xmp))
        content = with_chunks(content, chunk(b"eXIf", bytes(block)), chunk(b"zTXt", bytes(block)))
        source = ".png"
    path = edited(content, source, target, tmp_path)
    with Image.open(path) as image:
        image.load()
        assert sorted(image.size) == [24, 40]
