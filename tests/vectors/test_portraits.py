"""From sharp portraits to what ships: who is left out, labels learnt from others, and what bad archives say."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FACES
from support.checks import refusal
from support.tiny import TINY_ATTRIBUTES, drawn_face, write_tiny_lfw

from dfi_server import paths
from dfi_server.errors import ErrorCode
from dfi_server.face import layout
from dfi_server.solver import vgg
from dfi_server.vectors import expressions, pictures, portraits
from dfi_server.vectors.store import Store, open_store


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "faces.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(FACES / "closed.jpg", "./made/one.jpg")
        tar.add(FACES / "smiling.jpg", "./sfhq/sample_2x4_1020_2756.jpg")
    return path


def test_the_people_of_the_docs_are_left_out(archive: Path) -> None:
    canonical = open_store("starter").canonical_landmarks
    assert [name for name, _ in portraits.read_portraits(archive)] == ["made/one", "sfhq/sample_2x4_1020_2756"]
    counted: list[int] = []
    (aligned,) = portraits.sharp_frames(archive, canonical, counted.append)
    assert aligned.name == "made/one"
    assert aligned.frame.shape == (layout.DETAIL_FRAME_SIZE, layout.DETAIL_FRAME_SIZE, 3)
    assert counted == [1, 2]
    assert not any(portraits.is_held_out(name) and name.startswith("sfhq/sample_2x4") for name in pictures.CHOSEN)


def test_an_archive_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"nothing of the kind" * 100)
    for path in (broken, tmp_path / "missing.tar"):
        assert str(path) in refusal(lambda path=path: list(portraits.read_portraits(path)), ErrorCode.BAD_DATA)


def test_labels_are_learnt_from_other_faces() -> None:
    """Drawn faces with one attribute or without it; the frames to label have four times the pixels."""
    rng = np.random.default_rng(3)
    network = vgg.load(Store(paths.STARTER).weights(), torch.device("cpu"))

    def frames(size: int) -> tuple[list[np.ndarray], np.ndarray]:
        values = np.full((16, len(TINY_ATTRIBUTES)), -1.0)
        values[::2, 0] = 1
        drawn = [np.asarray(drawn_face(row, rng).resize((size, size))) for row in values]
        return drawn, values.astype(np.float32)

    known, values = frames(200)
    asked, wanted = frames(400)
    found = portraits.label(asked, known, values, network)
    assert np.corrcoef(found[:, 0], wanted[:, 0])[0, 1] > 0.9


def test_landmark_vectors_come_from_photos_and_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, table = write_tiny_lfw(tmp_path, faces=24)
    labels = np.array([[-1, 1], [1, -1]] * 50, dtype=np.float32)
    monkeypatch.setattr(expressions, "_is_open", lambda rows, names: (rows[:, 0] > 0, np.ones(len(rows), bool)))
    arrays = expressions.learn(archive, table, lambda done: None)
    assert arrays["mean"].shape == (68, 2)
    assert all(arrays[f"vector/{name}"].shape == (68, 2) for name in TINY_ATTRIBUTES)
    regression = expressions.openness_regression(np.random.default_rng(0).normal(size=(100, 6)), labels[:, 0] > 0)
    assert set(regression) == {"mean", "deviation", "weights"}


def test_what_ships_was_made_for_the_starters_network() -> None:
    detail = open_store(paths.DETAIL)
    assert detail.info.attributes == portraits.ATTRIBUTES
    assert detail.info.network_sha256 == open_store("starter").info.network_sha256
    assert detail.weights()
    card = (paths.PORTRAITS / "README.md").read_text()
    assert f"{detail.info.photos} portraits" in card
    assert f"{len(list((paths.PORTRAITS / 'mouths').glob('*.jpg')))} pictures of mouths" in card
    assert {f"{name.replace('/', '-')}.jpg" for name in (*pictures.SMILES, *pictures.OPEN)} == {
        file.name for file in (paths.PORTRAITS / "mouths").iterdir()
    }
