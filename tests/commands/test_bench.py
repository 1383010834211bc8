"""The benchmark: its figures belong together, and reaching a goal is checked in full precision."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dfi_server.commands import bench
from dfi_server.edit import Editor
from dfi_server.solver import vgg


def test_a_trace_says_when_a_goal_was_reached() -> None:
    trace = bench.Trace([1.0, 2.0, 3.0], [0.5, 0.3, 0.2])
    assert trace.until(0.3) == (2.0, 2)
    assert trace.until(0.9) == (1.0, 1)
    assert trace.until(0.1) is None


def test_both_lower_the_same_objective(tiny_home: Path) -> None:
    editor = Editor("tiny", "cpu")
    (image,) = bench.sample_frames(editor, 1)
    exact = bench.Objective(
        vgg.load(editor.store.weights(), torch.device("cpu"), torch.float32),
        image,
        lambda phi: editor.store.shift({"smiling": 0.4}, phi),
    )
    reference = bench.reference(exact, image, 15)
    assert len(reference.losses) == len(reference.seconds) == 15
    goal = reference.losses[-1]
    assert goal < 0.9 * reference.losses[0]
    mine = bench.ours(editor, exact, image, {"smiling": 0.4}, goal)
    assert mine.losses[-1] <= goal
    assert mine.seconds == sorted(mine.seconds)


@pytest.mark.slow
def test_the_command_writes_its_figures(dfi: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    done = dfi("bench", "--faces", "1", "--device", "cpu", "--json", target)
    assert done.returncode == 0, done.stderr
    report = json.loads(target.read_text())
    assert {"ratio_150", "ratio_500", "ours_seconds", "reference_seconds", "ours_evaluations"} <= report.keys()
    assert report["ratio_150"] == pytest.approx(report["reference_seconds"] / report["ours_seconds"])
    for what, edits in (("edit", 1), ("sweep", 5), ("preview", 1)):
        assert report[f"{what}_ratio"] == pytest.approx(edits * report["reference_seconds"] / report[f"{what}_seconds"])
        assert report[f"{what}_seconds_without_predictor"] > 0
    assert report["floor_seconds"] > 0
    assert report["faces"] == 1
    assert f"| ratio_150 | {report['ratio_150']:.3g} |" in done.stdout
