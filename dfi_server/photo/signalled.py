"""The colours that a file states, with or without an ICC profile, as a profile."""

import struct
from collections.abc import Sequence

import numpy as np

from dfi_server.photo import cicp, heif, icc, tiff
from dfi_server.photo.cicp import CodePoints
from dfi_server.photo.containers import Data, png_chunks

_PNG_UNIT = 100_000
_SRGB_GAMMA, _ABOUT = 1 / 2.2, 0.005  # what writers of sRGB state as gAMA; PNG, third edition, 11.3.2.5
_SRGB_POINTS = (icc.D65, *icc.SRGB_PRIMARIES)
_SAME = 0.001  # of x and y
_GRAY, _RGB, _PALETTE, _YCBCR = 1, 2, 3, 6  # a TIFF's photometric interpretations


def profile(data: Data, icc_profile: bytes | None, channels: int) -> bytes | None:
    """The profile of a photo of 1 or 3 channels whose file's bytes hold `icc_profile`; None means sRGB.

    Numbers that make no sense count as not stated. Raises ValueError for colours that edits would spoil, as HDR's.
    """
    cicp.refuse_hdr(icc.transfer(icc_profile) if icc_profile else None)
    if data[:4] == b"\x89PNG":
        return _of_png(data, icc_profile, channels)
    if data[4:8] == b"ftyp" and not icc_profile:
        try:
            said = heif.code_points(data)
        except (ValueError, IndexError, struct.error):
            return None
        return cicp.profile(said, channels) if said else None
    if data[:2] in (b"II", b"MM") and not icc_profile:
        try:
            return _of_tiff(tiff.Tiff(data), channels)
        except tiff.DAMAGED:
            return None
    return icc_profile


def _of_png(data: Data, icc_profile: bytes | None, channels: int) -> bytes | None:
    """Of what a PNG states, cICP counts most, then a profile, sRGB, and gAMA and cHRM. PNG, third edition, 4.3."""
    chunks: dict[int | bytes, bytes] = {}
    for name, _, content in png_chunks(data):
        if name == b"IDAT":
            break
        chunks.setdefault(name, content)
    said = chunks.get(b"cICP", b"")
    if len(said) == 4:
        primaries, transfer, matrix, is_full = said
        if matrix or not is_full:
            raise ValueError("its cICP chunk states colours of video: convert it to sRGB")
        return cicp.profile(CodePoints(primaries, transfer, matrix), channels)
    if icc_profile or b"sRGB" in chunks:
        return icc_profile
    return _of_numbers(chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""), channels)


def _of_numbers(gamma_chunk: bytes, points_chunk: bytes, channels: int) -> bytes | None:
    gamma = struct.unpack(">I", gamma_chunk)[0] / _PNG_UNIT if len(gamma_chunk) == 4 else 0
    numbers = struct.unpack(">8I", points_chunk) if len(points_chunk) == 32 and channels == 3 else ()
    points = [(x / _PNG_UNIT, y / _PNG_UNIT) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]
    curves: list[icc.Curve] = [] if not gamma or abs(gamma - _SRGB_GAMMA) < _ABOUT else [(1 / gamma,)]
    return _made("gAMA and cHRM of a PNG", points, curves, channels)


def _of_tiff(structure: tiff.Tiff, channels: int) -> bytes | None:
    """Of white point, primaries and transfer function. TIFF 6.0, section 20."""
    entries, _ = structure.directory(structure.first)
    kind, depth = (structure.numbers(entries[tag])[0] for tag in (tiff.PHOTOMETRIC, tiff.BITS))
    points, curves = list[icc.Point](), list[icc.Curve]()
    if tiff.PRIMARIES in entries and channels == 3 and kind in (_RGB, _PALETTE, _YCBCR):
        white = _points(structure, entries[tiff.WHITE_POINT]) if tiff.WHITE_POINT in entries else [icc.D65]
        points = [*white, *_points(structure, entries[tiff.PRIMARIES])]
    if tiff.TRANSFER_FUNCTION in entries and kind in (_GRAY, _RGB):
        light = np.array(structure.numbers(entries[tiff.TRANSFER_FUNCTION]))
        if len(light) not in (1 << depth, channels << depth):
            raise ValueError("its transfer function is of another depth")
        curves = list(np.maximum.accumulate(light.reshape(-1, 1 << depth), axis=1))  # BT.709's has a step back
        if not all(table[0] < table[-1] for table in curves):
            raise ValueError("its transfer function makes no sense")
    return _made("Primaries and transfer function of a TIFF", points, curves, channels)


def _points(structure: tiff.Tiff, entry: tiff.Entry) -> list[icc.Point]:
    """An entry's rationals, x and y in turn. Raises ValueError where one has no value."""
    numbers = structure.numbers(entry)
    if not all(numbers[1::2]):
        raise ValueError("it states no colour")
    values = [numerator / denominator for numerator, denominator in zip(numbers[::2], numbers[1::2], strict=True)]
    return list(zip(values[::2], values[1::2], strict=True))


def _made(name: str, points: Sequence[icc.Point], curves: Sequence[icc.Curve], channels: int) -> bytes | None:
    """A profile of white, red, green and blue, and of one curve or three; sRGB's where there are none."""
    near = zip(points, _SRGB_POINTS, strict=False)
    is_srgb = all(abs(a - b) < _SAME for said, known in near for a, b in zip(said, known, strict=True))
    if not curves and is_srgb:
        return None
    curves = curves or (icc.SRGB_CURVE,)
    try:
        white, red, green, blue = points or _SRGB_POINTS
        return icc.gray(name, curves[0]) if channels == 1 else icc.rgb(name, (red, green, blue), white, *curves)
    except (ValueError, struct.error):
        return None
