"""What the messages between an editor and the server carry: bodies that check themselves, and their limits.

docs/protocol.md is the specification, protocol.py encodes and decodes. Standard library only: GIMP's own Python loads
it. A body checks itself when it is made, so a bad one exists neither before sending nor after receiving.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal, NoReturn, TypeAlias, TypedDict

from dfi_server.errors import DFIError, ErrorCode

PROTOCOL_VERSION = 1

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
FaceChoice: TypeAlias = int | Literal["largest", "all"]


class Choices(TypedDict, total=False):
    """What may be chosen of how an edit is made; see EditRequest and `Editor.edit`."""

    face: FaceChoice
    box: tuple[int, int, int, int] | None
    iterations: int | None
    keep: Collection[str]
    neighbours: int | None


class ServerState(StrEnum):
    """loading: the model is being read; ready; busy: an edit runs; failed: no model, the message says why."""

    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    FAILED = "failed"


def refuse(message: str, code: ErrorCode = ErrorCode.BAD_REQUEST) -> NoReturn:
    raise DFIError(code, message)


def check_neighbours(count: object) -> None:
    """Raise DFIError(BAD_REQUEST) unless vectors can be made from so many faces."""
    _check_integer("neighbours", count, MIN_NEIGHBOURS, MAX_NEIGHBOURS)


def _check_integer(name: str, value: object, low: int, high: int, code: ErrorCode = ErrorCode.BAD_REQUEST) -> None:
    if type(value) is not int:  # not isinstance: JSON's true must not count as 1
        refuse(f"{name} must be an integer.", code)
    if not low <= value <= high:
        refuse(f"{name} must be between {low} and {high}.", code)


def _number(name: str, value: object, code: ErrorCode = ErrorCode.BAD_REQUEST) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{name} must be a number.", code)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        refuse(f"{name} must be a finite number.", code)
    return number


def _loss(value: object) -> float:
    """A loss may be unknown: null in JSON, NaN in Python."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return math.nan
    return _number("loss", value)


def is_name(value: object) -> bool:
    # isprintable also shuts out lone surrogates, which JSON can spell and UTF-8 cannot.
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and value.isprintable()


def _check_names(names: Collection[object], code: ErrorCode) -> None:
    if len(names) > MAX_ATTRIBUTES:
        refuse(f"There are {len(names)} attributes; at most {MAX_ATTRIBUTES} work.", code)
    if not all(map(is_name, names)):
        refuse(f"An attribute's name has 1 to {MAX_NAME_LENGTH} printable characters.", code)


def _check_text(body: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(body, name), str):
            refuse(f"{name} must be a string.")


def _check_count(body: object, *names: str) -> None:
    for name in names:
        _check_integer(name, getattr(body, name), 0, 2**31)


def _check_image(width: int, height: int, channels: int, dtype: str) -> None:
    for name, side in (("width", width), ("height", height)):
        if type(side) is int and side > MAX_SIDE:
            refuse(f"The image's {name} is {side} pixels; at most {MAX_SIDE} work.", ErrorCode.TOO_LARGE)
        _check_integer(name, side, 1, MAX_SIDE, ErrorCode.BAD_IMAGE)
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


def _check_length(name: str, frame: Buffer, expected: int) -> None:
    length = memoryview(frame).nbytes
    if length != expected:
        refuse(f"The {name} frame has {length} bytes, but its header says {expected}.", ErrorCode.BAD_IMAGE)


def _check_box(name: str, box: object, code: ErrorCode) -> tuple[int, int, int, int]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        refuse(f"{name} must be [x, y, width, height].", code)
    for part, value, low in zip(("x", "y", "width", "height"), box, (-MAX_SIDE, -MAX_SIDE, 1, 1), strict=True):
        _check_integer(f"{name}'s {part}", value, low, MAX_SIDE, code)
    x, y, width, height = box
    return x, y, width, height


@dataclass(frozen=True)
class PhotoRequest:
    """A photo of height x width pixels, row-major, channels interleaved, little endian, and where to look in it.

    channels: 1 (gray) or 3 (RGB). dtype: "uint8", "uint16" (full range) or "float32" (0 to 1); sRGB-encoded.
    box: x, y, width, height in pixels, over the border too: only faces in there are meant. None: all.
    Raises DFIError (bad_image, too_large, bad_box) if a value cannot be right.
    """

    width: int
    height: int
    channels: int
    dtype: str
    box: tuple[int, int, int, int] | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_image(self.width, self.height, self.channels, self.dtype)
        if self.box is not None:
            object.__setattr__(self, "box", _check_box("The box", self.box, ErrorCode.BAD_BOX))

    @property
    def pixel_bytes(self) -> int:
        """Length of the pixel frame that belongs to this request."""
        return self.width * self.height * self.channels * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class EditRequest(PhotoRequest):
    """What to do with a photo.

    alphas: {attribute: alpha}, each shift's length as a fraction of the photo's own features.
    face: "largest", "all" or a number from 1, in the order that a faces request gives them. box: as for PhotoRequest,
    and nothing outside changes. iterations: None for the default. preview: a rough answer, as soon as can be.
    store: the one that must be used; None: whichever the server has. factors: several edits instead of one, each with
    all alphas times one of them. keep: attributes that stay as they are, whatever the others bring along. neighbours:
    make the vectors from so many faces with each attribute, and without, that are most like this one; a preview does
    without. Raises DFIError as PhotoRequest does, and bad_alpha, bad_request.
    """

    alphas: Mapping[str, float]
    iterations: int | None = None
    face: FaceChoice = "largest"
    preview: bool = False
    store: str | None = None
    factors: tuple[float, ...] | None = None
    keep: Collection[str] | None = None
    neighbours: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.preview, bool):
            refuse("preview must be true or false.")
        if not isinstance(self.alphas, Mapping):
            refuse("alphas must map attributes to numbers.", ErrorCode.BAD_ALPHA)
        _check_names(self.alphas, ErrorCode.BAD_ALPHA)
        alphas = {
            str(name): _number(f"The alpha of {name!r}", alpha, ErrorCode.BAD_ALPHA)
            for name, alpha in self.alphas.items()
        }
        object.__setattr__(self, "alphas", alphas)
        if self.face not in ("largest", "all"):
            _check_integer("face", self.face, 1, MAX_FACES)
        if self.iterations is not None:
            _check_integer("iterations", self.iterations, 1, MAX_ITERATIONS)
        if self.store is not None and not is_name(self.store):
            refuse(f"A store's name has 1 to {MAX_NAME_LENGTH} printable characters.")
        if self.factors is not None:
            if not isinstance(self.factors, list | tuple) or not 1 <= len(self.factors) <= MAX_FACTORS:
                refuse(f"factors must be a list of 1 to {MAX_FACTORS} numbers.")
            numbers = tuple(_number("A factor", factor) for factor in self.factors)
            object.__setattr__(self, "factors", numbers)
        if self.keep is not None:
            if not isinstance(self.keep, list | tuple):
                refuse("keep must be a list of attributes.")
            _check_names(self.keep, ErrorCode.BAD_REQUEST)
        if self.neighbours is not None:
            check_neighbours(self.neighbours)


@dataclass(frozen=True)
class Edit(EditRequest):
    """The body of an edit message: the request and its pixel frame, which has the announced length."""

    FRAMES: ClassVar = ("pixels",)
    pixels: Buffer = dataclasses.field(kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_length("pixel", self.pixels, self.pixel_bytes)


@dataclass(frozen=True)
class FindFaces(PhotoRequest):
    """The body of a faces message: the photo and its pixel frame."""

    FRAMES: ClassVar = ("pixels",)
    pixels: Buffer = dataclasses.field(kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_length("pixel", self.pixels, self.pixel_bytes)


@dataclass(frozen=True)
class FacesFound:
    """The faces of a photo, largest first, each as x, y, width, height; a face at the edge may reach beyond it."""

    boxes: tuple[tuple[int, int, int, int], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.boxes, list | tuple) or len(self.boxes) > MAX_FACES:
            refuse(f"boxes must be a list of at most {MAX_FACES}.")
        boxes = tuple(_check_box("A face's box", box, ErrorCode.BAD_REQUEST) for box in self.boxes)
        object.__setattr__(self, "boxes", boxes)


@dataclass(frozen=True)
class ServerInfo:
    """Who answers: the server's package version, state, store, device, and a sentence if there is one.

    store and device are empty until the model is loaded. queued: edits waiting (the running one not counted). resting:
    ready, but the model has given its memory back, and takes some seconds more for the next edit.
    """

    version: str
    state: ServerState
    store: str
    device: str
    message: str
    queued: int
    protocol_version: int = PROTOCOL_VERSION
    resting: bool = False

    def __post_init__(self) -> None:
        _check_text(self, "version", "state", "store", "device", "message")
        if self.state not in tuple(ServerState):
            refuse(f"state must be one of {', '.join(ServerState)}.")
        object.__setattr__(self, "state", ServerState(self.state))
        if not isinstance(self.resting, bool):
            refuse("resting must be true or false.")
        _check_count(self, "queued", "protocol_version")


@dataclass(frozen=True)
class Attributes:
    """The names that an edit's alphas may use, in the store's order."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.names, list | tuple):
            refuse("names must be a list.")
        _check_names(self.names, ErrorCode.BAD_REQUEST)
        object.__setattr__(self, "names", tuple(self.names))


@dataclass(frozen=True)
class Accepted:
    """The edit waits or runs. ahead: edits accepted earlier and not finished yet."""

    ahead: int

    def __post_init__(self) -> None:
        _check_count(self, "ahead")


@dataclass(frozen=True)
class Progress:
    """The running edit has done `iteration` of at most `iterations`. loss: NaN where unknown."""

    iteration: int
    iterations: int
    loss: float

    def __post_init__(self) -> None:
        _check_count(self, "iteration", "iterations")
        object.__setattr__(self, "loss", _loss(self.loss))


@dataclass(frozen=True)
class EditResult:
    """The edited rectangle at (x, y) of the photo, in the photo's channels and dtype.

    pixels: height x width x channels, not feathered. mask: height x width bytes, 0 keeps the photo, 255 is
    all edited. seconds: time in the pipeline, the queue not counted. loss: NaN where unknown. count: of edits, whose
    pixels, and masks, follow each other.
    """

    FRAMES: ClassVar = ("pixels", "mask")
    x: int
    y: int
    width: int
    height: int
    channels: int
    dtype: str
    iterations: int
    loss: float
    seconds: float
    pixels: Buffer = dataclasses.field(repr=False)
    mask: Buffer = dataclasses.field(repr=False)
    count: int = dataclasses.field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        _check_integer("count", self.count, 1, MAX_FACTORS)
        _check_image(self.width, self.height, self.channels, self.dtype)
        _check_integer("x", self.x, 0, MAX_SIDE)
        _check_integer("y", self.y, 0, MAX_SIDE)
        _check_count(self, "iterations")
        object.__setattr__(self, "loss", _loss(self.loss))
        object.__setattr__(self, "seconds", _number("seconds", self.seconds))
        area = self.count * self.width * self.height
        if area > MAX_PIXELS:
            refuse(f"{self.count} edits of this photo at once are too large: ask for fewer.", ErrorCode.TOO_LARGE)
        _check_length("pixel", self.pixels, area * self.channels * DTYPE_BYTES[self.dtype])
        _check_length("mask", self.mask, area)


@dataclass(frozen=True)
class Error:
    """Why a request failed. A code from a newer server that this module does not know reads as internal."""

    code: ErrorCode
    message: str

    def __post_init__(self) -> None:
        _check_text(self, "code", "message")
        known = self.code in tuple(ErrorCode)
        object.__setattr__(self, "code", ErrorCode(self.code) if known else ErrorCode.INTERNAL)
        object.__setattr__(self, "message", self.message[:MAX_MESSAGE_LENGTH])
