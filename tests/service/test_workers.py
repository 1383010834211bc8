"""Workers that die, hang, or are several."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import support
from support.servers import PIXELS, SMALL, Raw, Slow, eventually, failure_of, is_alive, serving

from dfi_server import edit as pipeline
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.service.server import Server
from dfi_server.service.worker_process import Command, commands
from dfi_server.wire.client import Client, EditRequest
from dfi_server.wire.messages import ServerState
from dfi_server.wire.protocol import MessageType


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


@pytest.mark.usefixtures("silence_allowed")
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
