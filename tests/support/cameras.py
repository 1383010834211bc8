"""Files as cameras, phones and other programs write them, made of Pillow's pixels and of bytes put together here."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

TYPES = {"B": 1, "A": 2, "H": 3, "I": 4, "R": 5, "U": 7}
ZOE = "Zoë Müller".encode()
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" {attributes}>'
    "<dc:title>Tïtel</dc:title>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>"
)
FACE = b"\xff\xd8\xff\xe0 the face before \xff\xd9"
"""A preview."""

Tags = Mapping[int, tuple[str, Any]]
"""Tag -> type and value: bytes for A, B and U, numbers for H and I, pairs of them for R."""


def packet(attributes: str = "", elements: str = "") -> bytes:
    return XMP.format(attributes=attributes, elements=elements).encode()


def _directory(tags: Tags, start: int, order: str, following: int = 0) -> bytes:
    """A directory that lies at `start`, its values behind it."""
    entries, values = b"", b""
    behind = start + 6 + 12 * len(tags)
    for tag, (kind, value) in sorted(tags.items()):
        if kind in "HI":
            numbers = value if isinstance(value, tuple) else (value,)
            value = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        elif kind == "R":
            value = struct.pack(f"{order}{len(value)}I", *value)
        count = len(value) // {"H": 2, "I": 4, "R": 8}.get(kind, 1)
        if len(value) > 4:
            values += bytes(len(values) % 2)
            value, values = struct.pack(f"{order}I", behind + len(values)), values + value
        entries += struct.pack(f"{order}HHI", tag, TYPES[kind], count) + value.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + values


def _structure(
    main: Tags,
    detail: Tags | None,
    gps: Tags | None,
    thumbnail: bytes | None,
    order: str,
    start: int,
    room_after: int = 0,
) -> bytes:
    """Directories at `start`: the main one, those that it points to, that of a thumbnail.

    Without a thumbnail the next one follows behind `room_after` bytes, if there are any.
    """
    pointers = [(tag, tags) for tag, tags in ((34665, detail), (34853, gps)) if tags]
    room = start + len(_directory({**main, **{tag: ("I", 0) for tag, _ in pointers}}, 0, order))
    behind = b""
    for tag, tags in pointers:
        behind += bytes(len(behind) % 2)
        main = {**main, tag: ("I", room + len(behind))}
        behind += _directory(tags, room + len(behind), order)
    following = room + len(behind) + room_after if thumbnail or room_after else 0
    if thumbnail:
        at = following + len(_directory({513: ("I", 0), 514: ("I", 0)}, 0, order))
        behind += _directory({513: ("I", at), 514: ("I", len(thumbnail))}, following, order) + thumbnail
    return _directory(main, start, order, following) + behind


def exif(
    main: Tags | None = None,
    detail: Tags | None = None,
    gps: Tags | None = None,
    thumbnail: bytes | None = None,
    order: str = "<",
) -> bytes:
    """A camera's EXIF block, as it is behind "Exif" and two zeros in a JPEG."""
    main = {271: ("A", b"a camera\0"), **(main or {})}
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return header + _structure(main, detail, gps, thumbnail, order, 8)


def tiff(
    pixels: np.ndarray,
    main: Tags | None = None,
    detail: Tags | None = None,
    gps: Tags | None = None,
    order: str = "<",
    others: Sequence[np.ndarray] = (),
) -> bytes:
    """A TIFF of one strip, and other pages."""
    pages = [pixels, *others]
    raws = [page.astype(page.dtype.newbyteorder(order)).tobytes() for page in pages]
    content = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(raws[0]))
    main = {271: ("A", b"a camera\0"), **(main or {})}
    for page, raw, following in zip(pages, raws, [*map(len, raws[1:]), 0], strict=True):
        height, width, channels = page.shape
        bits = (8 * page.dtype.itemsize,) * channels
        layout: Tags = {
            **{256: ("H", width), 257: ("H", height), 258: ("H", bits), 259: ("H", 1), 262: ("H", channels // 3 + 1)},
            **{273: ("I", len(content)), 277: ("H", channels), 278: ("H", height), 279: ("I", len(raw))},
        }
        content += raw
        content += _structure({**main, **layout}, detail, gps, None, order, len(content), following)
        main, detail, gps = {285: ("A", b"another page\0")}, None, None
    return content


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments behind its first, JFIF's."""
    at = 4 + struct.unpack_from(">H", jpeg, 4)[0]
    return jpeg[:at] + b"".join(segments) + jpeg[at:]


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def with_late_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks behind its pixels."""
    return png[:-12] + b"".join(chunks) + png[-12:]


def iptc(*records: tuple[int, bytes]) -> bytes:
    """IPTC-IIM's records of the application's kind."""
    return b"".join(struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text for number, text in records)


def photoshop(*resources: tuple[int, bytes]) -> bytes:
    """A JPEG's APP13."""
    packed = (struct.pack(">4sHHI", b"8BIM", n, 0, len(c)) + c + bytes(len(c) % 2) for n, c in resources)
    return segment(0xED, b"Photoshop 3.0\0" + b"".join(packed))


def taken(
    pixels: np.ndarray,
    extension: str,
    main: Tags | None = None,
    detail: Tags | None = None,
    gps: Tags | None = None,
    order: str = "<",
    **options: Any,
) -> bytes:
    """A photo with EXIF's tags, and what `saved` takes beside them; a `thumbnail`, too, but in a TIFF."""
    if extension != ".tif":
        return saved(pixels, extension, exif=exif(main, detail, gps, options.pop("thumbnail", None), order), **options)
    main = {**(main or {}), 700: ("B", options["xmp"])} if "xmp" in options else main
    return tiff(pixels, main, detail, gps, order)


def saved(pixels: np.ndarray, extension: str, **options: Any) -> bytes:
    """Pillow's file: EXIF as above, XMP, `icc_profile`, `dpi` and what else its savers take."""
    if (block := options.pop("exif", None)) is not None:
        options["exif"] = b"Exif\0\0" + block
    if (xmp := options.pop("xmp", None)) is not None:
        if extension == ".png":
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
        elif extension == ".tif":
            options["tiffinfo"] = {700: xmp}
        else:
            options["xmp"] = xmp
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, Image.registered_extensions()[extension], **options)
    return buffer.getvalue()


def several(jpegs: Sequence[bytes], kinds: Sequence[int]) -> bytes:
    """JPEGs in one file with an index (CIPA DC-007, MPF) of their kinds, as phones and stereo cameras write them."""

    def indexed(offsets: Sequence[int], sizes: Sequence[int]) -> bytes:
        table = b"".join(
            struct.pack("<IIIHH", kind, size, offset, 0, 0)
            for kind, size, offset in zip(kinds, sizes, offsets, strict=True)
        )
        index = (
            b"II*\0"
            + struct.pack("<I", 8)
            + _directory({0xB000: ("U", b"0100"), 0xB001: ("I", len(kinds)), 0xB002: ("U", table)}, 8, "<")
        )
        return with_segments(jpegs[0], segment(0xE2, b"MPF\0" + index))

    length = len(indexed([0] * len(jpegs), [0] * len(jpegs)))
    sizes = [length, *map(len, jpegs[1:])]
    start = 4 + struct.unpack_from(">H", jpegs[0], 4)[0] + 8  # of the index, from which offsets count
    offsets = [0, *(sum(sizes[:n]) - start for n in range(1, len(sizes)))]
    return indexed(offsets, sizes) + b"".join(jpegs[1:])
