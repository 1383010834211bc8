"""EXIF made true of a picture that was turned upright and edited; Exif 3.0 (CIPA DC-008), section 4.6.

It is corrected in its own bytes because maker notes hold offsets that only their makers know: where nothing moves, they
stay readable.
"""

import struct

from dfi_server.photo.pixels import Size
from dfi_server.photo.tiff import (
    DAMAGED,
    EXIF,
    GPS,
    LONG,
    ORIENTATION,
    RATIONAL,
    RESOLUTION,
    SHORT,
    STRIPS,
    THUMBNAIL,
    Fields,
    Tiff,
    laid,
    packed,
    raw_entries,
    resolution_fields,
    with_fields,
)

HEADER = b"Exif\0\0"
"""What a block starts with in a JPEG; in this package, in every format."""

DESCRIPTIVE = {
    *(
        269,
        270,
        271,
        272,
        305,
        306,
        315,
        316,
        33432,
    ),  # name, description, make, model, software, date, artist, host, (c)
    *(18246, 18249, *range(40091, 40096)),  # Windows' rating, title, comment, author, keywords, subject
    *(EXIF, GPS),
}
"""Tags of a TIFF's own directory that say what the picture is of, and not how its pixels are stored."""

_WIDTH_AND_HEIGHT = (40962, 40963)
_OF_BOTH_SIDES = (RESOLUTION, (256, 257), (41486, 41487))  # resolution, size, focal plane's resolution: along x and y
_PLACES = {37396, 41492}  # subject area, subject location
_JPEG = b"\xff\xd8\xff"


def upright(block: bytes, size: Size, orientation: int) -> bytes | None:
    """The block of a picture that had an orientation, lies upright and is `size` now; None if nothing is in it.

    Orientation and thumbnail, which shows the picture before the edit, are taken out, and a maker note with such a
    picture in it. What concerns the sides is turned with them. A block that cannot be read is left out.
    """
    try:
        data = bytearray(block.removeprefix(HEADER))
        tiff = Tiff(data)
        entries, thumbnail = tiff.directory(tiff.first)
        if thumbnail:
            _blank(tiff, data, thumbnail)
        if EXIF in entries:
            (detail,) = tiff.numbers(entries[EXIF])
            for tag, side in zip(_WIDTH_AND_HEIGHT, size, strict=True):
                _set(tiff, data, detail, tag, side)
            _rewrite(tiff, data, detail, _PLACES if orientation > 1 else set(), orientation)
        wrong = {
            tag for tag in RESOLUTION if tag in entries and (entries[tag].kind, entries[tag].size) != (RATIONAL, 8)
        }
        _rewrite(tiff, data, tiff.first, {ORIENTATION, *wrong}, orientation)
        if not tiff.fields(tiff.first):
            return None
        return without_maker_note(HEADER + data) if _JPEG in data else HEADER + bytes(data)
    except DAMAGED:
        return None


def _blank(tiff: Tiff, data: bytearray, at: int) -> None:
    """Overwrite the picture that a directory points to."""
    entries, _ = tiff.directory(at)
    for offsets, counts in (THUMBNAIL, STRIPS):
        if offsets in entries and counts in entries:
            for start, length in zip(tiff.numbers(entries[offsets]), tiff.numbers(entries[counts]), strict=False):
                end = min(start + length, len(data))
                data[start:end] = bytes(max(end - start, 0))


def _set(tiff: Tiff, data: bytearray, at: int, tag: int, number: int) -> None:
    entry = tiff.directory(at)[0].get(tag)
    if entry and entry.kind in (SHORT, LONG) and number < 1 << 8 * entry.size:
        struct.pack_into(tiff.order + {SHORT: "H", LONG: "I"}[entry.kind], data, entry.at, number)


def _rewrite(tiff: Tiff, data: bytearray, at: int, without: set[int], orientation: int) -> None:
    """A directory in its place, without some entries and damaged ones, the only one of its chain."""
    sound = tiff.directory(at)[0].keys() - without
    entries = {tag: entry for tag, entry in raw_entries(data, tiff.order, at).items() if tag in sound}
    room = 6 + 12 * tiff.unpack("H", at)[0]
    for first, second in _OF_BOTH_SIDES if orientation > 4 else ():
        if first in entries and second in entries:
            one, other = entries[first], entries[second]
            entries[first], entries[second] = one[:2] + other[2:], other[:2] + one[2:]
    data[at : at + room] = packed(entries, tiff.order).ljust(room, b"\0")


def block_of(fields: Fields) -> bytes | None:
    """An EXIF block with these fields; None where there are none."""
    entries, values = laid(fields, 8, "<")
    header = HEADER + struct.pack("<2sHI", b"II", 42, 8 + len(values))
    return header + values + packed(entries, "<") if entries else None


def without_maker_note(block: bytes) -> bytes | None:
    """The block put together anew, of what is known to mean the same in any place."""
    tiff = Tiff(block.removeprefix(HEADER))
    return block_of(tiff.fields(tiff.first))


def orientation(block: bytes) -> int:
    """How a picture lies in its file, 1 to 8; 1, upright, where a block does not state it, or cannot be read."""
    try:
        tiff = Tiff(block.removeprefix(HEADER))
        stated, *_ = tiff.numbers(tiff.directory(tiff.first)[0][ORIENTATION])
    except DAMAGED:
        return 1
    return stated if 1 <= stated <= 8 else 1


def resolution(block: bytes | None) -> tuple[float, float] | None:
    """Dots per millimetre along x and y; None where a block does not state them, or cannot be read."""
    try:
        return Tiff((block or b"").removeprefix(HEADER)).resolution()
    except DAMAGED:
        return None


def with_resolution(block: bytes | None, dots_per_mm: tuple[float, float] | None) -> bytes | None:
    """The block, or a new one, with a resolution if there is one; nothing in it moves."""
    if not dots_per_mm or resolution(block):
        return block
    added = resolution_fields(dots_per_mm)
    return HEADER + with_fields(block.removeprefix(HEADER), added) if block else block_of(added)
