"""What else is in a photo's file: pages, frames, a gain map (HDR), a film. Edits are of the first picture.

A TIFF's other pages are kept where a TIFF is written. The rest cannot be: frames and a gain map would show the face
before the edit. Whatever is left out is said.
"""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from dfi_server.photo import tiff, xmp
from dfi_server.photo.containers import APP1, APP2, Data, jpeg_segments, opened, png_chunks
from dfi_server.photo.pixels import Pages
from dfi_server.photo.tiff import DAMAGED, Tiff

_GAIN_MAP = "Its gain map is left out: the result is what screens without HDR show."
_FILM = "Its film (it is a motion photo) is left out."
_MPF, _MP_ENTRIES = b"MPF\0", 0xB002  # CIPA DC-007
_PREVIEWS = range(0x010001, 0x010010)  # of the first picture
_LAYERS = "Its layers are left out: what they show together was edited."
_GAIN_MAPS = (b"hdr-gain-map", b"HDRGainMap", b"iso:ts:21496")  # Adobe's and Apple's XMP, ISO 21496-1
_FILMS = (b'MotionPhoto="1"', b'MicroVideo="1"', b"MotionPhoto>1<", b"MicroVideo>1<")
_HEAD = 100_000  # bytes in which an AVIF or HEIC says what it holds
_REDUCED_OR_MASK = 0b101  # a TIFF's NewSubfileType
_MOST_PAGES = 100_000


def look(path: Path, count: int) -> tuple[Pages, tuple[str, ...]]:
    """What else a file holds, of which a decoder knows how many pictures it has; and sentences on what is left out."""
    pages, notes = Pages(count), []
    with opened(path) as data:
        try:
            if data[:2] == b"\xff\xd8":
                pictures, has_gain_map, has_film = _in_jpeg(data)
                pages = Pages(pictures)
                notes = [_GAIN_MAP] * has_gain_map + [_FILM] * has_film
            elif data[:4] == b"\x89PNG":
                pages = Pages(next((_first(each.content) for each in png_chunks(data) if each.name == b"acTL"), 1))
            elif data[:2] in (b"II", b"MM"):
                source = Tiff(data)
                others = tuple(number for number, (_, is_page) in enumerate(_chain(source)) if number and is_page)
                pages = Pages(1 + len(others), path, others)
                notes = [_LAYERS] * (tiff.LAYERS in source.directory(source.first)[0])
            elif data[:4] == b"8BPS":  # what Pillow counts there
                pages, notes = Pages(), [_LAYERS] * (count > 1)
            elif data[4:8] == b"ftyp":
                brands = data[8 : _first(data)]
                notes = [_GAIN_MAP] * (b"tmap" in brands or b"hdrgainmap" in data[:_HEAD])
                if b"avis" in brands:
                    with contextlib.suppress(Exception), Image.open(path) as image:  # it raises nearly anything
                        pages = Pages(getattr(image, "n_frames", count))
        except DAMAGED:
            pass  # the decoder's view of it
    return pages, tuple(notes)


def _first(data: Data) -> int:
    """Its first number."""
    return int(struct.unpack_from(">I", data)[0])


def _in_jpeg(data: Data) -> tuple[int, bool, bool]:
    """How many pictures there are beside previews and gain map, whether there is one, whether there is a film."""
    others, has_film = 0, False
    for marker, _, content in jpeg_segments(data):
        if marker == APP1 and content.startswith(xmp.SEGMENT):
            has_film |= any(film in content for film in _FILMS)
        if marker != APP2 or not content.startswith(_MPF):
            continue
        with contextlib.suppress(*DAMAGED):
            index = Tiff(content.removeprefix(_MPF))
            table = index.directory(index.first)[0][_MP_ENTRIES]
            kinds = [index.unpack("I", table.at + at)[0] & 0xFFFFFF for at in range(0, table.size, 16)]
            others = sum(kind not in _PREVIEWS for kind in kinds[1:])
    has_gain_map = others > 0 and any(data.find(each) >= 0 for each in _GAIN_MAPS)
    return 1 + others - has_gain_map, has_gain_map, has_film


def _chain(source: Tiff) -> Iterator[tuple[int, bool]]:
    """The offsets of a TIFF's directories, and whether each is a page: others are previews and masks of one."""
    at = source.first
    for _ in range(_MOST_PAGES):
        entries, following = source.directory(at)
        kind = source.numbers(entries[tiff.SUBFILE])[0] if tiff.SUBFILE in entries else 0
        yield at, not kind & _REDUCED_OR_MASK
        if not following:
            return
        at = following
    raise ValueError("its directories have no end")


def is_cut_off(path: Path) -> bool:
    """Whether strips or tiles of a TIFF's first page lie beyond the file's end."""
    with opened(path) as data, contextlib.suppress(*DAMAGED):
        structure = Tiff(data)
        entries, _ = structure.directory(structure.first)
        for offsets, counts in (tiff.STRIPS, tiff.TILES):
            if offsets in entries:
                parts = zip(*(structure.numbers(entries[tag]) for tag in (offsets, counts)), strict=True)
                if any(offset + count > len(data) for offset, count in parts):
                    return True
    return False


def join(encoded: bytes, pages: Pages) -> bytes | None:
    """A TIFF with the other pages after its own, byte for byte; None where they cannot be kept."""
    if not pages.others or pages.path is None:
        return None
    whole = bytearray(encoded)
    try:
        with opened(pages.path) as data:
            source = Tiff(data)
            offsets = [at for at, _ in _chain(source)]
            for number in pages.others:
                tiff.add_page(whole, source, offsets[number])
    except (*DAMAGED, StopIteration, OSError):
        return None
    return bytes(whole)


def said(pages: Pages, kept: bool) -> tuple[str, ...]:
    """A sentence where a file had several pictures."""
    if pages.count < 2:
        return ()
    if kept:
        return (f"Only the first of its {pages.count} pages was edited; the others are kept as they were.",)
    return (f"Only the first of its {pages.count} pictures was edited and written.",)


def looked_at(pages: Pages) -> tuple[str, ...]:
    """The sentence where a file with several pictures is only looked at."""
    return (f"Only the first of its {pages.count} pictures is looked at.",) if pages.count > 1 else ()
