"""ICC profiles made from numbers, and what one says about HDR. ICC.1:2022."""

import struct
from typing import TypeAlias

import numpy as np

Point: TypeAlias = tuple[float, float]
"""A colour's CIE x and y."""

Curve: TypeAlias = tuple[float] | tuple[float, float, float, float, float]
"""From a channel's value X to light: X ** g for (g,); for (g, a, b, c, d) it is (a X + b) ** g from d on, c X below."""

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_PARAMETRIC = {1: 0, 5: 3}  # how many numbers a curve has -> the function's type


def rgb(name: str, primaries: tuple[Point, Point, Point], white: Point, curve: Curve) -> bytes:
    """A display profile. Raises ValueError for primaries that make no colours."""
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
    tags = {f"{channel}XYZ": _numbers(b"XYZ ", colorants[:, i]) for i, channel in enumerate("rgb")}
    tags["chad"] = _numbers(b"sf32", adaptation.ravel())
    return _profile(name, b"RGB ", tags | {f"{channel}TRC": _curve(curve) for channel in "rgb"})


def gray(name: str, curve: Curve) -> bytes:
    """A gray profile."""
    return _profile(name, b"GRAY", {"kTRC": _curve(curve)})


def transfer(profile: bytes) -> int | None:
    """The transfer characteristics (H.273) that a profile states, as those of HDR do; None where it states none."""
    for at in range(132, 132 + 12 * min(_count(profile), 100), 12):
        if profile[at : at + 4] == b"cicp" and at + 12 <= len(profile):
            (offset,) = struct.unpack_from(">I", profile, at + 4)
            return profile[offset + 9] if offset + 12 <= len(profile) else None
    return None


def _count(profile: bytes) -> int:
    return int(struct.unpack_from(">I", profile, 128)[0]) if len(profile) >= 132 else 0


def _xyz(point: Point) -> np.ndarray:
    x, y = point
    if not y:
        raise ValueError("its primaries make no colours")
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _numbers(kind: bytes, values: np.ndarray) -> bytes:
    fixed = (round(65536 * float(value)) for value in values)
    return kind + bytes(4) + struct.pack(f">{len(values)}i", *fixed)


def _curve(curve: Curve) -> bytes:
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
