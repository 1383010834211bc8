"""What a face with a hole may look like there, from the faces of a gallery that are like the rest of it.

Small frames tell two things. A ridge regression on the nearest faces, with the known pixels as what is to be
explained, gives light, colours and coarse shapes: the plain mean of neighbours, the paper's, is as light as they are,
not as the photo. Which faces look the same, light left aside, says whose detail may fit.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dfi_server.vectors.gallery import SMALL

_REGRESSED = 600  # faces, mirrored ones counted
_RIDGE = 1.0  # times the mean variance of these faces
_REACH = 8.0  # small pixels over which what is known counts less and less
_IN_HOLE = 0.2  # what the expected part counts for when detail is chosen, beside 1 for what is known at the seam
_LIGHT = 6.0  # small pixels: coarser differences are light
_ASYMMETRY = 0.3  # of what the other side of the face differs from the expected, found again on this side
_CHUNK = 512


@dataclass(frozen=True)
class Neighbours:
    """`expected`: the whole face as regressed, (SMALL, SMALL, 3). `nearest`: numbers in the gallery, whether mirrored."""

    expected: np.ndarray
    nearest: tuple[tuple[int, bool], ...]


def find_neighbours(small: np.ndarray, face: np.ndarray, hole: np.ndarray, count: int) -> Neighbours:
    """The `count` faces most like the known part of one.

    `small`: the gallery's, (N, SMALL, SMALL, 3) uint8. `face`: (SMALL, SMALL, 3) in [0, 1]. `hole`: (SMALL, SMALL) bool.
    """
    distance = cv2.distanceTransform(np.uint8(~hole), cv2.DIST_L2, 5)
    weight = np.where(hole, 0, np.exp(-distance / _REACH)).astype(np.float32)[..., None]
    regressed = _nearest(small, face, weight)[:_REGRESSED]
    expected = _symmetric(_regress(_faces(small, regressed), face, weight), face, hole)
    whole = np.where(hole[..., None], expected, face)
    both = np.where(hole[..., None], np.float32(_IN_HOLE), weight)
    nearest = _nearest(small, whole, both, _without_light)[:count]
    return Neighbours(expected, tuple((int(i) % len(small), bool(i >= len(small))) for i in nearest))


def _nearest(small: np.ndarray, face: np.ndarray, weight: np.ndarray, look=lambda face: face) -> np.ndarray:
    """Numbers of faces, the nearest first; those of len(small) and more are mirrored."""
    root, wanted = np.sqrt(weight), look(np.float32(face))
    views = np.stack([root * wanted, (root * wanted)[:, ::-1]]).reshape(2, -1)
    roots = np.stack([root, root[:, ::-1]])
    unlike = np.empty((2, len(small)), np.float32)
    for start in range(0, len(small), _CHUNK):
        chunk = np.stack([look(np.float32(each) / 255) for each in small[start : start + _CHUNK]])
        for side in (0, 1):
            parts = (chunk * roots[side]).reshape(len(chunk), -1) - views[side]
            unlike[side, start : start + _CHUNK] = np.einsum("ij,ij->i", parts, parts)
    return np.argsort(unlike, axis=None)


def _faces(small: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    faces = np.float32(small[numbers % len(small)]) / 255
    mirrored = numbers >= len(small)
    faces[mirrored] = faces[mirrored][:, :, ::-1]
    return faces


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
    known = cv2.GaussianBlur(np.float32(~hole[:, ::-1]), (0, 0), 1.5)[..., None]
    return np.asarray(expected + _ASYMMETRY * known * apart)


def _without_light(face: np.ndarray) -> np.ndarray:
    return np.asarray(face - cv2.GaussianBlur(face, (0, 0), _LIGHT))
