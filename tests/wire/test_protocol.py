"""The wire format: round trips and hostile frames."""

import dataclasses
import json
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.servers import SMALL

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire import limits, protocol
from dfi_server.wire.limits import DTYPE_BYTES
from dfi_server.wire.messages import (
    Accepted,
    Attributes,
    Edit,
    EditRequest,
    EditResult,
    Error,
    FacesFound,
    Fill,
    FillRequest,
    FindFaces,
    Progress,
    ServerInfo,
    ServerState,
)
from dfi_server.wire.protocol import (
    Message,
    MessageType,
    ProtocolError,
    decode_reply,
    decode_request,
    encode,
)

EDIT = {
    "protocol": 1,
    "type": "edit",
    "id": "e",
    "width": 2,
    "height": 2,
    "channels": 3,
    "dtype": "uint8",
    "alphas": {"smiling": 0.4},
}

names = st.text(min_size=1, max_size=64).filter(str.isprintable)
counts = st.integers(0, 2**31)
numbers = st.floats(allow_nan=False, allow_infinity=False)
losses = st.floats(allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=200)
bodiless = st.sampled_from(
    [MessageType.HELLO, MessageType.STATUS, MessageType.ATTRIBUTES, MessageType.CANCEL, MessageType.HEARTBEAT]
)
boxes = st.tuples(*[st.integers(0, 2**19)] * 2, *[st.integers(1, 2**19)] * 2)


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    width, height = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    channels, dtype = draw(st.sampled_from([1, 3])), draw(st.sampled_from(list(DTYPE_BYTES)))
    size = width * height * channels * DTYPE_BYTES[dtype]
    pixels = draw(st.binary(min_size=size, max_size=size))
    return {"width": width, "height": height, "channels": channels, "dtype": dtype, "pixels": pixels}


edits = st.builds(
    lambda image, **rest: Edit(**image, **rest),
    images(),
    alphas=st.dictionaries(names, numbers, max_size=5),
    face=st.sampled_from(["largest", "all"]) | st.integers(1, 10_000),
    box=st.none() | boxes,
    iterations=st.none() | st.integers(1, 1000),
    preview=st.booleans(),
    store=st.none() | names,
    factors=st.none() | st.lists(numbers, min_size=1, max_size=32).map(tuple),
)
fills = st.builds(
    lambda image, **rest: Fill(**image, **rest, mask=b"\x7f" * (image["width"] * image["height"])),
    images(),
    box=st.none() | boxes,
    iterations=st.none() | st.integers(1, 1000),
    store=st.none() | names,
)
searches = st.builds(lambda image, **rest: FindFaces(**image, **rest), images(), box=st.none() | boxes)
edge_boxes = st.tuples(*[st.integers(-(2**19), 2**19)] * 2, *[st.integers(1, 2**19)] * 2)
found = st.builds(FacesFound, st.lists(edge_boxes, max_size=4).map(tuple))
results = st.builds(
    lambda image, count, **rest: EditResult(
        **{**image, "pixels": image["pixels"] * count},
        **rest,
        mask=b"\x80" * (count * image["width"] * image["height"]),
        count=count,
    ),
    images(),
    count=st.integers(1, 3),
    x=st.integers(0, 2**19),
    y=st.integers(0, 2**19),
    iterations=counts,
    loss=losses,
    seconds=numbers,
    outside=st.none() | numbers,
)
infos = st.builds(ServerInfo, texts, st.sampled_from(ServerState), texts, texts, texts, counts)
requests = (
    st.builds(Message, bodiless, names, st.none())
    | st.builds(Message, st.just(MessageType.EDIT), names, edits)
    | st.builds(Message, st.just(MessageType.FACES), names, searches)
    | st.builds(Message, st.just(MessageType.FILL), names, fills)
)
replies = (
    st.builds(Message, st.sampled_from([MessageType.CANCELLED, MessageType.HEARTBEAT]), names, st.none())
    | st.builds(Message, st.sampled_from([MessageType.HELLO, MessageType.STATUS]), names, infos)
    | st.builds(
        Message,
        st.just(MessageType.ATTRIBUTES),
        names,
        st.builds(Attributes, st.lists(names, max_size=9).map(tuple)),
    )
    | st.builds(Message, st.just(MessageType.ACCEPTED), names, st.builds(Accepted, counts))
    | st.builds(Message, st.just(MessageType.PROGRESS), names, st.builds(Progress, counts, counts, losses))
    | st.builds(Message, st.just(MessageType.RESULT), names, results)
    | st.builds(Message, st.just(MessageType.FACES), names, found)
    | st.builds(
        Message,
        st.just(MessageType.ERROR),
        st.none() | names,
        st.builds(Error, st.sampled_from(ErrorCode), texts),
    )
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


def same(one: Message, other: Message) -> bool:
    """Equality in which an unknown loss (NaN) equals itself."""

    def plain(message: Message) -> tuple[Any, ...]:
        body = message.body
        fields = [getattr(body, f.name) for f in dataclasses.fields(body)] if body is not None else []
        values = (None if isinstance(v, float) and math.isnan(v) else v for v in fields)
        return (message.type, message.id, type(body), *values)

    return plain(one) == plain(other)


@given(requests)
def test_a_request_comes_back_from_its_frames(message: Message) -> None:
    assert same(decode_request(encode(message)), message)


@given(replies)
def test_a_reply_comes_back_from_its_frames(message: Message) -> None:
    assert same(decode_reply(encode(message)), message)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_random_frames_raise_only_a_protocol_error(frames: list[bytes]) -> None:
    for decode in (decode_request, decode_reply):
        with pytest.raises(ProtocolError):
            decode(frames)


@given(st.sampled_from([*EDIT, "box", "iterations", "x"]), json_values, st.integers(0, 14))
def test_any_value_in_any_field_is_decoded_or_refused(field: str, value: Any, size: int) -> None:
    header = json.dumps({**EDIT, field: value}).encode("utf-8", "surrogatepass")
    try:
        message = decode_request([header, bytes(size)])
    except ProtocolError as error:
        assert error.message.endswith(".")
    else:
        if isinstance(message.body, Edit):
            assert message.body.pixel_bytes == size
        encode(message)  # what was accepted can be sent


def header_with(**changes: Any) -> bytes:
    return json.dumps({**EDIT, **changes}).encode()


PIXELS = bytes(12)
FILL = json.dumps({name: "fill" if name == "type" else EDIT[name] for name in EDIT if name != "alphas"}).encode()


@pytest.mark.parametrize(
    ("frames", "code", "words"),
    [
        ([], "bad_request", "header"),
        ([b""], "bad_request", "JSON"),
        ([b"", b"{}"], "bad_request", "JSON"),  # what a REQ socket sends
        ([b"[" * 200_000], "bad_request", "JSON"),
        ([b'{"a":' * 40_000 + b"1" + b"}" * 40_000], "bad_request", "JSON"),
        ([b" " * (protocol.MAX_HEADER_BYTES + 1)], "too_large", "header"),
        ([b"[]"], "bad_request", "object"),
        ([b"\xff\xfe{\x00}\x00"], "bad_request", "UTF-8"),
        ([b"\xef\xbb\xbf{}"], "bad_request", "JSON"),
        ([b'{"protocol":1,"type":"hello","id":"a","id":"b"}'], "bad_request", "twice"),
        ([b'{"protocol":' + b"9" * 5000 + b"}"], "bad_request", "JSON"),
        ([b"{}"], "version", "protocol 1"),
        ([b'{"protocol":true,"type":"hello","id":"a"}'], "version", "protocol 1"),
        ([header_with(protocol=7), PIXELS], "version", "protocol 1.*7.*same version"),
        ([header_with(type="repaint"), PIXELS], "bad_request", "type must be one of hello"),
        ([header_with(type=["edit"]), PIXELS], "bad_request", "type"),
        ([header_with(type="result"), PIXELS], "bad_request", "type"),
        ([header_with(id=3), PIXELS], "bad_request", "id"),
        ([header_with(id=""), PIXELS], "bad_request", "id"),
        ([header_with(id="x" * 65), PIXELS], "bad_request", "id"),
        ([header_with(id="\ud800"), PIXELS], "bad_request", "id"),
        ([header_with(iteration=3), PIXELS], "bad_request", "'iteration'"),
        ([b'{"protocol":1,"type":"hello","id":"a","pixels":""}'], "bad_request", "'pixels'"),
        ([b'{"protocol":1,"type":"hello","id":"a"}', b"x"], "bad_request", "frames"),
        ([b'{"protocol":1,"type":"edit","id":"a"}', b"x"], "bad_request", "lacks"),
        ([header_with()], "bad_request", "frames"),
        ([header_with(), PIXELS, PIXELS], "bad_request", "frames"),
        ([FILL, PIXELS], "bad_request", "2 frames"),
        ([FILL, PIXELS, bytes(4), b""], "bad_request", "2 frames"),
        ([FILL, PIXELS, bytes(3)], "bad_image", "mask frame has 3 bytes.*4"),
        ([FILL, bytes(11), bytes(4)], "bad_image", "pixel frame has 11 bytes.*12"),
        ([header_with(type="fill"), PIXELS, bytes(4)], "bad_request", "'alphas'"),
        ([FILL.replace(b'"id"', b'"face":1,"id"'), PIXELS, bytes(4)], "bad_request", "'face'"),
        ([FILL.replace(b'"id"', b'"iterations":0,"id"'), PIXELS, bytes(4)], "bad_request", "iterations"),
        ([FILL.replace(b'"id"', b'"box":[0,0,0,1],"id"'), PIXELS, bytes(4)], "bad_box", "width"),
        ([header_with(), bytes(11)], "bad_image", "11 bytes.*12"),
        ([header_with(), bytes(13)], "bad_image", "13 bytes.*12"),
        ([header_with(width=0), PIXELS], "bad_image", "width"),
        ([header_with(width=-2, height=-2), PIXELS], "bad_image", "width"),
        ([header_with(width=True), PIXELS], "bad_image", "integer"),
        ([header_with(width=2.0), PIXELS], "bad_image", "integer"),
        ([header_with(width="2"), PIXELS], "bad_image", "integer"),
        ([header_with(height=None), PIXELS], "bad_image", "integer"),
        ([header_with(height=524_289), PIXELS], "too_large", "524288"),
        ([header_with(height=10**400), PIXELS], "too_large", "524288"),
        ([header_with(width=20_000, height=20_000), PIXELS], "too_large", "20000 x 20000.*250 million"),
        ([header_with(channels=4), PIXELS], "bad_image", "channels"),
        ([header_with(channels=True), PIXELS], "bad_image", "channels"),
        ([header_with(dtype="float64"), PIXELS], "bad_image", "uint8, uint16, float32"),
        ([header_with(dtype=["uint8"]), PIXELS], "bad_image", "dtype"),
        ([header_with(alphas=[]), PIXELS], "bad_alpha", "alphas"),
        ([header_with(alphas={"smiling": True}), PIXELS], "bad_alpha", "'smiling'.*number"),
        ([header_with(alphas={"smiling": "0.4"}), PIXELS], "bad_alpha", "'smiling'.*number"),
        ([header_with(alphas={"smiling": math.nan}), PIXELS], "bad_request", "NaN"),
        ([header_with(alphas={"smiling": math.inf}), PIXELS], "bad_request", "Infinity"),
        ([header_with(alphas={"smiling": 10**400}), PIXELS], "bad_alpha", "finite"),
        ([header_with().replace(b"0.4", b"1e999"), PIXELS], "bad_alpha", "finite"),
        ([header_with().replace(b"0.4", b'0.4,"smiling":0.5'), PIXELS], "bad_request", "twice"),
        ([header_with(alphas={"": 0.4}), PIXELS], "bad_alpha", "name"),
        ([header_with(alphas={"a\n": 0.4}), PIXELS], "bad_alpha", "name"),
        ([header_with(alphas={str(i): 0.4 for i in range(513)}), PIXELS], "bad_alpha", "513.*512"),
        ([header_with(box=[0, 0, 2]), PIXELS], "bad_box", "box"),
        ([header_with(box="0022"), PIXELS], "bad_box", "box"),
        ([header_with(box=[0, 0, 0, 2]), PIXELS], "bad_box", "width"),
        ([header_with(box=[-1_000_001, 0, 2, 2]), PIXELS], "bad_box", "x"),
        ([header_with(box=[0, 0.5, 2, 2]), PIXELS], "bad_box", "y"),
        ([header_with(box=[0, 0, 2, True]), PIXELS], "bad_box", "height"),
        ([header_with(face="smallest"), PIXELS], "bad_request", "face"),
        ([header_with(face=0), PIXELS], "bad_request", "face"),
        ([header_with(face=True), PIXELS], "bad_request", "face"),
        ([header_with(iterations=0), PIXELS], "bad_request", "iterations"),
        ([header_with(iterations=1001), PIXELS], "bad_request", "1 and 1000"),
        ([header_with(iterations=False), PIXELS], "bad_request", "iterations"),
        ([header_with(preview=1), PIXELS], "bad_request", "preview"),
        ([header_with(store=1), PIXELS], "bad_request", "store"),
        ([header_with(store=""), PIXELS], "bad_request", "store"),
        ([header_with(factors=[]), PIXELS], "bad_request", "1 to 32"),
        ([header_with(factors=[1.0] * 33), PIXELS], "bad_request", "1 to 32"),
        ([header_with(factors=["1"]), PIXELS], "bad_request", "factor"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(frames: list[bytes], code: str, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        decode_request(frames)
    assert caught.value.code == code


def test_the_error_of_a_bad_request_keeps_the_id_that_could_be_read() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_request([header_with(protocol=2, id="mine"), PIXELS])
    assert caught.value.id == "mine"
    with pytest.raises(ProtocolError) as caught:
        decode_request([header_with(id=5), PIXELS])
    assert caught.value.id is None


def test_nothing_of_the_photo_is_allocated_or_copied_by_decoding() -> None:
    largest = header_with(width=500_000, height=500, dtype="float32")
    with pytest.raises(ProtocolError, match="3000000000"):
        decode_request([largest, b""])
    pixels = bytes(1000 * 1000 * 3)
    frames = [header_with(width=1000, height=1000), memoryview(pixels)]
    tracemalloc.start()
    try:
        message = decode_request(frames)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert isinstance(message.body, Edit)
    assert message.body.pixels is frames[1]


def test_a_request_that_cannot_be_right_cannot_be_made() -> None:
    with pytest.raises(DFIError, match="channels") as caught:
        EditRequest(2, 2, 2, "uint8", {"smiling": 0.4})
    assert caught.value.code == ErrorCode.BAD_IMAGE
    with pytest.raises(DFIError, match="iterations"):
        FillRequest(2, 2, 3, "uint8", iterations=0)
    with pytest.raises(DFIError, match="mask frame has 3 bytes"):
        EditResult(0, 0, 2, 2, 1, "uint8", 1, 0.5, 0.1, bytes(4), bytes(3))


def test_what_is_not_asked_for_is_not_sent() -> None:
    """A server from before a field came refuses the field, whatever is in it."""
    header = json.loads(bytes(encode(Message(MessageType.EDIT, "a", Edit(**vars(SMALL), pixels=PIXELS)))[0]))
    assert not header.keys() & {"store", "factors"}
    header = json.loads(
        bytes(encode(Message(MessageType.EDIT, "a", Edit(**{**vars(SMALL), "store": "lfw"}, pixels=PIXELS)))[0])
    )
    assert header["store"] == "lfw"


def test_replies_may_gain_fields_and_codes() -> None:
    accepted = b'{"protocol":1,"type":"accepted","id":"a","ahead":2,"since":"version 1.1"}'
    assert decode_reply([accepted]).body == Accepted(2)
    error = b'{"protocol":1,"type":"error","id":null,"code":"out_of_paper","message":"Refill."}'
    assert decode_reply([error]) == Message(MessageType.ERROR, None, Error(ErrorCode.INTERNAL, "Refill."))
    with pytest.raises(ProtocolError, match="id"):
        decode_reply([b'{"protocol":1,"type":"accepted","id":null,"ahead":2}'])


def test_what_utf8_cannot_spell_does_not_stop_an_error() -> None:
    message = Message(MessageType.ERROR, "a", Error(ErrorCode.BAD_IMAGE, "The file \udcff is broken." + "!" * 3000))
    decoded = decode_reply(encode(message)).body
    assert isinstance(decoded, Error)
    assert decoded.message.startswith("The file ? is broken.!")
    assert len(decoded.message) == limits.MAX_MESSAGE_LENGTH


def test_a_header_that_the_other_side_would_refuse_is_not_sent() -> None:
    info = ServerInfo("1", ServerState.READY, "s", "d", "m" * protocol.MAX_HEADER_BYTES, 0)
    with pytest.raises(DFIError) as caught:
        encode(Message(MessageType.HELLO, "a", info))
    assert caught.value.code == ErrorCode.TOO_LARGE
