"""Maps of a face's frame lie on the photo where the face is, and say what an edit did."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dfi_server import explain
from dfi_server.edit import Editor
from dfi_server.explain import View
from dfi_server.face.frame import Frame
from dfi_server.face.solved import Solve, SolvedFace
from dfi_server.photo.pixels import Patch
from dfi_server.solver.change import Change

VIEW = View((100, 50, 600, 400), (300, 200))
NOTHING = Patch(0, 0, np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.uint8))


def tilted(angle: float, scale: float) -> Frame:
    """A frame around the middle of VIEW's box, turned by an angle in degrees."""
    cosine, sine = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return Frame(np.hstack([linear, (np.array([400, 250]) - linear @ (100, 100))[:, None]]))


@settings(deadline=None)
@given(
    angle=st.floats(-180, 180),
    scale=st.floats(0.8, 2),
    row=st.integers(3, 46),
    column=st.integers(3, 46),
)
def test_a_spot_of_a_map_lies_where_the_frame_is_in_the_photo(
    angle: float, scale: float, row: int, column: int
) -> None:
    frame = tilted(angle, scale)
    layer = np.zeros((50, 50, 1), np.float32)  # relu3_1's, of 200 pixels
    layer[row, column] = 1
    shown = VIEW.shows(layer, frame)[..., 0]
    x, y = frame.matrix @ (4 * (column + 0.5), 4 * (row + 0.5), 1)
    wanted = (x - 100) / 2, (y - 50) / 2
    if not (8 < wanted[0] < 292 and 8 < wanted[1] < 192):
        return
    weights = shown.clip(0) / shown.clip(0).sum()
    down, across = np.mgrid[:200, :300] + 0.5
    assert ((weights * across).sum(), (weights * down).sum()) == pytest.approx(wanted, abs=0.3)


def test_around_the_frame_there_is_nothing(face: np.ndarray) -> None:
    shown = VIEW.shows(np.ones((25, 25, 1), np.float32), tilted(0, 0.5))
    assert (
        shown[100, 150] == 1 and shown[5, 5] == 0 and shown.mean() == pytest.approx(0.5**2 * 200**2 / 240000, rel=0.1)
    )


@settings(deadline=None)
@given(angle=st.floats(-180, 180), scale=st.floats(0.8, 2))
def test_motion_is_in_photo_pixels_however_the_face_is_turned(angle: float, scale: float) -> None:
    frame = tilted(angle, scale)
    field = torch.zeros(1, 2, 200, 200)
    field[:, 0] = 3
    change = Change(field, torch.zeros(1, 3, 200, 200), torch.ones(1, 1, 200, 200))
    solved = SolvedFace(frame, NOTHING, None, [Solve(frame, {}, change, 1, 1, 0.0, ())] * 2, 0.0)
    x, y = explain.motion(solved, VIEW)[100, 150]
    wanted = 2 * 3 * scale * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    assert (x, y) == pytest.approx(tuple(wanted), abs=1e-3)


def test_energy_is_that_of_the_shift(tiny_home: Path, face: np.ndarray) -> None:
    editor = Editor("tiny", "cpu")
    edit = editor.edit(face, {"smiling": 0.4}, iterations=1)
    energy = explain.energy(editor, face, edit.faces[0].frame, {"smiling": 0.4})
    assert list(energy) == ["relu3_1", "relu4_1", "relu5_1"]
    for layer in energy.values():
        assert layer.sum() == pytest.approx(0.4**2, rel=0.02)


def test_an_edit_tells_how_it_came_about(tiny_home: Path, face: np.ndarray) -> None:
    edit = Editor("tiny", "cpu").edit(face, {"smiling": 0.4}, iterations=4)
    (solved,) = edit.faces
    (solve,) = solved.solves
    totals = [sum(each.layers) + each.variation for each in solve.losses]
    assert len(totals) == solve.iterations + 1 == 5
    assert totals[-1] == pytest.approx(solve.loss, rel=1e-4) and solve.loss == edit.loss
    assert totals == sorted(totals, reverse=True) and totals[0] > totals[-1]
    assert all(len(each.layers) == 3 for each in solve.losses)
