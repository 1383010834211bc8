"""Faces are found in real photographs, whatever their size, tilt, number and depth, and aligned to LFW's frame."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dfi_server.face.find import align, find_covered, find_faces, find_largest, overlap
from dfi_server.face.frame import Frame, cut

CANONICAL = np.array([[153.5, 113.5], [137.5, 113.5], [96.5, 114.5], [112.5, 114.5], [125.5, 144.5]])


@pytest.fixture(scope="module")
def landmarks(portrait: np.ndarray) -> np.ndarray:
    (face,) = find_faces(portrait, CANONICAL)
    return face.landmarks


def test_the_face_is_where_a_person_sees_it(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    (face,) = find_faces(portrait, CANONICAL)
    x, y, width, height = face.box
    assert 150 < x < 200
    assert 50 < y < 100
    assert 90 < width < 130
    assert width == height
    right_eye, left_eye, nose = landmarks[:2].mean(axis=0), landmarks[2:4].mean(axis=0), landmarks[4]
    assert right_eye[0] > nose[0] > left_eye[0]
    assert nose[1] > max(right_eye[1], left_eye[1])


def turned(photo: np.ndarray, points: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo turned counterclockwise, and where its points are then."""
    result = Image.fromarray(photo).rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray(result), (points - np.array(photo.shape[1::-1]) / 2) @ turn.T + np.array(result.size) / 2


@pytest.fixture(scope="module")
def half(portrait: np.ndarray) -> np.ndarray:
    """At half its size: a face of 55 pixels, searched in a quarter of the time."""
    return np.asarray(Image.fromarray(portrait).resize((256, 256), Image.Resampling.BOX))


@pytest.mark.parametrize("angle", [-150, -120, -75, -45, -25, 20, 45, 60, 110, 160, 90, 180, 270])
def test_a_face_at_any_angle_is_found_and_set_upright(portrait: np.ndarray, landmarks: np.ndarray, angle: int) -> None:
    """Tilted, lying on its side, or upside down, as scans are."""
    photo, expected = turned(portrait, landmarks, angle)
    (face,) = find_faces(photo, CANONICAL)
    assert np.abs(face.landmarks - expected).max() < 3
    upright = cut(portrait, align(landmarks, CANONICAL))
    again = cut(photo, align(face.landmarks, CANONICAL))
    middle = (..., slice(60, 180), slice(50, 150))
    assert (upright[middle] - again[middle]).abs().mean() < 0.04


@pytest.mark.parametrize("angle", [90, 250])
def test_a_lying_face_is_found_beside_an_upright_one(portrait: np.ndarray, angle: int) -> None:
    both = np.full((700, 900, 3), 128, dtype=np.uint8)
    both[100:420, :320] = Image.fromarray(portrait).resize((320, 320))
    lying, _ = turned(portrait[10:250, 105:345], np.zeros(2), angle)
    lying = np.asarray(Image.fromarray(lying).resize((480, 480)))
    both[120:600, 400:880] = lying
    assert [face.box[0] > 350 for face in find_faces(both, CANONICAL)] == [True, False]
    (largest,) = find_largest(both, CANONICAL)
    assert largest.box[0] > 350


def in_light(photo: np.ndarray, light: str) -> np.ndarray:
    """The same scene under a light in which 8 bits leave little of a face."""
    unit = photo / 255
    haze = 0.55 + 0.3 * unit
    across = np.abs(np.linspace(-1, 1, photo.shape[1]) - 0.1)[:, None]
    lit = {
        "a third": np.rint(0.3 * photo).astype(np.uint8),
        "a tenth": np.rint(0.1 * photo).astype(np.uint8),
        "a hundredth, 16 bits": np.rint(655.35 * unit).astype(np.uint16),
        "a thousandth, float": np.float32(0.001 * unit),
        "haze": np.rint(255 * haze).astype(np.uint8),
        "faded": np.rint(128 + 0.2 * (photo - 128.0)).astype(np.uint8),
        "against the light": np.rint(np.where(across < 0.45, 0.12 * photo, 255 * (0.75 + 0.2 * unit))).astype(np.uint8),
    }
    return lit[light]


@pytest.mark.parametrize(
    "light",
    ["a third", "a tenth", "a hundredth, 16 bits", "a thousandth, float", "haze", "faded", "against the light"],
)
def test_a_face_is_the_same_in_any_light(half: np.ndarray, landmarks: np.ndarray, light: str) -> None:
    (face,) = find_faces(in_light(half, light), CANONICAL)
    assert np.abs(face.landmarks - landmarks / 2).max() < 2  # of 55 pixels


@pytest.mark.parametrize("scale", [0.4, 2, 8])
def test_small_and_large_faces(portrait: np.ndarray, landmarks: np.ndarray, scale: float) -> None:
    """From 44 pixels to 880; the largest picture has 17 megapixels."""
    side = round(512 * scale)
    scaled = np.asarray(Image.fromarray(portrait).resize((side, side), Image.Resampling.BICUBIC))
    (face,) = find_faces(scaled, CANONICAL)
    assert np.abs(face.landmarks - landmarks * scale).max() < 4 * max(scale, 0.5)


def test_several_faces_come_largest_first(two_faces: np.ndarray) -> None:
    found = find_faces(two_faces, CANONICAL)
    assert [face.box[0] > 320 for face in found] == [True, False]
    assert found[0].box[2] > 1.3 * found[1].box[2]


def test_the_largest_face_alone_is_the_first_of_all(portrait: np.ndarray, two_faces: np.ndarray) -> None:
    for photo in (portrait, two_faces):
        first, *_ = find_faces(photo, CANONICAL)
        (alone,) = find_largest(photo, CANONICAL)
        assert np.abs(alone.landmarks - first.landmarks).max() < 0.03 * first.box[2]
    assert find_largest(np.zeros((300, 500, 3), np.uint8), CANONICAL) == []


def test_depth_and_colour_do_not_matter(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    gray = portrait.mean(axis=2, keepdims=True)
    for same in (
        portrait.astype(np.uint16) * 257,
        portrait.astype(np.float32) / 255,
        np.rint(gray).astype(np.uint8),
    ):
        (face,) = find_faces(same, CANONICAL)
        assert np.abs(face.landmarks - landmarks).max() < 3


@pytest.mark.slow
def test_no_face_is_made_up() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 400, dtype=np.uint8)
    pictures = [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((300, 500, 3), np.uint8),
        rng.integers(0, 256, (400, 400, 3), dtype=np.uint8),
        np.broadcast_to(ramp[:, None, None], (400, 400, 3)).copy(),
        np.zeros((2, 3000, 1), np.uint8),
    ]
    assert [find_faces(picture, CANONICAL) for picture in pictures] == [[]] * len(pictures)


@given(
    scale=st.floats(0.05, 30),
    angle=st.floats(-math.pi, math.pi),
    x=st.floats(-5000, 5000),
    y=st.floats(-5000, 5000),
)
def test_align_finds_the_similarity_that_moved_the_landmarks(scale: float, angle: float, x: float, y: float) -> None:
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    similarity = np.array([[cos, -sin, x], [sin, cos, y]])
    moved = CANONICAL @ similarity[:, :2].T + similarity[:, 2]
    frame = align(moved, CANONICAL)
    expected = Frame.of_lfw_similarity(similarity)
    np.testing.assert_allclose(frame.matrix, expected.matrix, atol=1e-6 * (abs(x) + abs(y) + 1000))


def test_overlap_counts_the_smaller_box() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (2, 2, 5, 5)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == 0.5
    assert overlap((0, 0, 10, 10), (10, 10, 5, 5)) == 0


@pytest.mark.parametrize("hidden", ["right eye", "left eye", "mouth"])
def test_a_face_with_a_hole_is_found_where_it_is(hidden: str, closed: np.ndarray) -> None:
    (face, *_) = find_largest(closed, CANONICAL)
    x, y, side, _ = face.box
    left, top = {"right eye": (0.5, 0.1), "left eye": (0.0, 0.1), "mouth": (0.25, 0.55)}[hidden]
    hole = np.zeros(closed.shape[:2], bool)
    hole[y + int(top * side) : y + int((top + 0.45) * side), x + int(left * side) : x + int((left + 0.5) * side)] = True
    damaged = np.where(hole[..., None], np.uint8(128), closed)
    found, *_ = find_covered(damaged, CANONICAL, hole)
    away = np.hypot(*(found.landmarks - face.landmarks).T)
    assert away.max() < 0.06 * side
