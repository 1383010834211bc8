"""ICC profiles for tests, made from numbers (ICC.1:2001-04): no photo's profile has to be carried along."""

import struct

ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""The primaries' XYZ, adapted to D50, of Adobe RGB (1998)."""

PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
_D50 = (0.9642, 1.0, 0.8249)


def rgb(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """A display profile with these primaries and one gamma."""
    tags = {f"{name}XYZ": _xyz(value) for name, value in zip("rgb", primaries, strict=True)}
    return _profile(b"RGB ", tags | {f"{name}TRC": _curve(gamma) for name in "rgb"})


def gray(gamma: float) -> bytes:
    """A gray profile."""
    return _profile(b"GRAY", {"kTRC": _curve(gamma)})


def _xyz(value: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * number) for number in value))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)


def _profile(space: bytes, tags: dict[str, bytes]) -> bytes:
    text = b"test\0"
    tags = {
        "desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(8 + 3 + 67) + bytes(4),
        "cprt": b"text\0\0\0\0" + text + bytes(3),
        "wtpt": _xyz(_D50),
    } | tags
    offset = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name.encode() + struct.pack(">II", offset + len(content), len(data))
        content += data
    header = struct.pack(">I4sI4s4s4s", offset + len(content), b"test", 0x02400000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(65536 * number) for number in _D50))
    return header.ljust(128, b"\0") + table + content
