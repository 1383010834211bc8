"""Whether a file of a format that can do both holds its picture without loss: WebP, AVIF, HEIC, JPEG XL."""

import struct

from dfi_server.photo import heif, jxl
from dfi_server.photo.containers import Data

_IDENTITY = 0  # matrix coefficients: red, green and blue as they are


def is_lossless(data: Data) -> bool:
    """Of a file's bytes; False for every other format, and where a damaged file does not say."""
    try:
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data, 12)
        if data[4:8] == b"ftyp":
            said = heif.code_points(data)
            return said is not None and said.matrix == _IDENTITY
        if jxl.is_one(data):
            return jxl.header(data).is_lossless
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
