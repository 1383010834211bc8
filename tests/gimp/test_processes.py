"""The plug-in's processes.py: it finds a server by its command line, and ends it, whatever the system tells with."""

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from types import ModuleType

import pytest
from gimp.gimp import REPOSITORY

ENDPOINT = "tcp://127.0.0.1:50123"


@pytest.fixture
def processes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("processes", REPOSITORY / "gimp_plugin/dfi/processes.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("way", ["_linux", "_others"])
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_server_is_found_and_ended(
    processes: ModuleType, monkeypatch: pytest.MonkeyPatch, way: str, stubborn: bool
) -> None:
    if way == "_others":
        if not shutil.which("ps"):
            pytest.skip("there is no ps here, which macOS always has")
        monkeypatch.setattr(processes, "_linux", processes._others)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
    code = f"import signal, time; {ignore}print('x', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, "serve", "--endpoint", ENDPOINT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server, subprocess.Popen([*command, "more"]) as other:
        try:
            assert server.stdout and server.stdout.readline()
            assert processes.ending_with(f"--endpoint {ENDPOINT}") == [server.pid]
            processes.end(server.pid, at_once=False)
            if stubborn:
                with pytest.raises(subprocess.TimeoutExpired):
                    server.wait(0.5)
                processes.end(server.pid, at_once=True)
            server.wait(10)
            assert processes.ending_with(f"--endpoint {ENDPOINT}") == []
            processes.end(server.pid, at_once=True)  # it is none any more
        finally:
            other.kill()


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, "The parameter is incorrect"), ProcessLookupError()])
def test_one_that_has_ended_is_none(processes: ModuleType, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Windows says so with its error 87, which is no ProcessLookupError."""

    def kill(process: int, number: int) -> None:
        raise error

    monkeypatch.setattr(os, "kill", kill)
    processes.end(12, at_once=False)


@pytest.mark.parametrize("alone", [False, True])
def test_what_windows_tells(processes: ModuleType, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    ours = {"ProcessId": 12, "CommandLine": f'"C:\\dfi\\dfi.exe" serve --end-after 60 --endpoint {ENDPOINT} '}
    others = [{"ProcessId": 13, "CommandLine": None}, {"ProcessId": 14, "CommandLine": "python.exe -m idlelib"}]
    monkeypatch.setattr(processes, "said", lambda command: json.dumps(ours if alone else [*others, ours]))
    monkeypatch.setattr(processes, "_linux", processes._windows)
    assert processes.ending_with(f"--endpoint {ENDPOINT}") == [12]
    monkeypatch.setattr(processes, "said", lambda command: "no JSON")
    assert processes.ending_with(f"--endpoint {ENDPOINT}") == []
