"""Find the faces in a photograph and their landmarks, and align them to LFW's frame.

Faces are found by dlib's HOG detector (King, "Max-margin object detection", arXiv 1502.00046), which is part of dlib;
landmarks by dlib's five-point shape predictor (Kazemi & Sullivan, CVPR 2014; CC0), whose file lies in predictor/.
Nothing is downloaded.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import dlib
import numpy as np
from PIL import Image

from dfi_server.face import layout
from dfi_server.face.frame import Frame, scale_of, warp
from dfi_server.photo.pixels import Box, Pixels, to_picture, to_unit

LANDMARKS = ("right eye, outer", "right eye, inner", "left eye, outer", "left eye, inner", "base of the nose")
"""The five points, "left" and "right" as in the picture: the first is on its right."""

_PREDICTOR = Path(__file__).parent / "predictor" / "shape_predictor_5_face_landmarks.dat"
_TILTS = (-30.0, 30.0)  # degrees; the detector itself knows faces tilted by up to some 20
_TURNS = (72.0, 108.0, 144.0, 180.0, 216.0, 252.0, 288.0)  # the rest of the circle, for photos that lie on their side
_DETECTOR_SIDE = 80  # the smallest face that the detector sees, in pixels
_SMALLEST = 40  # the smallest face that is looked for, in photo pixels
_UPRIGHT_PIXELS = 4e6  # searched upright; a megapixel takes 0.1 s
_TILTED_PIXELS = 1.5e6  # searched at each tilt; and at each turn, where there is no upright face
_TURNED_SIDES = 2700  # width and height together: a turned panorama needs far more pixels than it has
_TURNED_PIXELS = 0.1e6  # searched at each turn beside an upright face
_GLANCE_PIXELS = 0.5e6  # searched upright and tilted for one large, clear face
_LAST_SEARCH_PIXELS = 24e6  # searched upright where nothing was found: small faces in a large photo
_GLANCE_SIDE = 128  # about as many pixels to a side tell a photo's contrast
_CLEARLY_LARGEST = 0.9  # the next face's size, as a fraction, up to which a glance tells which is the largest
_CANDIDATE_SCORE = -0.2
_ACCEPTED_SCORE = 0.25  # on the aligned face; 1 % of LFW's photos score less than 0.14, 5 % less than 0.76
_COVERED_SCORES = -1.0, -0.7  # of a candidate and of a face with a hole in it: a missing quarter takes off 1 to 2
_DOUBTFUL_SCORE, _SURE_SCORE = 0.5, 1.0  # below the first nothing counts beside a face above the second

# The detector's median rectangle over 300 LFW photos: where the predictor expects a face that is already aligned.
_LFW_RECTANGLE = np.array([77.0, 89.0, 181.0, 189.0])
_TAIL = 5  # per cent of a face's pixels that are darker, or brighter, than what counts for its contrast
_WEAK, _USUAL = 0.4, 0.56  # contrast of brightness, in units of white: a tenth of LFW's faces have less, half of them
_REFINEMENTS, _COVERED_REFINEMENTS = 2, 4
_CHIP = 2  # aligned faces are looked at in twice LFW's size: the predictor answers in whole pixels


@dataclass(frozen=True)
class Face:
    """A face in a photo: its box, its landmarks (5, 2) in photo pixels, and how sure the detector is (0.25 up)."""

    box: Box
    landmarks: np.ndarray
    score: float


def find_faces(photo: Pixels, canonical: np.ndarray) -> list[Face]:
    """Every face at least 40 pixels tall, at any angle, largest first.

    `canonical`: the landmarks' places in LFW's 250x250 layout, (5, 2). In photos of more than 4 megapixels small faces
    are looked for only where no large one is found. Beside an upright face those turned by more than 45 degrees are
    found if they are large: a quarter of the photo.
    """
    picture = _scaled(photo, photo, _UPRIGHT_PIXELS)
    # an enlarged copy says no more than the photo
    coarse = np.asarray(picture) if picture.width < photo.shape[1] else photo
    found = list(_search(photo, coarse, picture, 0, canonical))
    picture = _scaled(photo, coarse, _TILTED_PIXELS)
    for tilt in _TILTS:
        found += _search(photo, coarse, picture, tilt, canonical)
    found += _turned(photo, coarse, found, canonical)
    if not found and photo.shape[0] * photo.shape[1] * (_DETECTOR_SIDE / _SMALLEST) ** 2 > _UPRIGHT_PIXELS:
        found += _search(photo, coarse, _scaled(photo, photo, _LAST_SEARCH_PIXELS), 0, canonical)
    if not found:
        found += _search(photo, coarse, _equalised(picture), 0, canonical)
    kept: list[Face] = []
    for face in sorted(found, key=lambda face: -face.score):
        doubtful = face.score < _DOUBTFUL_SCORE and kept and kept[0].score > _SURE_SCORE
        if not doubtful and not any(_same(face, other) for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.box[2])


def find_largest(photo: Pixels, canonical: np.ndarray) -> list[Face]:
    """The first of `find_faces` or none, in a fraction of the time where it is large and clear.

    A small copy of the photo shows every face that is larger than the one found in it.
    """
    picture = _scaled(photo, photo, min(_GLANCE_PIXELS, photo.shape[0] * photo.shape[1]))
    coarse = np.asarray(picture)
    found = [face for tilt in (0, *_TILTS) for face in _search(photo, coarse, picture, tilt, canonical)]
    if _clearly_largest(found):
        found += _turned(photo, coarse, found, canonical)
        if largest := _clearly_largest(found):
            return [largest]
    return find_faces(photo, canonical)[:1]


def _clearly_largest(found: Sequence[Face]) -> Face | None:
    """The best view of the largest face, if it is sure and no other comes near it."""
    clear = [face for face in found if face.score > _SURE_SCORE]
    if not clear:
        return None
    largest = max(clear, key=lambda face: face.box[2])
    views = [face for face in found if _same(face, largest)]
    rival = max((face.box[2] for face in found if not _same(face, largest)), default=0)
    return max(views, key=lambda face: face.score) if rival <= _CLEARLY_LARGEST * largest.box[2] else None


def _turned(photo: Pixels, coarse: Pixels, upright: Sequence[Face], canonical: np.ndarray) -> list[Face]:
    """Faces at the other angles: beside `upright` ones those that are sure, and beside sure ones large ones only."""
    sure = any(face.score > _SURE_SCORE for face in upright)
    picture = _scaled(photo, coarse, _TURNED_PIXELS if sure else _TILTED_PIXELS)
    found = [face for turn in _TURNS for face in _search(photo, coarse, picture, turn, canonical)]
    return [face for face in found if face.score > _SURE_SCORE or not upright]


def find_covered(photo: Pixels, canonical: np.ndarray, hole: np.ndarray) -> list[Face]:
    """Upright and tilted faces of which a part is missing, the surest first; some of them may be no faces.

    `hole`: (H, W) bool, what is missing. There the face's other half is looked at, and landmarks are where the others
    let expect them, if two of these or more are seen.
    """
    picture = _scaled(photo, photo, _TILTED_PIXELS)
    coarse = np.asarray(picture) if picture.width < photo.shape[1] else photo
    mask = np.where(hole, np.uint8(255), np.uint8(0))[..., None]
    found = [
        face
        for tilt in (0, *_TILTS)
        for face in _search(photo, coarse, picture, tilt, canonical, _COVERED_SCORES, mask)
    ]
    return sorted(found, key=lambda face: -face.score)


def align(landmarks: np.ndarray, canonical: np.ndarray) -> Frame:
    """The frame whose similarity brings LFW's `canonical` landmarks nearest to `landmarks`, by least squares.

    With points as complex numbers a similarity is z -> a z + b, so this is a linear fit (Umeyama's solution without
    reflection, IEEE PAMI 13(4), 1991, in the plane).
    """
    return Frame.of_lfw_similarity(_similarity(canonical, landmarks))


def overlap(first: Box, second: Box) -> float:
    """The area that two boxes share, as a fraction of the smaller one's."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0) / min(first[2] * first[3], second[2] * second[3])


def lfw_landmarks(photo: np.ndarray) -> np.ndarray:
    """The landmarks (5, 2) of a photo in LFW's layout, (250, 250, 3) uint8. A store keeps their medians over LFW."""
    return _points(_predictor()(photo, dlib.rectangle(*map(round, _LFW_RECTANGLE))))


def _search(
    photo: Pixels,
    coarse: Pixels,
    picture: Image.Image,
    tilt: float,
    canonical: np.ndarray,
    scores: tuple[float, float] = (_CANDIDATE_SCORE, _ACCEPTED_SCORE),
    hole: np.ndarray | None = None,
) -> Iterator[Face]:
    """Faces that the detector finds in `picture`, a scaled copy of the photo, turned by `tilt` degrees.

    `coarse`: the photo, or a smaller copy to look closer at large faces. `scores`: the least of a candidate, and of a
    face. `hole`: (H, W, 1) uint8, 255 where a part of the photo is missing.
    """
    if tilt and (shrink := _TURNED_SIDES / (picture.width + picture.height)) < 1:
        size = (max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink)))
        picture = picture.resize(size, Image.Resampling.BOX)
    turned = picture.rotate(tilt, Image.Resampling.BILINEAR, expand=True) if tilt else picture
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    back = np.array([[cos, -sin], [sin, cos]])
    scale = photo.shape[1] / picture.width
    pixels = np.asarray(turned)
    rectangles, _, _ = _detector().run(pixels, 0, scores[0])
    for rectangle in rectangles:
        points = _guess(pixels, rectangle) - np.array(turned.size) / 2
        face = _refine(
            photo, coarse, (points @ back.T + np.array(picture.size) / 2) * scale, canonical, scores[1], hole
        )
        if face is not None:
            yield face


def _scaled(photo: Pixels, source: Pixels, pixels: float) -> Image.Image:
    """A copy of the photo for the detector, RGB, of at most so many pixels; `source`: the photo or a copy of it."""
    height, width = photo.shape[:2]
    scale = min(math.sqrt(pixels / (width * height)), _DETECTOR_SIDE / _SMALLEST)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if size[0] < source.shape[1] else cv2.INTER_CUBIC
    step = max(1, round(source.shape[1] / _GLANCE_SIDE))
    glance = to_unit(source[::step, ::step])
    if in_good_light(glance, glance) is not glance:  # too dark or hazy for the 8 bits of a picture
        source = in_good_light(np.clip(to_unit(source), 0, 1), glance)
    return to_picture(cv2.resize(source, size, interpolation=method).reshape(size[1], size[0], -1))


def _equalised(picture: Image.Image) -> Image.Image:
    """With the same contrast everywhere: a face against the light is seen."""
    light = cv2.createCLAHE(clipLimit=8, tileGridSize=(8, 8)).apply(np.asarray(picture.convert("L")))
    return Image.fromarray(light).convert("RGB")


def _refine(
    photo: Pixels,
    coarse: Pixels,
    points: np.ndarray,
    canonical: np.ndarray,
    least: float = _ACCEPTED_SCORE,
    hole: np.ndarray | None = None,
) -> Face | None:
    """Landmarks found again on the aligned face, until face and frame agree; None if that is no face after all."""
    to_coarse = np.diag(np.divide(coarse.shape[1::-1], photo.shape[1::-1]))
    side = _CHIP * layout.PHOTO_SIZE
    rectangle = dlib.rectangle(*map(round, _CHIP * _LFW_RECTANGLE))
    for _ in range(_REFINEMENTS if hole is None else _COVERED_REFINEMENTS):
        points = points if hole is None else _uncovered(points, canonical, hole)
        similarity = _similarity(canonical, points)
        to_photo = similarity @ np.diag([1 / _CHIP, 1 / _CHIP, 1])
        on_coarse = to_coarse @ to_photo
        if scale_of(on_coarse) >= 1:  # fine enough, and quicker
            chip = _picture(coarse, on_coarse, (side, side))
        else:
            chip = _picture(photo, to_photo, (side, side))
        if hole is not None:
            chip = _completed(chip, warp(hole, to_photo, (side, side))[..., 0] > 0)
        points = _points(_predictor()(chip, rectangle)) @ to_photo[:, :2].T + to_photo[:, 2]
    small = np.asarray(Image.fromarray(chip).resize((layout.PHOTO_SIZE, layout.PHOTO_SIZE), Image.Resampling.BOX))
    rectangles, scores, _ = _detector().run(small, 0, least)
    centre = _LFW_RECTANGLE.reshape(2, 2).mean(axis=0)
    near = [
        score
        for found, score in zip(rectangles, scores, strict=True)
        if np.hypot(found.center().x - centre[0], found.center().y - centre[1]) < 25
    ]
    if not near:
        return None
    points = points if hole is None else _uncovered(points, canonical, hole)
    similarity = _similarity(canonical, points)
    middle = similarity[:, :2] @ centre + similarity[:, 2]
    side_in_photo = np.ptp(_LFW_RECTANGLE.reshape(2, 2), axis=0).max() * math.sqrt(np.linalg.det(similarity[:, :2]))
    x, y = (round(value - side_in_photo / 2) for value in middle)
    return Face((x, y, round(side_in_photo), round(side_in_photo)), points, max(near))


def _completed(chip: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """An aligned face with its other half in the hole, as far as that is seen."""
    return np.where((hole & ~hole[:, ::-1])[..., None], chip[:, ::-1], chip)


def _uncovered(points: np.ndarray, canonical: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The points, those in the hole where the others say that they are."""
    x, y = np.clip(points.astype(int), 0, np.array(hole.shape[1::-1]) - 1).T
    seen = hole[y, x, 0] == 0
    if seen.all() or seen.sum() < 2:
        return points
    similarity = _similarity(canonical[seen], points[seen])
    return np.where(seen[:, None], points, canonical @ similarity[:, :2].T + similarity[:, 2])


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that maps `source` points (N, 2) nearest to `target` points, by least squares."""
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    a = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean()).real
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def _same(face: Face, other: Face) -> bool:
    """Whether both are views of one face: at one place, or one of them lies across the other."""
    centres = [np.mean(f.landmarks, axis=0) for f in (face, other)]
    if np.hypot(*(centres[0] - centres[1])) < 0.5 * max(face.box[2], other.box[2]):
        return True
    eyes = [f.landmarks[0] - f.landmarks[2] for f in (face, other)]
    across = eyes[0] @ eyes[1] < 0.5 * np.hypot(*eyes[0]) * np.hypot(*eyes[1])  # by more than 60 degrees
    return bool(across and overlap(face.box, other.box) > 0.3)


def _guess(pixels: np.ndarray, rectangle: dlib.rectangle) -> np.ndarray:
    """First landmarks (5, 2) of a face where the detector found one."""
    margin = rectangle.width() // 2  # the predictor looks beyond the rectangle
    left, top = max(0, rectangle.left() - margin), max(0, rectangle.top() - margin)
    around = pixels[top : rectangle.bottom() + margin, left : rectangle.right() + margin]
    inside = dlib.translate_rect(rectangle, dlib.point(-left, -top))
    face = around[max(0, inside.top()) : inside.bottom(), max(0, inside.left()) : inside.right()]
    lit = np.rint(255 * in_good_light(to_unit(around), to_unit(face))).astype(np.uint8)
    return np.asarray(_points(_predictor()(lit, inside)) + np.array([left, top]))


def _picture(photo: Pixels, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the predictor sees: (H, W, 3) uint8 of `size` (width, height); `matrix` maps its pixels to the photo's."""
    pixels = warp(photo, matrix, size)
    left, top, right, bottom = np.rint(_LFW_RECTANGLE * size[0] / layout.PHOTO_SIZE).astype(int)
    pixels = np.rint(in_good_light(pixels, pixels[top:bottom, left:right]) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def in_good_light(pixels: np.ndarray, face: np.ndarray) -> np.ndarray:
    """`pixels` (H, W, C) in [0, 1]; where the part of them that is a face has little contrast, with as much as usual.

    The predictor compares absolute differences of brightness.
    """
    low, high = np.percentile(face.mean(axis=2), (_TAIL, 100 - _TAIL))
    if high - low >= _WEAK:
        return pixels
    return np.asarray(np.clip(0.5 + (pixels - (low + high) / 2) * (_USUAL / max(high - low, 1e-3)), 0, 1))


def _points(shape: "dlib.full_object_detection") -> np.ndarray:
    """Landmarks as (5, 2), in coordinates where a pixel's centre is at .5."""
    return np.array([(point.x + 0.5, point.y + 0.5) for point in shape.parts()])


@functools.cache
def _detector() -> "dlib.fhog_object_detector":
    return dlib.get_frontal_face_detector()


@functools.cache
def _predictor() -> "dlib.shape_predictor":
    return dlib.shape_predictor(str(_PREDICTOR))
