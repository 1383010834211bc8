"""Distillation: the narrow network learns, what it is shown is what it should be, and an interrupted run is noticed."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.tiny import TINY_ATTRIBUTES, drawn_face, tiny_weights, write_tiny_lfw

from dfi_server.face import layout
from dfi_server.solver import vgg
from dfi_server.vectors import distill
from dfi_server.vectors.distill import BATCH, CROP
from dfi_server.vectors.store import Store


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    rng = np.random.default_rng(5)
    contents = []
    for _ in range(2 * BATCH):
        content = io.BytesIO()
        drawn_face(rng.normal(size=len(TINY_ATTRIBUTES)), rng).save(content, "JPEG")
        contents.append(content.getvalue())
    return contents


def test_a_photos_twin_differs_in_a_part_only() -> None:
    black, white = np.zeros((250, 250, 3), np.uint8), np.full((250, 250, 3), 255, np.uint8)
    for seed in range(20):
        images = distill.batch([black, white] * BATCH, np.random.default_rng(seed))
        assert images.shape == (2 * BATCH, 3, CROP, CROP)
        assert images.min() >= 0
        assert images.max() <= 1
        photos, twins = images.chunk(2)
        blended = (twins - photos).mean(dim=1)
        assert blended.amax() > 0.5  # somewhere the other photo shows
        assert (blended < 0.3).float().mean() > 0.02  # somewhere it does not


@pytest.mark.slow
def test_the_student_learns_features_and_their_differences(jpegs: list[bytes]) -> None:
    torch.set_num_threads(2)
    teacher = vgg.load(tiny_weights(), torch.device("cpu"))
    seen: list[list[float]] = []
    student = distill.train(teacher, jpegs, width=0.5, steps=150, report=lambda *state: seen.append(state[2]))
    assert len(seen) == 3
    assert sum(seen[-1][:3]) < 0.5 * sum(seen[0][:3])  # the features
    assert sum(seen[-1][3:]) < 0.9 * sum(seen[0][3:])  # the differences
    weights = student.weights()
    assert weights["features.0.weight"].shape == (4, 3, 3, 3)
    assert weights.keys() == tiny_weights().keys()


def test_the_same_seed_gives_the_same_network(jpegs: list[bytes]) -> None:
    teacher = vgg.load(tiny_weights(), torch.device("cpu"), torch.float32)
    first, again, other = (
        distill.train(teacher, jpegs, width=0.5, steps=2, seed=seed).weights()["features.0.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_command_makes_a_store_and_its_card_and_trains_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, table = write_tiny_lfw(tmp_path, faces=24)
    save_file(tiny_weights(), tmp_path / "vgg19.safetensors")
    output = tmp_path / "starter"
    command = ["distill", "--lfw", str(archive), "--attributes", str(table), "--output", str(output), "--steps", "3"]
    command += ["--vgg19", str(tmp_path / "vgg19.safetensors"), "--work", str(tmp_path / "work"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    assert distill.main() == 0
    store = Store(output)
    assert store.info.attributes == TINY_ATTRIBUTES
    assert store.info.rank == distill.RANK
    assert store.vector("smiling")[0].shape == (12, 50, 50)
    assert "| steps | 3, " in (output / "README.md").read_text()
    assert (output / "training.png").read_bytes().startswith(b"\x89PNG")
    preview = Store(output, layout.PREVIEW_FRAME_SIZE)
    assert preview.vector("smiling")[0].shape == (12, 28, 28)
    assert preview.weights().keys() == store.weights().keys()
    trained = store.info.network_sha256

    monkeypatch.setattr(distill, "train", lambda *_, **__: pytest.fail("trained twice"))
    assert distill.main() == 0
    assert Store(output).info.network_sha256 == trained
    monkeypatch.setattr("sys.argv", [*command[:-2], "--lfw", str(tmp_path / "absent.tgz")])
    assert distill.main() == 1
    assert "absent.tgz" in capsys.readouterr().err
