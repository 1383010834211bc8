"""The 68 landmarks of an aligned face: where its lips, lids, brows, nose and jaw are.

The network is face_landmark_68 of the npm package @vladmandic/face-api (MIT): densely connected blocks of separable
convolutions (Huang et al., CVPR 2017; Chollet, CVPR 2017), 350,000 weights.
"""

import functools
from pathlib import Path

import cv2
import numpy as np
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from dfi_server import checksums
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face.find import in_good_light
from dfi_server.face.frame import Frame, warp
from dfi_server.photo.pixels import Pixels

JAW, NOSTRILS = slice(0, 17), slice(31, 36)
BROWS, LIDS = (slice(17, 22), slice(22, 27)), (slice(36, 42), slice(42, 48))
OUTER_LIPS, INNER_LIPS = slice(48, 60), slice(60, 68)
"""Which of the 68 are what, in the usual order (Sagonas et al., ICCV Workshops 2013)."""

_WEIGHTS = Path(__file__).parent / "predictor" / "landmarks68.safetensors"
_INPUT = 112  # pixels to a side of what the network sees
_SQUARE = (24, 30, 152)  # x, y, side of it in a frame of layout.FRAME_SIZE pixels: brows to chin with some room
_MEAN = (122.782, 117.001, 104.298)  # RGB, that the network was trained with
_BLOCKS = 4


def find_landmarks(photo: Pixels, frame: Frame) -> np.ndarray:
    """The landmarks (68, 2) of the face in a photo's frame, as x, y in the frame's pixels."""
    x, y, side = _SQUARE
    unit = side / _INPUT
    to_frame = np.array([[unit, 0, x], [0, unit, y], [0, 0, 1]])
    chip = warp(photo, frame.of_size(layout.FRAME_SIZE).matrix @ to_frame, (_INPUT, _INPUT))
    lit = in_good_light(chip, chip)
    points = _network(torch.from_numpy(255 * lit).float().permute(2, 0, 1).expand(3, -1, -1).unsqueeze(0))
    return np.asarray((points * side + (x, y)) * frame.size / layout.FRAME_SIZE)


def hull(points: np.ndarray) -> np.ndarray:
    """(H, W) float32: 1 in the convex hull of points (N, 2), in the pixels of a frame of layout.DETAIL_FRAME_SIZE."""
    mask = np.zeros((layout.DETAIL_FRAME_SIZE, layout.DETAIL_FRAME_SIZE), dtype=np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(points).astype(np.int32)), 1.0)
    return mask


@torch.no_grad()
def _network(face: Tensor) -> np.ndarray:
    """(1, 3, 112, 112) in [0, 255] to (68, 2) in [0, 1]."""
    weights = _weights()
    z = (face - torch.tensor(_MEAN).view(1, 3, 1, 1)) / 255
    for number in range(_BLOCKS):
        z = _block(z, weights, f"dense{number}", first=number == 0)
    points = F.avg_pool2d(z, 7, 2).flatten(1) @ weights["fc/weights"] + weights["fc/bias"]
    return np.asarray(points.view(68, 2).numpy())


def _block(z: Tensor, weights: dict[str, Tensor], name: str, first: bool) -> Tensor:
    """Three convolutions and a fourth, each fed with the sum of those before it."""
    if first:
        kernel = weights[f"{name}/conv0/filters"]
        total = F.relu(F.conv2d(_padded(z, kernel, 2), kernel, weights[f"{name}/conv0/bias"], 2))
    else:
        total = F.relu(_separable(z, weights, f"{name}/conv0", 2))
    for number in (1, 2, 3):
        total = total + _separable(F.relu(total) if number > 1 else total, weights, f"{name}/conv{number}", 1)
    return F.relu(total)


def _separable(z: Tensor, weights: dict[str, Tensor], name: str, stride: int) -> Tensor:
    depthwise = weights[f"{name}/depthwise_filter"]
    z = F.conv2d(_padded(z, depthwise, stride), depthwise, None, stride, groups=len(depthwise))
    return F.conv2d(z, weights[f"{name}/pointwise_filter"], weights[f"{name}/bias"])


def _padded(z: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """As TensorFlow pads ("same"): the odd pixel goes to the right and the bottom."""
    sides: list[int] = []
    for length, size in zip(reversed(z.shape[-2:]), reversed(kernel.shape[-2:]), strict=True):
        missing = max((-(-length // stride) - 1) * stride + size - length, 0)
        sides += [missing // 2, missing - missing // 2]
    return F.pad(z, sides)


@functools.cache
def _weights() -> dict[str, Tensor]:
    try:
        weights = load_file(_WEIGHTS)
        checksums.check(_WEIGHTS, {name: tensor.numpy() for name, tensor in weights.items()})
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise DFIError(
            ErrorCode.BAD_STORE, f"{_WEIGHTS} is missing or damaged ({error}): install dfi-server again."
        ) from error
    return weights
