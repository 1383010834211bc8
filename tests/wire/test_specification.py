"""docs/protocol.md: its examples are valid, a server answers them as it says, and its tables say what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.servers import Raw

from dfi_server.errors import ErrorCode
from dfi_server.service import jobs
from dfi_server.service.server import Server
from dfi_server.wire import limits, messages, place, protocol
from dfi_server.wire.client import Client
from dfi_server.wire.protocol import (
    decode_reply,
    decode_request,
    encode,
)

SPECIFICATION = Path(__file__).parents[2] / "docs" / "protocol.md"


def examples(side: str) -> dict[str, dict[str, Any]]:
    """The specification's requests or replies: type -> header; "version" is the one of another version."""
    found = re.findall(rf"```json {side} ?(\w*)\n(.*?)\n```", SPECIFICATION.read_text(), re.S)
    headers = [(kind, json.loads(text)) for kind, text in found]
    return {kind if kind == "version" else header["type"]: header for kind, header in headers}


FRAMES = {
    "faces": [bytes(24)],
    "edit": [bytes(16 * 16 * 3)],
    "fill": [bytes(64 * 64 * 3), bytes(64 * 20) + b"\xff" * 64 * 20 + bytes(64 * 24)],
    "result": [bytes(12), bytes(4)],
}


def test_the_specification_s_examples_are_valid_and_cover_every_type() -> None:
    seen = set()
    for side, decode in (("request", decode_request), ("reply", decode_reply)):
        for kind, header in examples(side).items():
            if kind != "version":
                message = decode(
                    [json.dumps(header).encode(), *FRAMES.get(kind, []) * (kind != "faces" or side == "request")]
                )
                assert json.loads(bytes(encode(message)[0])) == header  # no field is left out, none is unknown
                seen.add((side, kind))
    expected = {("request", kind) for kind in protocol._REQUESTS} | {("reply", kind) for kind in protocol._REPLIES}
    assert seen == expected - {("request", "status"), ("reply", "status")}  # which look like hello's


def test_a_server_answers_every_example_of_the_specification_as_it_says(
    real_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfi_server.service.server.CLIENT_SILENCE_SECONDS", 60.0)
    requests = examples("request")
    answers: dict[str, dict[str, Any]] = {}
    with Client(real_server.endpoint) as client:
        client.attributes()  # its model is loaded
    with Raw(real_server.endpoint) as client:

        def send(kind: str, **changes: Any) -> None:
            client.socket.send_multipart([json.dumps({**requests[kind], **changes}).encode(), *FRAMES.get(kind, [])])

        def receive(final: str) -> dict[str, Any]:
            while client.socket.poll(20_000):
                header: dict[str, Any] = json.loads(client.socket.recv_multipart()[0])
                answers[header["type"]] = header
                if header["type"] == final:
                    return header
            raise AssertionError(f"no {final}, but {answers}")

        for kind in ("hello", "attributes", "faces"):
            send(kind)
            receive(kind)
        send("fill")
        assert "outside" in receive("result")
        send("edit")
        receive("result")
        send("edit", iterations=1000)
        send("heartbeat")
        receive("heartbeat")
        send("cancel")
        receive("cancelled")
        send("version")
        assert receive("error") == examples("reply")["version"]
        send("edit", alphas={"smilling": 0.4})
        assert receive("error") == examples("reply")["error"]
    for kind, example in examples("reply").items():
        if kind != "version":
            answer = answers[kind]
            assert list(answer) == list(example)
            same = ("protocol", "type", "id", "channels", "dtype")
            assert {name: answer.get(name) for name in same} == {name: example.get(name) for name in same}
            for name, value in example.items():
                assert type(answer[name]) is type(value), (kind, name)


def test_the_specification_s_tables_say_what_the_code_does() -> None:
    text = SPECIFICATION.read_text()
    assert f"Version **{messages.PROTOCOL_VERSION}**" in text
    assert place.EXAMPLE in text
    errors = text.partition("## Errors")[2].partition("## Limits")[0]
    assert re.findall(r"^\| `(\w+)` \|", errors, re.M) == list(ErrorCode)
    table = text.partition("## Limits")[2].partition("## A session")[0]
    assert [int(n) for n in re.findall(r"\| (\d+)[^|]*\|$", table, re.M)] == [
        protocol.MAX_HEADER_BYTES,
        limits.MAX_SIDE,
        limits.MAX_PIXELS,
        limits.MAX_ATTRIBUTES,
        limits.MAX_NAME_LENGTH,
        limits.MAX_ITERATIONS,
        limits.MAX_FACTORS,
        limits.MIN_NEIGHBOURS,
        limits.MAX_FACES,
        limits.MAX_MESSAGE_LENGTH,
        jobs.MAX_CLIENT_EDITS,
        jobs.MAX_EDITS,
        jobs.MAX_CLIENT_BYTES,
        jobs.MAX_BYTES,
    ]
    assert f"every {protocol.HEARTBEAT_SECONDS} s" in text
    assert f"silent for {protocol.CLIENT_SILENCE_SECONDS:.0f} s" in text
