"""What a JPEG XL says at its beginning. ISO/IEC 18181-1, annex D; 18181-2 for its boxes."""

from collections.abc import Iterator
from typing import NamedTuple

from dfi_server.photo.bits import Bits
from dfi_server.photo.containers import Data
from dfi_server.photo.heif import boxes

_CODESTREAM, _CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
_SIZE = 200  # bytes that hold what is looked at
_METADATA = (b"Exif", b"xml ")
_LONGEST = 50_000_000  # of what a compressed box becomes
_DEPTHS = ((8, 0), (10, 0), (12, 0), (1, 6)), ((32, 0), (16, 0), (24, 0), (1, 6))  # of integers, of floats


class Header(NamedTuple):
    """Whether pixels are as they were, and whether there are frames."""

    is_lossless: bool = False
    is_animated: bool = False


def is_one(data: Data) -> bool:
    """Whether a file's bytes are a JPEG XL's."""
    return data[:2] == _CODESTREAM or data[: len(_CONTAINER)] == _CONTAINER


def header(data: Data) -> Header:
    """Raises ValueError, struct.error or IndexError for a damaged file."""
    if data[:2] == _CODESTREAM:
        return _read(data[2:_SIZE])
    inside = list(boxes(data, 0, len(data)))
    for name, start, end in inside:
        if name in (b"jxlc", b"jxlp"):
            start += 4 if name == b"jxlp" else 0
            found = _read(data[start + 2 : min(end, start + _SIZE)])
            is_jpeg = any(name == b"jbrd" for name, _, _ in inside)
            return found._replace(is_lossless=found.is_lossless and not is_jpeg)
    return Header()


def metadata(data: Data) -> Iterator[tuple[bytes, bytes]]:
    """The boxes named "Exif" and "xml ", some of which are compressed. Raises ModuleNotFoundError without brotli."""
    if data[:2] == _CODESTREAM:
        return
    for name, start, end in boxes(data, 0, len(data)):
        if name in _METADATA:
            yield name, data[start:end]
        elif name == b"brob" and data[start : start + 4] in _METADATA:
            import brotli

            try:
                content = brotli.Decompressor().process(data[start + 4 : end], output_buffer_limit=_LONGEST)
            except brotli.error:
                continue
            yield data[start : start + 4], content


def _read(content: bytes) -> Header:
    """Pictures with losses are in a colour space of the codec's own, XYB; JPEGs carried in one are not."""
    bits = Bits(content, "little")
    _skip_size(bits)
    if bits.take(1):  # all as usual
        return Header()
    is_animated = False
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(1):
            _skip_size(bits)
        has_preview, is_animated = bits.take(1), bool(bits.take(1))
        if has_preview or is_animated:
            return Header(is_animated=is_animated)
    _skip_depth(bits)
    bits.take(1)
    for _ in range(_number(bits, (0, 0), (1, 0), (2, 4), (1, 12))):
        if not _skip_transparency(bits):
            return Header()  # of another kind: what follows is not known
    return Header(is_lossless=not bits.take(1))


def _number(bits: Bits, *choices: tuple[int, int]) -> int:
    """U32: one of four offsets, and how many bits are added to it."""
    offset, width = choices[bits.take(2)]
    return offset + bits.take(width)


def _skip_size(bits: Bits) -> None:
    is_small = bits.take(1)

    def side() -> None:
        bits.take(5 if is_small else (9, 13, 18, 30)[bits.take(2)])

    side()
    if not bits.take(3):  # no ratio of the sides
        side()


def _skip_depth(bits: Bits) -> None:
    is_float = bits.take(1)
    _number(bits, *_DEPTHS[is_float])
    if is_float:
        bits.take(4)


def _skip_transparency(bits: Bits) -> bool:
    """An extra channel, if it is that."""
    if bits.take(1):  # as usual
        return True
    if _number(bits, (0, 0), (1, 0), (2, 4), (18, 6)):
        return False
    _skip_depth(bits)
    _number(bits, (0, 0), (3, 0), (4, 0), (1, 3))
    bits.take(8 * _number(bits, (0, 0), (0, 4), (16, 5), (48, 10)))
    bits.take(1)
    return True
