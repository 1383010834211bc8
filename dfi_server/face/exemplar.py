"""A neighbour's face made to fit another one: moved onto its shapes, in its light, with as much fine detail.

All faces here are frames, (S, S, 3) in [0, 1]. Lengths are in pixels of a frame of layout.FRAME_SIZE.
"""

from itertools import pairwise

import cv2
import numpy as np

from dfi_server.face.frame import Frame
from dfi_server.face.landmarks import find_landmarks
from dfi_server.face.layout import DETAIL_FRAME_SIZE, FRAME_SIZE
from dfi_server.face.spline import spline
from dfi_server.photo.pixels import brightness

_LIGHT = 6.0  # what is coarser is the guide's, what is finer the neighbour's
_SOFT = 2.0  # what motion is told from
_SMOOTH = 4.0  # of the motion: a face is one piece
_BANDS = (0.25, 0.5, 1.0, 2.0)  # between these there are octaves of detail; what is coarser than the last stays
_NEAR = 25.0  # from the hole: where the photo's own detail is measured
_MIDDLE, _RADII = (100, 105), (50, 72)  # of a face without its hair
_MOST, _LEAST = 1.3, 0.3  # that an octave's contrast is changed by


def moved(picture: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """`picture` at each pixel plus its motion (S', S', 2), which may be that of a frame of another size."""
    side = picture.shape[0]
    motion = cv2.resize(motion, (side, side)) * np.float32(side / motion.shape[0])
    places = motion + np.stack(np.meshgrid(*2 * [np.arange(side, dtype=np.float32)]), axis=-1)
    return cv2.remap(picture, places[..., 0], places[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def motion_to(guide: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """From each pixel of the guide the way to where the neighbour shows the same, (S', S', 2) in pixels of S'.

    Landmarks tell the way to the same part of another face, however its head is turned; optical flow the rest, by dense
    inverse search (Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016). S' is the guide's S.
    """
    to_there = _by_landmarks(guide, neighbour)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    views = [_view(picture) for picture in (guide, relit(moved(neighbour, to_there), guide))]
    nearby = _blur(search.calc(views[0], views[1], np.zeros((*views[0].shape, 2), np.float32)), _SMOOTH)
    return np.asarray(nearby + moved(to_there, nearby))


def _by_landmarks(guide: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    size = guide.shape[0]
    here, there = (_landmarks(picture) * DETAIL_FRAME_SIZE / size for picture in (guide, neighbour))
    return cv2.resize(spline(there, here), (size, size)) * np.float32(size / DETAIL_FRAME_SIZE)


def _landmarks(picture: np.ndarray) -> np.ndarray:
    return find_landmarks(np.clip(picture, 0, 1).astype(np.float32), Frame(np.eye(2, 3), picture.shape[0]))


def relit(neighbour: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """The neighbour with the guide's coarse light and colours."""
    return np.asarray(neighbour + _blur(guide - neighbour, _LIGHT))


def detailed(coarse: np.ndarray, neighbour: np.ndarray, photo: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """`coarse` with a fitted neighbour's fine detail, octave by octave as contrasty as the photo's around the hole.

    All of one size; `hole`: (S, S) bool. White noise makes up for grain that the neighbour does not have.
    """
    down, across = (np.mgrid[: len(hole), : len(hole)] + 0.5) * FRAME_SIZE / len(hole)
    oval = np.hypot((across - _MIDDLE[0]) / _RADII[0], (down - _MIDDLE[1]) / _RADII[1]) < 1
    distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5) * FRAME_SIZE / len(hole)
    near = oval & ~hole & (distance < _NEAR)
    result = _blur(coarse, _BANDS[-1])
    grain = np.random.default_rng(0).normal(size=coarse.shape[:2]).astype(np.float32)
    scales = [0.0, *(scale for scale in _BANDS if scale * len(hole) / FRAME_SIZE >= 0.4)]
    for fine, rough in pairwise(scales):
        own, others, noise = (_blur(each, fine) - _blur(each, rough) for each in (photo, neighbour, grain[..., None]))
        wanted, there = (_contrast(each[near]) for each in (own, others))
        gain = float(np.clip(wanted / max(there, 1e-6), _LEAST, _MOST))
        result = result + gain * others
        if not fine:
            missing = np.sqrt(max(wanted**2 - (gain * there) ** 2, 0)) / max(_contrast(noise), 1e-6)
            result = result + missing * noise
    return np.asarray(result)


def _contrast(band: np.ndarray) -> float:
    """The usual size of a band's brightness: the median, which a few edges do not raise."""
    return float(np.median(np.abs(band.mean(axis=-1)))) if band.size else 0.0


def _blur(frame: np.ndarray, scale: float) -> np.ndarray:
    sigma = scale * len(frame) / FRAME_SIZE
    return cv2.GaussianBlur(frame, (0, 0), sigma).reshape(frame.shape) if sigma else frame


def _view(picture: np.ndarray) -> np.ndarray:
    light = np.clip(_blur(brightness(picture.astype(np.float32)), _SOFT)[..., 0], 0, 1)
    return np.asarray(np.rint(255 * light), dtype=np.uint8)
