"""A real Ray cluster of two machines' worth of processes, one of which is killed on the way: nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ray.cluster_utils import Cluster
from safetensors.torch import save_file
from support.checks import refusal, run_dfi
from support.tiny import TINY_ATTRIBUTES, tiny_weights, write_tiny_lfw

from dfi_server.commands import batch, ray_engine
from dfi_server.errors import ErrorCode
from dfi_server.face import layout
from dfi_server.vectors import build, lfw
from dfi_server.vectors.store import open_store

Run = Callable[..., subprocess.CompletedProcess[str]]
MACHINE = {"num_cpus": 1, "memory": 3 * 1024**3, "object_store_memory": 100 * 1024**2, "include_dashboard": False}
FACES, SHARD = 96, 8


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(_tiny_built: Path) -> Iterator[Cluster]:
    """A head without cores, and one machine with one."""
    folder = tempfile.mkdtemp(prefix="ray")  # not pytest's: the paths of sockets must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(_tiny_built))
        patch.setenv("RAY_TMPDIR", folder)  # the head's address too is written there, not into a folder of the user's
        cluster = Cluster(initialize_head=True, head_node_args=MACHINE | {"num_cpus": 0})
        try:
            patch.setenv("RAY_ADDRESS", cluster.address)
            cluster.add_node(**MACHINE)
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def second(cluster: Cluster) -> Iterator[Any]:
    """Another machine with one core."""
    node = cluster.add_node(**MACHINE)
    cluster.wait_for_nodes()  # until one that was killed before is known to be dead as well
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


def at_work(node: Any, task: str) -> bool:
    """Whether it runs on that machine now: Ray gives a process its task's name."""
    (raylet,) = node.all_processes["raylet"]
    for process in Path("/proc").glob("[0-9]*"):
        parent = read(process / "stat").rpartition(b")")[2].split()[1:2]
        if parent == [b"%d" % raylet.process.pid] and task.encode() in read(process / "cmdline"):
            return True
    return False


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def test_edits_survive_a_killed_machine(
    cluster: Cluster, second: Any, tmp_path: Path, face: np.ndarray, dfi: Run
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "trip").mkdir(parents=True)
    for number in range(8):
        Image.fromarray(np.roll(face, number, axis=1)).save(source / "trip" / f"{number}.png")
    Image.new("RGB", (300, 180), "gray").save(source / "empty.png")
    killed = []

    def kill() -> None:
        while len(list(target.rglob("*.png"))) < 3 or not at_work(second, "_edit"):
            time.sleep(0.01)
        cluster.remove_node(second, allow_graceful=False)
        killed.append(len(list(target.rglob("*.png"))))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = dfi("batch", source, target, "--set", "smiling=0.4", "--iterations", "20", "--engine", "ray", timeout=120)
    killer.join(1)
    assert done.returncode == 0, done.stderr
    assert 3 <= killed[0] < 8
    assert "8 edited, 1 skipped, 0 failed; 0 were done before" in done.stdout
    report = [json.loads(line) for line in (target / batch.REPORT).read_text().splitlines()]
    expected = {f"trip/{number}.png": "edited" for number in range(8)} | {"empty.png": "skipped"}
    assert len(report) == len(expected)
    assert {line["file"]: line["status"] for line in report} == expected
    assert all(np.asarray(Image.open(path)).shape == face.shape for path in target.rglob("*.png"))


def test_a_store_and_a_box_are_those_of_a_single_edit(
    cluster: Cluster, tmp_path: Path, face: np.ndarray, dfi: Run
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(face).save(source / "one.png")
    how = ("--set", "smiling=0.4", "--iterations", "2", "--store", "starter", "--box", "60,60,150,150")
    done = dfi("batch", source, target, *how, "--device", "cpu", "--engine", "ray", timeout=120)
    assert done.returncode == 0, done.stderr
    assert dfi("edit", source / "one.png", tmp_path / "single.png", *how, "--device", "cpu").returncode == 0
    ours, single = (np.asarray(Image.open(path)) for path in (target / "one.png", tmp_path / "single.png"))
    assert np.array_equal(ours, single)
    assert (ours != face).any()
    assert np.array_equal(ours[:60], face[:60])
    other = dfi("batch", source, tmp_path / "other", *how[:4], "--store", "absent", "--engine", "ray", timeout=120)
    assert other.returncode == 1
    assert "There is no store of attribute vectors 'absent'" in other.stderr


def test_sums_survive_a_killed_machine(
    cluster: Cluster, second: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "_SHARD", SHARD)
    archive, table = write_tiny_lfw(tmp_path, FACES)
    values = lfw.read_attributes(table).rows
    rows = [
        build.FaceRow(key, layout.to_frame(lfw.decode(jpeg)), values[key]) for key, jpeg in lfw.read_photos(archive)
    ]
    done: list[int] = []

    def kill(count: int) -> None:
        done.append(count)
        if count == 3 * SHARD:  # at work, or with a result that nobody has yet
            cluster.remove_node(second, allow_graceful=False)

    with ray_engine.connected():
        assert ray_engine.slots() == 2
        killed = ray_engine.accumulate(iter(rows), TINY_ATTRIBUTES, tiny_weights(), device="cpu", progress=kill)
        cluster.wait_for_nodes()
        assert ray_engine.slots() == 1
        alone = ray_engine.accumulate(iter(rows), TINY_ATTRIBUTES, tiny_weights(), device="cpu")
    assert done == list(range(SHARD, FACES + 1, SHARD))
    assert killed.photos == alone.photos == FACES
    for one, other in zip([killed.gram, *killed.cross], [alone.gram, *alone.cross], strict=True):
        assert torch.equal(one, other)  # whatever machine did what

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray's workers: the features are the same then, and only their sums' order differs
    here = build.accumulate(iter(rows), TINY_ATTRIBUTES, tiny_weights(), device="cpu")
    bounds = build.accumulate(
        (build.FaceRow(row.key, row.frame, abs(row.values)) for row in rows),
        TINY_ATTRIBUTES, tiny_weights(), device="cpu",
    )  # fmt: skip
    torch.set_num_threads(threads)
    assert torch.allclose(killed.gram, here.gram, rtol=1e-13, atol=1e-12)
    for one, other, bound in zip(killed.cross, here.cross, bounds.cross, strict=True):
        # a sum of n float32 terms is off by n units in the last place of the sum of their magnitudes, at most
        assert ((one - other).abs() <= 2 * FACES * 2**-24 * bound).all()


def test_other_machines_need_the_same_store(
    cluster: Cluster, tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))  # so that here it is the starter
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(face).save(tmp_path / "in" / f"{number}.png")
    job = batch.Job(tmp_path / "in", tmp_path / "out", {"smiling": 0.4}, {"iterations": 2})
    with ray_engine.connected():
        message = refusal(lambda: batch.run(job, batch.plan(job).todo, ray_engine.editing()), ErrorCode.BAD_STORE)
    assert "store lfw of" in message
    assert (tmp_path / "out" / batch.REPORT).read_text() == ""


def test_setup_on_a_cluster_of_its_own_leaves_nothing_running(
    tmp_path: Path, _tiny_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command as a user has it, without a cluster: the same store as without Ray."""
    folder = tempfile.mkdtemp(prefix="ray")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray puts its token
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    archive, table = write_tiny_lfw(tmp_path)
    save_file(tiny_weights(), tmp_path / "weights.safetensors")
    files = ("--vgg19", tmp_path / "weights.safetensors", "--lfw", archive, "--attributes", table)
    done = run_dfi("setup", *files, "--engine", "ray", "--device", "cpu", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 attribute vectors" in done.stdout
    assert (tmp_path / ".ray" / "auth_token").exists()  # nobody else gets in
    assert not done.stderr or "photo" in done.stderr.splitlines()[-1]
    marks = [f"RAY_TMPDIR={folder}".encode() in read(path) for path in Path("/proc").glob("[0-9]*/environ")]
    assert marks.count(True) == (f"RAY_TMPDIR={folder}".encode() in read(Path("/proc/self/environ")))
    shutil.rmtree(folder, ignore_errors=True)
    monkeypatch.setenv("DFI_HOME", str(tmp_path))
    built = open_store()
    monkeypatch.setenv("DFI_HOME", str(_tiny_built))
    expected = open_store()
    assert built.info == expected.info
    for name in TINY_ATTRIBUTES:
        for one, other in zip(built.vector(name), expected.vector(name), strict=True):
            assert torch.allclose(one, other, rtol=2**-9, atol=2**-12)  # float16 in units of their root mean square


def test_no_cluster_and_no_ray_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    done = run_dfi("setup", "--engine", "ray", home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("dfi: The Ray cluster '127.0.0.1:1' cannot be used")
    without = (
        "import sys; sys.modules['ray'] = None; from dfi_server.commands.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", without, "setup", "--engine", "ray"],
        env={**os.environ, "DFI_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "dfi: Ray is not installed here: pip install 'dfi-server[ray]'.\n"
