"""What differs between systems; of each, what can be tried on this one."""

import ast
import ctypes
import io
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dfi_server import system

REPOSITORY = Path(__file__).parents[1]
FOLDERS = re.compile(r"/((\.flatpak-info|proc|tmp)\b|(dev|run|sys|var)/)")  # that only some systems have
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


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is told that this is Windows, whose way of starting a program is this system's."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0, raising=False)


def test_in_windows_processes_have_no_window(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200)
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x8000000)
    assert system.detached() == {"creationflags": 0x8000200}
    assert system.without_window() == {"creationflags": 0x8000000}


def test_in_windows_a_process_gets_a_description_of_a_socket(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: Any = SimpleNamespace(share=lambda process: b"the socket for %d" % process)
    code = "import sys; print(sys.stdin.read())"
    with system.start_with_socket([sys.executable, "-c", code], theirs, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.read().strip() == b"the socket for %d" % process.pid
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the socket")))
    monkeypatch.setattr(socket, "fromshare", bytes.upper, raising=False)
    assert system.given_socket() == b"THE SOCKET"


def test_in_windows_files_have_no_owner_and_places_no_lock(windows: None, tmp_path: Path) -> None:
    assert system.user_id() == system.NOBODY
    system.give_to(tmp_path / "nowhere", 1000, 1000)
    with (tmp_path / "lock").open("ab") as file, pytest.raises(OSError):
        system.lock(file)


def test_in_windows_a_command_is_quoted_for_its_terminal(windows: None, tmp_path: Path) -> None:
    assert system.command_line(["dfi", "C:\\my photo.png", "--set", 'a"b']) == 'dfi "C:\\my photo.png" --set a\\"b'
    assert system.program_of(tmp_path, "dfi") == tmp_path / "Scripts/dfi.exe"


@pytest.mark.parametrize("name", ["linux", "darwin"])
def test_elsewhere_it_is_quoted_for_a_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(sys, "platform", name)
    assert system.command_line(["dfi", "my photo.png"]) == "dfi 'my photo.png'"
    assert system.program_of(tmp_path, "dfi") == tmp_path / "bin/dfi"
    assert (system.detached(), system.without_window()) == ({"start_new_session": True}, {})


@pytest.mark.parametrize(("name", "expected"), [("linux", 5000 * 1024), ("darwin", 5000)])
def test_each_system_has_a_unit_of_memory(monkeypatch: pytest.MonkeyPatch, name: str, expected: int) -> None:
    monkeypatch.setattr(sys, "platform", name)
    monkeypatch.setattr(resource, "getrusage", lambda whose: SimpleNamespace(ru_maxrss=5000))
    assert system.peak_memory() == expected


def test_in_windows_the_kernel_tells_of_memory(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def current() -> int:
        return 7

    def tell(process: ctypes.c_void_p, counters: Any, size: int) -> None:
        assert (process.value, size) == (7, ctypes.sizeof(counters))
        counters[1] = 5 << 33

    kernel = SimpleNamespace(GetCurrentProcess=current, K32GetProcessMemoryInfo=tell)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert system.peak_memory() == 5 << 33


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_file_is_there_for_as_long_as_it_is_needed(monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    if not in_memory:
        monkeypatch.delattr("os.memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("there are no such files here")
    with system.file_with(b"a profile", "profile.icc") as path:
        assert Path(path).read_bytes() == b"a profile"
    assert not Path(path).exists()


def test_a_lock_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("ab") as other:
        with (tmp_path / "lock").open("ab") as file:
            assert system.lock(file)
            assert not system.lock(other)
        assert system.lock(other)


def test_the_folder_for_temporary_files_is_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "é").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "é"))
    length = len(str(tmp_path)) + 3
    assert system.temporary_folder(length) == tmp_path / "é"
    assert system.temporary_folder(length - 1) == Path("/tmp")


@pytest.mark.parametrize(
    ("mark", "snap", "expected"), [(True, "", "Flatpak"), (False, "/snap/gimp/1", "Snap"), (0, "", "")]
)
def test_a_sandbox_has_a_name(monkeypatch: pytest.MonkeyPatch, mark: bool, snap: str, expected: str) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: mark and str(path) == "/.flatpak-info")
    monkeypatch.setenv("SNAP", snap)
    assert system.sandbox() == expected


def test_who_listens_is_known_where_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "tcp6"
    monkeypatch.setattr(system, "_PORTS_IN_USE", (tmp_path / "tcp", table))
    assert system.listener(8080) is None
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1001  0 1 1 0 100 0 0 10 0\n"
        "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1002  0 2 1 0 100 0 0 10 0\n"
    )
    assert system.listener(8080) == 1002
    assert system.listener(8081) is None


def test_gpus_are_known_where_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, bus = tmp_path / "gpus", tmp_path / "pci"
    monkeypatch.setattr(system, "_NVIDIA_DRIVER", driver)
    monkeypatch.setattr(system, "_PCI_DEVICES", bus)
    assert (system.nvidia_gpus(), system.has_nvidia_gpu()) == (0, False)
    for name, vendor, kind in (("a", "0x8086", "0x030000"), ("b", "0x10de", "0x040300")):  # another's, and its sound
        (bus / name).mkdir(parents=True)
        (bus / name / "vendor").write_text(f"{vendor}\n")
        (bus / name / "class").write_text(f"{kind}\n")
    assert not system.has_nvidia_gpu()
    (bus / "b/class").write_text("0x030200\n")
    assert (system.nvidia_gpus(), system.has_nvidia_gpu()) == (0, True)
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (driver / name).mkdir(parents=True)
    assert (system.nvidia_gpus(), system.has_nvidia_gpu()) == (2, True)


def strings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_other_module_names_a_folder_that_only_some_systems_have() -> None:
    """What else they may not know of a system, ruff says (pyproject.toml, banned-api)."""
    files = [path for name in ("dfi_server", "gimp_plugin", "tools") for path in (REPOSITORY / name).rglob("*.py")]
    assert REPOSITORY / "dfi_server/system.py" in files
    named = {path.relative_to(REPOSITORY).as_posix() for path in files if any(map(FOLDERS.match, strings(path)))}
    assert named == {"dfi_server/system.py", "gimp_plugin/dfi/processes.py"}
