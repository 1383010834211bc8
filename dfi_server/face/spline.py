"""A thin-plate spline: the smoothest motion that takes landmarks along (Bookstein, IEEE PAMI 11(6), 1989)."""

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.face.portraits import Crop

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


def carry(picture: np.ndarray, crop: Crop, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One layer of a portrait's picture (H, W), carried from its landmarks to a face's: that face's whole frame.

    `source`, `target`: the same landmarks (N, 2) of both, in frame pixels. The result has `crop.scale` pixels to each
    of these, and is 0 beyond the picture.
    """
    size = (crop.scale * DETAIL_FRAME_SIZE,) * 2
    motion = cv2.resize(spline(source, target), size)
    places = crop.scale * (motion - np.array(crop.box[:2], dtype=np.float32))
    grid = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in size)), axis=-1) + places
    return cv2.remap(picture, grid[..., 0], grid[..., 1], cv2.INTER_CUBIC, borderValue=0)
