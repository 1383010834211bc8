"""The way into the face frame and back: exact where nothing changes, at the photo's own resolution and depth."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face import paste as paste_module
from dfi_server.face.frame import Frame, cut, soften, warp
from dfi_server.face.paste import paste
from dfi_server.photo.pixels import Box, composite
from dfi_server.solver.change import Change

SIDE = layout.FRAME_SIZE


def change(motion: tuple[float, float] = (0.0, 0.0), residual: float = 0.0, place: float = 1.0) -> Change:
    """The same displacement, residual and place at each pixel of the frame."""
    return Change(
        torch.tensor(motion, dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, SIDE, SIDE),
        torch.full((1, 3, SIDE, SIDE), residual),
        torch.full((1, 1, SIDE, SIDE), place),
    )


def textured(height: int, width: int, channels: int, dtype: str) -> np.ndarray:
    unit = np.random.default_rng(5).random((height, width, channels), dtype=np.float32)
    return unit if dtype == "float32" else (unit * np.iinfo(dtype).max).astype(dtype)


boxes = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(16, 60), st.integers(16, 60))


@settings(max_examples=25, deadline=None)
@given(box=boxes, channels=st.sampled_from([1, 3]), dtype=st.sampled_from(["uint8", "uint16", "float32"]))
def test_no_change_leaves_every_pixel(box: Box, channels: int, dtype: str) -> None:
    photo = textured(100, 100, channels, dtype)
    frame = Frame.of_box(box, (100, 100))
    patch = paste(photo, frame, cut(photo, frame), change())
    assert patch.pixels.dtype == photo.dtype
    assert patch.box == box
    if dtype == "float32":
        np.testing.assert_allclose(composite(photo, patch), photo, atol=1e-6)
    else:
        np.testing.assert_array_equal(composite(photo, patch), photo)


@settings(max_examples=25, deadline=None)
@given(
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.1, 3),
    x=st.floats(-50, 150),
    y=st.floats(-50, 150),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_outside_the_frame_is_bit_identical(angle: float, scale: float, x: float, y: float, dtype: str) -> None:
    photo = textured(120, 90, 3, dtype)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    frame = Frame(np.array([[cos, -sin, x], [sin, cos, y]]))
    left, top, width, height = frame.bounds((90, 120))
    if width == 0 or height == 0:
        return
    patch = paste(photo, frame, cut(photo, frame), change((3, -2), 0.3))
    edited = composite(photo, patch)
    changed = (edited != photo).any(axis=2)
    assert not changed[:top].any()
    assert not changed[top + height :].any()
    assert not changed[:, :left].any()
    assert not changed[:, left + width :].any()


@given(box=boxes)
def test_a_box_and_its_frame_are_the_same_place(box: Box) -> None:
    frame = Frame.of_box(box, (100, 100))
    assert frame.bounds((100, 100)) == box
    corners = np.array([[0, SIDE, SIDE / 2], [0, 0, SIDE / 3], [1, 1, 1]])
    there = np.vstack([frame.matrix @ corners, [1, 1, 1]])
    np.testing.assert_allclose(frame.inverse() @ there, corners[:2], atol=1e-9)


@pytest.mark.parametrize("box", [(-40, 0, 50, 50), (90, 0, 50, 50), (0, 90, 50, 50), (0, 0, 15, 50), (0, 0, 50, 0)])
def test_a_box_that_is_not_in_the_photo_is_refused(box: Box) -> None:
    with pytest.raises(DFIError) as raised:
        Frame.of_box(box, (100, 100))
    assert raised.value.code == ErrorCode.BAD_BOX


def test_cut_sees_lfws_photos_as_building_does() -> None:
    photo = np.asarray(Image.fromarray(textured(25, 25, 3, "uint8")).resize((250, 250), Image.Resampling.BICUBIC))
    frame = Frame.of_box(layout.FRAME_BOX, (250, 250))
    seen = cut(photo, frame)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(seen - layout.to_frame(photo)).mean() < 1


def test_a_finer_photo_is_averaged_not_picked() -> None:
    """Stripes finer than the frame come out gray, not as moire."""
    stripes = np.zeros((800, 800, 1), dtype=np.uint8)
    stripes[:, ::2] = 255
    seen = cut(stripes, Frame.of_box((0, 0, 800, 800), (800, 800)))
    assert (seen - 0.5).abs().max() < 0.02


def test_softening_takes_away_only_what_lfw_does_not_have() -> None:
    coarse = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    shapes = F.interpolate(coarse, size=SIDE, mode="bicubic").clamp(0, 1)
    stripes = torch.zeros(1, 3, SIDE, SIDE)
    stripes[..., ::2] = 0.2
    assert (soften(shapes) - shapes).norm() < 0.1 * (shapes - shapes.mean()).norm()
    assert soften(stripes).std() < 0.4 * stripes.std()


def test_motion_moves_the_photos_own_detail() -> None:
    """Two frame pixels to the right are eight photo pixels; grain is neither blurred nor doubled."""
    photo = textured(800, 800, 3, "uint8")
    frame = Frame.of_box((0, 0, 800, 800), (800, 800))
    patch = paste(photo, frame, cut(photo, frame), change((2, 0)))
    np.testing.assert_array_equal(patch.pixels[:, :700], photo[:, 8:708])


def test_new_structure_replaces_old_lines_but_not_grain_and_shading_replaces_nothing() -> None:
    """A bright line finer than the frame goes where stripes are painted over it; skin texture stays everywhere."""
    photo = 0.4 + 0.04 * textured(800, 800, 3, "float32")
    photo[396:398] = 0.8
    frame = Frame.of_box((0, 0, 800, 800), (800, 800))
    plain = change(residual=0.2)
    stripes = change()
    stripes = Change(stripes.motion, stripes.residual.clone(), stripes.place)
    stripes.residual[..., ::6] = 0.5

    def grain_and_line(each: Change) -> tuple[float, float]:
        pixels = paste(photo, frame, cut(photo, frame), each).pixels[300:500, 300:500]
        rows = pixels - np.delete(pixels, slice(80, 115), axis=0).mean(axis=0)  # what is not the stripes
        return float(rows[:80].std()), float(rows[96:98].mean())

    grain, line = grain_and_line(change())
    assert grain_and_line(plain) == pytest.approx((grain, line), rel=1e-3)
    painted_grain, painted_line = grain_and_line(stripes)
    assert painted_grain > 0.7 * grain
    assert painted_line < 0.55 * line  # the rest is what the frame itself holds of it


def test_what_is_painted_dark_keeps_the_skins_hue_unless_it_is_a_stronger_colour() -> None:
    """A mustache on warm skin is a dark brown, whatever the solver makes it; painted lips are as red as it says."""
    skin = np.array([0.8, 0.55, 0.45], dtype=np.float32)
    photo = np.tile(skin, (400, 400, 1))
    frame = Frame.of_box((0, 0, 400, 400), (400, 400))

    def painted(wanted: tuple[float, float, float]) -> np.ndarray:
        """The pixel in the middle of a spot of the colour wanted."""
        spot = change()
        residual = torch.zeros(1, 3, SIDE, SIDE)
        residual[..., 80:120, 70:130] = (torch.tensor(wanted) - torch.from_numpy(skin)).view(1, 3, 1, 1)
        patch = paste(photo, frame, cut(photo, frame), Change(spot.motion, residual, spot.place))
        return patch.pixels[200 - patch.y, 200 - patch.x]

    red, green, blue = painted((0.2, 0.3, 0.2))
    assert red > green > blue  # a hue between red and yellow, as skin has
    np.testing.assert_allclose(painted((0.6, 0.2, 0.2)), (0.6, 0.2, 0.2), atol=0.06)
    np.testing.assert_allclose(painted((0.9, 0.88, 0.86)), (0.9, 0.88, 0.86), atol=0.06)  # teeth are brighter: white


def test_painted_edges_get_as_sharp_as_the_photo() -> None:
    """A painted edge, soft in the frame, falls over fewer photo pixels than plain interpolation would give it."""
    photo = np.full((1600, 1600, 3), 0.4, dtype=np.float32)
    frame = Frame.of_box((0, 0, 1600, 1600), (1600, 1600))
    painted = change()
    edge = torch.sigmoid((torch.arange(SIDE) - SIDE / 2) / 1.5).expand_as(painted.residual)
    soft = F.interpolate(edge, scale_factor=8, mode="bicubic")[0, 0, 0].numpy() * 0.4 + 0.4
    line = paste(photo, frame, cut(photo, frame), Change(painted.motion, 0.4 * edge, painted.place)).pixels[800, :, 0]
    assert np.abs(np.diff(line)).max() > 1.3 * np.abs(np.diff(soft)).max()
    assert line.min() > 0.39 and line.max() < 0.81  # no halo


def test_a_face_at_the_photos_edge() -> None:
    photo = textured(100, 100, 3, "uint8")
    frame = Frame(np.array([[0.5, 0, -40.0], [0, 0.5, 60.0]]))
    patch = paste(photo, frame, cut(photo, frame), change((1, 1), 0.1))
    assert patch.box == (0, 60, 60, 40)


def test_strips_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = textured(300, 200, 3, "uint8")
    frame = Frame(np.array([[0.9, -0.2, 30.0], [0.2, 0.9, 10.0]]))
    generator = torch.Generator().manual_seed(0)
    bend = Change(
        torch.randn(1, 2, SIDE, SIDE, generator=generator),
        torch.rand(1, 3, SIDE, SIDE, generator=generator) * 0.2,
        torch.rand(1, 1, SIDE, SIDE, generator=generator),
    )
    whole = paste(photo, frame, cut(photo, frame), bend)
    monkeypatch.setattr(paste_module, "_STRIP", 37)
    strips = paste(photo, frame, cut(photo, frame), bend)
    assert np.abs(whole.pixels.astype(int) - strips.pixels).max() <= 1
    assert np.abs(whole.mask.astype(int) - strips.mask).max() <= 1


def test_beyond_the_edge_the_border_goes_on() -> None:
    photo = np.full((20, 20, 3), 90, dtype=np.uint8)
    seen = warp(photo, np.array([[1.0, 0, -10], [0, 1.0, -10]]), (40, 40))
    np.testing.assert_allclose(seen, 90 / 255, atol=1e-6)
