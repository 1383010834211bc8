"""The colours that a file states, with or without an ICC profile, as a profile."""

import struct

from dfi_server.photo import cicp, heif, icc
from dfi_server.photo.cicp import CodePoints
from dfi_server.photo.containers import Data, png_chunks

_PNG_UNIT = 100_000
_SRGB_GAMMA, _ABOUT = 1 / 2.2, 0.005  # what writers of sRGB state as gAMA; PNG, third edition, 11.3.2.5
_SRGB_POINTS = (icc.D65, *icc.SRGB_PRIMARIES)
_SAME = 0.001  # of x and y


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
    near = zip(points, _SRGB_POINTS, strict=False)
    is_srgb = all(abs(a - b) < _SAME for said, known in near for a, b in zip(said, known, strict=True))
    curve: icc.Curve = icc.SRGB_CURVE if not gamma or abs(gamma - _SRGB_GAMMA) < _ABOUT else (1 / gamma,)
    if curve == icc.SRGB_CURVE and is_srgb:
        return None
    white, red, green, blue = points or _SRGB_POINTS
    name = "gAMA and cHRM of a PNG"
    try:
        return icc.gray(name, curve) if channels == 1 else icc.rgb(name, (red, green, blue), white, curve)
    except (ValueError, struct.error):
        return None
