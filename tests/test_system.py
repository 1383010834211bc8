"""What differs between systems; of each, what can be tried on this one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfi_server import system

TALK = """import sys
from dfi_server import system
lifeline = system.given_socket()
lifeline.sendall(lifeline.recv(100).upper())
lifeline.recv(1)
"""


def test_a_process_gets_a_socket_and_notices_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = system.start_with_socket([sys.executable, "-c", TALK], theirs)
        theirs.close()
        ours.sendall(b"hello")
        assert ours.recv(100) == b"HELLO"
        assert process.poll() is None
        ours.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize(("code", "expected"), [(3, "with exit code 3"), (-signal.SIGSEGV, "by SIGSEGV")])
def test_how_a_process_ended(code: int, expected: str) -> None:
    assert system.how_it_ended(code) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signal")
def test_out_of_memory_is_what_it_looks_like() -> None:
    assert "memory runs out" in system.how_it_ended(-signal.SIGKILL)


def test_a_detached_process_outlives_the_signals_of_this_one(tmp_path: Path) -> None:
    script = f"import subprocess, sys; from dfi_server import system; subprocess.Popen({[sys.executable, '-c']!r} + "
    script += f'[\'import time; time.sleep(0.5); open(r"{tmp_path}/there", "w")\'], **system.detached())'
    starter = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    starter.wait(20)
    if sys.platform != "win32":
        with pytest.raises(ProcessLookupError):
            os.killpg(starter.pid, signal.SIGHUP)  # its own group is empty: the detached one is in none of its
    deadline = time.monotonic() + 20
    while not (tmp_path / "there").exists():
        assert time.monotonic() < deadline


def test_this_user_owns_what_this_user_makes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    if sys.platform == "win32":
        assert system.user_id() == system.NOBODY
    else:
        assert (tmp_path / "file").stat().st_uid == system.user_id()


def test_peak_memory_is_in_bytes() -> None:
    """Neither in pages nor in units of 1024: Linux hands a parent's peak on, so that no more can be said."""
    block = b"x" * (64 << 20)
    assert len(block) < system.peak_memory() < 64 << 30


@pytest.mark.parametrize(("chosen", "used"), [(None, "1"), ("0", "0")])
def test_what_apples_gpu_cannot_do_falls_back_to_the_cpu_unless_the_user_says_no(chosen: str | None, used: str) -> None:
    """PyTorch asks the environment when it is imported, which every command does after this package."""
    code = "import os, dfi_server; print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])"
    kept = {name: value for name, value in os.environ.items() if name != "PYTORCH_ENABLE_MPS_FALLBACK"}
    environment = kept if chosen is None else {**kept, "PYTORCH_ENABLE_MPS_FALLBACK": chosen}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == used
