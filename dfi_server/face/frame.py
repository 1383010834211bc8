"""The face frame's place in a photo, and the way between the photo's pixels and the frame's.

The frame is the square that LFW's faces are cut to (layout.FRAME_BOX): the network sees it at layout.FRAME_SIZE pixels,
or fewer for a preview, and the attribute vectors expect eyes and mouth at their places in it.

Coordinates are continuous: the top left pixel covers [0, 1] x [0, 1], in the photo and in the frame alike.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.photo.pixels import Box, Pixels, to_unit

MIN_BOX = 16
"""The smallest side of a box, in photo pixels, that is taken for a face."""

_BANDWIDTH = 0.4  # of the frame's pixels: see soften; docs/full-resolution.md compares others


@dataclass(frozen=True)
class Frame:
    """The face frame's place in a photo: an affine map from frame pixels (x, y, 1) to photo pixels (x, y).

    `size`: frame pixels to a side.
    """

    matrix: np.ndarray  # (2, 3) float64
    size: int = layout.FRAME_SIZE

    @staticmethod
    def of_box(box: Box, photo_size: tuple[int, int]) -> "Frame":
        """The frame that covers `box`, which may reach over the photo's border, as faces do.

        Raises DFIError(BAD_BOX) where less than MIN_BOX pixels to a side lie inside the photo (width, height).
        """
        x, y, width, height = box
        photo_width, photo_height = photo_size
        if width < MIN_BOX or height < MIN_BOX:
            raise DFIError(
                ErrorCode.BAD_BOX,
                f"The box is {width} x {height} pixels: a face needs at least {MIN_BOX} x {MIN_BOX}.",
            )
        inside = min(x + width, photo_width) - max(x, 0), min(y + height, photo_height) - max(y, 0)
        if min(inside) < MIN_BOX:
            raise DFIError(
                ErrorCode.BAD_BOX,
                f"The box {x},{y},{width},{height} is not inside the photo of {photo_width} x {photo_height} pixels.",
            )
        return Frame(np.array([[width / layout.FRAME_SIZE, 0, x], [0, height / layout.FRAME_SIZE, y]]))

    @staticmethod
    def of_lfw_similarity(matrix: np.ndarray) -> "Frame":
        """The frame where `matrix` (2, 3) maps LFW's 250x250 layout into the photo."""
        x, y, width, height = layout.FRAME_BOX
        to_lfw = np.array([[width / layout.FRAME_SIZE, 0, x], [0, height / layout.FRAME_SIZE, y], [0, 0, 1]])
        return Frame(matrix @ to_lfw)

    @property
    def scale(self) -> float:
        """Photo pixels per frame pixel."""
        return scale_of(self.matrix)

    def of_size(self, size: int) -> "Frame":
        """The same place, seen at another number of frame pixels."""
        return Frame(self.matrix @ np.diag([self.size / size, self.size / size, 1]), size)

    def bounds(self, photo_size: tuple[int, int], part: Box | None = None) -> Box:
        """The smallest box of whole photo pixels that holds the frame or a part of it, as far as it lies in the photo.

        `part`: in frame pixels.
        """
        part = part or (0, 0, self.size, self.size)
        corner = np.hstack([np.eye(2), [[part[0]], [part[1]]]])
        low, high = _extent(self.matrix @ np.vstack([corner, [0, 0, 1]]), part[2:])
        low = np.clip(np.floor(low + 1e-6), 0, photo_size).astype(int)
        high = np.clip(np.ceil(high - 1e-6), 0, photo_size).astype(int)
        return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])

    def inverse(self) -> np.ndarray:
        """The affine map from photo pixels to frame pixels, (2, 3)."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.hstack([linear, -linear @ self.matrix[:, 2:]])


def cut(photo: Pixels, frame: Frame) -> Tensor:
    """The face frame of a photo: (H, W, C) of any dtype to (1, 3, size, size) float32 in [0, 1]."""
    face = warp(photo, frame.matrix, (frame.size, frame.size))
    return torch.from_numpy(face).permute(2, 0, 1).unsqueeze(0).expand(1, 3, -1, -1)


def seen(photo: Pixels, frame: Frame) -> np.ndarray:
    """The same as pixels, (size, size, 3) float32 in [0, 1]."""
    return np.asarray(cut(photo, frame)[0].permute(1, 2, 0).numpy())


def soften(image: Tensor) -> Tensor:
    """A frame (1, 3, size, size) as soft as LFW's photos, whose vectors expect that: what is finer goes.

    A sharp portrait's features are longer, and so are its shifts; smiles got too broad, and mustaches spread.
    """
    size = image.shape[-1]
    soft = F.interpolate(image, size=round(_BANDWIDTH * size), mode="area")
    return F.interpolate(soft, size=size, mode="bicubic").clamp(0, 1)


def warp(photo: Pixels, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample a photo: `matrix` (2, 3) maps the result's pixels to the photo's, `size` is its width and height.

    Returns (height, width, C) float32 in [0, 1]. Beyond the photo's edge its border pixels go on.
    """
    limits = np.array([photo.shape[1], photo.shape[0]])
    low, high = _extent(matrix, size)
    margin = 2 + scale_of(matrix)  # for the interpolation's support
    low = np.clip(np.floor(low - margin), 0, limits - 1).astype(int)
    high = np.clip(np.ceil(high + margin), low + 1, limits).astype(int)
    region = np.ascontiguousarray(photo[low[1] : high[1], low[0] : high[0]])
    coarse = high - low
    if scale_of(matrix) > 1:  # low-pass before sampling more coarsely
        coarse = np.maximum(1, np.rint(coarse / scale_of(matrix))).astype(int)
        region = cv2.resize(region, (int(coarse[0]), int(coarse[1])), interpolation=cv2.INTER_AREA)
    ratio = coarse / (high - low)
    to_region = ratio[:, None] * (matrix - np.hstack([np.zeros((2, 2)), low[:, None]]))
    return np.asarray(np.clip(sample(to_unit(region), to_region, size), 0, 1))


def sample(
    image: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, int],
    interpolation: int = cv2.INTER_CUBIC,
    border: int = cv2.BORDER_REPLICATE,
) -> np.ndarray:
    """`image` at `matrix` times each pixel of the result; both in coordinates where a pixel's centre is at .5.

    `border`: what is seen beyond the image; with cv2.BORDER_CONSTANT nothing, which is 0.
    """
    centred = matrix.copy()
    centred[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    flags = interpolation | cv2.WARP_INVERSE_MAP
    sampled = cv2.warpAffine(image, centred, size, flags=flags, borderMode=border)
    return sampled.reshape(size[1], size[0], -1)


def _extent(matrix: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest x, y that `matrix` takes a rectangle of `size` (width, height) to."""
    width, height = size
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    return corners.min(axis=1), corners.max(axis=1)


def scale_of(matrix: np.ndarray) -> float:
    """How many times larger an affine map (2, 3) makes things."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))
