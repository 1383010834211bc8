"""What a message may hold: limits, and checks that refuse the rest in a sentence. Standard library only.

The checks raise DFIError, with BAD_REQUEST where they take no code.
"""

import math
from collections.abc import Collection
from typing import NoReturn, TypeAlias

from dfi_server.errors import DFIError, ErrorCode

MAX_SIDE = 524_288  # GIMP's own limit
MAX_PIXELS = 250_000_000
MAX_CHANNELS = 3
MAX_ATTRIBUTES = 512
MAX_FACES = 10_000
MAX_NAME_LENGTH = 64  # characters of an id or of an attribute's name
MAX_ITERATIONS = 1_000
MAX_FACTORS = 32
MIN_NEIGHBOURS, MAX_NEIGHBOURS = 20, 1_000  # fewer show who they are, not what they have in common
MAX_MESSAGE_LENGTH = 2_000  # characters of an error's sentence

DTYPE_BYTES = {"uint8": 1, "uint16": 2, "float32": 4}

Buffer: TypeAlias = bytes | bytearray | memoryview


def refuse(message: str, code: ErrorCode = ErrorCode.BAD_REQUEST) -> NoReturn:
    raise DFIError(code, message)


def check_neighbours(count: object) -> None:
    """Raise DFIError(BAD_REQUEST) unless vectors can be made from so many faces."""
    check_integer("neighbours", count, MIN_NEIGHBOURS, MAX_NEIGHBOURS)


def check_integer(name: str, value: object, low: int, high: int, code: ErrorCode = ErrorCode.BAD_REQUEST) -> None:
    if type(value) is not int:  # not isinstance: JSON's true must not count as 1
        refuse(f"{name} must be an integer.", code)
    if not low <= value <= high:
        refuse(f"{name} must be between {low} and {high}.", code)


def check_number(name: str, value: object, code: ErrorCode = ErrorCode.BAD_REQUEST) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{name} must be a number.", code)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        refuse(f"{name} must be a finite number.", code)
    return number


def check_loss(value: object) -> float:
    """A loss may be unknown: null in JSON, NaN in Python."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return math.nan
    return check_number("loss", value)


def is_name(value: object) -> bool:
    # isprintable also shuts out lone surrogates, which JSON can spell and UTF-8 cannot.
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and value.isprintable()


def check_names(names: Collection[object], code: ErrorCode) -> None:
    if len(names) > MAX_ATTRIBUTES:
        refuse(f"There are {len(names)} attributes; at most {MAX_ATTRIBUTES} work.", code)
    if not all(map(is_name, names)):
        refuse(f"An attribute's name has 1 to {MAX_NAME_LENGTH} printable characters.", code)


def check_text(body: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(body, name), str):
            refuse(f"{name} must be a string.")


def check_count(body: object, *names: str) -> None:
    for name in names:
        check_integer(name, getattr(body, name), 0, 2**31)


def check_image(width: int, height: int, channels: int, dtype: str) -> None:
    for name, side in (("width", width), ("height", height)):
        if type(side) is int and side > MAX_SIDE:
            refuse(f"The image's {name} is {side} pixels; at most {MAX_SIDE} work.", ErrorCode.TOO_LARGE)
        check_integer(name, side, 1, MAX_SIDE, ErrorCode.BAD_IMAGE)
    if width * height > MAX_PIXELS:
        refuse(
            f"The image has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million work: "
            "select less of it or crop it.",
            ErrorCode.TOO_LARGE,
        )
    if type(channels) is not int or channels not in (1, 3):
        refuse("channels must be 1 (gray) or 3 (RGB).", ErrorCode.BAD_IMAGE)
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        refuse(f"dtype must be one of {', '.join(DTYPE_BYTES)}.", ErrorCode.BAD_IMAGE)


def check_length(name: str, frame: Buffer, expected: int) -> None:
    length = memoryview(frame).nbytes
    if length != expected:
        refuse(f"The {name} frame has {length} bytes, but its header says {expected}.", ErrorCode.BAD_IMAGE)


def check_box(name: str, box: object, code: ErrorCode) -> tuple[int, int, int, int]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        refuse(f"{name} must be [x, y, width, height].", code)
    for part, value, low in zip(("x", "y", "width", "height"), box, (-MAX_SIDE, -MAX_SIDE, 1, 1), strict=True):
        check_integer(f"{name}'s {part}", value, low, MAX_SIDE, code)
    x, y, width, height = box
    return x, y, width, height
