"""Region filling by the server: the pixels of `Filler` itself, refusals, cancelling, and what it counts as."""

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from support.servers import Raw, eventually, failure_of, serving

from dfi_server import fill as pipeline
from dfi_server.errors import ErrorCode
from dfi_server.service import jobs
from dfi_server.service.server import Server
from dfi_server.service.worker_process import commands
from dfi_server.wire.client import Client, FillRequest
from dfi_server.wire.messages import Accepted, Error, Fill, Progress, ServerState
from dfi_server.wire.protocol import Message, MessageType, encode

FACE = (137, 21, 176, 176)
"""Where the sample's is: looking for it would take longer than all the rest."""


@pytest.fixture(scope="module")
def starter() -> Iterator[Server]:
    """A server with the starter."""
    with serving(*commands("starter", "cpu")) as server:
        yield server


@pytest.fixture(scope="module")
def mask(portrait: np.ndarray) -> np.ndarray:
    """A scratch with a soft edge."""
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[95:150, 220:232] = 128
    mask[97:148, 223:229] = 255
    return mask


def request(photo: np.ndarray, **changes: object) -> FillRequest:
    options: dict[str, object] = {"box": FACE, "iterations": 2, **changes}
    return FillRequest(photo.shape[1], photo.shape[0], photo.shape[2], photo.dtype.name, **options)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 1), ("float32", 3)])
def test_the_pixels_are_those_of_the_filler_itself(
    starter: Server, portrait: np.ndarray, mask: np.ndarray, dtype: str, channels: int
) -> None:
    photo = np.ascontiguousarray(portrait[..., :channels])
    if dtype != "uint8":
        photo = (photo.astype(np.uint16) * 257) if dtype == "uint16" else (photo / 255).astype(np.float32)
    expected = pipeline.Filler.load("starter", "cpu").fill(photo, mask, box=FACE, iterations=2)
    seen: list[Progress] = []
    with Client(starter.endpoint) as client:
        client.attributes()
        result = client.fill(request(photo), photo.data, mask.data, progress=seen.append)
    assert (result.x, result.y, result.dtype, result.count) == (expected.patch.x, expected.patch.y, dtype, 1)
    shape = (result.height, result.width, result.channels)
    np.testing.assert_array_equal(np.frombuffer(result.pixels, dtype).reshape(shape), expected.patch.pixels)
    np.testing.assert_array_equal(np.frombuffer(result.mask, "u1").reshape(shape[:2]), expected.patch.mask)
    assert (result.iterations, result.outside) == (expected.iterations, expected.outside)
    assert [p.iteration for p in seen] == sorted(p.iteration for p in seen)
    assert seen[0].iteration == 0 and (seen[-1].iteration, seen[-1].iterations) == (2, 2)


@pytest.mark.slow
def test_what_the_filler_refuses_arrives_with_its_code_and_sentence(
    starter: Server, portrait: np.ndarray, mask: np.ndarray
) -> None:
    filler = pipeline.Filler.load("starter", "cpu")
    corner = np.zeros_like(mask)
    corner[-20:, -20:] = 255
    with Client(starter.endpoint) as client:
        for wrong, box, code in (
            (np.zeros_like(mask), FACE, ErrorCode.BAD_MASK),
            (np.full_like(mask, 255), FACE, ErrorCode.BAD_MASK),
            (corner, FACE, ErrorCode.BAD_MASK),
            (corner, None, ErrorCode.NO_FACE),
            (mask, (600, 0, 100, 100), ErrorCode.BAD_BOX),
        ):
            direct = failure_of(lambda m=wrong, b=box: filler.fill(portrait, m, box=b))
            error = failure_of(lambda m=wrong, b=box: client.fill(request(portrait, box=b), portrait.data, m.data))
            assert (error.code, error.message) == (code, direct.message)
        error = failure_of(lambda: client.fill(request(portrait, store="lfw"), portrait.data, mask.data))
        assert error.code == ErrorCode.BAD_STORE and "'starter', not 'lfw'" in error.message
        error = failure_of(lambda: client.fill(request(portrait), portrait.data, bytes(12)))
        assert error.code == ErrorCode.BAD_IMAGE and "mask frame has 12 bytes" in error.message


@pytest.mark.slow
def test_a_filling_stops_when_the_client_cancels(starter: Server, portrait: np.ndarray, mask: np.ndarray) -> None:
    """Before the first iteration as well as between two; and the server goes on."""
    with Client(starter.endpoint) as client:
        client.attributes()
        for last in (0, 1):
            reached = threading.Event()

            def progress(state: Progress, last: int = last, reached: threading.Event = reached) -> None:
                if state.iteration >= last:
                    reached.set()

            call = lambda reached=reached, progress=progress: client.fill(  # noqa: E731
                request(portrait, iterations=1000),
                portrait.data,
                mask.data,
                progress=progress,
                cancelled=reached.is_set,
            )
            assert failure_of(call).code == ErrorCode.CANCELLED
            eventually(lambda: client.status().state == ServerState.READY)
        assert client.fill(request(portrait, iterations=1), portrait.data, mask.data).iterations == 1


@pytest.mark.usefixtures("silence_allowed")
def test_a_mask_that_waits_is_counted_with_its_photo(slow_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_CLIENT_BYTES", 12 + 12 + 4 - 1)
    fill = encode(Message(MessageType.FILL, "b", Fill(2, 2, 3, "uint8", pixels=bytes(12), mask=bytes(4))))
    with Raw(slow_server.endpoint) as client:
        client.edit("a")
        assert client.receive().body == Accepted(0)
        client.socket.send_multipart(fill)
        assert client.error().code == ErrorCode.BUSY


def test_a_server_from_before_fillings_is_told_about() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            client, header, *_ = router.recv_multipart()
            refusal = Error(ErrorCode.BAD_REQUEST, "type must be one of hello, edit.")
            router.send_multipart([client, *encode(Message(MessageType.ERROR, json.loads(header)["id"], refusal))])

        old = threading.Thread(target=answer)
        old.start()
        with Client(f"tcp://127.0.0.1:{port}") as client:
            error = failure_of(lambda: client.fill(FillRequest(2, 2, 3, "uint8"), bytes(12), bytes(4)))
        old.join()
    assert error.code == ErrorCode.VERSION and "is older than this program" in error.message
