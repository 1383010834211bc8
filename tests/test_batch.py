"""A folder through the server: what is edited, skipped and reported, and what a killed run leaves behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import refusal
from gimp.server import serving
from PIL import Image

from dfi_server import batch
from dfi_server.errors import ErrorCode

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def endpoint(_tiny_built: Path) -> Iterator[str]:
    with serving(_tiny_built) as (there, _):
        yield there


@pytest.fixture
def album(tmp_path: Path, face: np.ndarray) -> Path:
    """Photos in two folders; one shows no face, one is damaged, and one file is no photo at all."""
    folder = tmp_path / "album"
    (folder / "trip").mkdir(parents=True)
    Image.fromarray(face).save(folder / "one.png")
    Image.fromarray(face).save(folder / "trip" / "two.jpg", quality=95)
    Image.new("RGB", (300, 180), "gray").save(folder / "trip" / "empty.png")
    (folder / "broken.png").write_bytes((folder / "one.png").read_bytes()[:5000])
    (folder / "notes.txt").write_text("not a photo")
    return folder


def lines(target: Path) -> dict[str, dict[str, object]]:
    """The report: file -> its latest line."""
    return {line["file"]: line for line in map(json.loads, (target / batch.REPORT).read_text().splitlines())}


def test_a_tree_is_edited_and_told_about(album: Path, tmp_path: Path, endpoint: str, dfi: Run) -> None:
    target = tmp_path / "out"
    command = ("batch", album, target, "--set", "smiling=0.4", "--iterations", "2", "--server", endpoint)
    done = dfi(*command)
    assert done.returncode == 1  # one file is damaged
    assert "2 edited, 1 skipped, 1 failed; 0 were there already" in done.stdout
    assert "Traceback" not in done.stderr
    report = lines(target)
    assert {file: line["status"] for file, line in report.items()} == {
        "one.png": "edited",
        "trip/two.jpg": "edited",
        "trip/empty.png": "skipped",
        "broken.png": "failed",
    }
    assert "face" in str(report["trip/empty.png"]["why"])
    assert "broken.png" in str(report["broken.png"]["why"])
    assert {path.name for path in target.rglob("*.*")} == {"one.png", "two.jpg", batch.REPORT}
    edited, before = (np.asarray(Image.open(folder / "one.png")) for folder in (target, album))
    assert (edited != before).any()

    written = (target / "one.png").stat().st_mtime_ns
    (target / "trip" / "two.jpg").unlink()
    (album / "broken.png").unlink()
    again = dfi(*command)
    assert again.returncode == 0, again.stderr
    assert "1 edited, 1 skipped, 0 failed; 1 were there already" in again.stdout
    assert (target / "one.png").stat().st_mtime_ns == written


def test_a_killed_run_leaves_whole_files_and_is_gone_on_with(
    tmp_path: Path, endpoint: str, face: np.ndarray, tiny_home: Path, dfi: Run
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(8):
        Image.fromarray(np.roll(face, number, axis=1)).save(source / f"{number}.png")
    command = ["batch", source, target, "--set", "smiling=0.4", "--iterations", "3", "--server", endpoint]
    for seconds in (0.2, 0.5, 0.9):
        process = subprocess.Popen(
            [sys.executable, "-m", "dfi_server.cli", *map(str, command)], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "DFI_HOME": str(tiny_home)},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        count = len(list(target.glob("*.png")))
        while len(list(target.glob("*.png"))) == count and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(seconds / 3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in target.glob("*.png"):
            assert np.asarray(Image.open(path)).shape == face.shape  # whole
    done = dfi(*command)
    assert done.returncode == 0, done.stderr
    assert len(list(target.glob("*.png"))) == 8
    assert " 0 failed" in done.stdout


def test_a_server_killed_on_the_way_costs_no_photo(tmp_path: Path, face: np.ndarray, _tiny_built: Path) -> None:
    """`restart` brings another one, as `dfi batch` does."""
    source = tmp_path / "in"
    source.mkdir()
    for number in range(6):
        Image.fromarray(face).save(source / f"{number}.png")
    with contextlib.ExitStack() as servers:
        endpoint, first = servers.enter_context(serving(_tiny_built))
        restarts = []

        def progress(outcome: batch.Outcome | None, total: int) -> None:
            if not restarts:
                first.kill()
                first.wait()

        def restart() -> None:
            if not restarts:
                servers.enter_context(serving(_tiny_built, endpoint))
            restarts.append(time.monotonic())

        job = batch.Job(source, tmp_path / "out", {"smiling": 0.4}, iterations=6)
        outcomes = batch.run(job, endpoint, restart=restart, progress=progress)
    assert restarts
    assert [each.status for each in outcomes] == ["edited"] * 6, outcomes
    assert len({each.file for each in outcomes}) == 6


@pytest.mark.parametrize(("make", "says"), [(False, "no folder"), (True, "No photos")])
def test_nothing_to_edit_is_a_sentence(make: bool, says: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    if make:
        source.mkdir()
    job = batch.Job(source, tmp_path / "out", {"smiling": 0.4})
    assert says in refusal(lambda: batch.run(job, "tcp://127.0.0.1:1"), ErrorCode.BAD_DATA)
    assert not (tmp_path / "out").exists()
