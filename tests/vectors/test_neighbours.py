"""Vectors from the faces most like the photo's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.checks import refusal
from support.tiny import TINY_ATTRIBUTES, tiny_weights, write_tiny_lfw
from torch import Tensor

from dfi_server import paths
from dfi_server.edit import Editor
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.solver import vgg
from dfi_server.vectors import build, faces
from dfi_server.vectors.neighbours import Neighbours

ALL = 1000  # neighbours: more than there are faces


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DFI_HOME of its own, with a store of plain differences of means and the faces that it was built from."""
    monkeypatch.setenv("DFI_HOME", str(tmp_path))
    archive, table = write_tiny_lfw(tmp_path)
    build.build_lfw(paths.stores() / "lfw", tiny_weights(), archive, table, device="cpu", method="mean")
    faces.write(archive, table)
    return tmp_path


@pytest.fixture
def editor(home: Path) -> Editor:
    return Editor(device="cpu")


def features(editor: Editor, frame: np.ndarray) -> vgg.Features:
    image = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        return editor.network(image)


def likeness(first: vgg.Features, second: vgg.Features) -> float:
    """The mean cosine between two vectors' layers."""

    def flat(layer: Tensor) -> Tensor:
        return layer.float().flatten()

    cosines = [torch.cosine_similarity(flat(a), flat(b), dim=0) for a, b in zip(first, second, strict=True)]
    return float(torch.stack(cosines).mean())


def test_of_all_faces_the_neighbours_give_the_difference_of_all_means(editor: Editor) -> None:
    made = Neighbours(editor.store, editor.network, editor.device)
    phi = features(editor, faces.Faces().frame(0, editor.store.info.frame_size))
    names = ["smiling", "eyeglasses"]
    vectors = made.vectors(names, phi, ALL, lambda: None)
    for name in names:
        assert likeness(vectors[name], editor.store.vector(name)) > 0.99
        for layer in vectors[name]:
            assert float(layer.float().square().mean()) == pytest.approx(1, abs=0.01)
    assert likeness(vectors["smiling"], vectors["eyeglasses"]) < 0.7


def test_the_neighbours_of_a_face_are_like_it(editor: Editor) -> None:
    """Those of a man with a mustache have one, so that what else differs between them is not that."""
    kept = faces.Faces()
    made = Neighbours(editor.store, editor.network, editor.device)
    mustache = kept.names.index("mustache")
    chosen: list[int] = []
    look = kept.frame
    made._faces.frame = lambda number, size: (chosen.append(number), look(number, size))[1]  # type: ignore[method-assign]
    most, least = np.argmax(kept.values[:, mustache]), np.argmin(kept.values[:, mustache])
    means = []
    for number in (most, least):
        phi = features(editor, look(int(number), editor.store.info.frame_size))
        made.attributes(phi, lambda: None)  # the scale is measured
        chosen.clear()
        made.vectors(["smiling"], phi, 8, lambda: None)
        assert len(chosen) == 2 * 12
        means.append(kept.values[chosen, mustache].mean())
    assert means[0] > means[1] + 0.3


def test_the_scale_is_measured_once_and_again_for_another_store(editor: Editor) -> None:
    phi = features(editor, faces.Faces().frame(0, editor.store.info.frame_size))
    passes = []
    first = Neighbours(editor.store, editor.network, editor.device).attributes(phi, lambda: passes.append(1))
    assert passes
    count = len(passes)
    again = Neighbours(editor.store, editor.network, editor.device).attributes(phi, lambda: passes.append(1))
    assert len(passes) == count
    assert np.allclose(first, again)
    (file,) = paths.stores().glob("*.scale.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"of": "another"}))
    Neighbours(editor.store, editor.network, editor.device).attributes(phi, lambda: passes.append(1))
    assert len(passes) == 2 * count


def test_what_is_read_goes_with_what_the_table_says(editor: Editor) -> None:
    kept = faces.Faces()
    made = Neighbours(editor.store, editor.network, editor.device)
    read = [
        made.attributes(features(editor, kept.frame(i, editor.store.info.frame_size)), lambda: None) for i in range(48)
    ]
    for name in ("eyeglasses", "smiling", "mouth_wide_open"):
        column = made.names.index(name)
        said = kept.values[:, kept.names.index(name)] > 0  # which is what is drawn
        assert np.corrcoef(np.stack(read)[:, column], said)[0, 1] > 0.5, name


def test_an_edit_with_neighbours_is_another_one_and_the_same_each_time(editor: Editor, face: np.ndarray) -> None:
    whole, near, again = (
        editor.edit(face, {"smiling": 0.4}, iterations=3, neighbours=count).patch.pixels for count in (None, 20, 20)
    )
    assert (whole.astype(int) - near).any()
    assert np.array_equal(near, again)


def test_an_edit_is_cancelled_while_neighbours_are_looked_at(editor: Editor, face: np.ndarray) -> None:
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return True

    refusal(lambda: editor.edit(face, {"smiling": 0.4}, neighbours=20, cancelled=cancelled), ErrorCode.CANCELLED)
    assert len(asked) == 1


def test_without_the_faces_the_way_to_them_is_named(editor: Editor, face: np.ndarray) -> None:
    paths.faces().unlink()
    sentence = refusal(lambda: editor.edit(face, {"smiling": 0.4}, neighbours=20), ErrorCode.NO_STORE)
    assert "dfi setup --faces-only" in sentence
    assert editor.edit(face, {"smiling": 0.4}, iterations=1)


@pytest.mark.parametrize("count", [0, 19, 1001, -100])
def test_too_few_or_too_many_neighbours_are_refused(count: int, editor: Editor, face: np.ndarray) -> None:
    assert "20" in refusal(lambda: editor.edit(face, {"smiling": 0.4}, neighbours=count), ErrorCode.BAD_REQUEST)


def test_an_attribute_that_hardly_any_face_has_is_refused_with_its_count(home: Path, face: np.ndarray) -> None:
    archive, table = home / "faces.tgz", home / "attributes.txt"
    lines = table.read_text().splitlines()
    column = lines[1].split("\t").index("Smiling") - 1  # the header begins with a "#"
    rows = [line.split("\t") for line in lines[2:]]
    for i, row in enumerate(rows):
        row[column] = "1" if i < 5 else "-1"
    table.write_text("\n".join([*lines[:2], *("\t".join(row) for row in rows)]) + "\n")
    faces.write(archive, table)
    editor = Editor(device="cpu")
    sentence = refusal(lambda: editor.edit(face, {"smiling": 0.4}, neighbours=20), ErrorCode.BAD_REQUEST)
    assert "Only 5" in sentence and "with 'smiling'" in sentence


@pytest.mark.parametrize("damage", ["ends", "truncated", "empty"])
def test_damaged_faces_are_said(damage: str, home: Path) -> None:
    content = paths.faces().read_bytes()
    length = int.from_bytes(content[:8], "little")
    at = 8 + length + json.loads(content[8 : 8 + length])["ends"]["data_offsets"][0]
    damaged = {
        "ends": content[:at] + b"\x7f" + content[at + 1 :],
        "truncated": content[:-100],
        "empty": b"",
    }[damage]
    paths.faces().write_bytes(damaged)
    assert "dfi setup --faces-only" in refusal(faces.Faces, ErrorCode.BAD_STORE)


def test_the_kept_faces_are_the_photos(home: Path) -> None:
    kept = faces.Faces()
    assert len(kept) == 48
    assert kept.names == TINY_ATTRIBUTES
    with pytest.raises(DFIError):
        faces.write(home / "absent.tgz", home / "attributes.txt")
    assert len(faces.Faces()) == 48  # what was there stays
