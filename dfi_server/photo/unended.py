"""JPEGs that lack nothing but their end."""

import re
import struct

from dfi_server.photo.containers import Data

_START, _END = b"\xff\xd8", b"\xff\xd9"
_FRAMES, _PROGRESSIVE, _SCAN = (0xC0, 0xC1, 0xC2), 0xC2, 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within a scan, 0 escapes and D0 to D7 restart
_COEFFICIENTS = frozenset(range(64))


def ended(data: Data) -> bytes | None:
    """A JPEG without its end marker, with it; None for others, and where a scan is missing altogether.

    A scan that breaks off is the decoder's to find: with an end marker it warns of that. ITU-T T.81, annex B.
    """
    if data[:2] != _START:
        return None
    missing: dict[int, frozenset[int]] = {}
    at: int | None = 2
    try:
        while at is not None and at < len(data) - 1:
            if data[at] != 0xFF:
                return None
            marker = data[at + 1]
            if marker == 0xFF:
                at += 1
                continue
            if marker == _END[1]:
                return None
            (length,) = struct.unpack_from(">H", data, at + 2)
            if marker in _FRAMES:
                missing = dict.fromkeys(data[at + 10 : at + 2 + length : 3], _COEFFICIENTS)
            at += 2 + length
            if marker == _SCAN:
                components, (first, last, bits) = data[at - length + 3 : at - 3 : 2], data[at - 3 : at]
                if not bits & 0xF:  # to the last bit
                    for component in components:
                        missing[component] -= frozenset(range(first, last + 1))
                following = _MARKER.search(data, at)
                at = following.start() if following else None
    except (struct.error, IndexError, KeyError, ValueError):
        return None
    if not missing or any(missing.values()):
        return None
    return bytes(data).removesuffix(b"\xff") + _END
