"""A thin-plate spline: the smoothest motion that takes landmarks along (Bookstein, IEEE PAMI 11(6), 1989)."""

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from dfi_server.face.layout import DETAIL_FRAME_SIZE

_STEP = 8  # frame pixels between the places where it is evaluated


def spline(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """From each pixel of the result the way to the source's, (H, W, 2) in pixels of a frame of DETAIL_FRAME_SIZE.

    `source`, `target`: (N, 2), where points are and where they go to. The frame's border is held still.
    """
    steps = np.linspace(0, DETAIL_FRAME_SIZE, 9)
    border = np.array([(x, y) for x in steps for y in steps if {x, y} & {0, DETAIL_FRAME_SIZE}])
    grid = np.arange(0, DETAIL_FRAME_SIZE + 1, _STEP, dtype=np.float64)
    places = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    motion = RBFInterpolator(np.vstack([target, border]), np.vstack([source - target, 0 * border]))
    coarse = motion(places).reshape(len(grid), len(grid), 2).astype(np.float32)
    at = ((np.arange(DETAIL_FRAME_SIZE) + 0.5) / _STEP).astype(np.float32)
    return cv2.remap(coarse, *np.meshgrid(at, at), cv2.INTER_LINEAR)
