"""Whether a file of a format that can do both holds its picture without loss: WebP, AVIF, HEIC, JPEG XL."""

import struct

from dfi_server.photo import heif
from dfi_server.photo.bits import Bits
from dfi_server.photo.containers import Data

JXL_CODESTREAM, JXL_CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
"""What a JPEG XL begins with."""

_IDENTITY = 0  # matrix coefficients: red, green and blue as they are
_HEADER = 200  # bytes that hold what is looked at


def is_lossless(data: Data) -> bool:
    """Of a file's bytes; False for every other format, and where a damaged file does not say."""
    try:
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data, 12)
        if data[4:8] == b"ftyp":
            said = heif.code_points(data)
            return said is not None and said.matrix == _IDENTITY
        if data[:2] == JXL_CODESTREAM:
            return _jpeg_xl(data[2:_HEADER])
        if data[:12] == JXL_CONTAINER:
            return _jpeg_xl_in_boxes(data)
    except (ValueError, IndexError, struct.error):
        pass
    return False


def _webp(data: Data, at: int) -> bool:
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8L", b"VP8 "):
            return bool(name == b"VP8L")
        at += 24 if name == b"ANMF" else 8 + length + length % 2  # a frame's own chunks
    return False


def _jpeg_xl_in_boxes(data: Data) -> bool:
    inside = list(heif.boxes(data, 0, len(data)))
    if any(name == b"jbrd" for name, _, _ in inside):  # made from a JPEG
        return False
    for name, start, end in inside:
        if name in (b"jxlc", b"jxlp"):
            start += 4 if name == b"jxlp" else 0
            return _jpeg_xl(data[start + 2 : min(end, start + _HEADER)])
    return False


def _jpeg_xl(header: bytes) -> bool:
    """Pictures with losses are in a colour space of the codec's own, XYB. ISO/IEC 18181-1, annex D."""
    bits = Bits(header, "little")
    is_small = bits.take(1)

    def side() -> None:
        bits.take(5 if is_small else (9, 13, 18, 30)[bits.take(2)])

    side()
    if not bits.take(3):  # no ratio of the sides
        side()
    if bits.take(1):  # all as usual
        return False
    if bits.take(1):
        bits.take(3)  # orientation
        if bits.take(3):  # an intrinsic size, a preview, an animation
            return False
    _bit_depth(bits)
    bits.take(1)
    for _ in range(_number(bits, (0, 0), (1, 0), (2, 4), (1, 12))):
        _extra_channel(bits)
    return not bits.take(1)


def _number(bits: Bits, *choices: tuple[int, int]) -> int:
    """U32: one of four offsets, and how many bits are added to it."""
    offset, width = choices[bits.take(2)]
    return offset + bits.take(width)


def _bit_depth(bits: Bits) -> None:
    if bits.take(1):
        _number(bits, (32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        _number(bits, (8, 0), (10, 0), (12, 0), (1, 6))


def _extra_channel(bits: Bits) -> None:
    if bits.take(1):  # transparency as usual
        return
    if kind := _number(bits, (0, 0), (1, 0), (2, 4), (18, 6)):
        raise ValueError(f"an extra channel of kind {kind}")
    _bit_depth(bits)
    _number(bits, (0, 0), (3, 0), (4, 0), (1, 3))
    bits.take(8 * _number(bits, (0, 0), (0, 4), (16, 5), (48, 10)))
    bits.take(1)
