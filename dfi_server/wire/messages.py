"""What the messages between an editor and the server carry: bodies that check themselves.

docs/protocol.md is the specification, protocol.py encodes and decodes. Standard library only: GIMP's own Python loads
it. A body checks itself when it is made, so a bad one exists neither before sending nor after receiving.
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal, TypeAlias, TypedDict

from dfi_server.errors import ErrorCode
from dfi_server.wire.limits import (
    DTYPE_BYTES,
    MAX_FACES,
    MAX_FACTORS,
    MAX_ITERATIONS,
    MAX_MESSAGE_LENGTH,
    MAX_NAME_LENGTH,
    MAX_PIXELS,
    MAX_SIDE,
    Buffer,
    check_box,
    check_count,
    check_image,
    check_integer,
    check_length,
    check_loss,
    check_names,
    check_neighbours,
    check_number,
    check_text,
    is_name,
    refuse,
)

PROTOCOL_VERSION = 1

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
        check_image(self.width, self.height, self.channels, self.dtype)
        if self.box is not None:
            object.__setattr__(self, "box", check_box("The box", self.box, ErrorCode.BAD_BOX))

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
        check_names(self.alphas, ErrorCode.BAD_ALPHA)
        alphas = {
            str(name): check_number(f"The alpha of {name!r}", alpha, ErrorCode.BAD_ALPHA)
            for name, alpha in self.alphas.items()
        }
        object.__setattr__(self, "alphas", alphas)
        if self.face not in ("largest", "all"):
            check_integer("face", self.face, 1, MAX_FACES)
        _check_common(self.iterations, self.store)
        if self.factors is not None:
            if not isinstance(self.factors, list | tuple) or not 1 <= len(self.factors) <= MAX_FACTORS:
                refuse(f"factors must be a list of 1 to {MAX_FACTORS} numbers.")
            numbers = tuple(check_number("A factor", factor) for factor in self.factors)
            object.__setattr__(self, "factors", numbers)
        if self.keep is not None:
            if not isinstance(self.keep, list | tuple):
                refuse("keep must be a list of attributes.")
            check_names(self.keep, ErrorCode.BAD_REQUEST)
        if self.neighbours is not None:
            check_neighbours(self.neighbours)


def _check_common(iterations: int | None, store: str | None) -> None:
    if iterations is not None:
        check_integer("iterations", iterations, 1, MAX_ITERATIONS)
    if store is not None and not is_name(store):
        refuse(f"A store's name has 1 to {MAX_NAME_LENGTH} printable characters.")


@dataclass(frozen=True)
class FillRequest(PhotoRequest):
    """What to fill in a photo is said by a mask; this is the rest.

    box: where the face is, hairline to throat and ear to ear, if it cannot be found; None: it is looked for.
    iterations, store: as for EditRequest. Raises DFIError as PhotoRequest does, and bad_request.
    """

    iterations: int | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_common(self.iterations, self.store)

    @property
    def mask_bytes(self) -> int:
        """Length of the mask's frame that belongs to this request."""
        return self.width * self.height


@dataclass(frozen=True)
class Work(PhotoRequest):
    """A request with its pixel frame, which has the announced length: what takes a worker some time."""

    FRAMES: ClassVar[tuple[str, ...]] = ("pixels",)
    pixels: Buffer = dataclasses.field(kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length("pixel", self.pixels, self.pixel_bytes)

    @property
    def frame_bytes(self) -> int:
        """Of all frames together."""
        return sum(memoryview(getattr(self, name)).nbytes for name in self.FRAMES)


@dataclass(frozen=True)
class Edit(Work, EditRequest):
    """The body of an edit message."""


@dataclass(frozen=True)
class FindFaces(Work):
    """The body of a faces message."""


@dataclass(frozen=True)
class Fill(Work, FillRequest):
    """The body of a fill message. mask: height x width bytes, 0 keeps the photo, 255 is filled, between they blend."""

    FRAMES: ClassVar = ("pixels", "mask")
    mask: Buffer = dataclasses.field(kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length("mask", self.mask, self.mask_bytes)


@dataclass(frozen=True)
class FacesFound:
    """The faces of a photo, largest first, each as x, y, width, height; a face at the edge may reach beyond it."""

    boxes: tuple[tuple[int, int, int, int], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.boxes, list | tuple) or len(self.boxes) > MAX_FACES:
            refuse(f"boxes must be a list of at most {MAX_FACES}.")
        boxes = tuple(check_box("A face's box", box, ErrorCode.BAD_REQUEST) for box in self.boxes)
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
        check_text(self, "version", "state", "store", "device", "message")
        if self.state not in tuple(ServerState):
            refuse(f"state must be one of {', '.join(ServerState)}.")
        object.__setattr__(self, "state", ServerState(self.state))
        if not isinstance(self.resting, bool):
            refuse("resting must be true or false.")
        check_count(self, "queued", "protocol_version")


@dataclass(frozen=True)
class Attributes:
    """The names that an edit's alphas may use, in the store's order."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.names, list | tuple):
            refuse("names must be a list.")
        check_names(self.names, ErrorCode.BAD_REQUEST)
        object.__setattr__(self, "names", tuple(self.names))


@dataclass(frozen=True)
class Accepted:
    """The edit waits or runs. ahead: edits accepted earlier and not finished yet."""

    ahead: int

    def __post_init__(self) -> None:
        check_count(self, "ahead")


@dataclass(frozen=True)
class Progress:
    """The running edit has done `iteration` of at most `iterations`. loss: NaN where unknown."""

    iteration: int
    iterations: int
    loss: float

    def __post_init__(self) -> None:
        check_count(self, "iteration", "iterations")
        object.__setattr__(self, "loss", check_loss(self.loss))


@dataclass(frozen=True)
class EditResult:
    """The edited, or filled, rectangle at (x, y) of the photo, in the photo's channels and dtype.

    pixels: height x width x channels, not feathered. mask: height x width bytes, 0 keeps the photo, 255 is
    all edited. seconds: time in the pipeline, the queue not counted. loss: NaN where unknown. count: of edits, whose
    pixels, and masks, follow each other. outside: of a filling, the part of its mask that lies beyond the face.
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
    outside: float | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.outside is not None:
            object.__setattr__(self, "outside", check_number("outside", self.outside))
        check_integer("count", self.count, 1, MAX_FACTORS)
        check_image(self.width, self.height, self.channels, self.dtype)
        check_integer("x", self.x, 0, MAX_SIDE)
        check_integer("y", self.y, 0, MAX_SIDE)
        check_count(self, "iterations")
        object.__setattr__(self, "loss", check_loss(self.loss))
        object.__setattr__(self, "seconds", check_number("seconds", self.seconds))
        area = self.count * self.width * self.height
        if area > MAX_PIXELS:
            refuse(f"{self.count} edits of this photo at once are too large: ask for fewer.", ErrorCode.TOO_LARGE)
        check_length("pixel", self.pixels, area * self.channels * DTYPE_BYTES[self.dtype])
        check_length("mask", self.mask, area)


@dataclass(frozen=True)
class Error:
    """Why a request failed. A code from a newer server that this module does not know reads as internal."""

    code: ErrorCode
    message: str

    def __post_init__(self) -> None:
        check_text(self, "code", "message")
        known = self.code in tuple(ErrorCode)
        object.__setattr__(self, "code", ErrorCode(self.code) if known else ErrorCode.INTERNAL)
        object.__setattr__(self, "message", self.message[:MAX_MESSAGE_LENGTH])
