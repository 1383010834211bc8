"""Lines of age as fine as the photo: LFW's vectors say how a face ages, but their photos show no wrinkle.

Who gets older keeps the lines there are, deeper, and gets those of a portrait (portraits/lines.png) where there are
none yet, carried over from its landmarks. Who gets younger loses what lines there are, not the pores.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from dfi_server.face.frame import Frame, sample, seen
from dfi_server.face.landmarks import BROWS, JAW, LIDS, NOSTRILS, OUTER_LIPS, find_landmarks, hull
from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.face.portraits import DEEPEST, LINES, Portraits, blur_of
from dfi_server.face.spline import carry
from dfi_server.photo.pixels import Patch, Pixels, brightness, from_unit, to_unit
from dfi_server.photo.tone import tone_of

ATTRIBUTES = {"senior": 1, "youth": -1, "child": -1, "baby": -1}
"""What brings lines, and with which sign."""

_FULL = 0.4  # the alpha at which the strengths below hold
_MOST = 1.5  # of that, however large alpha is
_DEEPER, _ADDED, _FADED = 0.5, 0.45, 0.65  # of the lines there are, of the portrait's, and what younger skin loses
_MANY, _SPARED = 0.05, 0.6  # contrast of skin that has lines enough, and what it is spared of the portrait's
_AROUND = 8.0  # frame pixels over which that contrast is told

_FINEST, _COARSEST = 0.7, 7.0  # frame pixels: what is finer is pores and grain, what is coarser is shading
_FINEST_FADED = 1.0  # pores lie on the edge of that, and stay
_DARK = 0.05  # in units of white: below, contrast is noise

_FOREHEAD = 0.62  # of the height from chin to eyes: how far above the brows a forehead reaches
_NARROWER = 0.9  # of the brows' width, up there
_INSIDE, _SOFT = 8, 3.0  # frame pixels: from the contour, and over which lines end
_APART = ((LIDS[0], 5), (LIDS[1], 5), (OUTER_LIPS, 8), (BROWS[0], 5), (BROWS[1], 5), (NOSTRILS, 6))
_CHEEKS = ([2, 31, 48], [14, 35, 54])  # the landmarks around them
_OTHER_COLOUR = 0.22  # distance of colour over brightness from the cheeks' that is no skin, to a third
_SHADE = (0.45, 0.65)  # of the cheeks' brightness: darker is hair


def ages(alphas: Mapping[str, float]) -> float:
    """How much older these attributes, all together, make a face: -_MOST to _MOST."""
    total = sum(sign * alphas.get(name, 0.0) for name, sign in ATTRIBUTES.items())
    return float(np.clip(total / _FULL, -_MOST, _MOST))


def change_lines(
    before: Pixels, after: Pixels, frame: Frame, alphas: Mapping[str, float], portraits: Portraits
) -> Patch | None:
    """The lines of `after` as deep as `alphas` ask for; landmarks are looked for `before`. None where no skin is."""
    frame = frame.of_size(DETAIL_FRAME_SIZE)
    landmarks = find_landmarks(before, frame)
    face = seen(after, frame)
    skin = skin_of(face, landmarks)
    left, top, across, down = cv2.boundingRect((skin > 0).astype(np.uint8))
    x, y, width, height = frame.bounds((after.shape[1], after.shape[0]), (left, top, across, down))
    if not (width and height):
        return None
    large = seen(after, frame.of_size(LINES.scale * DETAIL_FRAME_SIZE))
    older = ages(alphas)
    own = lines_of(large, _FINEST if older > 0 else _FINEST_FADED)
    change = older * (_DEEPER if older > 0 else _FADED) * own
    if older > 0:
        has = np.sqrt(cv2.GaussianBlur(own * own, (0, 0), _AROUND * LINES.scale))
        added = carry(portraits.lines, LINES, portraits.lines_landmarks, landmarks)
        if blur := blur_of(face, portraits):
            added = cv2.GaussianBlur(added, (0, 0), blur * LINES.scale)
        change += older * _ADDED * (1 - _SPARED * np.clip(has / _MANY, 0, 1)) * added
    change *= cv2.resize(skin, change.shape[::-1])
    to_frame = frame.inverse()
    to_frame[:, 2] += to_frame[:, :2] @ (x, y)
    relative = sample(change[..., None], LINES.scale * to_frame, (width, height))
    painted = to_unit(after[y : y + height, x : x + width]) * (1 + relative)
    if tone := tone_of(before):
        painted = tone.of(painted)
    mask = np.where(relative[..., 0] != 0, 255, 0).astype(np.uint8)
    return Patch(x, y, from_unit(painted, after.dtype), mask)


def skin_of(face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Where a face (400, 400, 3) has skin that may have lines, (400, 400) in [0, 1]."""
    middle = landmarks[27, 0]  # the root of the nose
    top = np.vstack([landmarks[brow] for brow in BROWS]) - (0, _FOREHEAD * (landmarks[8, 1] - landmarks[27, 1]))
    top[:, 0] = middle + _NARROWER * (top[:, 0] - middle)
    skin = cv2.erode(hull(np.vstack([landmarks[JAW], top])), _disc(_INSIDE))
    for part, grown in _APART:
        skin = skin * (1 - cv2.dilate(hull(landmarks[part]), _disc(grown)))
    cheeks = face[np.maximum(*(hull(landmarks[corners]) for corners in _CHEEKS)) > 0]
    soft = cv2.GaussianBlur(face, (0, 0), _SOFT)
    distance = np.linalg.norm(_colour(soft) - np.median(_colour(cheeks), axis=0), axis=-1)
    shade = soft.mean(axis=-1) / max(float(np.median(cheeks.mean(axis=-1))), _DARK)
    low, high = _SHADE
    skin = skin * np.exp(-((distance / _OTHER_COLOUR) ** 2)) * np.clip((shade - low) / (high - low), 0, 1)
    return np.asarray(cv2.GaussianBlur(skin, (0, 0), _SOFT), dtype=np.float32)


def lines_of(large: np.ndarray, finest: float = _FINEST) -> np.ndarray:
    """A face's lines over the brightness around them: of (H, W, C), LINES.scale pixels to each of the frame, (H, W)."""
    light = brightness(large)[..., 0]
    around, line = (cv2.GaussianBlur(light, (0, 0), width * LINES.scale) for width in (_COARSEST, finest))
    return np.asarray(np.clip((line - around) / (around + _DARK), -DEEPEST, DEEPEST), dtype=np.float32)


def _colour(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels / np.maximum(pixels.mean(axis=-1, keepdims=True), _DARK))


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
