"""No server, a dying server, a stopping server: real `dfi serve` processes where signals and death do."""

import base64
import contextlib
import os
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
from support.servers import (
    PIXELS,
    SMALL,
    Raw,
    Slow,
    child_ids,
    client_state,
    eventually,
    failure_of,
    free_endpoint,
    future_server,
    is_alive,
    serving,
)

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.service.server import Server
from dfi_server.service.worker_process import commands
from dfi_server.wire import protocol
from dfi_server.wire.client import Client, EditRequest, start_server
from dfi_server.wire.messages import ServerInfo, ServerState


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
    before = child_ids()
    info = start_server(command, endpoint, log=log, **options)
    (pid,) = child_ids(but=before)
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
