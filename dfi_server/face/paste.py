"""The way back: the change that was found for a face's frame, carried out on the photo at its own resolution."""

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from torch import Tensor

from dfi_server.face import detail
from dfi_server.face.frame import Frame, sample
from dfi_server.photo.pixels import Patch, Pixels, brightness, crop, from_unit, to_unit
from dfi_server.photo.tone import tone_of
from dfi_server.solver.change import Change

_MASK_FULL = 0.25  # of Change.place: from there up the patch covers the photo altogether
_ENLARGEMENT = 4
_GRAIN_SIDE = 512  # photo pixels: the square in the frame's middle that grain is measured in
_STRIP = 512  # rows of the photo that are brought back at a time, which bounds the memory of a large face


def paste(photo: Pixels, frame: Frame, image: Tensor, change: Change) -> Patch:
    """Carry out on the photo, at its own resolution, the change that was found for its frame.

    `image`: the frame (1, 3, size, size) that the change was found for. The photo's own pixels are moved and the
    residual is added, so that skin and grain stay. Where the residual paints something new (detail.novelty), its edges
    are sharpened to the photo's resolution, and of the photo's detail finer than `image` only grain is left: the rest
    belongs to what was there before. A face without colours, in a black-and-white photo say, gets none.
    """
    left, top, across, down = cv2.boundingRect((_to_numpy(change.place) > 0).astype(np.uint8))
    x, y, width, height = frame.bounds((photo.shape[1], photo.shape[0]), (left, top, across, down))
    frame_maps = {
        "motion": _to_numpy(change.motion) @ frame.matrix[:, :2].T.astype(np.float32),
        "mask": np.clip(_to_numpy(change.place) / _MASK_FULL, 0, 1),
    }
    if paints := bool(change.residual.any()):
        # moved photo and moved frame differ by the detail that the frame is too coarse to hold
        coarse = _to_numpy(change.moved(image))
        residual = detail.smooth_colour(coarse, _to_numpy(change.residual))
        frame_maps |= {
            "coarse": coarse,
            "residual": residual,
            "sharpening": detail.sharpening(coarse + residual, frame.scale),
            "novelty": detail.novelty(residual),
        }
    interpolation = cv2.INTER_CUBIC
    if frame.scale > _ENLARGEMENT:  # the same curves at a quarter of the cost
        interpolation = cv2.INTER_LINEAR
        frame_maps = {name: _enlarge(layer, _ENLARGEMENT * frame.size) for name, layer in frame_maps.items()}
    pixels = np.empty((height, width, photo.shape[2]), dtype=photo.dtype)
    mask = np.empty((height, width), dtype=np.uint8)
    reach = math.ceil(np.abs(frame_maps["motion"]).max()) + 3
    limit = _grain_limit(photo, frame, image) if paints else 0.0
    tone = tone_of(crop(photo, frame.bounds((photo.shape[1], photo.shape[0]))))
    for rows in _strips(height):
        size = (width, rows.stop - rows.start)
        to_frame = frame.inverse()
        to_frame[:, 2] += to_frame[:, :2] @ (x, y + rows.start)
        maps = {
            name: sample(layer, layer.shape[0] / frame.size * to_frame, size, interpolation)
            for name, layer in frame_maps.items()
        }
        painted = moved = _displace(photo, (x, y + rows.start), maps["motion"], reach)
        if paints:
            if photo.shape[2] == 1:
                maps |= {name: brightness(maps[name]) for name in ("coarse", "residual")}
            fine = moved - maps["coarse"]
            new = min(1.0, max(0.0, frame.scale - 1)) * maps["novelty"]  # a photo no finer than the frame has no detail
            painted = moved + new * (np.clip(fine, -limit, limit) - fine + maps["sharpening"]) + maps["residual"]
        if tone and paints:
            painted = tone.of(painted) + _displace(photo, (x, y + rows.start), maps["motion"], reach, tone.apart)
        pixels[rows] = from_unit(painted, photo.dtype)
        mask[rows] = np.rint(255 * np.clip(maps["mask"][..., 0], 0, 1)).astype(np.uint8)
    return Patch(x, y, pixels, mask)


def _grain_limit(photo: Pixels, frame: Frame, image: Tensor) -> float:
    """detail.grain_limit of the photo's detail in the frame's middle."""
    middle = frame.matrix @ (frame.size / 2, frame.size / 2, 1)
    low = np.clip(np.rint(middle - _GRAIN_SIDE / 2), 0, None).astype(int)
    region = to_unit(photo[low[1] : low[1] + _GRAIN_SIDE, low[0] : low[0] + _GRAIN_SIDE])
    if not region.size:
        return 0.0
    to_frame = frame.inverse()
    to_frame[:, 2] += to_frame[:, :2] @ low
    coarse = sample(_to_numpy(image), to_frame, (region.shape[1], region.shape[0]))
    return detail.grain_limit(brightness(region) - brightness(coarse))


def _enlarge(layer: np.ndarray, side: int) -> np.ndarray:
    """A map of the frame at so many pixels to a side."""
    return cv2.resize(layer, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, -1)


def _displace(
    photo: Pixels,
    corner: tuple[int, int],
    motion: np.ndarray,
    reach: int,
    part: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
) -> np.ndarray:
    """A part of the photo's colours at each pixel of a rectangle plus its motion, (h, w, C) float32."""
    height, width = motion.shape[:2]
    left, top = max(0, corner[0] - reach), max(0, corner[1] - reach)
    region = part(to_unit(photo[top : corner[1] + height + reach, left : corner[0] + width + reach]))
    across = motion[..., 0] + np.arange(corner[0] - left, corner[0] - left + width, dtype=np.float32)
    down = motion[..., 1] + np.arange(corner[1] - top, corner[1] - top + height, dtype=np.float32)[:, None]
    moved = cv2.remap(region, across, down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(height, width, -1)


def _to_numpy(layers: Tensor) -> np.ndarray:
    """(1, C, H, W) to (H, W, C) float32."""
    return np.ascontiguousarray(layers[0].float().cpu().permute(1, 2, 0).numpy())


def _strips(height: int) -> Iterator[slice]:
    for start in range(0, height, _STRIP):
        yield slice(start, min(start + _STRIP, height))
