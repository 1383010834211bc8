"""JPEGs that lack nothing but their end."""

import re
import struct

import numpy as np
import pyvips

from dfi_server.photo.containers import Data

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAMES, _SCAN = (0xC0, 0xC1, 0xC2), 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within a scan, 0 escapes and D0 to D7 restart
_COEFFICIENTS = frozenset(range(64))
_RESTARTS = range(0xD0, 0xD8)
_FILLERS = tuple(64 * bits + b"".join(bytes([0xFF, n]) + 16 * bits for n in _RESTARTS) for bits in (b"\x55", b"\xaa"))


def ended(data: Data) -> bytes | None:
    """A JPEG without its end marker, with it; None for others, and where pixels are missing.

    Raises pyvips.Error for a damaged file.
    """
    if data[:2] != _START or not _has_all_scans(data):
        return None
    whole = bytes(data).removesuffix(b"\xff")
    # libvips asks for warnings only before each row of blocks. What follows the last pixel does not change it.
    seen = [pyvips.Image.new_from_buffer(whole + filler + _END, "").numpy() for filler in _FILLERS]
    return whole + _END if np.array_equal(*seen) else None


def _has_all_scans(data: Data) -> bool:
    """Whether each coefficient of each component is there to its last bit, apart from scans that break off, and no end
    marker. ITU-T T.81, annexes B and G."""
    missing: dict[int, frozenset[int]] = {}
    at: int | None = 2
    try:
        while at is not None and at < len(data) - 1:
            marker = data[at + 1]
            if data[at] != 0xFF or marker == _END[1]:
                return False
            if marker == 0xFF:  # fill
                at += 1
                continue
            (length,) = struct.unpack_from(">H", data, at + 2)
            if marker in _FRAMES:
                missing = dict.fromkeys(data[at + 10 : at + 2 + length : 3], _COEFFICIENTS)
            at += 2 + length
            if marker == _SCAN:
                components, (first, last, bits) = data[at - length + 3 : at - 3 : 2], data[at - 3 : at]
                if not bits & 0xF:
                    for component in components:
                        missing[component] -= frozenset(range(first, last + 1))
                following = _MARKER.search(data, at)
                at = following.start() if following else None
    except (struct.error, IndexError, KeyError, ValueError):
        return False
    return bool(missing) and not any(missing.values())
