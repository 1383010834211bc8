"""LFW's layout: where a deep-funneled photo has its face, and the frame of it that the network sees."""

import numpy as np
from PIL import Image

PHOTO_SIZE = 250
"""Width and height in pixels of a deep-funneled photo."""

FRAME_BOX = (40, 35, 170, 170)
"""The face frame: x, y, width, height inside a deep-funneled photo: hairline to throat, both ears.

Below the chin there is room for a jaw that drops, and for the border over which edits fade out.
"""

FRAME_SIZE = 200
"""Width and height in pixels at which the network sees the face frame (the paper's size for LFW)."""

PREVIEW_FRAME_SIZE = 112
"""Those of a preview's frame, which costs a third of the time."""

DETAIL_FRAME_SIZE = 400
"""Those of the frame in which landmarks move and fine things are painted, on faces that have as many pixels."""

SHARP_SPAN = 330
"""Photo pixels across the smallest frame that counts as sharp at DETAIL_FRAME_SIZE."""


def to_frame(photo: np.ndarray, size: int = FRAME_SIZE, frame_box: tuple[int, int, int, int] = FRAME_BOX) -> np.ndarray:
    """Cut the face frame out of a photo in LFW's layout, of any size: (size, size, 3) uint8."""
    height, width = photo.shape[:2]
    scale_x, scale_y = width / PHOTO_SIZE, height / PHOTO_SIZE
    x, y, w, h = frame_box
    box = (x * scale_x, y * scale_y, (x + w) * scale_x, (y + h) * scale_y)
    return np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BICUBIC, box=box))
