"""A folder through the server: what is edited, skipped and reported, and what a killed run leaves behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp.server import serving
from PIL import Image
from support.checks import full_disk, refusal

from dfi_server.commands import batch, remote
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import whole
from dfi_server.wire.client import Client

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


@pytest.mark.slow
def test_a_tree_is_edited_and_told_about(album: Path, tmp_path: Path, endpoint: str, dfi: Run) -> None:
    target = tmp_path / "out"
    command = ("batch", album, target, "--set", "smiling=0.4", "--iterations", "2", "--server", endpoint)
    done = dfi(*command)
    assert done.returncode == 1  # one file is damaged
    assert "2 edited, 1 skipped, 1 failed; 0 were done before" in done.stdout
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
    assert "1 edited, 0 skipped, 0 failed; 2 were done before" in again.stdout  # where no face was is known
    assert (target / "one.png").stat().st_mtime_ns == written
    assert {str(line["status"]) for line in lines(target).values()} == {"edited", "skipped", "failed"}

    other = dfi(*("batch", album, target, "--set", "smiling=0.2", "--iterations", "2", "--server", endpoint))
    assert other.returncode == 1
    assert "2 photos in" in other.stderr
    assert "other settings" in other.stderr
    assert "0 edited, 1 skipped, 0 failed; 2 were done before" in other.stdout  # a face is looked for once more
    assert (target / "one.png").stat().st_mtime_ns == written


def test_what_is_left_out_is_in_the_report_and_on_the_screen(
    tmp_path: Path, endpoint: str, face: np.ndarray, dfi: Run
) -> None:
    """Of an animation, and of a TIFF whose other pages are kept; nothing is said of a photo that is but one."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    pictures = [Image.fromarray(np.roll(face, shift, axis=1)) for shift in (0, 1, 2)]
    for name in ("moving.webp", "scan.tif"):
        pictures[0].save(source / name, save_all=True, append_images=pictures[1:], lossless=True)
    pictures[0].save(source / "one.png")
    done = dfi("batch", source, target, "--set", "smiling=0.4", "--iterations", "1", "--server", endpoint)
    assert done.returncode == 0
    report = lines(target)
    assert {line["status"] for line in report.values()} == {"edited"}
    (moving,), (scan,), none = (report[file]["notes"] for file in ("moving.webp", "scan.tif", "one.png"))
    assert moving == "Only the first of its 3 pictures was edited and written."
    assert "others are kept" in scan
    assert none == []
    assert f"moving.webp: {moving}" in done.stderr
    assert f"scan.tif: {scan}" in done.stderr


@pytest.mark.slow
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
            [sys.executable, "-m", "dfi_server", *map(str, command)], stdout=subprocess.DEVNULL,
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
    written = {path: path.stat().st_mtime_ns for path in target.glob("*.png")}
    assert 3 <= len(written) < 8
    # what a kill in the middle of a write leaves, at one of the moments that are too short to be met here
    (target / f".7.png.abc{whole.PART}").write_bytes(b"half")
    with (target / batch.REPORT).open("a") as report:
        report.write('{"file": "0.png", "sta')
    done = dfi(*command)
    assert done.returncode == 0, done.stderr
    assert f"{8 - len(written)} edited, 0 skipped, 0 failed; {len(written)} were done before" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert sorted(path.name for path in target.iterdir()) == [*(f"{i}.png" for i in range(8)), batch.REPORT]
    told = (target / batch.REPORT).read_text().splitlines()
    told.remove('{"file": "0.png", "sta')
    assert len(told) <= 8
    assert {json.loads(line)["status"] for line in told} == {"edited"}


@pytest.mark.slow
def test_a_server_killed_on_the_way_costs_no_photo(tmp_path: Path, face: np.ndarray, _tiny_built: Path) -> None:
    """`restart` brings another one, as `dfi batch` does."""
    source = tmp_path / "in"
    source.mkdir()
    for number in range(6):
        Image.fromarray(face).save(source / f"{number}.png")
    with contextlib.ExitStack() as servers:
        endpoint, first = servers.enter_context(serving(_tiny_built))
        restarts = []

        def progress(outcome: batch.Outcome) -> None:
            if not restarts:
                first.kill()
                first.wait()

        def restart() -> None:
            if not restarts:
                servers.enter_context(serving(_tiny_built, endpoint))
            restarts.append(time.monotonic())

        job = batch.Job(source, tmp_path / "out", {"smiling": 0.4}, {"iterations": 6})
        edit = batch.by_server(endpoint, restart)
        outcomes = batch.run(job, batch.plan(job).todo, edit, progress=progress)
    assert restarts
    assert [each.status for each in outcomes] == ["edited"] * 6, outcomes
    assert len({each.file for each in outcomes}) == 6


@pytest.mark.slow
def test_a_server_that_cannot_be_brought_back_ends_the_run(tmp_path: Path, face: np.ndarray, _tiny_built: Path) -> None:
    """In one sentence, not one for each photo; what was done by then stays."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(6):
        Image.fromarray(face).save(source / f"{number}.png")
    job = batch.Job(source, target, {"smiling": 0.4}, {"iterations": 2})
    with serving(_tiny_built) as (endpoint, server), Client(endpoint, timeout=1) as asking:
        edit = batch.by_server(endpoint, restart=asking.hello)
        message = refusal(
            lambda: batch.run(job, batch.plan(job).todo, edit, progress=lambda outcome: server.kill()),
            ErrorCode.UNREACHABLE,
        )
    assert message.startswith(f"The server at {endpoint} does not answer")
    report = lines(target)
    assert 0 < len(report) < 6
    assert {line["status"] for line in report.values()} == {"edited"}
    assert {path.name for path in target.glob("*.png")} == report.keys()


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_leaves_nothing_half_written(
    tmp_path: Path, endpoint: str, face: np.ndarray
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(face).save(source / "0.jpg")
    for number in range(1, 4):
        noise = np.random.default_rng(number).integers(0, 40, (1000, 1000, 3), dtype=np.uint8)
        noise[:250, :250] = face
        Image.fromarray(noise).save(source / f"{number}.png")  # 2 MB each
    job = batch.Job(source, target, {"smiling": 0.4}, {"iterations": 2})
    edit = batch.by_server(endpoint)
    with full_disk(200_000):
        message = refusal(lambda: batch.run(job, batch.plan(job).todo, edit, in_flight=2), ErrorCode.NO_SPACE)
    assert str(target) in message
    assert "Make room" in message
    assert sorted(path.name for path in target.iterdir()) == ["0.jpg", batch.REPORT]
    assert lines(target)["0.jpg"]["status"] == "edited"
    outcomes = batch.run(job, batch.plan(job).todo, edit)
    assert sorted(each.file for each in outcomes if each.status == "edited") == [f"{i}.png" for i in range(1, 4)]


def test_what_every_photo_would_meet_ends_the_run(album: Path, tmp_path: Path, endpoint: str) -> None:
    job = batch.Job(album, tmp_path / "out", {"smilling": 0.4})
    message = refusal(
        lambda: batch.run(job, batch.plan(job).todo, batch.by_server(endpoint)), ErrorCode.UNKNOWN_ATTRIBUTE
    )
    assert "did you mean smiling" in message
    assert {line["status"] for line in lines(job.target).values()} <= {"failed"}  # the damaged file, at most


IMPOSTOR = """
import os, zmq
from dfi_server.wire.messages import ServerInfo, ServerState
from dfi_server.wire.protocol import Message, decode_request, encode
os.setuid(65_534)
socket = zmq.Context().socket(zmq.ROUTER)
print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
while True:
    client, *frames = socket.recv_multipart()
    request = decode_request([memoryview(frame) for frame in frames])
    info = ServerInfo("1", ServerState.READY, "starter", "cpu", "", 0)
    socket.send_multipart([client, *encode(Message(request.type, request.id, info))])
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_users_server_is_told_about_once(album: Path, tmp_path: Path, dfi: Run) -> None:
    """Not once for each photo."""
    with subprocess.Popen([sys.executable, "-c", IMPOSTOR], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        there = f"tcp://127.0.0.1:{process.stdout.readline().strip()}"
        done = dfi("batch", album, tmp_path / "out", "--set", "smiling=0.4", "--server", there)
        process.kill()
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if "another user" in line]
    assert sentence.startswith(f"dfi: The server at {there} is another user's")
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_two_runs_into_one_folder_do_not_meet(tmp_path: Path, endpoint: str, face: np.ndarray) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(face).save(source / "one.png")
    job = batch.Job(source, tmp_path / "out", {"smiling": 0.4}, {"iterations": 2})
    files, edit = batch.plan(job).todo, batch.by_server(endpoint)
    meanwhile = []

    def progress(outcome: batch.Outcome) -> None:
        meanwhile.append(refusal(lambda: batch.run(job, files, edit), ErrorCode.BUSY))

    assert [each.status for each in batch.run(job, files, edit, progress=progress)] == ["edited"]
    assert str(tmp_path / "out") in meanwhile[0]
    assert {path.name for path in job.target.iterdir()} == {"one.png", batch.REPORT}
    assert [each.status for each in batch.run(job, files, edit)] == ["edited"]


def test_a_busy_server_is_waited_for(tmp_path: Path, endpoint: str, face: np.ndarray) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(face).save(source / "one.png")
    job = batch.Job(source, tmp_path / "out", {"smiling": 0.4}, {"iterations": 1})
    full, stop, crowd = threading.Event(), threading.Event(), []

    def crowding() -> None:
        try:
            with Client(endpoint) as client:
                remote.edit(client, face, {"smiling": 0.4}, iterations=400, cancelled=stop.is_set)
        except DFIError as error:
            if error.code == ErrorCode.BUSY:
                full.set()

    try:
        while not full.wait(0.01):
            assert len(crowd) < 500
            crowd.append(threading.Thread(target=crowding))
            crowd[-1].start()
        threading.Timer(1.5, stop.set).start()
        outcomes = batch.run(job, batch.plan(job).todo, batch.by_server(endpoint))
    finally:
        stop.set()
        for thread in crowd:
            thread.join()
    assert [each.status for each in outcomes] == ["edited"], outcomes


def test_a_target_inside_the_source_is_not_taken_for_photos(
    album: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    job = batch.Job(Path(), album / "out", {"smiling": 0.4}, {"iterations": 2})
    found = batch.plan(job).todo
    batch.run(job, found, batch.by_server(endpoint))
    assert (album / "out" / "one.png").exists()
    again = batch.plan(job)
    assert sorted(again.todo + again.done) == found
    assert "another folder" in refusal(
        lambda: batch.plan(batch.Job(Path(), album, {"smiling": 0.4})), ErrorCode.BAD_DATA
    )


@pytest.mark.parametrize(("make", "says"), [(False, "no folder"), (True, "No photos")])
def test_nothing_to_edit_is_a_sentence(make: bool, says: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    if make:
        source.mkdir()
    job = batch.Job(source, tmp_path / "out", {"smiling": 0.4})
    assert says in refusal(lambda: batch.plan(job), ErrorCode.BAD_DATA)
    assert not (tmp_path / "out").exists()
