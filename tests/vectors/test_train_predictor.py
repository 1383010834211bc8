"""Training of the predictor: it learns, and goes on where it was interrupted as if it had not been."""

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from support.tiny import tiny_weights, write_tiny_lfw

from dfi_server import checksums, paths
from dfi_server.face import layout
from dfi_server.vectors import build, train_predictor
from dfi_server.vectors.store import open_store


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawn faces, and a small store in the starter's place."""
    archive, table = write_tiny_lfw(tmp_path)
    size = layout.PREVIEW_FRAME_SIZE
    store, _ = build.build_lfw(
        tmp_path / "small", tiny_weights(), archive, table, device="cpu", frame_size=size, iterations=2
    )
    monkeypatch.setattr(train_predictor, "open_store", lambda name: store)
    monkeypatch.setattr(train_predictor, "MEASURED", ("smiling",))
    monkeypatch.setattr(train_predictor, "MEASURED_FACES", 2)
    monkeypatch.setattr(train_predictor, "_SAVE_EVERY", 2)
    monkeypatch.setattr(train_predictor, "_MEASURE_EVERY", 4)
    monkeypatch.setattr(train_predictor, "_WARM_UP", 10)
    torch.set_num_threads(2)
    return archive


def learnt_in(work: Path) -> dict[str, torch.Tensor]:
    (file,) = work.glob("????????????????.safetensors")
    tensors = safetensors.torch.load_file(file)
    checksums.check(file, {name: tensor.numpy() for name, tensor in tensors.items()})
    return tensors


def train(archive: Path, work: Path, rounds: int, monkeypatch: pytest.MonkeyPatch, *more: object) -> None:
    options = ["--lfw", archive, "--work", work, "--rounds", rounds, "--batch", 2, "--rate", 3e-4, *more]
    monkeypatch.setattr(sys, "argv", ["train_predictor", *map(str, options)])
    assert train_predictor.main() == 0


@pytest.mark.slow
def test_the_predictor_learns_and_goes_on(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(archive, whole, 12, monkeypatch)
    curve = [json.loads(line) for line in (whole / "curve.jsonl").read_text().splitlines()]
    assert curve[0]["solver"][0] == 1
    assert [line["round"] for line in curve[1:]] == [2, 4, 6, 8, 10, 12]
    first, last = curve[2], curve[-1]
    assert len(last["held_out"]) == train_predictor.PASSES
    assert last["held_out"][-1] < min(0.95, first["held_out"][-1])

    for rounds in (8, 12):
        train(archive, halves, rounds, monkeypatch)
    learnt, again = (learnt_in(work) for work in (whole, halves))
    for name, tensor in learnt.items():
        assert torch.equal(tensor, again[name]), name


def test_training_begins_with_the_predictor_of_another_network(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_store(paths.STARTER.name).predictor_file
    train(archive, tmp_path / "work", 2, monkeypatch, "--start", other, "--rate", 1e-9)
    begun, learnt = safetensors.torch.load_file(other), learnt_in(tmp_path / "work")
    assert begun["seen.0.weight"].shape != learnt["seen.0.weight"].shape  # other channels of relu3_1
    assert torch.allclose(begun["first.0.weight"], learnt["first.0.weight"], atol=1e-3)


def test_faces_of_portraits_are_found_once(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portraits = tmp_path / "portraits.tar"
    with tarfile.open(portraits, "w") as tar:
        tar.add(paths.SAMPLE, "people/bark_1.jpg")  # one who is trained on
        wall = tmp_path / "wall.jpg"
        Image.new("RGB", (300, 300), "gray").save(wall)
        tar.add(wall, "people/wall_1.jpg")
    train(archive, tmp_path / "work", 1, monkeypatch, "--portraits", portraits)
    frames = np.load(tmp_path / "work" / "portraits.npy")
    assert frames.shape == (1, layout.PREVIEW_FRAME_SIZE, layout.PREVIEW_FRAME_SIZE, 3)
    portraits.unlink()
    train(archive, tmp_path / "work", 2, monkeypatch, "--portraits", portraits)


def test_an_archive_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["train_predictor", "--lfw", str(tmp_path / "no.tgz"), "--work", str(tmp_path / "w")]
    )
    assert train_predictor.main() == 1
    assert "no.tgz" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
