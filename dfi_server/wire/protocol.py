"""What travels on the socket: the only code that encodes or decodes messages.

docs/protocol.md is the specification; this module, messages.py and limits.py are its one implementation in Python,
shared by client.py and server.py. Standard library only: GIMP's own Python loads it. A message is a list of frames:
one JSON header, then raw pixel frames.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn, TypeAlias

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire.limits import DTYPE_BYTES, MAX_CHANNELS, MAX_NAME_LENGTH, MAX_PIXELS, Buffer, is_name, refuse
from dfi_server.wire.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Attributes,
    Edit,
    EditResult,
    Error,
    FacesFound,
    Fill,
    FindFaces,
    Progress,
    ServerInfo,
    Work,
)

HEARTBEAT_SECONDS = 0.3  # how often a client with an edit under way says that it is still there
CLIENT_SILENCE_SECONDS = 2.0  # a client silent for longer has vanished: its edits are dropped

MAX_HEADER_BYTES = 256 * 1024

MAX_FRAME_BYTES = MAX_PIXELS * MAX_CHANNELS * max(DTYPE_BYTES.values())
MAX_FRAMES = 3  # of a message: header, pixels, mask

_UNKNOWN_TYPE = "type must be one of"
_UNKNOWN_FIELD = "The header has a field that this message does not know:"
UNKNOWN_TO_SERVER = (_UNKNOWN_TYPE, _UNKNOWN_FIELD)
"""What a server says of a request that came after it; version 1 has no other way."""


class MessageType(StrEnum):
    """The "type" of a header. The first eight are requests; some replies answer under their request's name."""

    HELLO = "hello"
    STATUS = "status"
    ATTRIBUTES = "attributes"
    FACES = "faces"
    EDIT = "edit"
    FILL = "fill"
    CANCEL = "cancel"
    HEARTBEAT = "heartbeat"
    ACCEPTED = "accepted"
    PROGRESS = "progress"
    RESULT = "result"
    ERROR = "error"
    CANCELLED = "cancelled"


class ProtocolError(DFIError):
    """A message that cannot be accepted; `id` is the message's own id where that could be read."""

    def __init__(self, code: ErrorCode, message: str, id: str | None) -> None:
        super().__init__(code, message)
        self.id = id


Body: TypeAlias = Work | FacesFound | ServerInfo | Attributes | Accepted | Progress | EditResult | Error | None


class Message(NamedTuple):
    """One message. id: chosen by the client, repeated in every reply; None where it could not be read."""

    type: MessageType
    id: str | None
    body: Body = None


_REQUESTS: dict[str, type | None] = {
    **dict.fromkeys(("hello", "status", "attributes", "cancel", "heartbeat")),
    MessageType.FACES: FindFaces,
    MessageType.EDIT: Edit,
    MessageType.FILL: Fill,
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


def kind_of(request: Work) -> MessageType:
    """The type of the message that a body with a photo belongs to."""
    return next(MessageType(kind) for kind, body in _REQUESTS.items() if body is type(request))


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
            elif value is not None or field.default is not None:  # an older server may not know the field
                header[field.name] = None if isinstance(value, float) and not math.isfinite(value) else value
    # "replace": a file name with undecodable bytes may stand in a message, and must not stop it.
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    frames.insert(0, text.encode("utf-8", "replace"))
    _check_header_length(len(frames[0]))
    return frames


def _check_header_length(length: int) -> None:
    if length > MAX_HEADER_BYTES:
        refuse(f"The header has {length} bytes; at most {MAX_HEADER_BYTES} work.", ErrorCode.TOO_LARGE)


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
        id = header["id"] if is_name(header.get("id")) else None
        version = header.get("protocol")
        if type(version) is not int or version != PROTOCOL_VERSION:
            shown = version if type(version) is int and abs(version) < 2**31 else "no version of it"
            here, there = ("server", "client") if strict else ("client", "server")
            refuse(
                f"The {here} speaks protocol {PROTOCOL_VERSION}, the {there} {shown}: "
                "install the same version of both.",
                ErrorCode.VERSION,
            )
        kind = header.get("type")
        if not isinstance(kind, str) or kind not in bodies:
            refuse(f"{_UNKNOWN_TYPE} {', '.join(bodies)}.")
        # Only an error may be about a message whose id could not be read.
        if id is None and not (kind == MessageType.ERROR and header.get("id") is None):
            refuse(f"id must be a string of 1 to {MAX_NAME_LENGTH} printable characters.")
        fields = {name: value for name, value in header.items() if name not in ("protocol", "type", "id")}
        return Message(MessageType(kind), id, _read_body(bodies[kind], fields, frames[1:], strict))
    except DFIError as error:
        raise ProtocolError(error.code, error.message, id) from None


def _read_header(frames: Sequence[Buffer]) -> dict[str, Any]:
    if not frames:
        refuse("A message starts with a header frame.")
    _check_header_length(memoryview(frames[0]).nbytes)
    try:
        header = json.loads(bytes(frames[0]).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        refuse("The header must be JSON in UTF-8 without NaN or Infinity.")
    if not isinstance(header, dict):
        refuse("The header must be a JSON object.")
    return header


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        refuse("The header names a field or an attribute twice.")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _read_body(cls: type | None, fields: dict[str, Any], frames: Sequence[Buffer], strict: bool) -> Body:
    frame_names: tuple[str, ...] = getattr(cls, "FRAMES", ())
    if len(frames) != len(frame_names):
        refuse(f"This message takes {len(frame_names)} frames after its header, not {len(frames)}.")
    known = {} if cls is None else {field.name: field for field in dataclasses.fields(cls)}
    allowed = known.keys() - set(frame_names)
    unknown = sorted(name[:MAX_NAME_LENGTH] for name in fields.keys() - allowed)
    if strict and unknown:
        refuse(f"{_UNKNOWN_FIELD} {unknown[0]!r}.")
    if cls is None:
        return None
    values = {name: value for name, value in fields.items() if name in allowed}
    for name in sorted(allowed - values.keys()):
        if known[name].default is dataclasses.MISSING:
            refuse(f"The header lacks the field {name!r}.")
    body: Body = cls(**values, **dict(zip(frame_names, frames, strict=True)))
    return body
