"""The face frame's place in a photo, and the way between the photo's pixels and the frame's.

The frame is the square that LFW's faces are cut to (lfw.FRAME_BOX): the network sees it at lfw.FRAME_SIZE pixels, and
the attribute vectors expect eyes and mouth at their places in it.

Coordinates are continuous: the top left pixel covers [0, 1] x [0, 1], in the photo and in the frame alike.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server import lfw
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import Box, Patch, Pixels

MIN_BOX = 16
"""The smallest side of a box, in photo pixels, that is taken for a face."""

FEATHER = 0.12
"""Width of the soft border of an edit, as a fraction of the frame."""

_STRIP = 512  # rows of the photo that are brought back at a time, which bounds the memory of a large face


@dataclass(frozen=True)
class Frame:
    """The face frame's place in a photo: an affine map from frame pixels (x, y, 1) to photo pixels (x, y)."""

    matrix: np.ndarray  # (2, 3) float64

    @staticmethod
    def of_box(box: Box, photo_size: tuple[int, int]) -> "Frame":
        """The frame that covers `box`. Raises DFIError(BAD_BOX) unless it lies inside the photo (width, height)."""
        x, y, width, height = box
        photo_width, photo_height = photo_size
        if width < MIN_BOX or height < MIN_BOX:
            raise DFIError(
                ErrorCode.BAD_BOX,
                f"The box is {width} x {height} pixels: a face needs at least {MIN_BOX} x {MIN_BOX}.",
            )
        if x < 0 or y < 0 or x + width > photo_width or y + height > photo_height:
            raise DFIError(
                ErrorCode.BAD_BOX,
                f"The box {x},{y},{width},{height} is not inside the photo of {photo_width} x {photo_height} pixels.",
            )
        return Frame._of_rectangle(x, y, width, height)

    @staticmethod
    def of_lfw_layout(photo_size: tuple[int, int]) -> "Frame":
        """The frame in a photo laid out like LFW's: square, the face where deep funneling puts it.

        Raises DFIError(NO_FACE) for a photo of another shape.
        """
        width, height = photo_size
        if min(width, height) < MIN_BOX or abs(width - height) > 0.02 * width:
            raise DFIError(
                ErrorCode.NO_FACE,
                f"A photo of {width} x {height} pixels is not laid out like LFW's (square, the face in the middle): "
                "say where the face is with a box from brow to chin and ear to ear (--box X,Y,W,H).",
            )
        scale_x, scale_y = width / lfw.PHOTO_SIZE, height / lfw.PHOTO_SIZE
        x, y, w, h = lfw.FRAME_BOX
        return Frame._of_rectangle(x * scale_x, y * scale_y, w * scale_x, h * scale_y)

    @staticmethod
    def _of_rectangle(x: float, y: float, width: float, height: float) -> "Frame":
        return Frame(np.array([[width / lfw.FRAME_SIZE, 0, x], [0, height / lfw.FRAME_SIZE, y]]))

    @staticmethod
    def of_lfw_similarity(matrix: np.ndarray) -> "Frame":
        """The frame where `matrix` (2, 3) maps LFW's 250x250 layout into the photo."""
        x, y, width, height = lfw.FRAME_BOX
        to_lfw = np.array([[width / lfw.FRAME_SIZE, 0, x], [0, height / lfw.FRAME_SIZE, y], [0, 0, 1]])
        return Frame(matrix @ to_lfw)

    @property
    def scale(self) -> float:
        """Photo pixels per frame pixel."""
        return scale_of(self.matrix)

    def bounds(self, photo_size: tuple[int, int]) -> Box:
        """The smallest box of whole photo pixels that holds the frame, as far as it lies in the photo."""
        side = lfw.FRAME_SIZE
        corners = self.matrix @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])
        low = np.clip(np.floor(corners.min(axis=1) + 1e-6), 0, photo_size).astype(int)
        high = np.clip(np.ceil(corners.max(axis=1) - 1e-6), 0, photo_size).astype(int)
        return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])

    def inverse(self) -> np.ndarray:
        """The affine map from photo pixels to frame pixels, (2, 3)."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.hstack([linear, -linear @ self.matrix[:, 2:]])


def cut(photo: Pixels, frame: Frame) -> Tensor:
    """The face frame of a photo: (H, W, C) of any dtype to (1, 3, FRAME_SIZE, FRAME_SIZE) float32 in [0, 1]."""
    return warp(photo, frame.matrix, (lfw.FRAME_SIZE, lfw.FRAME_SIZE)).expand(1, 3, -1, -1)


def warp(photo: Pixels, matrix: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Resample a photo: `matrix` (2, 3) maps the result's pixels to the photo's, `size` is its width and height.

    Returns (1, C, height, width) float32 in [0, 1]. Beyond the photo's edge its border pixels go on.
    """
    width, height = size
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    margin = 2 + scale_of(matrix)  # for the interpolation's support
    limits = np.array([photo.shape[1], photo.shape[0]])
    low = np.clip(np.floor(corners.min(axis=1) - margin), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=1) + margin), low + 1, limits).astype(int)
    region = to_unit(photo[low[1] : high[1], low[0] : high[0]]).permute(2, 0, 1).unsqueeze(0)
    region_size = high - low
    if scale_of(matrix) > 1:  # low-pass before sampling more coarsely
        coarse = np.maximum(1, np.rint(region_size / scale_of(matrix))).astype(int)
        region = F.interpolate(region, size=(int(coarse[1]), int(coarse[0])), mode="bicubic", antialias=True)
    grid = _grid(matrix, np.arange(width) + 0.5, np.arange(height) + 0.5, low, region_size)
    return F.grid_sample(region, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)


def paste(photo: Pixels, frame: Frame, change: Tensor) -> Patch:
    """Take a change back to the photo.

    `change`: (1, 3, FRAME_SIZE, FRAME_SIZE) float32, edited frame minus frame. It is added to the photo's own pixels,
    so that their detail stays, and the patch's mask fades it out towards the frame's border.
    """
    height, width = photo.shape[:2]
    x, y, w, h = frame.bounds((width, height))
    layers = torch.cat([change.cpu(), _feather(lfw.FRAME_SIZE)], dim=1)
    pixels = np.empty((h, w, photo.shape[2]), dtype=photo.dtype)
    mask = np.empty((h, w), dtype=np.uint8)
    side = (lfw.FRAME_SIZE, lfw.FRAME_SIZE)
    for rows in _strips(h):
        across, down = np.arange(w) + x + 0.5, np.arange(rows.start, rows.stop) + y + 0.5
        grid = _grid(frame.inverse(), across, down, (0, 0), side)
        sampled = F.grid_sample(layers, grid, mode="bicubic", padding_mode="zeros", align_corners=False)[0]
        part = to_unit(photo[y + rows.start : y + rows.stop, x : x + w]).permute(2, 0, 1)
        moved = sampled[:3] if photo.shape[2] == 3 else sampled[:3].mean(dim=0, keepdim=True)
        pixels[rows] = from_unit((part + moved).permute(1, 2, 0), photo.dtype)
        mask[rows] = (sampled[3].clamp(0, 1) * 255).round().byte().numpy()
    return Patch(x, y, pixels, mask)


def scale_of(matrix: np.ndarray) -> float:
    """How many times larger an affine map (2, 3) makes things."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def to_unit(pixels: np.ndarray) -> Tensor:
    """Pixels of any dtype as float32; integers are scaled to [0, 1]."""
    scale = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    return torch.from_numpy(pixels.astype(np.float32)) / scale


def from_unit(pixels: Tensor, dtype: np.dtype) -> np.ndarray:
    """The way back: integers are rounded and clipped, floats keep values outside [0, 1]."""
    if not np.issubdtype(dtype, np.integer):
        return pixels.numpy().astype(dtype)
    return np.asarray((pixels.clamp(0, 1) * np.iinfo(dtype).max).round().numpy().astype(dtype))


def _grid(
    matrix: np.ndarray, across: np.ndarray, down: np.ndarray, origin: npt.ArrayLike, size: npt.ArrayLike
) -> Tensor:
    """Where grid_sample must look for the points across x down, mapped by `matrix` into an image.

    The image's top left corner is `origin` and it is `size` (width, height) wide, in the coordinates that `matrix` maps
    to. Returns (1, len(down), len(across), 2) in [-1, 1] over that image.
    """
    linear, offset = matrix[:, :2], matrix[:, 2] - origin
    points = across[None, :, None] * linear[:, 0] + down[:, None, None] * linear[:, 1] + offset
    return torch.from_numpy((2 * points / np.array(size) - 1).astype(np.float32)).unsqueeze(0)


def _feather(side: int) -> Tensor:
    """(1, 1, side, side): 1 inside, falling to 0 at the border along a smooth step over FEATHER of the side."""
    steps = (np.arange(side) + 0.5) / side
    ramp = np.clip(np.minimum(steps, 1 - steps) / FEATHER, 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return torch.from_numpy(np.outer(smooth, smooth).astype(np.float32))[None, None]


def _strips(height: int) -> Iterator[slice]:
    for start in range(0, height, _STRIP):
        yield slice(start, min(start + _STRIP, height))
