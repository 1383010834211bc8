"""ICC profiles made from numbers, and what one says about HDR. ICC.1:2022."""

import struct
from typing import TypeAlias

import numpy as np

Point: TypeAlias = tuple[float, float]
"""A colour's CIE x and y."""

Primaries: TypeAlias = tuple[Point, Point, Point]
"""Red, green and blue."""

Curve: TypeAlias = tuple[float] | tuple[float, float, float, float, float] | np.ndarray
"""From a channel's value X to light: X ** g for (g,); for (g, a, b, c, d) it is (a X + b) ** g from d on, c X below; a
uint16 array is a table of light over X, from 0 to 1."""

D65: Point = (0.3127, 0.3290)
SRGB_PRIMARIES: Primaries = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_PARAMETRIC = {1: 0, 5: 3}  # how many numbers a curve has -> the function's type
_LONGEST_TABLE = 4096  # Little CMS reads none of 32,768 numbers and more


def rgb(name: str, primaries: Primaries, white: Point, *curves: Curve) -> bytes:
    """A display profile of one curve, or of three. Raises ValueError for primaries that make no colours."""
    tags = _rgb_tags(*_colorants(primaries, white))
    each = curves if len(curves) == 3 else 3 * curves
    return _profile(name, b"RGB ", tags | {f"{key}TRC": _curve(curve) for key, curve in zip("rgb", each, strict=True)})


def _colorants(primaries: Primaries, white: Point) -> tuple[np.ndarray, np.ndarray]:
    """Red, green and blue as columns of XYZ, adapted to D50, and how that was done."""
    columns = np.stack([_xyz(point) for point in primaries], axis=1)
    try:
        scaled = columns * np.linalg.solve(columns, _xyz(white))
        adapted = _BRADFORD @ _xyz(white)
        adaptation = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / adapted) @ _BRADFORD)
    except np.linalg.LinAlgError:
        raise ValueError("its primaries lie on one line") from None
    colorants = adaptation @ scaled
    if not np.isfinite(colorants).all() or np.abs(colorants).max() > 4:
        raise ValueError("its primaries make no colours")
    return colorants, adaptation


def _rgb_tags(colorants: np.ndarray, adaptation: np.ndarray) -> dict[str, bytes]:
    tags = {f"{channel}XYZ": _numbers(b"XYZ ", colorants[:, i]) for i, channel in enumerate("rgb")}
    return tags | {"chad": _numbers(b"sf32", adaptation.ravel())}


def gray(name: str, curve: Curve) -> bytes:
    """A gray profile."""
    return _profile(name, b"GRAY", {"kTRC": _curve(curve)})


def transfer(profile: bytes) -> int | None:
    """The transfer characteristics (H.273) that a profile states, as those of HDR do; None where it states none."""
    said = _tag(profile, b"cicp")
    return said[9] if len(said) == 12 else None


def gray_as_rgb(profile: bytes) -> bytes | None:
    """An RGB profile in which equal channels mean what a gray profile says of one; None for other profiles."""
    curve = _tag(profile, b"kTRC")
    if profile[16:24] != b"GRAYXYZ " or not curve:
        return None
    colorants, adaptation = _colorants(SRGB_PRIMARIES, D65)
    tags = _rgb_tags(colorants, adaptation) | {f"{channel}TRC": curve for channel in "rgb"}
    return _profile("Gray as RGB", b"RGB ", tags)


def _tag(profile: bytes, name: bytes) -> bytes:
    """A tag's content; empty where there is none."""
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, 132 + 12 * min(count, 100), 12):
        if profile[at : at + 4] == name and at + 12 <= len(profile):
            offset, size = struct.unpack_from(">II", profile, at + 4)
            return profile[offset : offset + size]
    return b""


def _xyz(point: Point) -> np.ndarray:
    x, y = point
    if not y:
        raise ValueError("its primaries make no colours")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _numbers(kind: bytes, values: np.ndarray) -> bytes:
    fixed = (round(65536 * float(value)) for value in values)
    return kind + bytes(4) + struct.pack(f">{len(values)}i", *fixed)


def _curve(curve: Curve) -> bytes:
    if isinstance(curve, np.ndarray):
        places = np.linspace(0, len(curve) - 1, min(len(curve), _LONGEST_TABLE))
        table = np.rint(np.interp(places, np.arange(len(curve)), curve)).astype(">u2")
        return b"curv" + bytes(4) + struct.pack(">I", len(table)) + table.tobytes()
    return b"para" + bytes(4) + struct.pack(">HH", _PARAMETRIC[len(curve)], 0) + _numbers(b"", np.array(curve))[4:]


def _text(text: str) -> bytes:
    content = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(content), 28) + content


def _profile(name: str, space: bytes, tags: dict[str, bytes]) -> bytes:
    whole = {"desc": _text(name), "cprt": _text("CC0"), "wtpt": _numbers(b"XYZ ", _D50)} | tags
    offset = 132 + 12 * len(whole)
    table, content = struct.pack(">I", len(whole)), b""
    for tag, data in whole.items():
        table += tag.encode() + struct.pack(">II", offset + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s28x", offset + len(content), 0x04400000, b"mntr", space, b"XYZ ", b"acsp")
    return (head + _numbers(b"", _D50)[4:]).ljust(128, b"\0") + table + content
