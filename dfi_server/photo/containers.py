"""What files of pictures are made of: a JPEG's segments, a PNG's and a WebP's chunks, an AVIF's items."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple, TypeAlias

Data: TypeAlias = bytes | mmap

APP0, APP1, APP2, APP13, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
_SCAN, _END = 0xDA, 0xD9
_LONGEST = 65_533  # what a JPEG's segment holds
_PNG = b"\x89PNG\r\n\x1a\n"
WEBP_START = 12
"""Where a WebP's first chunk is."""

_VP8X, _ALPHA, _EXIF, _XMP = b"VP8X", 0x10, 0x08, 0x04  # the extended WebP's chunk, and its flags


class Part(NamedTuple):
    """A segment or a chunk: its marker or name, the offset of its first byte, its content."""

    name: int | bytes
    start: int
    content: bytes


@contextmanager
def opened(path: Path) -> Iterator[Data]:
    """A file's bytes; none of what can be read only once, a pipe."""
    if not path.is_file() or not path.stat().st_size:
        yield b""
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def jpeg_segments(data: Data) -> Iterator[Part]:
    """The segments of a JPEG before its first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in (_SCAN, _END):
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield Part(marker, at, data[at + 4 : at + 2 + length])
        at += 2 + max(length, 2)


def jpeg_with(jpeg: bytes, segments: Sequence[tuple[int, bytes]], density: tuple[int, int] | None) -> bytes:
    """A JPEG with segments added after its first, JFIF's, and with a density in dots per inch; those that are too long
    for a JPEG are left out."""
    added = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
        for marker, content in segments
        if len(content) <= _LONGEST
    )
    unit, x, y = (1, *density) if density else (0, 1, 1)
    jfif = struct.pack(">BBH5sHBHHBB", 0xFF, APP0, 16, b"JFIF\0", 0x0101, unit, x, y, 0, 0)
    start = next((part.start for part in jpeg_segments(jpeg) if part.name != APP0), 2)
    return jpeg[:2] + jfif + added + jpeg[start:]


def png_chunks(data: Data) -> Iterator[Part]:
    """The chunks of a PNG, without its pixels' content."""
    at = len(_PNG)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield Part(name, at, b"" if name in (b"IDAT", b"fdAT") else data[at + 8 : at + 8 + length])
        at += 12 + length


def png_with(png: bytes, chunks: Sequence[tuple[bytes, bytes]], instead_of: set[bytes]) -> bytes:
    """A PNG with chunks added before its pixels, and without those of some names."""
    whole, starts = bytearray(_PNG), [*(part.start for part in png_chunks(png)), len(png)]
    ahead = True
    for part, end in zip(png_chunks(png), starts[1:], strict=True):
        if part.name == b"IDAT" and ahead:
            ahead = False
            for name, content in chunks:
                whole += struct.pack(">I", len(content)) + name + content
                whole += struct.pack(">I", zlib.crc32(name + content))
        if part.name not in instead_of:
            whole += png[part.start : end]
    return bytes(whole)


def webp_chunks(data: Data, at: int = WEBP_START) -> Iterator[Part]:
    """The chunks of a WebP, from an offset on."""
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        yield Part(name, at, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2


def webp_with(webp: bytes, size: tuple[int, int], exif: bytes | None, xmp: bytes | None) -> bytes:
    """A WebP of one picture of a size (width, height) with EXIF and XMP. RFC 9649, section 2.7."""
    chunks = [(name, content) for name, _, content in webp_chunks(webp)]
    if chunks[0][0] == _VP8X:
        flags, chunks = chunks[0][1][0], chunks[1:]
    else:
        name, content = chunks[0]
        flags = _ALPHA if name == b"VP8L" and content[4] & 0x10 else 0
    flags |= (_EXIF if exif else 0) | (_XMP if xmp else 0)
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in size)
    extra = [(name, content) for name, content in ((b"EXIF", exif), (b"XMP ", xmp)) if content]
    body = b"".join(
        struct.pack("<4sI", name, len(content)) + content + bytes(len(content) % 2)
        for name, content in [(_VP8X, struct.pack("<I", flags) + sides), *chunks, *extra]
    )
    return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + body


def avif_filler(exif: bytes) -> bytes:
    """What to have written into an AVIF's EXIF, so that `avif_with` has room there."""
    return b"\xfe" * max(len(exif), 64)  # neither text nor, in such a row, a picture


def avif_with(avif: bytes, exif: bytes) -> bytes:
    """An AVIF in whose EXIF there is a filler for `exif`, with `exif` in its place.

    libvips puts EXIF together anew, which breaks maker notes. Zeros at its end mean nothing. Raises ValueError.
    """
    filler = avif_filler(exif)
    end = avif.index(filler) + len(filler)
    start = avif.rindex(b"Exif\0\0", 0, end)
    return avif[:start] + exif.ljust(end - start, b"\0") + avif[end:]
