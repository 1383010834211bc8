"""Expressions on sharp faces: what a user sees of a smile, an open mouth, a closed one."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfi_server import paths
from dfi_server.face import expression, mouths
from dfi_server.face.expression import EXPRESSIONS, Expression, look
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import Frame, cut
from dfi_server.face.landmarks import find_landmarks
from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.face.lips import LOWER, UPPER, curve, openness
from dfi_server.face.portraits import Portraits, load_portraits
from dfi_server.face.spline import spline
from dfi_server.photo.pixels import composite
from dfi_server.vectors.store import open_store


@pytest.fixture(scope="module")
def portraits() -> Portraits:
    found = load_portraits()
    assert found is not None
    return found


def frame_of(photo: np.ndarray) -> Frame:
    canonical = open_store("starter").canonical_landmarks
    return align(find_largest(photo, canonical)[0].landmarks, canonical).of_size(DETAIL_FRAME_SIZE)


def express(photo: np.ndarray, frame: Frame, alphas: dict[str, float], portraits: Portraits) -> Expression | None:
    found = look(photo, frame, portraits)
    assert found
    return expression.express(photo, found, alphas, portraits)


def expressed(photo: np.ndarray, portraits: Portraits, **alphas: float) -> np.ndarray:
    made = express(photo, frame_of(photo), alphas, portraits)
    assert isinstance(made, Expression)
    return composite(photo, made.patch)


def seen(photo: np.ndarray, frame: Frame) -> np.ndarray:
    return cut(photo, frame)[0].permute(1, 2, 0).numpy()


def how_open(photo: np.ndarray, frame: Frame, portraits: Portraits) -> float:
    return openness(seen(photo, frame), find_landmarks(photo, frame), portraits.openness)


def mouth_width(photo: np.ndarray, frame: Frame) -> float:
    landmarks = find_landmarks(photo, frame)
    return float(np.hypot(*(landmarks[54] - landmarks[48])))


def lower_lip(photo: np.ndarray, frame: Frame) -> np.ndarray:
    """Its colour, (3,): between the inner and the outer contour, in the mouth's middle."""
    landmarks = find_landmarks(photo, frame)
    x, y = ((landmarks[66] + 2 * landmarks[57]) / 3).round().astype(int)
    return np.asarray(seen(photo, frame)[y - 2 : y + 3, x - 6 : x + 7].mean(axis=(0, 1)))


def test_it_tells_an_open_mouth_from_a_closed_one(closed: np.ndarray, toothy: np.ndarray, portraits: Portraits) -> None:
    assert how_open(closed, frame_of(closed), portraits) < 0
    assert how_open(toothy, frame_of(toothy), portraits) > 0.5


def test_a_smile_grows_with_alpha_and_shows_teeth(closed: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(closed)
    slight, broad = (expressed(closed, portraits, smiling=alpha) for alpha in (0.15, 0.4))
    widths = [mouth_width(photo, frame) for photo in (closed, slight, broad)]
    assert widths[0] + 2 < widths[1] < widths[2] - 2
    assert how_open(broad, frame, portraits) > 0.5
    landmarks = find_landmarks(broad, frame)
    x, y = landmarks[[*UPPER, *LOWER]].mean(axis=0).round().astype(int)
    between = seen(broad, frame)[y - 4 : y + 10, x - 14 : x + 15].reshape(-1, 3)
    teeth = between[between.mean(axis=1) > np.percentile(between.mean(axis=1), 85)]
    lip = lower_lip(broad, frame)
    assert teeth.mean() > 1.2 * lip.mean()
    assert np.ptp(teeth.mean(axis=0)) < 0.5 * np.ptp(lip)  # without the lip's colour


@pytest.mark.parametrize("alphas", [{"smiling": 0.35}, {"mouth_slightly_open": 0.35}, {"mouth_wide_open": 0.15}])
def test_lips_keep_their_colour(alphas: dict[str, float], closed: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(closed)
    after = lower_lip(expressed(closed, portraits, **alphas), frame)
    assert np.abs(after - lower_lip(closed, frame)).max() < 0.08


def test_an_open_mouth_opens_the_further_the_wider(closed: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(closed)
    gaps = []
    for alpha in (0.1, 0.25, 0.5):
        landmarks = find_landmarks(expressed(closed, portraits, mouth_wide_open=alpha), frame)
        gaps.append(landmarks[66, 1] - landmarks[62, 1])
    assert gaps[0] < gaps[1] < gaps[2]


def test_a_mouth_that_opens_wide_takes_the_jaw_along(closed: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(closed)
    before, after = (find_landmarks(p, frame) for p in (closed, expressed(closed, portraits, mouth_wide_open=0.4)))
    assert after[66, 1] - after[62, 1] > 0.25 * (after[54, 0] - after[48, 0])
    assert after[8, 1] - before[8, 1] > 5


@pytest.mark.parametrize("name", ["mouth_wide_open", "mouth_slightly_open"])
def test_a_closed_mouth_closes_no_further(name: str, closed: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(closed)
    before, after = (find_landmarks(p, frame) for p in (closed, expressed(closed, portraits, **{name: -0.4})))
    heights = [points[57, 1] - points[51, 1] for points in (before, after)]
    assert heights[1] > 0.7 * heights[0]


@pytest.mark.parametrize("alphas", [{"smiling": -0.45}, {"mouth_closed": 0.5}, {"teeth_not_visible": 0.6}])
def test_teeth_can_be_hidden(alphas: dict[str, float], toothy: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(toothy)
    before = how_open(toothy, frame, portraits)
    assert how_open(expressed(toothy, portraits, **alphas), frame, portraits) < before - 0.2


def test_a_smile_that_shows_teeth_keeps_them(toothy: np.ndarray, portraits: Portraits) -> None:
    """Their fine structure goes on: single teeth, moved."""
    frame = frame_of(toothy)
    more = seen(expressed(toothy, portraits, smiling=0.15), frame).mean(axis=2)
    landmarks = find_landmarks(toothy, frame)
    x, y = landmarks[[*UPPER, *LOWER]].mean(axis=0).round().astype(int)
    teeth = seen(toothy, frame).mean(axis=2)[y - 4 : y + 5, x - 20 : x + 21]
    match = cv2.matchTemplate(more[y - 14 : y + 15, x - 30 : x + 31], teeth, cv2.TM_CCOEFF_NORMED)
    assert match.max() > 0.7


def test_what_moves_nothing_is_none(closed: np.ndarray, portraits: Portraits) -> None:
    assert express(closed, frame_of(closed), {"senior": 0.4}, portraits) is None
    assert express(closed, frame_of(closed), {"smiling": 0.001}, portraits) is None


def test_what_is_no_face_keeps_its_pixels(portraits: Portraits) -> None:
    """A box around a wall: the landmarks' network answers all the same."""
    wall = np.random.default_rng(1).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    assert look(wall, Frame.of_box((50, 50, 500, 500), (600, 600)), portraits) is None


@pytest.mark.parametrize("kind", ["gray", "uint16", "float32"])
def test_every_kind_of_photo_gets_the_same_mouth(kind: str, closed: np.ndarray, portraits: Portraits) -> None:
    made = expressed(closed, portraits, smiling=0.35).astype(np.float32) / 255
    if kind == "gray":
        photo, scale = closed.mean(axis=2, keepdims=True).round().astype(np.uint8), 255.0
        made = made.mean(axis=2, keepdims=True)
    elif kind == "uint16":
        photo, scale = closed.astype(np.uint16) * 257, 65535.0
    else:
        photo, scale = (closed / 255).astype(np.float32), 1.0
    other = expressed(photo, portraits, smiling=0.35)
    assert other.dtype == photo.dtype
    assert np.abs(other / scale - made).mean() < 0.004


def test_black_and_white_stays_so(closed: np.ndarray, portraits: Portraits) -> None:
    gray = np.repeat(closed.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    made = expressed(gray, portraits, mouth_wide_open=0.4)
    assert (made != gray).any()
    assert np.ptp(made.astype(int), axis=2).max() == 0


def test_a_dark_photos_mouth_is_dark_too(closed: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(closed)
    dark = (closed * 0.15).round().astype(np.uint8)
    bright, dim = (express(photo, frame, {"smiling": 0.4}, portraits) for photo in (closed, dark))
    assert bright and dim
    ratio = composite(dark, dim.patch).astype(float).mean() / composite(closed, bright.patch).astype(float).mean()
    assert ratio == pytest.approx(0.15, rel=0.05)
    assert composite(dark, dim.patch).max() <= dark.max() + 8


def test_a_blurred_photo_gets_a_blurred_mouth(closed: np.ndarray, portraits: Portraits) -> None:
    frame = frame_of(closed)
    blurred = cv2.GaussianBlur(closed, (0, 0), 6)
    sharpness = []
    for photo in (closed, blurred):
        made = express(photo, frame, {"smiling": 0.4}, portraits)
        assert made
        face = seen(composite(photo, made.patch), frame).mean(axis=2)
        x, y = find_landmarks(composite(photo, made.patch), frame)[[*UPPER, *LOWER]].mean(axis=0).round().astype(int)
        mouth = face[y - 5 : y + 6, x - 30 : x + 31]
        sharpness.append(np.abs(np.diff(mouth, axis=1)).mean())
    assert sharpness[1] < 0.5 * sharpness[0]


coordinates = st.tuples(st.floats(60, 340), st.floats(60, 340))


@given(st.lists(coordinates, min_size=3, max_size=12), st.floats(-12, 12), st.floats(-12, 12))
def test_a_spline_takes_points_where_they_go(points: list[tuple[float, float]], dx: float, dy: float) -> None:
    source = np.empty((0, 2))
    for point in points:  # points on top of each other that part ways have no smooth motion
        if not len(source) or np.hypot(*(source - point).T).min() > 24:
            source = np.vstack([source, point])
    way = np.array([dx, dy])
    motion = spline(source, source + way)
    for x, y in source + way:
        found = motion[int(y), int(x)]
        assert np.hypot(*(found + way)) < 0.1 + 0.15 * np.hypot(dx, dy)
    sides = np.concatenate([motion[[0, -1]].reshape(-1, 2), motion[:, [0, -1]].reshape(-1, 2)])
    assert np.abs(sides).max() < 0.1 + 0.2 * np.hypot(dx, dy)


@given(st.floats(0.02, 0.5), st.floats(-0.1, 0.2), st.floats(20, 200), st.floats(-0.6, 0.6))
def test_a_gaps_measures_do_not_depend_on_place_and_tilt(
    height: float, bend: float, width: float, angle: float
) -> None:
    x = np.linspace(0, 1, 5)
    bulge = 4 * x * (1 - x)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upper, lower = np.stack([x, bend * bulge], axis=1), np.stack([x, (bend + height) * bulge], axis=1)
    plain = mouths.Gap(curve(upper), curve(lower))
    placed = mouths.Gap(curve(width * upper @ turn + 7), curve(width * lower @ turn + 7))
    assert placed.height == pytest.approx(plain.height, rel=0.02)
    assert placed.shape() == pytest.approx(plain.shape(), abs=0.01)
    assert plain.height == pytest.approx(height * 2 / 3, rel=0.15)


def test_every_mouth_shows_what_its_contours_say(portraits: Portraits) -> None:
    assert len(portraits.mouths) >= 10
    for mouth in portraits.mouths:
        gap = mouths.Gap(mouth.upper, mouth.lower)
        assert 0.02 < gap.height < 0.6
        for side in (mouth.upper, mouth.lower):
            assert (side >= 0).all() and (side < mouth.image.shape[1::-1]).all()
    assert set(EXPRESSIONS) <= set(portraits.landmark_vectors)


@pytest.mark.parametrize("harm", ["gone", "truncated", "no landmarks", "a mouth is missing", "not a picture"])
def test_without_their_files_there_are_no_portraits_and_one_warning(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "portraits"
    shutil.copytree(paths.PORTRAITS, folder)
    if harm == "gone":
        shutil.rmtree(folder)
    elif harm == "truncated":
        content = (folder / "pictures.safetensors").read_bytes()
        (folder / "pictures.safetensors").write_bytes(content[: len(content) // 2])
    elif harm == "no landmarks":
        (folder / "landmarks.safetensors").unlink()
    elif harm == "a mouth is missing":
        next((folder / "mouths").glob("*.jpg")).unlink()
    else:
        (folder / "beard.jpg").write_bytes(b"<html>")
    for _ in range(3):
        assert load_portraits(folder) is None
    assert len(caplog.records) == 1
    assert "Install the package again" in caplog.text
