"""TIFF's directories of tags, which EXIF and a JPEG's index of pictures have too: read, laid anew, added to.

TIFF 6.0, section 2; BigTIFF is read, and written as a classic one.
"""

import contextlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from typing import TypeAlias

DAMAGED = (ValueError, KeyError, IndexError, struct.error)
"""What reading a structure raises where it is damaged."""

BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
MAKE, ORIENTATION, RESOLUTION, RESOLUTION_UNIT = 271, 274, (282, 283), 296
XMP, IPTC, EXIF, GPS, INTEROPERABILITY, MAKER_NOTE = 700, 33723, 34665, 34853, 40965, 37500
SUBFILE, LAYERS = 254, 37724
BITS, PHOTOMETRIC, TRANSFER_FUNCTION, WHITE_POINT, PRIMARIES = 258, 262, 301, 318, 319
STRIPS, TILES, THUMBNAIL = (273, 279), (324, 325), (513, 514)  # offsets and byte counts

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WIDTHS = _SIZES | {5: 4, 10: 4}  # of one number; a rational is two
_NUMBERS = {1: "B", 3: "H", 4: "I", 5: "I", 13: "I", 16: "Q"}
_BIG = {13, 16, 17, 18}  # types: offsets of directories that nobody here knows, and what only BigTIFF has
_DIRECTORIES = {EXIF: {INTEROPERABILITY}, GPS: set(), INTEROPERABILITY: set()}  # and those that can be in each
_POINTERS = {*_DIRECTORIES, *THUMBNAIL, 288, 330, 400, 519, 520, 521}  # what else holds offsets
_USER_COMMENT, _UTF_16 = 37510, b"UNICODE\0"  # in the structure's byte order
_COMPRESSION, _OLD_JPEG = 259, 6
_MM_PER_UNIT = {2: 25.4, 3: 10.0}

Fields: TypeAlias = Mapping[int, "tuple[int, bytes] | Fields"]
"""Tag -> type and little-endian value, or a directory of its own."""


@dataclass(frozen=True)
class Entry:
    """A tag's type, and where its value lies."""

    kind: int
    at: int
    size: int


class Tiff:
    """A TIFF structure, classic or big; offsets count from its first byte.

    What it cannot read raises one of DAMAGED.
    """

    def __init__(self, data: bytes | bytearray | mmap) -> None:
        self.data = data
        self.order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
        (version,) = self.unpack("H", 2)
        if version not in (42, 43):
            raise ValueError("no TIFF structure")
        self._big = version == 43
        (self.first,) = self.unpack("Q", 8) if self._big else self.unpack("I", 4)

    def unpack(self, layout: str, at: int) -> tuple[int, ...]:
        """Numbers in the structure's byte order."""
        return struct.unpack_from(self.order + layout, self.data, at)

    def directory(self, at: int) -> tuple[dict[int, Entry], int]:
        """The entries of the directory at an offset, and the next one's offset, 0 if it is the last."""
        head, entry, word = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        (count,) = self.unpack(head, at)
        start, entries = at + struct.calcsize(f"<{head}"), {}
        for position in range(start, start + count * entry, entry):
            tag, kind, values = self.unpack(f"HH{word}", position)
            size, value_at = _SIZES.get(kind, 0) * values, position + struct.calcsize(f"<HH{word}")
            if size > struct.calcsize(f"<{word}"):
                (value_at,) = self.unpack(word, value_at)
            if size and value_at + size <= len(self.data):
                entries[tag] = Entry(kind, value_at, size)
        return entries, self.unpack(word, start + count * entry)[0]

    def value(self, entry: Entry) -> bytes:
        """An entry's bytes as they lie there."""
        return bytes(self.data[entry.at : entry.at + entry.size])

    def numbers(self, entry: Entry) -> tuple[int, ...]:
        """An entry's whole numbers; numerators and denominators in turn for rationals."""
        code = _NUMBERS[entry.kind]
        return self.unpack(f"{entry.size // struct.calcsize(f'<{code}')}{code}", entry.at)

    def fields(self, at: int, keep: set[int] | None = None) -> Fields:
        """The entries of a directory, or those of them to keep, but for offsets and a maker note, which holds some.

        A directory in it that is damaged is left out.
        """
        return self._fields(at, keep, {EXIF, GPS})

    def _fields(self, at: int, keep: set[int] | None, inside: set[int]) -> Fields:
        entries = {tag: each for tag, each in self.directory(at)[0].items() if keep is None or tag in keep}
        if sum(entry.size for entry in entries.values()) > len(self.data):
            raise ValueError("its values overlap")
        found: dict[int, tuple[int, bytes] | Fields] = {}
        for tag, entry in entries.items():
            if tag in inside:
                with contextlib.suppress(*DAMAGED):
                    found[tag] = self._fields(self.numbers(entry)[0], None, _DIRECTORIES[tag])
            elif entry.kind not in _BIG and tag not in _POINTERS and tag != MAKER_NOTE:
                value = self.value(entry)
                found[tag] = (entry.kind, _swapped(tag, entry.kind, value) if self.order == ">" else value)
        return found

    def resolution(self, at: int | None = None) -> tuple[float, float] | None:
        """Dots per millimetre along x and y, as a directory (the first) states them; None where it does not."""
        entries, _ = self.directory(self.first if at is None else at)
        unit = self.numbers(entries[RESOLUTION_UNIT])[0] if RESOLUTION_UNIT in entries else 2
        values = [self.numbers(entries[tag]) for tag in RESOLUTION if tag in entries and entries[tag].kind == RATIONAL]
        if unit not in _MM_PER_UNIT or len(values) < 2 or not all(all(value) for value in values):
            return None
        x, y = (numerator / denominator / _MM_PER_UNIT[unit] for numerator, denominator, *_ in values)
        return x, y


def _swapped(tag: int, kind: int, value: bytes) -> bytes:
    """A field's value in the other byte order."""
    width, start = _WIDTHS[kind], 0
    if tag == _USER_COMMENT and value.startswith(_UTF_16):
        width, start = 2, len(_UTF_16)
    if width == 1:
        return value
    return value[:start] + b"".join(value[at : at + width][::-1] for at in range(start, len(value), width))


def packed(entries: Mapping[int, bytes], order: str, following: int = 0) -> bytes:
    """A classic directory of entries of 12 bytes each."""
    content = b"".join(entry for _, entry in sorted(entries.items()))
    return struct.pack(f"{order}H", len(entries)) + content + struct.pack(f"{order}I", following)


def laid(fields: Fields, start: int, order: str) -> tuple[dict[int, bytes], bytes]:
    """The entries of a classic directory, and the bytes that they point to, which lie from the offset `start` on."""
    entries, block = {}, bytearray()
    for tag, field in fields.items():
        if isinstance(field, tuple):
            kind, value = field
            count = len(value) // _SIZES[kind]
            value = _swapped(tag, kind, value) if order == ">" else value
        else:
            inner, inside = laid(field, start + len(block), order)
            block += inside
            kind, count, value = LONG, 1, struct.pack(f"{order}I", start + len(block))
            block += packed(inner, order)
        if len(value) > 4:
            value, content = struct.pack(f"{order}I", start + len(block)), value
            block += content + bytes(len(content) % 2)
        entries[tag] = struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")
    return entries, bytes(block)


def raw_entries(data: bytes | bytearray, order: str, at: int) -> dict[int, bytes]:
    """The entries of a classic directory, 12 bytes each."""
    (count,) = struct.unpack_from(f"{order}H", data, at)
    raw = [bytes(data[i : i + 12]) for i in range(at + 2, at + 2 + 12 * count, 12)]
    return {struct.unpack_from(f"{order}H", entry)[0]: entry for entry in raw}


def with_fields(tiff: bytes, fields: Fields) -> bytes:
    """A classic TIFF structure of one directory with fields added to it, or put in place of those there.

    The new directory goes to the end, and nothing else moves.
    """
    structure = Tiff(tiff)
    order, start = structure.order, len(tiff) + len(tiff) % 2
    added, values = laid(fields, start, order)
    whole = bytearray(tiff.ljust(start, b"\0") + values)
    struct.pack_into(f"{order}I", whole, 4, len(whole))
    return bytes(whole) + packed(raw_entries(tiff, order, structure.first) | added, order)


def add_page(whole: bytearray, source: Tiff, at: int) -> None:
    """Copy the page at an offset of another TIFF to the end of a little-endian classic one, byte for byte.

    Raises one of DAMAGED, also for a page whose pixels depend on the byte order, or on more than its strips or tiles.
    """
    entries, _ = source.directory(at)
    if source.order == ">" and max(source.numbers(entries[BITS]) if BITS in entries else (1,)) > 8:
        raise ValueError("its pixels have the other byte order")
    if _COMPRESSION in entries and source.numbers(entries[_COMPRESSION])[0] == _OLD_JPEG:
        raise ValueError("its pixels have tables elsewhere")
    offsets, counts = next(each for each in (STRIPS, TILES, ()) if each and each[0] in entries)
    lengths, positions = source.numbers(entries[counts]), []
    for start, length in zip(source.numbers(entries[offsets]), lengths, strict=True):
        if start + length > len(source.data):
            raise ValueError("it ends too early")
        whole += bytes(len(whole) % 2)
        positions.append(len(whole))
        whole += source.data[start : start + length]
    whole += bytes(len(whole) % 2)
    places = {
        tag: (LONG, struct.pack(f"<{len(each)}I", *each)) for tag, each in ((offsets, positions), (counts, lengths))
    }
    directory, values = laid({**source.fields(at), **places}, len(whole), "<")
    whole += values
    pointer = _last_pointer(whole)
    struct.pack_into("<I", whole, pointer, len(whole))
    whole += packed(directory, "<")


def _last_pointer(whole: bytearray) -> int:
    """Where a little-endian classic TIFF says that no directory follows."""
    pointer = 4
    while at := struct.unpack_from("<I", whole, pointer)[0]:
        pointer = at + 2 + 12 * struct.unpack_from("<H", whole, at)[0]
    return int(pointer)


def resolution_fields(dots_per_mm: tuple[float, float] | None) -> Fields:
    """The resolution in dots per inch; where none is known, the square pixels that a TIFF must state."""
    dots = [25.4 * each for each in dots_per_mm] if dots_per_mm else (1, 1)
    values = (struct.pack("<II", min(max(round(each * 1000), 1), 0xFFFFFFFF), 1000) for each in dots)
    return {
        **{tag: (RATIONAL, value) for tag, value in zip(RESOLUTION, values, strict=True)},
        RESOLUTION_UNIT: (SHORT, struct.pack("<H", 2 if dots_per_mm else 1)),
    }
