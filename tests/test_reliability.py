"""The measurements of docs/reliability.md, shortened: each fails where its full length would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks" / "reliability"

pytestmark = pytest.mark.reliability


def run(name: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_hostile_messages() -> None:
    report = run("fuzz.py", "--messages", "2000")
    assert report["messages"] >= 2000
    assert report["answers, by code"]["bad_request"] > 100
    assert report["the good client's edits in between"] > 10


def test_load() -> None:
    report = run("load.py", "--clients", "12", "--edits", "60", "--greedy", "2")
    assert (report["edits"], report["lost"], report["answered twice"], report["wrong"]) == (60, 0, 0, 0)
    assert report["Jain's index"] > 0.9


def test_faults() -> None:
    report = run("faults.py", "--rounds", "4")
    assert set(report["until the next edit was done, s: median and longest"]) == {
        "client",
        "worker",
        "server",
        "sigterm",
    }


def test_soak() -> None:
    report = run("soak.py", "--minutes", "0.5")
    assert not report["failures"]
    assert sum(report["done"].values()) > 10


def test_idle() -> None:
    report = run("idle.py")
    assert report["worker at rest, MB"] < report["worker awake, MB"]
