"""What a face with a hole may look like there, from the faces of a gallery that are like the rest of it.

Small frames tell two things. A ridge regression on the nearest faces, with the known pixels as what is to be
explained, gives light, colours and coarse shapes: the plain mean of neighbours, the paper's, is as light as they are,
not as the photo. Which faces look the same, light left aside, says whose detail may fit.
"""

from dataclasses import dataclass

import cv2
import numpy as np

_REGRESSED = 600  # faces, mirrored ones counted
_RIDGE = 1.0  # times the mean variance of these faces
_REACH = 8.0  # small pixels over which what is known counts less and less for the regression
_LIKENESS = 20.0  # and for who is alike: a woman gets no beard
_IN_HOLE = 0.2  # what the expected part counts for when detail is chosen, beside 1 for what is known at the seam
_LIGHT = 6.0  # small pixels: coarser differences are light
_ASYMMETRY = 0.3  # of what the other side of the face differs from the expected, found again on this side
_DULL = 1e-3  # a picture of one colour is like nothing
_CHUNK = 512


@dataclass(frozen=True)
class Alike:
    """`expected`: the whole face as regressed, (S, S, 3). `nearest`: numbers in the gallery, and whether mirrored."""

    expected: np.ndarray
    nearest: tuple[tuple[int, bool], ...]


def find_alike(small: np.ndarray, face: np.ndarray, hole: np.ndarray, count: int) -> Alike:
    """The `count` faces most like the known part of one.

    `small`: the gallery's, (N, S, S, 3) uint8. `face`: (S, S, 3) in [0, 1]. `hole`: (S, S) bool.
    """
    distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 5)
    weight = np.where(hole, 0, np.exp(-distance / _REACH)).astype(np.float32)[..., None]
    regressed = _nearest(small, face, weight)[:_REGRESSED]
    expected = _symmetric(_regress(_faces(small, regressed), face, weight), face, hole)
    whole = np.where(hole[..., None], expected, face)
    weight = np.exp(-distance / _LIKENESS).astype(np.float32)[..., None]
    both = np.where(hole[..., None], np.float32(_IN_HOLE), weight)
    nearest = _nearest(small, whole, both, light=False)[:count]
    return Alike(expected, tuple((int(i) % len(small), bool(i >= len(small))) for i in nearest))


def _nearest(small: np.ndarray, face: np.ndarray, weight: np.ndarray, light: bool = True) -> np.ndarray:
    """Numbers of faces, the nearest first; those of len(small) and more are mirrored.

    Without light what counts is the angle between what is left, so that no dull picture is near to everything.
    """
    look = np.asarray if light else _without_light
    root = np.sqrt(weight)
    roots = np.stack([root, root[:, ::-1]])
    wanted = root * look(face.astype(np.float32))
    views = np.stack([wanted, wanted[:, ::-1]]).reshape(2, -1)
    unlike = np.empty((2, len(small)), np.float32)
    for start in range(0, len(small), _CHUNK):
        chunk = np.stack([look(each.astype(np.float32) / 255) for each in small[start : start + _CHUNK]])
        for side in (0, 1):
            parts = (chunk * roots[side]).reshape(len(chunk), -1)
            lengths = np.linalg.norm(parts, axis=1)
            along = parts @ views[side]
            # light: the squared distance, without the part that all have in common
            unlike[side, start : start + _CHUNK] = (
                lengths**2 - 2 * along if light else -along / np.maximum(lengths, _DULL)
            )
    return np.argsort(unlike, axis=None)


def _faces(small: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    faces = small[numbers % len(small)].astype(np.float32) / 255
    mirrored = numbers >= len(small)
    faces[mirrored] = faces[mirrored][:, :, ::-1]
    return np.asarray(faces)


def _regress(faces: np.ndarray, face: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The sum of faces, with weights by ridge regression of the known pixels, that explains `face` best."""
    middle = faces.mean(axis=0)
    apart = faces - middle
    root = np.sqrt(weight)
    parts, wanted = (apart * root).reshape(len(faces), -1), ((face - middle) * root).ravel()
    gram = parts @ parts.T
    ridge = _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
    weights = np.linalg.solve(gram + ridge, parts @ wanted).astype(np.float32)
    return np.asarray(middle + np.tensordot(weights, apart, axes=1))


def _symmetric(expected: np.ndarray, face: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """`expected`, with what the other side of the face has beside it, as far as that is known."""
    apart = np.where(hole[..., None], 0, face - expected)[:, ::-1]
    known = cv2.GaussianBlur((~hole[:, ::-1]).astype(np.float32), (0, 0), 1.5)[..., None]
    return np.asarray(expected + _ASYMMETRY * known * apart)


def _without_light(face: np.ndarray) -> np.ndarray:
    return np.asarray(face - cv2.GaussianBlur(face, (0, 0), _LIGHT))
