"""What an AVIF or HEIC says about the colours of its picture. ISO/IEC 23008-12, 14496-12; AV1's specification, 5.5."""

import struct
from collections.abc import Iterator

from dfi_server.photo.bits import Bits
from dfi_server.photo.cicp import CodePoints
from dfi_server.photo.containers import Data

_SEQUENCE_HEADER = 1  # AV1's
_UNSPECIFIED = 2


def boxes(data: Data, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes in a part of a file: name, and where the content begins and ends."""
    at = start
    while at + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        stop = min(at + size, end) if size else end
        if stop < at + head:
            return
        yield name, at + head, stop
        at = stop


def code_points(data: Data) -> CodePoints | None:
    """The code points of the primary picture: its nclx box's, else those in AV1's own header; None without either.

    Raises ValueError, struct.error or IndexError for a damaged file.
    """
    configuration = None
    for name, content in _properties(data):
        if name == b"colr" and content[:4] == b"nclx":
            return CodePoints(*struct.unpack_from(">HHH", content, 4))
        if name == b"av1C":
            configuration = content[4:]
    return _of_av1(configuration) if configuration else None


def _properties(data: Data) -> Iterator[tuple[bytes, bytes]]:
    """The primary picture's properties."""
    meta = next(((start + 4, end) for name, start, end in boxes(data, 0, len(data)) if name == b"meta"), (0, 0))
    inside = {name: (start, end) for name, start, end in boxes(data, *meta)}
    of_items = {name: (start, end) for name, start, end in boxes(data, *inside.get(b"iprp", (0, 0)))}
    known = list(boxes(data, *of_items.get(b"ipco", (0, 0))))
    if b"pitm" not in inside or b"ipma" not in of_items:
        return
    start, _ = inside[b"pitm"]
    (primary,) = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)
    for number in _associated(data, of_items[b"ipma"][0], primary):
        if 0 < number <= len(known):
            name, first, end = known[number - 1]
            yield name, data[first:end]


def _associated(data: Data, at: int, item: int) -> list[int]:
    """The numbers, from 1, of an item's properties."""
    wide_items, wide_numbers = data[at] > 0, data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(count):
        (each,) = struct.unpack_from(">I" if wide_items else ">H", data, at)
        at += 4 if wide_items else 2
        size = 2 if wide_numbers else 1
        numbers = struct.unpack_from(f">{data[at]}{'H' if wide_numbers else 'B'}", data, at + 1)
        at += 1 + size * len(numbers)
        if each == item:
            return [number & (1 << 8 * size - 1) - 1 for number in numbers]
    return []


def _of_av1(units: bytes) -> CodePoints | None:
    """From the sequence header of a still picture."""
    bits = Bits(units, "big")
    _, kind, extended, sized, _ = (bits.take(width) for width in (1, 4, 1, 1, 1))
    if kind != _SEQUENCE_HEADER or extended:
        return None
    while sized and bits.take(1):  # the length, seven bits a byte
        bits.take(7)
    if sized:
        bits.take(7)
    profile, _, is_reduced, _ = (bits.take(width) for width in (3, 1, 1, 5))
    if not is_reduced:
        return None
    sides = [bits.take(4) + 1 for _ in range(2)]
    for width in (*sides, 6):  # six switches
        bits.take(width)
    is_deep = bits.take(1)
    if profile == 2 and is_deep:
        bits.take(1)
    if profile != 1:
        bits.take(1)  # monochrome
    if not bits.take(1):
        return CodePoints(_UNSPECIFIED, _UNSPECIFIED, _UNSPECIFIED)
    return CodePoints(*(bits.take(8) for _ in range(3)))
