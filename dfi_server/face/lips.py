"""Where a photo's lips part: the inner contours of upper and lower lip, and whether there is anything between them.

The network of landmarks.py places the inner lips of a closed mouth apart, by up to a fifth of its width. So the mouth
is looked at once more, unrolled: a strip whose rows lead from the upper to the lower lip. Whether it is open is told by
a ridge regression on that strip, learnt from LFW (vectors/expressions.py); where a closed one parts, by the darkest
path from corner to corner.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from dfi_server.photo.pixels import brightness

UPPER, LOWER = (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)
"""The inner contours from corner to corner, of the 68 landmarks."""

_OUTER_UPPER, _OUTER_LOWER = (48, 49, 50, 51, 52, 53, 54), (48, 59, 58, 57, 56, 55, 54)
_STRIP = (48, 96)  # rows and columns
_FEATURES = (12, 24)  # the same, of what the regression sees
_HEIGHT_WEIGHT = 6.0  # of the lips' height over their width, among its features
_OPEN = 0.3  # of its answer: -1 is closed, 1 is open
_LINE_BLUR = 1.2  # strip pixels
_MIDDLE, _NEAR = 0.45, 0.25  # of the strip's height: where a closed mouth parts, and how far from there it may
_STEP_COST = (0.6, 0.15, 0.0, 0.15, 0.6)  # standard deviations of brightness for so many rows up or down in a column


@dataclass(frozen=True)
class Lips:
    """The inner contours (5, 2) from the right corner to the left one, in the landmarks' pixels.

    Where the mouth is closed, `upper` and `lower` are one line.
    """

    upper: np.ndarray
    lower: np.ndarray
    is_open: bool


def find_lips(face: np.ndarray, landmarks: np.ndarray, regression: dict[str, np.ndarray]) -> Lips:
    """The lips of a face (H, W, C) in [0, 1] with 68 `landmarks` in its pixels; `regression`: see `openness`."""
    if openness(face, landmarks, regression) > _OPEN:
        return Lips(landmarks[list(UPPER)], landmarks[list(LOWER)], True)
    line = _parting(face, landmarks)
    corner, across, _ = _axes(landmarks)
    middle = (landmarks[list(UPPER)] + landmarks[list(LOWER)]) / 2
    along, places = (line - corner) @ across, (middle - corner) @ across
    contour = np.stack([np.interp(places, along, line[:, k]) for k in (0, 1)], axis=1)
    return Lips(contour, contour, False)


def openness(face: np.ndarray, landmarks: np.ndarray, regression: dict[str, np.ndarray]) -> float:
    """How open a mouth is, from about -1 (closed) to 1. `regression`: "mean", "deviation", "weights" of `features`."""
    standard = (features(face, landmarks) - regression["mean"]) / regression["deviation"]
    return float(np.concatenate([[1.0], standard]) @ regression["weights"])


def features(face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """What tells an open mouth from a closed one, (865,): the strip in Lab, its own mean and contrast taken out."""
    strip, _, height = _unrolled(face, landmarks)
    lab = cv2.cvtColor(np.broadcast_to(strip, (*strip.shape[:2], 3)).astype(np.float32), cv2.COLOR_RGB2LAB)
    small = cv2.resize(lab, _FEATURES[::-1], interpolation=cv2.INTER_AREA)
    small = small - small.reshape(-1, 3).mean(axis=0)
    small /= small[..., 0].std() + 2
    quarter = _STRIP[1] // 5
    return np.concatenate([small.ravel(), [_HEIGHT_WEIGHT * height[quarter:-quarter].mean()]])


def curve(contour: np.ndarray, count: int = 64) -> np.ndarray:
    """A smooth line (count, 2) through a contour's points (N, 2)."""
    length = np.concatenate([[0], np.cumsum(np.maximum(np.hypot(*np.diff(contour, axis=0).T), 1e-3))])
    return np.asarray(CubicSpline(length / length[-1], contour)(np.linspace(0, 1, count)))


def _axes(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mouth's right corner, the unit vector to its left corner, and the one downwards from that line."""
    corner = landmarks[48]
    across = landmarks[54] - corner
    across = across / max(float(np.hypot(*across)), 1e-6)
    return corner, across, np.array([-across[1], across[0]])


def _unrolled(face: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The strip (H, W, C), where in the face its pixels are (H, W, 2), and the lips' height over the mouth's width."""
    corner, across, down = _axes(landmarks)
    width = max(float(np.hypot(*(landmarks[54] - corner))), 1e-6)
    along = np.linspace(0.02, 0.98, _STRIP[1])
    sides = []
    for indices in (_OUTER_UPPER, _OUTER_LOWER):
        points = landmarks[list(indices)] - corner
        order = np.argsort(points @ across)
        sides.append(np.interp(along, points[order] @ across / width, points[order] @ down / width))
    upper, lower = sides
    depth = upper + (lower - upper) * np.linspace(0, 1, _STRIP[0])[:, None]
    places = corner + width * (along[None, :, None] * across + depth[..., None] * down)
    x, y = (places[..., k].astype(np.float32) - 0.5 for k in (0, 1))
    strip = cv2.remap(face.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return strip.reshape(*_STRIP, -1), places, lower - upper


def _parting(face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The darkest path through the strip from corner to corner, (W, 2) in the face's pixels (dynamic programming)."""
    strip, places, _ = _unrolled(face, landmarks)
    light = cv2.GaussianBlur(brightness(strip)[..., 0], (0, 0), _LINE_BLUR)
    rows, columns = _STRIP
    cost = (light - light.mean()) / (light.std() + 1e-3)
    cost += (((np.arange(rows) + 0.5) / rows - _MIDDLE)[:, None] / _NEAR) ** 2
    total, came_from = cost[:, 0], np.zeros((rows, columns), dtype=int)
    reach = len(_STEP_COST) // 2
    for column in range(1, columns):
        padded = np.pad(total, reach, constant_values=np.inf)
        ways = np.stack([padded[k : k + rows] + extra for k, extra in enumerate(_STEP_COST)])
        best = ways.argmin(axis=0)
        came_from[:, column] = np.arange(rows) + best - reach
        total = ways[best, np.arange(rows)] + cost[:, column]
    path = [int(total.argmin())]
    for column in range(columns - 1, 0, -1):
        path.append(came_from[path[-1], column])
    smooth = cv2.GaussianBlur(np.array(path[::-1], dtype=np.float32)[None], (0, 0), 3)[0]
    along = np.arange(rows)
    return np.array([[np.interp(row, along, places[:, c, k]) for k in (0, 1)] for c, row in enumerate(smooth)])
