"""Client and server together: the real editor for pixels, a controllable one where timing matters, real
`dfi serve` processes where signals and death do."""

import base64
import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.servers import PIXELS, SMALL, Raw, Slow, eventually, failure_of, free_endpoint, is_alive, serving
from support.tiny import TINY_ATTRIBUTES

from dfi_server import edit as pipeline
from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.service import jobs
from dfi_server.service.server import Server
from dfi_server.service.worker_process import Command, commands
from dfi_server.wire import messages, protocol
from dfi_server.wire.client import Client, EditRequest, PhotoRequest, start_server
from dfi_server.wire.messages import Accepted, Edit, Error, Progress, ServerInfo, ServerState
from dfi_server.wire.protocol import Message, MessageType

FORMATS = [(dtype, channels) for dtype in ("uint8", "uint16", "float32") for channels in (1, 3)]


def as_format(photo: np.ndarray, dtype: str, channels: int) -> np.ndarray:
    photo = np.ascontiguousarray(photo[..., :channels])
    if dtype == "uint16":
        return photo.astype(np.uint16) * 257 + 1
    return photo if dtype == "uint8" else (photo / 255).astype(np.float32)


# The photo's way, with the real editor


@pytest.mark.parametrize(("dtype", "channels"), FORMATS)
def test_the_pixels_are_those_of_the_editor_itself(
    real_server: Server, face: np.ndarray, dtype: str, channels: int
) -> None:
    photo = as_format(face, dtype, channels)
    alphas, box = {"smiling": 0.4, "mustache": -0.2}, (40, 30, 160, 150)
    expected = pipeline.Editor().edit(photo, alphas, box=box, iterations=2)
    with Client(real_server.endpoint) as client:
        request = EditRequest(photo.shape[1], photo.shape[0], channels, dtype, alphas, 2, box=box)
        result = client.edit(request, photo.data)  # any contiguous buffer will do
    shape = (result.height, result.width, result.channels)
    assert result.dtype == dtype
    assert (result.x, result.y) == (expected.patch.x, expected.patch.y)
    np.testing.assert_array_equal(np.frombuffer(result.pixels, dtype).reshape(shape), expected.patch.pixels)
    np.testing.assert_array_equal(np.frombuffer(result.mask, "u1").reshape(shape[:2]), expected.patch.mask)
    assert (result.iterations, result.loss) == (expected.iterations, expected.loss)
    assert result.seconds > 0


def test_the_attributes_and_the_hello_are_those_of_the_store(real_server: Server) -> None:
    with Client(real_server.endpoint) as client:
        editor = pipeline.Editor()
        assert client.attributes() == editor.attributes
        info = client.hello()
        assert (info.state, info.store, info.device) == (ServerState.READY, "lfw", editor.device_name)
        assert info.protocol_version == messages.PROTOCOL_VERSION


def test_faces_are_found_as_an_edit_numbers_them(real_server: Server, two_faces: np.ndarray) -> None:
    height, width, channels = two_faces.shape
    with Client(real_server.endpoint) as client:
        right, left = client.faces(PhotoRequest(width, height, channels, "uint8"), two_faces.data)
        assert right[0] > 325 > left[0] + left[2]
        in_box = PhotoRequest(width, height, channels, "uint8", box=(0, 50, 320, 400))
        assert client.faces(in_box, two_faces.data) == (left,)
        request = EditRequest(width, height, channels, "uint8", {"smiling": 0.4}, 1, face=2)
        result = client.edit(request, two_faces.data)
        assert result.x < left[0] + left[2] / 2 < result.x + result.width < 325
        nothing = client.faces(PhotoRequest(64, 64, 1, "uint8"), bytes(64 * 64))
        assert nothing == ()


def test_what_the_editor_refuses_arrives_with_its_code_and_sentence(real_server: Server, face: np.ndarray) -> None:
    with Client(real_server.endpoint) as client:
        for changes, code in (
            ({"alphas": {"smilling": 0.4}}, ErrorCode.UNKNOWN_ATTRIBUTE),
            ({"alphas": {"smiling": 9.0}}, ErrorCode.BAD_ALPHA),
            ({"box": (260, 0, 100, 100)}, ErrorCode.BAD_BOX),
        ):
            options: dict[str, Any] = {"alphas": {"smiling": 0.4}, **changes}
            box = options.get("box")
            direct = failure_of(lambda o=options, b=box: pipeline.Editor().edit(face, o["alphas"], box=b))
            request = EditRequest(250, 250, 3, "uint8", **options)
            error = failure_of(lambda r=request: client.edit(r, face.data))
            assert (error.code, error.message) == (code, direct.message)


def test_progress_arrives_and_ends_with_the_last_iteration(real_server: Server, face: np.ndarray) -> None:
    seen: list[Progress] = []
    with Client(real_server.endpoint) as client:
        request = EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, iterations=6)
        client.edit(request, face.data, progress=seen.append)
    assert [p.iteration for p in seen] == sorted({p.iteration for p in seen})
    assert (seen[-1].iteration, seen[-1].iterations) == (6, 6)


def test_several_clients_get_each_their_own_edit(real_server: Server, face: np.ndarray) -> None:
    sizes, results = (120, 150, 180), {}

    def run(size: int) -> None:
        photo = np.ascontiguousarray(face[:size, :size])
        with Client(real_server.endpoint) as client:
            request = EditRequest(size, size, 3, "uint8", {"smiling": 0.4}, 2, box=(0, 0, size, size))
            results[size] = client.edit(request, photo.data)

    threads = [threading.Thread(target=run, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for size in sizes:
        photo = np.ascontiguousarray(face[:size, :size])
        expected = pipeline.Editor().edit(photo, {"smiling": 0.4}, box=(0, 0, size, size), iterations=2)
        assert results[size].pixels == expected.patch.pixels.tobytes()


def test_a_running_edit_stops_when_the_client_cancels(real_server: Server, face: np.ndarray) -> None:
    with Client(real_server.endpoint) as client:
        running = threading.Event()
        request = EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, iterations=1000)
        call = lambda: client.edit(  # noqa: E731
            request, face.data, progress=lambda _: running.set(), cancelled=running.is_set
        )
        assert failure_of(call).code == ErrorCode.CANCELLED
        eventually(lambda: client.status().state == ServerState.READY)
        assert client.edit(EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, iterations=1), face.data).iterations == 1


# States: loading, failed, and working after all


@pytest.mark.usefixtures("silence_allowed")
def test_hello_answers_while_the_model_loads_and_edits_wait_for_it(slow: Slow) -> None:
    slow.go.set()
    slow.hold.set()
    with serving(slow.command) as server, Client(server.endpoint) as client, Raw(server.endpoint) as raw:
        assert client.hello().state == ServerState.LOADING
        assert failure_of(lambda: client.attributes(patience=0.1)).code == ErrorCode.BUSY
        raw.edit("early")
        assert raw.receive().body == Accepted(0)
        assert client.status().queued == 1
        threading.Timer(0.2, slow.hold.clear).start()
        assert client.attributes() == ("smiling",)
        assert raw.final().type == MessageType.RESULT


def test_a_server_with_a_damaged_store_says_so_and_works_once_it_is_mended(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face: np.ndarray
) -> None:
    monkeypatch.setenv("DFI_HOME", str(tmp_path))
    (tmp_path / "stores" / "lfw").mkdir(parents=True)
    monkeypatch.setattr("dfi_server.service.worker_process.LOAD_SECONDS", 0.2)
    request = EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, iterations=1)
    with serving(*commands()) as server, Client(server.endpoint) as client:
        eventually(lambda: client.status().state == ServerState.FAILED)
        expected = failure_of(pipeline.Editor)
        assert expected.code == ErrorCode.BAD_STORE
        assert client.hello().message == expected.message
        for wait in (0, 0.3):  # at once, and with a second try
            time.sleep(wait)
            for call in (client.attributes, lambda: client.edit(request, face.data)):
                error = failure_of(call)
                assert (error.code, error.message) == (expected.code, expected.message)
        shutil.copytree(tiny_home / "stores" / "tiny", tmp_path / "stores" / "lfw", dirs_exist_ok=True)
        time.sleep(0.3)
        assert client.hello().state == ServerState.LOADING
        assert client.attributes() == pipeline.Editor().attributes
        assert client.edit(request, face.data).iterations == 1


def test_a_running_server_takes_up_a_store_that_was_built_meanwhile(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face: np.ndarray
) -> None:
    """It starts with the bundled one; `dfi setup` then builds the full one, and builds it again."""
    monkeypatch.setenv("DFI_HOME", str(tmp_path))
    request = EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, iterations=1)
    with serving(*commands()) as server, Client(server.endpoint) as client:
        assert len(client.attributes()) > len(TINY_ATTRIBUTES)
        assert client.status().store == "starter"
        full = tmp_path / "stores" / "lfw"
        shutil.copytree(tiny_home / "stores" / "tiny", full)
        client.edit(request, face.data)
        assert client.status().store == "lfw"
        assert client.attributes() == TINY_ATTRIBUTES
        shutil.copytree(paths.STARTER, full, dirs_exist_ok=True)
        eventually(lambda: client.hello() and client.attributes() != TINY_ATTRIBUTES)  # noticed without an edit


def test_previews_come_from_the_small_model(real_server: Server, face: np.ndarray) -> None:
    request = EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, preview=True)
    with Client(real_server.endpoint) as client:
        result = client.edit(request, face.data)
        assert client.status().store == "lfw"
    expected = pipeline.Editor("preview").edit(face, {"smiling": 0.4})
    assert result.iterations == expected.iterations < pipeline.Editor("starter").store.info.iterations
    assert bytes(result.pixels) == expected.patch.pixels.tobytes()


def test_a_crash_while_loading_is_an_error_and_not_the_end(slow: Slow) -> None:
    slow.load_fails.set("fire")
    with serving(slow.command) as server, Client(server.endpoint) as client:
        eventually(lambda: client.status().state == ServerState.FAILED)
        error = failure_of(lambda: client.edit(SMALL, PIXELS))
        assert error.code == ErrorCode.INTERNAL
        assert "the disk is on fire" in error.message


# The queue


@pytest.mark.usefixtures("silence_allowed")
def test_clients_are_served_in_turn(slow: Slow, slow_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        batch, other, third = (stack.enter_context(Raw(slow_server.endpoint)) for _ in range(3))
        for client, pixels in ((batch, (10, 11, 12, 13)), (other, (20, 21)), (third, (30,))):
            for pixel in pixels:
                client.edit(str(pixel), pixel)
                assert client.receive().type in (MessageType.ACCEPTED, MessageType.PROGRESS)
            eventually(lambda: slow.started == [10])
        slow.go.set()
        eventually(lambda: len(slow.started) == 7)
        assert slow.started == [10, 11, 20, 30, 12, 21, 13]


@pytest.mark.usefixtures("silence_allowed")
def test_a_full_queue_says_busy(slow_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_EDITS", jobs.MAX_CLIENT_EDITS + 1)
    with Raw(slow_server.endpoint) as greedy, Raw(slow_server.endpoint) as other:
        for i in range(jobs.MAX_CLIENT_EDITS + 1):
            greedy.edit(str(i))
        error = greedy.error()
        assert (error.code, f"{jobs.MAX_CLIENT_EDITS} unfinished" in error.message) == (ErrorCode.BUSY, True)
        other.edit("a")
        assert other.receive().body == Accepted(jobs.MAX_CLIENT_EDITS)
        other.edit("b")
        assert other.error().code == ErrorCode.BUSY


@pytest.mark.usefixtures("silence_allowed")
def test_the_pixels_that_wait_are_bounded(slow_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_CLIENT_BYTES", 15)
    monkeypatch.setattr(jobs, "MAX_BYTES", 30)
    with contextlib.ExitStack() as stack:
        one, two, three = (stack.enter_context(Raw(slow_server.endpoint)) for _ in range(3))
        one.edit("a")
        one.edit("b")
        assert one.error().code == ErrorCode.BUSY
        two.edit("a")
        assert two.receive().body == Accepted(1)
        three.edit("a")
        assert three.error().code == ErrorCode.BUSY


@pytest.mark.usefixtures("silence_allowed")
def test_an_id_in_use_is_refused_and_the_first_edit_goes_on(slow: Slow, slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as client:
        client.edit("same")
        client.edit("same")
        assert client.error().code == ErrorCode.BAD_REQUEST
        slow.go.set()
        assert client.final().type == MessageType.RESULT


@pytest.mark.usefixtures("silence_allowed")
def test_cancel_takes_waiting_and_running_edits(slow: Slow, slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as client:
        client.edit("running", 1)
        eventually(lambda: slow.started == [1])
        client.edit("waiting", 2)
        client.edit("next", 3)
        client.send(MessageType.CANCEL, "waiting")
        assert client.final() == Message(MessageType.CANCELLED, "waiting")
        client.send(MessageType.CANCEL, "never sent")  # no reply
        client.send(MessageType.CANCEL, "running")
        assert client.final() == Message(MessageType.CANCELLED, "running")
        assert slow.cancelled.wait(5)
        slow.go.set()
        final = client.final()
        assert (final.type, final.id) == (MessageType.RESULT, "next")
        assert slow.started == [1, 3]


def test_a_failing_edit_is_an_error_and_the_next_one_works(slow: Slow, slow_server: Server) -> None:
    slow.go.set()
    with Client(slow_server.endpoint) as client:
        for failure, code in (
            ("odd", ErrorCode.INTERNAL),
            ("memory", ErrorCode.OUT_OF_MEMORY),
            ("cuda", ErrorCode.OUT_OF_MEMORY),
            ("exit", ErrorCode.INTERNAL),
            ("no face", ErrorCode.NO_FACE),
        ):
            slow.fails.set(failure)
            assert failure_of(lambda: client.edit(SMALL, PIXELS)).code == code
        slow.fails.clear()
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_no_photo_is_kept_after_its_edit(slow: Slow, slow_server: Server) -> None:
    def kept() -> list[object]:
        return [thing for thing in gc.get_objects() if type(thing) in (jobs.Job, Edit)]

    logged = kept()  # pytest keeps the tracebacks that other tests have logged
    elsewhere = {id(thing) for thing in logged}

    def none_kept() -> bool:
        return all(id(thing) in elsewhere for thing in kept())

    with Client(slow_server.endpoint) as client:
        with contextlib.suppress(DFIError):
            client.edit(SMALL, PIXELS, cancelled=lambda: bool(slow.started))
        eventually(none_kept)
        slow.go.set()
        client.edit(SMALL, PIXELS)
        eventually(none_kept)
        slow.fails.set("no face")
        with contextlib.suppress(DFIError):
            client.edit(SMALL, PIXELS)
        eventually(none_kept)


# Workers that die, hang, or are several


def small_worker(kind: str) -> Command:
    return Command([sys.executable, str(Path(support.__file__).with_name("small_worker.py")), kind], {})


@pytest.mark.usefixtures("tiny_home")
@pytest.mark.slow
def test_a_photo_that_does_not_fit_into_memory_is_an_error_and_the_next_one_works(portrait: np.ndarray) -> None:
    def edit(client: Client, times: int) -> int:
        photo = np.repeat(np.repeat(portrait, times, axis=0), times, axis=1)
        side = photo.shape[0]
        return client.edit(EditRequest(side, side, 3, "uint8", {"smiling": 0.4}, iterations=1), photo.data).iterations

    with serving(small_worker("500")) as server, Client(server.endpoint) as client:
        assert edit(client, 1) == 1
        codes = []
        for times in (10, 18, 26):  # what is made of it does not fit, and at last not even the photo
            try:
                edit(client, times)
            except DFIError as error:
                assert "less of the photo" in error.message
                codes.append(error.code)
        assert codes and set(codes) <= {ErrorCode.OUT_OF_MEMORY, ErrorCode.INTERNAL}
        assert edit(client, 1) == 1


def test_what_does_not_fit_into_the_gpu_is_done_on_the_cpu(tiny_home: Path, face: np.ndarray) -> None:
    with serving(small_worker("gpu")) as server, Client(server.endpoint) as client:
        request = EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, iterations=2)
        result = client.edit(request, face.data)
    assert bytes(result.pixels) == pipeline.Editor().edit(face, {"smiling": 0.4}, iterations=2).patch.pixels.tobytes()


@pytest.mark.usefixtures("silence_allowed")
def test_a_killed_worker_is_replaced_and_only_its_job_fails(slow: Slow, slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as one, Raw(slow_server.endpoint) as other:
        one.edit("doomed", 1)
        eventually(lambda: slow.started == [1])
        one.edit("mine", 2)
        other.edit("its", 3)
        start = time.monotonic()
        os.kill(slow.pid, signal.SIGKILL)
        error = one.error()
        assert time.monotonic() - start < 1
        assert (error.code, "try again" in error.message) == (ErrorCode.INTERNAL, True)
        slow.go.set()
        for client, id in ((other, "its"), (one, "mine")):
            final = client.final()
            assert (final.type, final.id) == (MessageType.RESULT, id)
        assert sorted(slow.started) == [1, 2, 3]


def test_a_worker_that_dies_while_it_loads_is_told_about_and_tried_again_when_asked(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfi_server.service.worker_process.LOAD_SECONDS", 0.2)
    slow.load_fails.set("killed")
    slow.go.set()
    with serving(slow.command) as server, Client(server.endpoint) as client:
        eventually(lambda: client.status().state == ServerState.FAILED)
        error = failure_of(lambda: client.edit(SMALL, PIXELS))
        assert (error.code, "could not be loaded" in error.message) == (ErrorCode.INTERNAL, True)
        slow.load_fails.clear()
        eventually(lambda: client.hello().state == ServerState.READY)
        assert client.edit(SMALL, PIXELS).pixels == PIXELS


def test_a_worker_that_does_not_let_go_of_a_cancelled_edit_is_replaced(
    slow: Slow, slow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfi_server.service.worker_process.STUCK_SECONDS", 0.3)
    slow.fails.set("stuck")
    with Client(slow_server.endpoint) as client:
        assert failure_of(lambda: client.edit(SMALL, PIXELS, cancelled=lambda: bool(slow.started))).code == "cancelled"
        stuck = slow.pid
        slow.fails.clear()
        slow.go.set()
        assert client.edit(SMALL, PIXELS).pixels == PIXELS
    assert slow.pid != stuck


def test_several_workers_share_the_edits(slow: Slow, tmp_path: Path) -> None:
    with serving(slow.command, slow.command) as server, Raw(server.endpoint) as one, Raw(server.endpoint) as other:
        one.edit("a", 1)
        other.edit("b", 2)
        eventually(lambda: sorted(slow.started) == [1, 2])
        with Client(server.endpoint) as client:
            assert client.status().device == "2 x none"
        slow.go.set()
        assert (one.final().id, other.final().id) == ("a", "b")


def test_one_worker_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5d")
    assert [command.environment["CUDA_VISIBLE_DEVICES"] for command in commands()] == ["3", "GPU-5d"]
    assert len(commands(device="cpu")) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert len(commands()) == 1


def test_no_worker_outlives_a_killed_server(light_server: tuple[subprocess.Popen[bytes], str], slow: Slow) -> None:
    process, endpoint = light_server
    with Client(endpoint) as client:
        failure_of(lambda: client.edit(SMALL, PIXELS, progress=lambda _: process.kill()))
        eventually(lambda: not is_alive(slow.pid), 1)


def test_the_server_s_process_needs_no_torch() -> None:
    code = "import sys, dfi_server.commands.cli, dfi_server.service.server; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


# Clients that vanish, dawdle or talk nonsense


def test_a_silent_client_is_dropped_within_seconds(slow: Slow, slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as silent, Client(slow_server.endpoint) as watcher:
        silent.edit("a")
        silent.edit("b")
        start = time.monotonic()
        assert slow.cancelled.wait(4)
        assert 1.5 < time.monotonic() - start < 3.5
        eventually(lambda: watcher.status().state == ServerState.READY)
        assert slow.started == [0]
        silent.send(MessageType.HEARTBEAT, "a")
        error = silent.error()
        assert (error.code, "does not have this edit" in error.message) == (ErrorCode.UNREACHABLE, True)


def test_a_killed_client_is_dropped_within_seconds(slow: Slow, slow_server: Server) -> None:
    code = (
        "import sys; from dfi_server.wire.client import *\n"
        f"Client('{slow_server.endpoint}').edit(EditRequest(2, 2, 3, 'uint8', {{'smiling': 0.4}}), bytes(12))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        eventually(lambda: slow.started, 10)
        process.send_signal(signal.SIGKILL)  # as GIMP's Cancel does
        assert slow.cancelled.wait(3.5)


def test_a_callback_that_takes_its_time_does_not_lose_the_edit(slow: Slow, slow_server: Server) -> None:
    def dawdle(_: Progress) -> None:
        if not slow.go.is_set():
            time.sleep(protocol.CLIENT_SILENCE_SECONDS + 0.5)
            slow.go.set()

    with Client(slow_server.endpoint) as client:
        assert client.edit(SMALL, PIXELS, progress=dawdle).pixels == PIXELS


def test_an_exception_from_a_callback_cancels_the_edit(slow: Slow, slow_server: Server) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with Client(slow_server.endpoint) as client:
        with pytest.raises(KeyboardInterrupt):
            client.edit(SMALL, PIXELS, progress=interrupt)
        assert slow.cancelled.wait(1.5)
        slow.go.set()
        assert client.edit(SMALL, PIXELS).pixels == PIXELS  # the connection is still good


def test_another_version_is_told_both_versions(slow_server: Server) -> None:
    with Raw(slow_server.endpoint) as client:
        client.socket.send(b'{"protocol": 99, "type": "hello", "id": "new", "mood": "good"}')
        reply = client.receive()
        assert (reply.type, reply.id) == (MessageType.ERROR, "new")
        assert isinstance(reply.body, Error) and reply.body.code == ErrorCode.VERSION
        assert "1" in reply.body.message and "99" in reply.body.message


@contextlib.contextmanager
def future_server() -> Iterator[str]:
    """Answers one request, in protocol 2."""
    socket: zmq.Socket[bytes]
    with zmq.Context.instance().socket(zmq.ROUTER) as socket:
        socket.linger = 0
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            client, _ = socket.recv_multipart()
            socket.send_multipart([client, b'{"protocol": 2, "type": "hello", "id": "?"}'])

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"tcp://127.0.0.1:{port}"
        thread.join()


def test_a_client_tells_when_the_server_speaks_another_version() -> None:
    with future_server() as endpoint, Client(endpoint) as client:
        error = failure_of(client.hello)
    assert error.code == ErrorCode.VERSION
    assert "client speaks protocol 1, the server 2" in error.message


hostile_frames = st.lists(
    st.binary(max_size=40)
    | st.sampled_from(
        [
            b'{"protocol":1,"type":"edit","id":"e","width":9,"height":9,"channels":1,"dtype":"uint8","alphas":{}}',
            b'{"protocol":1,"type":"hello","id":"h"}',
            b'{"protocol":1,"type":"cancel","id":"c"}',
            b'{"protocol":1,"type":"heartbeat","id":"b"}',
            b'{"protocol":2}',
            b"[" * 5000,
            bytes(81),
        ]
    ),
    min_size=1,
    max_size=5,
)


def test_hostile_frames_never_disturb_another_client(slow: Slow, slow_server: Server) -> None:
    slow.go.set()
    with Client(slow_server.endpoint) as good:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(hostile_frames, min_size=1, max_size=6))
        def attack(messages: list[list[bytes]]) -> None:
            with Raw(slow_server.endpoint) as bad:
                for frames in messages:
                    bad.socket.send_multipart(frames)
                bad.send(MessageType.HELLO, "last")  # answered after all of them
                while bad.receive().id != "last":
                    pass
            assert good.edit(SMALL, PIXELS).pixels == PIXELS

        attack()
        with Raw(slow_server.endpoint) as many:
            many.socket.send_multipart([b""] * 20_000)
            assert many.error().code == ErrorCode.BAD_REQUEST
        with socket.create_connection(("127.0.0.1", int(slow_server.endpoint.rpartition(":")[2]))) as browser:
            browser.sendall(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n{}")
            assert good.edit(SMALL, PIXELS).pixels == PIXELS
        eventually(lambda: len(slow_server._jobs) == 0)
        assert slow_server._last_heard == {}


def test_a_flood_of_questions_costs_the_worker_nothing(slow: Slow, slow_server: Server) -> None:
    slow.go.set()
    with Client(slow_server.endpoint) as good, Raw(slow_server.endpoint) as flood:
        good.edit(SMALL, PIXELS)
        os.kill(slow.pid, signal.SIGSTOP)  # it reads nothing meanwhile
        for n in range(5000):
            flood.send(MessageType.HELLO, str(n))
            if n % 500 == 499:
                while flood.receive().id != str(n):
                    pass
        os.kill(slow.pid, signal.SIGCONT)
        first = slow.pid
        assert good.edit(SMALL, PIXELS).pixels == PIXELS
        assert slow.pid == first


# No server, a dying server, a stopping server


def test_nobody_there_is_told_within_the_timeout() -> None:
    endpoint = free_endpoint()
    start = time.monotonic()
    with Client(endpoint, timeout=0.3) as client:
        for call in (client.hello, client.attributes, lambda: client.edit(SMALL, PIXELS)):
            error = failure_of(call)
            assert (error.code, endpoint in error.message) == (ErrorCode.UNREACHABLE, True)
    assert time.monotonic() - start < 2


def test_a_program_that_is_not_a_dfi_server_is_not_mistaken_for_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with Client(endpoint, timeout=0.3) as client:
            assert failure_of(client.hello).code == ErrorCode.UNREACHABLE
        error = failure_of(lambda: Server(endpoint, commands()))
        assert (error.code, "listens" in error.message) == (ErrorCode.BUSY, True)


@pytest.mark.usefixtures("silence_allowed")
def test_a_stopping_server_tells_its_clients(slow: Slow) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(slow.command))
        running, waiting = (stack.enter_context(Raw(server.endpoint)) for _ in range(2))
        running.edit("r")
        waiting.edit("w")
        eventually(lambda: slow.started)
        server.stop()
        for client in (running, waiting):
            error = client.error()
            assert (error.code, "was stopped" in error.message) == (ErrorCode.UNREACHABLE, True)
    assert not is_alive(slow.pid)


def serve_command(endpoint: str) -> list[str]:
    return [sys.executable, "-m", "dfi_server", "serve", "--endpoint", endpoint]


@contextlib.contextmanager
def started(command: list[str], endpoint: str, log: Path, **options: Any) -> Iterator[tuple[ServerInfo, int]]:
    """start_server, and the id of the process that it started."""
    before = set(child_ids())
    info = start_server(command, endpoint, log=log, **options)
    (pid,) = set(child_ids()) - before
    try:
        yield info, pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def exit_code(pid: int, seconds: float = 20.0) -> int:
    deadline = time.monotonic() + seconds
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline, "the process goes on"
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def child_ids() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def test_a_real_server_s_whole_life(tiny_home: Path, tmp_path: Path, face: np.ndarray) -> None:
    endpoint, log = free_endpoint(), tmp_path / "logs" / "server.log"
    seconds: list[float] = []
    long = EditRequest(250, 250, 3, "uint8", {"smiling": 0.4}, iterations=1000)
    with started(serve_command(endpoint), endpoint, log, waiting=seconds.append) as (info, pid):
        assert info.state in (ServerState.LOADING, ServerState.READY)
        assert seconds == sorted(seconds)
        # It outlives the caller: another session, nothing of the caller's open.
        assert os.getsid(pid) == pid != os.getsid(0)
        assert [str(Path(f"/proc/{pid}/fd/{n}").readlink()) for n in (0, 1, 2)] == ["/dev/null", *[str(log)] * 2]
        with Client(endpoint) as client:
            assert "smiling" in client.attributes()
            assert start_server(["/does/not/exist"], endpoint, log=log).store == "lfw"  # it is there already

            second = subprocess.run(serve_command(endpoint), capture_output=True, text=True, timeout=60, check=False)
            assert second.returncode == 1
            assert second.stderr.count("\n") == 1 and "listens" in second.stderr

            error = failure_of(lambda: client.edit(long, face.data, progress=lambda _: os.kill(pid, signal.SIGTERM)))
            assert (error.code, "was stopped" in error.message) == (ErrorCode.UNREACHABLE, True)
        assert exit_code(pid) == 0
    assert "Listening" in log.read_text() and "Traceback" not in log.read_text()


def client_state(endpoint: str) -> ServerState | None:
    with Client(endpoint, timeout=0.5) as client, contextlib.suppress(DFIError):
        return client.status().state
    return None


@pytest.fixture
def light_server(slow: Slow) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server process without torch, quick to start; its edits last for ever."""
    endpoint = free_endpoint()
    code = f"""
from dfi_server.service.server import serve
from dfi_server.service.worker_process import Command
serve({endpoint!r}, [Command({slow.command.arguments!r}, {{}})])
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        try:
            eventually(lambda: client_state(endpoint) == ServerState.READY, 20)
            yield process, endpoint
        finally:
            process.kill()


def test_sigint_ends_an_idle_server_with_exit_code_0(light_server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, _ = light_server
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


def test_the_log_holds_no_pixels(slow: Slow, tmp_path: Path) -> None:
    """Whatever happens to an edit: it is done, fails as foreseen and not foreseen, is malformed, loses its worker."""
    endpoint, photo = free_endpoint(), b"SECRETPIXELS"
    code = f"""
import logging, sys
from dfi_server.service.server import serve
from dfi_server.service.worker_process import Command
logging.basicConfig(level=logging.DEBUG)
serve({endpoint!r}, [Command({slow.command.arguments!r}, {{}})])
"""
    slow.go.set()
    with (tmp_path / "log").open("wb") as log, subprocess.Popen([sys.executable, "-c", code], stderr=log) as process:
        try:
            eventually(lambda: client_state(endpoint) == ServerState.READY, 20)
            with Client(endpoint) as client:
                assert client.edit(SMALL, photo).pixels == photo
                for failure in ("odd", "memory", "no face", "killed"):
                    slow.fails.set(failure)
                    failure_of(lambda: client.edit(SMALL, photo))
            with Raw(endpoint) as raw:
                raw.socket.send_multipart([b'{"protocol": 1, "type": "edit", "id": "a"}', photo])
                raw.error()
        finally:
            process.terminate()
    text = (tmp_path / "log").read_bytes()
    assert b"odd tensor" in text and b"A worker ended" in text
    for form in (photo, photo.hex().encode(), base64.b64encode(photo), str(list(photo[:3]))[1:-1].encode(), b"SECRET"):
        assert form not in text


def test_a_killed_server_is_noticed_during_an_edit(light_server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, endpoint = light_server
    with Client(endpoint) as client:
        start = time.monotonic()
        error = failure_of(lambda: client.edit(SMALL, PIXELS, progress=lambda _: process.kill()))
        assert (error.code, "start it" in error.message) == (ErrorCode.UNREACHABLE, True)
        assert time.monotonic() - start < 3


def test_a_server_that_stands_still_loses_the_impatient_only(
    light_server: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, endpoint = light_server
    errors: dict[float, DFIError] = {}
    resumed_at = float("inf")

    def run(timeout: float) -> None:
        with Client(endpoint, timeout) as client:
            errors[timeout] = failure_of(
                lambda: client.edit(SMALL, PIXELS, cancelled=lambda: time.monotonic() > resumed_at + 1)
            )

    impatient, patient = (threading.Thread(target=run, args=(timeout,)) for timeout in (1.0, 10.0))
    with Client(endpoint) as watcher:
        impatient.start()
        patient.start()
        eventually(lambda: watcher.status().queued == 1)
        process.send_signal(signal.SIGSTOP)
        time.sleep(protocol.CLIENT_SILENCE_SECONDS + 0.5)
        process.send_signal(signal.SIGCONT)
        resumed_at = time.monotonic()
        impatient.join()
        patient.join()
    assert errors[1.0].code == ErrorCode.UNREACHABLE
    assert "stopped answering" in errors[1.0].message
    assert errors[10.0].code == ErrorCode.CANCELLED  # by the client itself, a second later: its edit was kept


def test_a_server_of_another_version_is_not_joined_by_a_second(tmp_path: Path) -> None:
    with future_server() as endpoint:
        error = failure_of(lambda: start_server(["false"], endpoint, log=tmp_path / "log"))
    assert error.code == ErrorCode.VERSION
    assert not (tmp_path / "log").exists()


def test_a_start_that_fails_gives_the_log_s_last_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    command = [
        sys.executable,
        "-c",
        "import sys; print('warming up', flush=True); sys.exit('dfi: No room at the inn.')",
    ]
    error = failure_of(lambda: start_server(command, free_endpoint(), log=log))
    assert error.code == ErrorCode.UNREACHABLE
    assert "could not start: No room at the inn." in error.message and str(log) in error.message
    error = failure_of(lambda: start_server([sys.executable, "-c", ""], free_endpoint(), log=tmp_path / "new.log"))
    assert "could not start" in error.message
    error = failure_of(lambda: start_server(["/does/not/exist"], free_endpoint(), log=log))
    assert error.code == ErrorCode.UNREACHABLE and "/does/not/exist" in error.message


def test_a_start_that_takes_for_ever_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    command = [sys.executable, "-c", code]
    error = failure_of(lambda: start_server(command, free_endpoint(), log=tmp_path / "log", timeout=1.0))
    assert error.code == ErrorCode.TIMEOUT
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_long_log_is_begun_anew_and_a_short_one_continued(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for content, kept in ((b"earlier\n", True), (b"earlier\n" * 200_000, False)):
        log.write_bytes(content)
        failure_of(lambda: start_server([sys.executable, "-c", "print('now')"], free_endpoint(), log=log))
        assert log.read_bytes().startswith(b"earlier") == kept
        assert log.read_bytes().endswith(b"now\n")


def test_the_server_gets_none_of_gimp_s_python_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/gimp/python")
    monkeypatch.setenv("DFI_HOME", "/kept")
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['DFI_HOME'])"
    error = failure_of(lambda: start_server([sys.executable, "-c", code], free_endpoint(), log=tmp_path / "log"))
    assert "None /kept" in error.message


def test_the_client_needs_only_the_standard_library_and_pyzmq() -> None:
    code = (
        "import sys, dfi_server.wire.client\n"
        "print({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"numpy", "torch", "PIL", "platformdirs"}.isdisjoint(eval(found))
    assert {"zmq", "dfi_server"} <= eval(found)
