"""Numbers of any width in bits, as headers of codecs have them."""

from typing import Literal


class Bits:
    """Takes numbers off bytes, most significant bit first ("big") or last ("little")."""

    def __init__(self, data: bytes, order: Literal["big", "little"]) -> None:
        self._value, self._left, self._order = int.from_bytes(data, order), 8 * len(data), order

    def take(self, width: int) -> int:
        """The next `width` bits. Raises ValueError at the end."""
        if width > self._left:
            raise ValueError("it ends too early")
        self._left -= width
        if self._order == "big":
            taken, self._value = self._value >> self._left, self._value & ((1 << self._left) - 1)
        else:
            taken, self._value = self._value & ((1 << width) - 1), self._value >> width
        return taken
