"""Client and server together: pixels by the real editor, and the states that a server is in."""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.servers import PIXELS, SMALL, Raw, Slow, eventually, failure_of, serving
from support.tiny import TINY_ATTRIBUTES

from dfi_server import edit as pipeline
from dfi_server import paths
from dfi_server.errors import ErrorCode
from dfi_server.service.server import Server
from dfi_server.service.worker_process import commands
from dfi_server.wire import messages
from dfi_server.wire.client import Client, EditRequest, PhotoRequest
from dfi_server.wire.messages import Accepted, Progress, ServerState
from dfi_server.wire.protocol import MessageType

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
