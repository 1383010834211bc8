"""What travels on the socket: message types, limits, and the only code that encodes or decodes.

docs/protocol.md is the specification; this module is its one implementation in Python, shared by client.py
and server.py. Standard library only: GIMP's own Python loads it. A message is a list of frames: one JSON
header, then raw pixel frames. The body classes check themselves when they are made, so a bad message exists
neither before sending nor after receiving.
"""

import dataclasses
import ipaddress
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, TypeAlias

from dfi_server.errors import DFIError, ErrorCode

PROTOCOL_VERSION = 1
DEFAULT_ENDPOINT = "tcp://127.0.0.1:5577"

HEARTBEAT_SECONDS = 0.3  # how often a client with an edit under way says that it is still there
CLIENT_SILENCE_SECONDS = 2.0  # a client silent for longer has vanished: its edits are dropped

MAX_HEADER_BYTES = 256 * 1024
MAX_SIDE = 524_288  # GIMP's own limit
MAX_PIXELS = 250_000_000
MAX_CHANNELS = 3
MAX_ATTRIBUTES = 512
MAX_FACES = 10_000
MAX_NAME_LENGTH = 64  # characters of an id or of an attribute's name
MAX_ITERATIONS = 1_000
MAX_MESSAGE_LENGTH = 2_000  # characters of an error's sentence

DTYPE_BYTES = {"uint8": 1, "uint16": 2, "float32": 4}
MAX_FRAME_BYTES = MAX_PIXELS * MAX_CHANNELS * max(DTYPE_BYTES.values())

Buffer: TypeAlias = bytes | bytearray | memoryview
FaceChoice: TypeAlias = int | Literal["largest", "all"]


class MessageType(StrEnum):
    """The "type" of a header. The first seven are requests; some replies answer under their request's name."""

    HELLO = "hello"
    STATUS = "status"
    ATTRIBUTES = "attributes"
    FACES = "faces"
    EDIT = "edit"
    CANCEL = "cancel"
    HEARTBEAT = "heartbeat"
    ACCEPTED = "accepted"
    PROGRESS = "progress"
    RESULT = "result"
    ERROR = "error"
    CANCELLED = "cancelled"


class ServerState(StrEnum):
    """loading: the model is being read; ready; busy: an edit runs; failed: no model, the message says why."""

    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    FAILED = "failed"


class ProtocolError(DFIError):
    """A message that cannot be accepted; `id` is the message's own id where that could be read."""

    def __init__(self, code: ErrorCode, message: str, id: str | None) -> None:
        super().__init__(code, message)
        self.id = id


def _bad(message: str, code: ErrorCode = ErrorCode.BAD_REQUEST) -> NoReturn:
    raise DFIError(code, message)


def _check_integer(name: str, value: object, low: int, high: int, code: ErrorCode = ErrorCode.BAD_REQUEST) -> None:
    if type(value) is not int:  # not isinstance: JSON's true must not count as 1
        _bad(f"{name} must be an integer.", code)
    if not low <= value <= high:
        _bad(f"{name} must be between {low} and {high}.", code)


def _number(name: str, value: object, code: ErrorCode = ErrorCode.BAD_REQUEST) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _bad(f"{name} must be a number.", code)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _bad(f"{name} must be a finite number.", code)
    return number


def _loss(value: object) -> float:
    """A loss may be unknown: null in JSON, NaN in Python."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return math.nan
    return _number("loss", value)


def _is_name(value: object) -> bool:
    # isprintable also shuts out lone surrogates, which JSON can spell and UTF-8 cannot.
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and value.isprintable()


def _check_names(names: Collection[object], code: ErrorCode) -> None:
    if len(names) > MAX_ATTRIBUTES:
        _bad(f"There are {len(names)} attributes; at most {MAX_ATTRIBUTES} work.", code)
    if not all(map(_is_name, names)):
        _bad(f"An attribute's name has 1 to {MAX_NAME_LENGTH} printable characters.", code)


def _check_text(body: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(body, name), str):
            _bad(f"{name} must be a string.")


def _check_count(body: object, *names: str) -> None:
    for name in names:
        _check_integer(name, getattr(body, name), 0, 2**31)


def _check_image(width: int, height: int, channels: int, dtype: str) -> None:
    for name, side in (("width", width), ("height", height)):
        if type(side) is int and side > MAX_SIDE:
            _bad(f"The image's {name} is {side} pixels; at most {MAX_SIDE} work.", ErrorCode.TOO_LARGE)
        _check_integer(name, side, 1, MAX_SIDE, ErrorCode.BAD_IMAGE)
    if width * height > MAX_PIXELS:
        _bad(
            f"The image has {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million work: "
            "select less of it or crop it.",
            ErrorCode.TOO_LARGE,
        )
    if type(channels) is not int or channels not in (1, 3):
        _bad("channels must be 1 (gray) or 3 (RGB).", ErrorCode.BAD_IMAGE)
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        _bad(f"dtype must be one of {', '.join(DTYPE_BYTES)}.", ErrorCode.BAD_IMAGE)


def _check_length(name: str, frame: Buffer, expected: int) -> None:
    length = memoryview(frame).nbytes
    if length != expected:
        _bad(f"The {name} frame has {length} bytes, but its header says {expected}.", ErrorCode.BAD_IMAGE)


def _check_box(name: str, box: object, lowest: int, code: ErrorCode) -> tuple[int, int, int, int]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        _bad(f"{name} must be [x, y, width, height].", code)
    for part, value, low in zip(("x", "y", "width", "height"), box, (lowest, lowest, 1, 1), strict=True):
        _check_integer(f"{name}'s {part}", value, low, MAX_SIDE, code)
    x, y, width, height = box
    return x, y, width, height


@dataclass(frozen=True)
class PhotoRequest:
    """A photo of height x width pixels, row-major, channels interleaved, little endian, and where to look in it.

    channels: 1 (gray) or 3 (RGB). dtype: "uint8", "uint16" (full range) or "float32" (0 to 1); sRGB-encoded.
    box: x, y, width, height in pixels: only faces in there are meant. None: all.
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
            object.__setattr__(self, "box", _check_box("The box", self.box, 0, ErrorCode.BAD_BOX))

    @property
    def pixel_bytes(self) -> int:
        """Length of the pixel frame that belongs to this request."""
        return self.width * self.height * self.channels * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class EditRequest(PhotoRequest):
    """What to do with a photo.

    alphas: {attribute: alpha}, each shift's length as a fraction of the photo's own features.
    face: "largest", "all" or a number from 1, in the order that a faces request gives them. box: as for PhotoRequest,
    and nothing outside changes. iterations: None for the default.
    Raises DFIError as PhotoRequest does, and bad_alpha, bad_request.
    """

    alphas: Mapping[str, float]
    iterations: int | None = None
    face: FaceChoice = "largest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.alphas, Mapping):
            _bad("alphas must map attributes to numbers.", ErrorCode.BAD_ALPHA)
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
            _bad(f"boxes must be a list of at most {MAX_FACES}.")
        boxes = tuple(_check_box("A face's box", box, -MAX_SIDE, ErrorCode.BAD_REQUEST) for box in self.boxes)
        object.__setattr__(self, "boxes", boxes)


@dataclass(frozen=True)
class ServerInfo:
    """Who answers: the server's package version, state, store, device, and a sentence if there is one.

    store and device are empty until the model is loaded. queued: edits waiting (the running one not counted).
    """

    version: str
    state: ServerState
    store: str
    device: str
    message: str
    queued: int
    protocol_version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        _check_text(self, "version", "state", "store", "device", "message")
        if self.state not in tuple(ServerState):
            _bad(f"state must be one of {', '.join(ServerState)}.")
        object.__setattr__(self, "state", ServerState(self.state))
        _check_count(self, "queued", "protocol_version")


@dataclass(frozen=True)
class Attributes:
    """The names that an edit's alphas may use, in the store's order."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.names, list | tuple):
            _bad("names must be a list.")
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
    all edited. seconds: time in the pipeline, the queue not counted. loss: NaN where unknown.
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

    def __post_init__(self) -> None:
        _check_image(self.width, self.height, self.channels, self.dtype)
        _check_integer("x", self.x, 0, MAX_SIDE)
        _check_integer("y", self.y, 0, MAX_SIDE)
        _check_count(self, "iterations")
        object.__setattr__(self, "loss", _loss(self.loss))
        object.__setattr__(self, "seconds", _number("seconds", self.seconds))
        area = self.width * self.height
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


Body: TypeAlias = (
    Edit | FindFaces | FacesFound | ServerInfo | Attributes | Accepted | Progress | EditResult | Error | None
)


class Message(NamedTuple):
    """One message. id: chosen by the client, repeated in every reply; None where it could not be read."""

    type: MessageType
    id: str | None
    body: Body = None


_REQUESTS: dict[str, type | None] = {
    **dict.fromkeys(("hello", "status", "attributes", "cancel", "heartbeat")),
    MessageType.FACES: FindFaces,
    MessageType.EDIT: Edit,
}
_REPLIES: dict[str, type | None] = {
    **dict.fromkeys(("cancelled", "heartbeat")),
    **dict.fromkeys(("hello", "status"), ServerInfo),
    MessageType.ATTRIBUTES: Attributes,
    MessageType.FACES: FacesFound,
    MessageType.ACCEPTED: Accepted,
    MessageType.PROGRESS: Progress,
    MessageType.RESULT: EditResult,
    MessageType.ERROR: Error,
}


def encode(message: Message) -> list[Buffer]:
    """Message -> frames. Raises DFIError(too_large) if the header would not be accepted by the other side."""
    header: dict[str, Any] = {"protocol": PROTOCOL_VERSION, "type": message.type, "id": message.id}
    frames: list[Buffer] = []
    if message.body is not None:
        frame_names = getattr(message.body, "FRAMES", ())
        for field in dataclasses.fields(message.body):
            value = getattr(message.body, field.name)
            if field.name in frame_names:
                frames.append(value)
            else:
                header[field.name] = None if isinstance(value, float) and not math.isfinite(value) else value
    # "replace": a file name with undecodable bytes may stand in a message, and must not stop it.
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    frames.insert(0, text.encode("utf-8", "replace"))
    _check_header_length(len(frames[0]))
    return frames


def _check_header_length(length: int) -> None:
    if length > MAX_HEADER_BYTES:
        _bad(f"The header has {length} bytes; at most {MAX_HEADER_BYTES} work.", ErrorCode.TOO_LARGE)


def decode_request(frames: Sequence[Buffer]) -> Message:
    """Frames -> a request, pixels not copied. Raises ProtocolError, and nothing else whatever the bytes."""
    return _decode(frames, _REQUESTS, strict=True)


def decode_reply(frames: Sequence[Buffer]) -> Message:
    """Frames -> a reply. Unknown header fields are passed over. Raises ProtocolError."""
    return _decode(frames, _REPLIES, strict=False)


def _decode(frames: Sequence[Buffer], bodies: Mapping[str, type | None], strict: bool) -> Message:
    id: str | None = None
    try:
        header = _read_header(frames)
        id = header["id"] if _is_name(header.get("id")) else None
        version = header.get("protocol")
        if type(version) is not int or version != PROTOCOL_VERSION:
            shown = version if type(version) is int and abs(version) < 2**31 else "no version of it"
            here, there = ("server", "client") if strict else ("client", "server")
            _bad(
                f"The {here} speaks protocol {PROTOCOL_VERSION}, the {there} {shown}: "
                "install the same version of the plug-in and of the server.",
                ErrorCode.VERSION,
            )
        kind = header.get("type")
        if not isinstance(kind, str) or kind not in bodies:
            _bad(f"type must be one of {', '.join(bodies)}.")
        # Only an error may be about a message whose id could not be read.
        if id is None and not (kind == MessageType.ERROR and header.get("id") is None):
            _bad(f"id must be a string of 1 to {MAX_NAME_LENGTH} printable characters.")
        fields = {name: value for name, value in header.items() if name not in ("protocol", "type", "id")}
        return Message(MessageType(kind), id, _read_body(bodies[kind], fields, frames[1:], strict))
    except DFIError as error:
        raise ProtocolError(error.code, error.message, id) from None


def _read_header(frames: Sequence[Buffer]) -> dict[str, Any]:
    if not frames:
        _bad("A message starts with a header frame.")
    _check_header_length(memoryview(frames[0]).nbytes)
    try:
        header = json.loads(bytes(frames[0]).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        _bad("The header must be JSON in UTF-8 without NaN or Infinity.")
    if not isinstance(header, dict):
        _bad("The header must be a JSON object.")
    return header


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        _bad("The header names a field or an attribute twice.")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _read_body(cls: type | None, fields: dict[str, Any], frames: Sequence[Buffer], strict: bool) -> Body:
    frame_names: tuple[str, ...] = getattr(cls, "FRAMES", ())
    if len(frames) != len(frame_names):
        _bad(f"This message takes {len(frame_names)} frames after its header, not {len(frames)}.")
    known = {} if cls is None else {field.name: field for field in dataclasses.fields(cls)}
    allowed = known.keys() - set(frame_names)
    unknown = sorted(name[:MAX_NAME_LENGTH] for name in fields.keys() - allowed)
    if strict and unknown:
        _bad(f"The header has a field that this message does not know: {unknown[0]!r}.")
    if cls is None:
        return None
    values = {name: value for name, value in fields.items() if name in allowed}
    for name in sorted(allowed - values.keys()):
        if known[name].default is dataclasses.MISSING:
            _bad(f"The header lacks the field {name!r}.")
    body: Body = cls(**values, **dict(zip(frame_names, frames, strict=True)))
    return body


def check_endpoint(endpoint: str, bind: bool = False) -> str:
    """The endpoint with "localhost" spelled out. Only this machine's own addresses are accepted.

    Nothing on the socket is encrypted or authenticated, so neither side may use it across a network.
    bind: also accept port "*" (any free port). Raises DFIError(bad_request).
    """
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    port_ok = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536
    if endpoint.startswith("tcp://") and (port_ok or (bind and port == "*")):
        if host == "localhost":
            return f"tcp://127.0.0.1:{port}"
        if host == "[::1]":
            return endpoint
        try:
            if ipaddress.IPv4Address(host).is_loopback:
                return endpoint
        except ValueError:
            pass
    _bad(
        f"The endpoint {endpoint!r} is refused: photos would travel unprotected. "
        f"Use an address of this machine, such as {DEFAULT_ENDPOINT}."
    )
