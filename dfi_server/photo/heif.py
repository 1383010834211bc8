"""What an AVIF or HEIC says about its picture: colours, and whether there is loss.

ISO/IEC 23008-12, 14496-12 and 14496-15; AV1's specification, 5.5; HEVC, ITU-T H.265.
"""

import struct
from collections.abc import Iterable, Iterator

from dfi_server.photo.bits import Bits
from dfi_server.photo.cicp import CodePoints
from dfi_server.photo.containers import Data

_SEQUENCE_HEADER = 1  # AV1's
_HEADER = 100  # bytes in which it is
_PICTURE_PARAMETERS = 34  # HEVC's


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
    meta = _meta(data)
    if not {b"pitm", b"iprp", b"iloc"} <= meta.keys():
        return None
    primary = _primary(data, meta)
    is_av1 = False
    for name, content in _properties(data, *meta[b"iprp"], primary):
        if name == b"colr" and content[:4] == b"nclx":
            return CodePoints(*struct.unpack_from(">HHH", content, 4))
        is_av1 |= name == b"av1C"
    place = _place(data, meta[b"iloc"][0], primary) if is_av1 else None
    return _of_av1(data[place : place + _HEADER]) if place else None


def is_lossless_hevc(data: Data) -> bool | None:
    """Whether the primary picture, or each part of which it is put together, is HEVC without loss; None: no HEVC.

    Raises ValueError, struct.error or IndexError for a damaged file.
    """
    meta = _meta(data)
    if not {b"pitm", b"iprp"} <= meta.keys():
        return None
    for item in (_primary(data, meta), None):
        if codings := [content for name, content in _properties(data, *meta[b"iprp"], item) if name == b"hvcC"]:
            return all(map(_is_bypassed, codings))
    return None


def _is_bypassed(coding: bytes) -> bool:
    """Whether transform and quantisation can be left out, by picture parameters in an hvcC box. H.265, 7.3.2.3."""
    at = 23
    for _ in range(coding[22]):
        kind, count = coding[at] & 0x3F, _number(coding, at + 1, 2)
        at += 3
        for _ in range(count):
            size, at = _number(coding, at, 2), at + 2
            if kind == _PICTURE_PARAMETERS:
                bits = Bits(coding[at + 2 : at + size].replace(b"\0\0\3", b"\0\0"), "big")
                _skip_exp_golomb(bits, 2)  # numbers of the sets
                bits.take(7)
                _skip_exp_golomb(bits, 3)  # references, quantisation
                bits.take(2)
                _skip_exp_golomb(bits, 2 + bits.take(1))  # one more where parts differ in quantisation
                return bool(bits.take(4) & 1)
            at += size
    return False


def _skip_exp_golomb(bits: Bits, count: int) -> None:
    for _ in range(count):
        zeros = 0
        while not bits.take(1):
            zeros += 1
        bits.take(zeros)


def _meta(data: Data) -> dict[bytes, tuple[int, int]]:
    """The boxes in the file's meta box, by name: where their contents begin and end."""
    start, end = next(((start, end) for name, start, end in boxes(data, 0, len(data)) if name == b"meta"), (-4, 0))
    return {name: (first, last) for name, first, last in boxes(data, start + 4, end)}


def _primary(data: Data, meta: dict[bytes, tuple[int, int]]) -> int:
    at, _ = meta[b"pitm"]
    return _number(data, at + 4, 4 if data[at] else 2)


def _number(data: Data, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _properties(data: Data, start: int, end: int, item: int | None) -> Iterator[tuple[bytes, bytes]]:
    """An item's properties, of those in a box; every item's for None."""
    inside = {name: (first, last) for name, first, last in boxes(data, start, end)}
    known = list(boxes(data, *inside.get(b"ipco", (0, 0))))
    numbers: Iterable[int] = range(1, len(known) + 1)
    if item is not None:
        numbers = _associated(data, inside[b"ipma"][0], item) if b"ipma" in inside else ()
    for number in numbers:
        if 0 < number <= len(known):
            name, first, last = known[number - 1]
            yield name, data[first:last]


def _associated(data: Data, at: int, item: int) -> list[int]:
    """The numbers, from 1, of an item's properties, by an ipma box."""
    item_size, size = 4 if data[at] else 2, 2 if data[at + 3] & 1 else 1
    count = _number(data, at + 4, 4)
    at += 8
    for _ in range(count):
        each, numbers = _number(data, at, item_size), data[at + item_size]
        at += item_size + 1
        if each == item:
            places = range(at, at + size * numbers, size)
            return [_number(data, place, size) & (1 << 8 * size - 1) - 1 for place in places]  # the first bit: needed?
        at += size * numbers
    return []


def _place(data: Data, at: int, item: int) -> int | None:
    """Where in the file an item begins, by an iloc box; None where it is elsewhere."""
    version, sizes = data[at], _number(data, at + 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 0xF for shift in (12, 8, 4, 0))
    index_size = index_size if version else 0
    id_size = 4 if version == 2 else 2
    count = _number(data, at + 6, id_size)
    at += 6 + id_size
    for _ in range(count):
        if at >= len(data):
            raise ValueError("it ends too early")
        each, at = _number(data, at, id_size), at + id_size
        way, at = (_number(data, at, 2) & 0xF, at + 2) if version else (0, at)
        base, at = _number(data, at + 2, base_size), at + 2 + base_size
        extents, at = _number(data, at, 2), at + 2
        if each == item:
            return None if way else base + _number(data, at + index_size, offset_size)
        at += extents * (index_size + offset_size + length_size)
    return None


def _of_av1(units: bytes) -> CodePoints | None:
    """From the sequence header of a still picture, among AV1's units."""
    bits = Bits(units, "big")
    while True:
        _, kind, is_extended, has_size, _ = (bits.take(width) for width in (1, 4, 1, 1, 1))
        if is_extended or not has_size:
            return None
        size = shift = 0
        while bits.take(1):  # seven bits a byte, the last first
            size, shift = size | bits.take(7) << shift, shift + 7
        size |= bits.take(7) << shift
        if kind == _SEQUENCE_HEADER:
            break
        bits.take(8 * size)
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
    return CodePoints(*(bits.take(8) for _ in range(3))) if bits.take(1) else None
