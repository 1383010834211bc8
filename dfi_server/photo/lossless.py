"""Whether a file of a format that can do both holds its picture without loss: WebP, AVIF, HEIC, JPEG XL."""

import struct

from dfi_server.photo import heif, jxl
from dfi_server.photo.containers import WEBP_START, Data, webp_chunks

_IDENTITY = 0  # matrix coefficients: red, green and blue as they are


def is_lossless(data: Data) -> bool:
    """Of a file's bytes; False for every other format, and where a damaged file does not say."""
    try:
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[4:8] == b"ftyp":
            by_hevc, said = heif.is_lossless_hevc(data), heif.code_points(data)
            return by_hevc if by_hevc is not None else said is not None and said.matrix == _IDENTITY
        if jxl.is_one(data):
            return jxl.header(data).is_lossless
    except (ValueError, IndexError, struct.error):
        pass
    return False


def _webp(data: Data, at: int = WEBP_START) -> bool:
    for name, start, _ in webp_chunks(data, at):
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        if name == b"ANMF":
            return _webp(data, start + 24)  # a frame's own chunks
    return False
