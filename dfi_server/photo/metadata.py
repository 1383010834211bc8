"""What a photo's file says beside its pixels: read, made true of the edited photo, and put into what is written.

What is kept is right, what cannot be kept is left out: docs/metadata.md says which. libvips would put EXIF together
anew, which breaks maker notes, and state a resolution that nobody knows: it writes pixels and profile, and the rest is
put in here.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin

from dfi_server.photo import exif, tiff, xmp
from dfi_server.photo.containers import (
    APP0,
    APP1,
    APP13,
    COMMENT,
    Data,
    avif_filler,
    avif_with,
    jpeg_segments,
    jpeg_with,
    opened,
    png_chunks,
    png_with,
    webp_with,
)
from dfi_server.photo.pixels import Metadata, Size
from dfi_server.photo.tiff import DAMAGED

_MM_PER_INCH = 25.4
_JFIF, _JFIF_UNITS = b"JFIF\0", {1: _MM_PER_INCH, 2: 10.0}
_PHOTOSHOP, _RESOURCE, _IPTC_RESOURCE = b"Photoshop 3.0\0", b"8BIM", 0x0404
_XMP_KEY, _COMMENT_KEY = "XML:com.adobe.xmp", "Comment"
_RAW_PROFILES = "Raw profile type "  # ImageMagick's copies of EXIF and the like, in hexadecimal digits
_LONGEST_EXIF = 60_000  # a segment holds 65,533 bytes, and libvips writes no more into an AVIF
_LONGEST_TEXT = 10_000_000  # of what a compressed text becomes


def read(path: Path, found: Metadata, orientation: int, size: Size) -> Metadata:
    """The metadata of a file whose picture was turned upright from an EXIF orientation, and is `size` now.

    `found` is what the decoder has read; what it does not read from a JPEG, PNG or TIFF comes from the file.
    """
    extensions: list[bytes] = []
    with opened(path) as data:
        try:
            if data[:2] == b"\xff\xd8":
                found, extensions = _of_jpeg(data)
            elif data[:4] == b"\x89PNG":
                found = _of_png(data, found)
            elif data[:2] in (b"II", b"MM"):
                found = _of_tiff(data)
            elif data[4:8] == b"ftyp":
                orientation = _orientation_of_item(path) or orientation
        except DAMAGED:
            pass  # the decoder's view of it
    dots = found.dots_per_mm or exif.resolution(found.exif)
    return Metadata(
        exif.upright(found.exif, size, orientation) if found.exif else None,
        xmp.upright(found.xmp, orientation, extensions) if found.xmp else None,
        found.iptc,
        found.texts,
        dots[::-1] if dots and orientation > 4 else dots,
    )


def _of_jpeg(data: Data) -> tuple[Metadata, list[bytes]]:
    """With the segments of extended XMP."""
    blocks: list[bytes] = []
    packets: list[bytes] = []
    extensions, texts, dots, photoshop = [], [], None, b""
    for marker, _, content in jpeg_segments(data):
        if marker == APP0 and content.startswith(_JFIF) and len(content) >= 12:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            dots = (x / _JFIF_UNITS[unit], y / _JFIF_UNITS[unit]) if unit in _JFIF_UNITS and x and y else None
        elif marker == APP1 and content.startswith(exif.HEADER):
            blocks.append(content)
        elif marker == APP1 and content.startswith(xmp.SEGMENT):
            packets.append(content.removeprefix(xmp.SEGMENT))
        elif marker == APP1 and content.startswith(xmp.EXTENSION):
            extensions.append(content.removeprefix(xmp.EXTENSION))
        elif marker == APP13 and content.startswith(_PHOTOSHOP):
            photoshop += content.removeprefix(_PHOTOSHOP)
        elif marker == COMMENT:
            texts.append((_COMMENT_KEY, content.rstrip(b"\0").decode("utf-8", "surrogateescape")))
    block, packet = (next(iter(several), None) for several in (blocks, packets))
    return Metadata(block, packet, _iptc_of(photoshop), tuple(texts), dots), extensions


def _iptc_of(photoshop: bytes) -> bytes | None:
    """IPTC's records among Photoshop's resources: the others show and describe the picture before the edit."""
    at = 0
    while photoshop[at : at + 4] == _RESOURCE and at + 12 <= len(photoshop):
        (kind,) = struct.unpack_from(">H", photoshop, at + 4)
        name = 1 + photoshop[at + 6]
        at += 6 + name + name % 2
        (length,) = struct.unpack_from(">I", photoshop, at)
        if kind == _IPTC_RESOURCE:
            return photoshop[at + 4 : at + 4 + length] or None
        at += 4 + length + length % 2
    return None


def exif_of_png(path: Path) -> bytes | None:
    """A PNG's EXIF, wherever it is in the file: libvips reads none that is behind the pixels."""
    with opened(path) as data:
        if data[:4] == b"\x89PNG":
            content = next((content for name, _, content in png_chunks(data) if name == b"eXIf"), None)
            return content and exif.HEADER + content.removeprefix(exif.HEADER)
    return None


def _of_png(data: Data, found: Metadata) -> Metadata:
    texts, dots = [], None
    for name, _, content in png_chunks(data):
        if name == b"pHYs" and len(content) == 9:
            x, y, unit = struct.unpack(">IIB", content)
            dots = (x / 1000, y / 1000) if unit == 1 and x and y else None
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            key, _, rest = content.partition(b"\0")
            texts.append((key.decode("latin-1"), _text(name, rest)))
    kept = ((key, text) for key, text in texts if text and key != _XMP_KEY and not key.startswith(_RAW_PROFILES))
    packet = found.xmp or next((text.encode() for key, text in texts if key == _XMP_KEY and text), None)
    return Metadata(found.exif, packet, None, tuple(kept), dots)


def _text(chunk: bytes | int, content: bytes) -> str:
    """The text in a PNG's chunk behind its keyword; "" where it is damaged. PNG, third edition, 11.3.3."""
    compressed, encoding = chunk == b"zTXt", "latin-1"
    if compressed:
        content = content[1:]
    elif chunk == b"iTXt":
        compressed, encoding = content[:1] == b"\1", "utf-8"
        content = content[2:].split(b"\0", 2)[-1]
    try:
        if compressed:
            content = zlib.decompressobj().decompress(content, _LONGEST_TEXT)
        return content.decode(encoding)
    except (ValueError, zlib.error):
        return ""


def _of_tiff(data: Data) -> Metadata:
    structure = tiff.Tiff(data)
    entries, _ = structure.directory(structure.first)
    packet, iptc = (structure.value(entries[tag]) if tag in entries else None for tag in (tiff.XMP, tiff.IPTC))
    block = exif.block_of(structure.fields(structure.first, exif.DESCRIPTIVE))
    return Metadata(block, packet, iptc, (), structure.resolution())


def _orientation_of_item(path: Path) -> int | None:
    """How an AVIF's picture lies in its file, which libvips turns without a word; None where Pillow does not know."""
    with contextlib.suppress(Exception), Image.open(path) as image:  # damaged bytes make it raise nearly anything
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def put(encoded: bytes, format_name: str, size: Size, metadata: Metadata) -> bytes:
    """A picture's file (Pillow's name of the format) that holds a profile at most, with what its format can hold."""
    dots = metadata.dots_per_mm
    if format_name == "JPEG":
        density = (round(dots[0] * _MM_PER_INCH), round(dots[1] * _MM_PER_INCH)) if dots else None
        usable = density if density and all(0 < each < 1 << 16 for each in density) else None
        return jpeg_with(encoded, list(_segments(metadata)), usable)
    if format_name == "PNG":
        return png_with(encoded, list(_chunks(metadata)), instead_of={b"pHYs"})
    if format_name == "TIFF":
        return tiff.with_fields(encoded, _fields(metadata))
    block = exif.with_resolution(metadata.exif, dots)  # which has no other place in these formats
    if format_name == "WEBP":
        return webp_with(encoded, size, block and block.removeprefix(exif.HEADER), metadata.xmp)
    return avif_with(encoded, block) if (block := _short(block)) else encoded


def for_avif(metadata: Metadata) -> dict[str, bytes]:
    """libvips' names and values of what it must write into an AVIF itself: XMP, and a place for `put` to lay EXIF."""
    block = _short(exif.with_resolution(metadata.exif, metadata.dots_per_mm))
    place = exif.block_of({tiff.MAKE: (tiff.ASCII, avif_filler(block))}) if block else None
    return {name: value for name, value in (("exif-data", place), ("xmp-data", metadata.xmp)) if value}


def _short(block: bytes | None) -> bytes | None:
    """EXIF that fits into a JPEG's segment, if need be without a maker note; None where there is no such."""
    if block and len(block) > _LONGEST_EXIF:
        block = exif.without_maker_note(block)
    return block if block and len(block) <= _LONGEST_EXIF else None


def _segments(metadata: Metadata) -> Iterator[tuple[int, bytes]]:
    if block := _short(metadata.exif):
        yield APP1, block
    if metadata.xmp:
        for content in xmp.segments(metadata.xmp):
            yield APP1, content
    if metadata.iptc:
        content = metadata.iptc + bytes(len(metadata.iptc) % 2)
        head = struct.pack(">4sHHI", _RESOURCE, _IPTC_RESOURCE, 0, len(metadata.iptc))
        yield APP13, _PHOTOSHOP + head + content
    for key, text in metadata.texts:
        if key == _COMMENT_KEY:
            yield COMMENT, text.encode("utf-8", "surrogateescape")


def _chunks(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    if metadata.dots_per_mm:
        x, y = (min(round(dots * 1000), (1 << 31) - 1) for dots in metadata.dots_per_mm)
        yield b"pHYs", struct.pack(">IIB", x, y, 1)
    if metadata.exif:
        yield b"eXIf", metadata.exif.removeprefix(exif.HEADER)
    info = PngImagePlugin.PngInfo()
    if metadata.xmp:
        info.add_itxt(_XMP_KEY, metadata.xmp)
    for key, text in metadata.texts:
        known = text.encode("utf-8", "surrogateescape")
        try:
            info.add_text(key, known.decode("utf-8"))
        except UnicodeDecodeError:  # a comment in another encoding
            info.add_text(key, known.decode("latin-1"))
    for name, content, _ in info.chunks:
        yield name, content


def _fields(metadata: Metadata) -> tiff.Fields:
    fields = dict(tiff.resolution_fields(metadata.dots_per_mm))
    if metadata.exif:
        structure = tiff.Tiff(metadata.exif.removeprefix(exif.HEADER))
        fields |= structure.fields(structure.first, exif.DESCRIPTIVE)
    if metadata.xmp:
        fields[tiff.XMP] = (tiff.BYTE, metadata.xmp)
    if metadata.iptc:  # LONG, as Photoshop has it and libtiff expects it, but bytes in their order
        fields[tiff.IPTC] = (tiff.LONG, metadata.iptc + bytes(-len(metadata.iptc) % 4))
    return fields
