"""Photographs without colours of their own: black and white, sepia and other toning, stored as RGB.

In such a photo a pixel's colour follows from its intensity. An edit that painted the colours of lips and teeth into it
would give itself away.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from dfi_server.photo.pixels import Pixels, to_unit

_SIDE = 48  # pixels that a picture is looked at in: noise of single pixels is averaged away
_SAMPLES = 200_000  # pixels that the tone is measured on
_LEVELS = 64
_END = 0.5  # of the range of intensity: what says how the tone goes on beyond the darkest and brightest pixel
_NEAR = 2.6 / 255  # to the tone, root mean square; sepia as JPEG of quality 75 reaches 1.5, pale photos start at 3.1
_FAR = 2 * _NEAR  # where only a few colours, averaged, have been looked at


@dataclass(frozen=True)
class Tone:
    """Colour as a function of intensity, the mean of the three channels: where one of them is clipped, brightness as
    the eye weighs it would hardly tell colours apart.

    `colours` (N, 3) at the rising `levels` (N,) from 0 to 1; those beyond [0, 1] are clipped when they are used.
    """

    levels: np.ndarray
    colours: np.ndarray

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """The tone's colours as intense as `pixels` (H, W, 3) float32."""
        intensity = pixels.mean(axis=2)
        channels = [np.interp(intensity, self.levels, channel) for channel in self.colours.T]
        return np.asarray(np.clip(np.stack(channels, axis=-1), 0, 1), dtype=np.float32)

    def apart(self, pixels: np.ndarray) -> np.ndarray:
        """What `pixels` (H, W, 3) float32 have beside the tone: noise, or the one red rose."""
        return np.asarray(pixels - self.of(pixels))


def tone_of(pixels: Pixels) -> Tone | None:
    """The tone of a picture (H, W, 3); None where it has colours, or one channel only."""
    if pixels.shape[2] == 1 or 0 in pixels.shape:
        return None
    step = math.ceil(math.sqrt(pixels.shape[0] * pixels.shape[1] / _SAMPLES))
    sampled = to_unit(pixels[::step, ::step])
    size = (min(_SIDE, sampled.shape[1]), min(_SIDE, sampled.shape[0]))
    small = cv2.resize(sampled, size, interpolation=cv2.INTER_AREA)
    if _apart(_fit(small), small) > _FAR:  # nearly all photos: no need to look closely
        return None
    tone = _fit(sampled)
    return tone if tone and _apart(tone, sampled, size) <= _NEAR else None


def _apart(tone: Tone | None, pixels: np.ndarray, size: tuple[int, int] | None = None) -> float:
    """How far pixels are from a tone, root mean square, seen in so many pixels; 0 without a tone."""
    if tone is None:
        return 0.0
    apart = tone.apart(pixels)
    if size:
        apart = cv2.resize(apart, size, interpolation=cv2.INTER_AREA)
    return float(np.sqrt(np.square(apart).max(axis=2).mean()))


def _fit(pixels: np.ndarray) -> Tone | None:
    """Mean colours of (H, W, 3) at evenly spaced levels of intensity; None where there is but one."""
    colours = np.clip(pixels, 0, 1).reshape(-1, 3)
    intensity = colours.mean(axis=1)
    low, high = intensity.min(), intensity.max()
    if low == high:
        return None
    bins = np.minimum(((intensity - low) / (high - low) * _LEVELS).astype(int), _LEVELS - 1)
    counts = np.bincount(bins, minlength=_LEVELS)
    filled = counts > 0
    levels, *channels = (
        np.bincount(bins, weights=each, minlength=_LEVELS)[filled] / counts[filled] for each in (intensity, *colours.T)
    )
    extended = [(_end(levels, channel, 0), *channel, _end(levels, channel, 1)) for channel in channels]
    return Tone(np.array([0.0, *levels, 1.0]), np.stack(extended, axis=-1))


def _end(levels: np.ndarray, channel: np.ndarray, end: int) -> float:
    """A channel's value at level 0 or 1: from its nearest value on, as steeply as it goes there."""
    nearest = -end
    near = np.abs(levels - levels[nearest]) <= _END * np.ptp(levels)
    slope = np.polyfit(levels[near], channel[near], 1)[0] if near.sum() > 1 else 1.0
    return float(channel[nearest] + slope * (end - levels[nearest]))
