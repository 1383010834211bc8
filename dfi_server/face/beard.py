"""Hairs for what the solver paints as a beard: its place and darkness are LFW's, its strands a sharp portrait's.

The strands are the fine bands of one full beard (portraits/beard.jpg), carried over from its landmarks to the face's,
and laid on as far as the face got darker.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from dfi_server.face.frame import Frame, sample, seen
from dfi_server.face.landmarks import JAW, NOSTRILS, OUTER_LIPS, find_landmarks
from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.face.portraits import BEARD, Portraits, blur_of
from dfi_server.face.spline import carry
from dfi_server.photo.pixels import Patch, Pixels, brightness, from_unit, to_unit
from dfi_server.photo.tone import tone_of

ATTRIBUTES = {"mustache": 1, "goatee": 1, "no_beard": -1, "sideburns": 1, "5_o_clock_shadow": 1}
"""What brings a beard, and with which sign."""

_LEFT_OUT = 0.06  # of its brightness that a face may lose without having got a beard
_FULL = 0.31  # the loss at which strands are as strong as the portrait's
_STRENGTH = 0.08  # in units of white at middle brightness: standard deviation of the strands
_DARK = 0.4  # brightness at which they are half as strong as on white, about
_SMOOTH = 2.5  # frame pixels: what is finer is no darkening
_AROUND = (JAW, NOSTRILS, OUTER_LIPS)  # the landmarks that carry it
_NOSE = 33  # the landmark between the nostrils: a beard begins below
_BELOW_NOSE = 8.0  # frame pixels over which it begins
_LIPS_BLUR = 1.5  # frame pixels


def grows(alphas: Mapping[str, float]) -> bool:
    """Whether these attributes, all together, bring a beard rather than take it away."""
    return sum(sign * alphas.get(name, 0.0) for name, sign in ATTRIBUTES.items()) > 0


def grow(before: Pixels, after: Pixels, frame: Frame, portraits: Portraits) -> Patch | None:
    """Strands where `after` is darker than `before`, the photo without its beard; None where it is nowhere."""
    frame = frame.of_size(DETAIL_FRAME_SIZE)
    landmarks = find_landmarks(before, frame)
    face = seen(before, frame)
    cover = _cover(face, seen(after, frame), landmarks)
    left, top, across, down = cv2.boundingRect((cover > 0).astype(np.uint8))
    x, y, width, height = frame.bounds((after.shape[1], after.shape[0]), (left, top, across, down))
    if not (width and height):
        return None
    own, face_own = (np.vstack([points[part] for part in _AROUND]) for points in (portraits.beard_landmarks, landmarks))
    strands = carry(portraits.strands, BEARD, own, face_own)
    if blur := blur_of(face, portraits):
        strands = cv2.GaussianBlur(strands, (0, 0), blur * BEARD.scale)
    to_frame = frame.inverse()
    to_frame[:, 2] += to_frame[:, :2] @ (x, y)
    hairs = sample(strands[..., None], BEARD.scale * to_frame, (width, height))
    weight = np.clip(sample(cover[..., None], to_frame, (width, height)), 0, 1)
    skin = to_unit(after[y : y + height, x : x + width])
    light = cv2.GaussianBlur(brightness(skin), (0, 0), max(_SMOOTH * frame.scale, 0.5))[..., None]
    painted = skin + weight * hairs * _STRENGTH * (_DARK + light)
    if tone := tone_of(before):
        painted = tone.of(painted)
    mask = np.where(weight[..., 0] > 0, 255, 0).astype(np.uint8)
    return Patch(x, y, from_unit(painted, after.dtype), mask)


def _cover(before: np.ndarray, after: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """How thick the beard is, (H, W) in [0, 1]."""
    was, now = (cv2.GaussianBlur(brightness(face), (0, 0), _SMOOTH) for face in (before, after))
    cover = np.clip(((was - now) / np.maximum(was, 0.05) - _LEFT_OUT) / (_FULL - _LEFT_OUT), 0, 1)
    lips = np.zeros(cover.shape, dtype=np.float32)
    cv2.fillPoly(lips, [np.rint(landmarks[OUTER_LIPS]).astype(np.int32)], 1.0)
    rows = np.arange(len(cover), dtype=np.float32)[:, None]
    below = np.clip((rows - landmarks[_NOSE, 1]) / _BELOW_NOSE + 0.5, 0, 1)
    return np.asarray(cover * below * (1 - cv2.GaussianBlur(lips, (0, 0), _LIPS_BLUR)), dtype=np.float32)
