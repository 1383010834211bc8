"""Edits of faces with more detail than LFW's photos have: what ships from portraits, and what happens without it."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.checks import refusal

from dfi_server import edit, paths
from dfi_server.edit import Editor, Progress
from dfi_server.errors import ErrorCode
from dfi_server.face.portraits import load_portraits
from dfi_server.photo.pixels import composite

FEW = 4


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    return Editor("starter", device="cpu")


@pytest.fixture
def no_portraits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was learnt from portraits is gone."""
    monkeypatch.setattr(edit, "load_portraits", lambda: load_portraits(tmp_path / "nowhere"))
    monkeypatch.setattr(Editor, "_detailer", None)
    yield


def edited(editor: Editor, photo: np.ndarray, **alphas: float) -> np.ndarray:
    return composite(photo, editor.edit(photo, alphas, iterations=FEW).patch)


def test_an_open_mouth_takes_no_iteration(starter: Editor, closed: np.ndarray) -> None:
    """Moving is enough; cheeks and eyes of a smile are the solver's."""
    assert starter.edit(closed, {"mouth_wide_open": 0.3}).iterations == 0
    assert starter.edit(closed, {"smiling": 0.3}, iterations=FEW).iterations == FEW


def test_outside_its_patch_nothing_changes(starter: Editor, closed: np.ndarray) -> None:
    result = starter.edit(closed, {"smiling": 0.3, "eyeglasses": 0.3, "mustache": 0.3}, iterations=FEW).patch
    untouched = np.ones(closed.shape[:2], bool)
    x, y, width, height = result.box
    untouched[y : y + height, x : x + width] = result.mask == 0
    assert untouched.any()
    assert (composite(closed, result) == closed)[untouched].all()


def test_progress_counts_to_its_end(starter: Editor, closed: np.ndarray) -> None:
    states: list[Progress] = []
    starter.edit(closed, {"smiling": 0.3, "eyeglasses": 0.3}, iterations=FEW, progress=states.append)
    assert all(a.iteration <= b.iteration <= b.iterations for a, b in pairwise(states))
    assert states[-1].iterations > FEW  # the glasses' own come on top


def test_it_can_be_cancelled_while_glasses_are_painted(starter: Editor, closed: np.ndarray) -> None:
    asked = iter(range(1000))
    refusal(lambda: starter.edit(closed, {"eyeglasses": 0.3}, cancelled=lambda: next(asked) > 2), ErrorCode.CANCELLED)


def test_a_sweep_gives_what_single_edits_give(starter: Editor, closed: np.ndarray) -> None:
    settings = [{"mouth_wide_open": 0.4}, {"mouth_wide_open": 0.2}, {"smiling": -0.3}]
    swept = starter.sweep(closed, settings, iterations=FEW)
    for setting, one in zip(settings, swept, strict=True):
        single = starter.edit(closed, setting, iterations=FEW)
        assert composite(closed, one.patch).astype(int) == pytest.approx(
            composite(closed, single.patch).astype(int), abs=1
        )


def test_a_weaker_smile_of_a_sweep_has_its_cheeks_too(
    starter: Editor, closed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts from the stronger one's solution, though that left another part of the face alone."""
    _, swept = starter.sweep(closed, [{"smiling": 0.4}, {"smiling": 0.25}])
    single = starter.edit(closed, {"smiling": 0.25})
    monkeypatch.setattr(starter.stage, "led", False)  # or one iteration would be most of the way
    moved = starter.edit(closed, {"smiling": 0.25}, iterations=1)
    result, wanted, little = (composite(closed, e.patch).astype(float) for e in (swept, single, moved))
    assert np.abs(result - wanted).mean() < 0.5 * np.abs(little - wanted).mean()


@pytest.mark.parametrize("alphas", [{"smiling": 0.4, "eyeglasses": 0.4}, {"mustache": 0.5}, {"mouth_wide_open": 0.4}])
def test_black_and_white_stays_so(alphas: dict[str, float], starter: Editor, closed: np.ndarray) -> None:
    gray = np.repeat(closed.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    result = edited(starter, gray, **alphas)
    assert (result != gray).any()
    assert np.ptp(result.astype(int), axis=2).max() == 0


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_photo_on_its_side_gets_the_same_smile(quarter_turns: int, starter: Editor, closed: np.ndarray) -> None:
    upright = edited(starter, closed, mouth_wide_open=0.4).astype(int)
    turned = edited(starter, np.ascontiguousarray(np.rot90(closed, quarter_turns)), mouth_wide_open=0.4)
    difference = np.abs(np.rot90(turned, -quarter_turns).astype(int) - upright)
    changed = np.abs(upright - closed.astype(int)).max(axis=2) > 30
    assert changed.sum() > 500
    assert np.median(difference[changed]) < 12


def test_eyes_stay_sharp_behind_glasses(starter: Editor, closed: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def fine(photo: np.ndarray) -> np.ndarray:
        light = photo.mean(axis=2).astype(np.float32)
        (face,) = starter.faces(closed)
        left, right = ((face.landmarks[i] + face.landmarks[i + 1]) / 2 for i in (0, 2))  # the eyes' middles
        parts = []
        for x, y in np.rint([left, right]).astype(int):
            eye = light[y - 15 : y + 16, x - 25 : x + 26]
            parts.append((eye - cv2.GaussianBlur(eye, (0, 0), 3)).ravel())
        return np.concatenate(parts)

    likeness = []
    for _ in range(2):  # with portraits, then without
        result = composite(closed, starter.edit(closed, {"eyeglasses": 0.35}).patch)
        likeness.append(np.corrcoef(fine(result), fine(closed))[0, 1])
        monkeypatch.setattr(starter, "_detailer", None)
    assert likeness[0] > max(0.75, likeness[1] + 0.02)


def test_glasses_end_at_the_ears(starter: Editor, closed: np.ndarray) -> None:
    """Nothing beside the face changes: portraits with glasses show ears more often, which no one asked for."""
    glasses = composite(closed, starter.edit(closed, {"eyeglasses": 0.4}).patch)
    columns = np.flatnonzero((glasses != closed).any(axis=(0, 2)))
    (face,) = starter.faces(closed)
    outer_corners = face.landmarks[[0, 2], 0]
    apart = np.ptp(outer_corners)
    assert columns.min() > outer_corners.min() - apart / 2
    assert columns.max() < outer_corners.max() + apart / 2


@pytest.mark.usefixtures("no_portraits")
@pytest.mark.parametrize("name", ["smiling", "mouth_wide_open", "eyeglasses", "mustache"])
def test_without_portraits_edits_are_made_by_the_solver_alone(name: str, starter: Editor, closed: np.ndarray) -> None:
    made = starter.edit(closed, {name: 0.4}, iterations=FEW)
    assert made.iterations == FEW
    assert np.abs(composite(closed, made.patch).astype(int) - closed).max() > 20


def test_a_damaged_detail_file_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "starter"
    shutil.copytree(paths.STARTER, folder)
    content = (folder / "detail.safetensors").read_bytes()
    (folder / "detail.safetensors").write_bytes(content[:1000])
    monkeypatch.setattr(paths, "STARTER", folder)
    starter = Editor("starter", device="cpu")
    for _ in range(2):
        made = starter.edit(closed, {"eyeglasses": 0.4}, iterations=FEW)
        assert made.iterations == FEW
    assert len(caplog.records) == 1
    assert "glasses" in caplog.text


def test_small_faces_come_out_as_before(starter: Editor, closed: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.asarray(Image.fromarray(closed).resize((200, 200), Image.Resampling.BOX))
    now = edited(starter, small, smiling=0.4, eyeglasses=0.3)
    monkeypatch.setattr(edit, "load_portraits", lambda: None)
    assert (edited(starter, small, smiling=0.4, eyeglasses=0.3) == now).all()


def test_a_preview_moves_the_mouth_too(closed: np.ndarray) -> None:
    medium = np.asarray(Image.fromarray(closed).resize((400, 400), Image.Resampling.BOX))
    previewer = Editor(paths.PREVIEW, device="cpu")
    assert previewer.edit(medium, {"mouth_wide_open": 0.4}).iterations == 0
    assert previewer._detailer is None


def test_all_that_ships_is_small() -> None:
    files = [*paths.PORTRAITS.rglob("*"), paths.STARTER / "detail.safetensors"]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 60e6
    card = (paths.PORTRAITS / "README.md").read_text()
    assert all(word in card for word in ("SFHQ", "MIT", "public domain", "do not exist"))
