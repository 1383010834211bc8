"""What keeps the frame's coarseness out of a photo that is finer than the frame.

The solver's answer is 200 pixels wide and made of what VGG-19 tells apart: its colours are noisy, its edges are as soft
as LFW's, and it has no grain. docs/full-resolution.md shows what each step here does to a portrait.
"""

import cv2
import numpy as np

from dfi_server.photo.pixels import brightness

_COLOUR_WINDOW = 9  # frame pixels
_GUIDE_NOISE = 0.05  # in units of white: brightness that varies less than this is no edge to colour
_DARKEST = 0.02  # in units of white: below, a colour's ratio to its brightness is noise
_DARKENED = 0.15  # of its brightness: what loses as much counts as darkened altogether, see _in_shade
_OTHER_HUE = 0.5  # what something darkened takes on of another hue
_NOVELTY_LOW, _NOVELTY_HIGH = 0.025, 0.067  # of the residual's local contrast, in units of white
_MAX_ENLARGEMENT = 4  # edges get four times finer than the frame at most, which bounds the work for large faces
_EDGE_BLUR = 0.6  # frame pixels: the scale of what counts as an edge
_STEP = 0.5  # of the way to the brightest or darkest neighbour; stable below 1
_SHARPENING = 0.5  # of the shock filter's change: all of it looks like a cartoon
_GRAIN_LIMIT = 3.7  # times the median size of a photo's fine detail: 2.5 standard deviations of Gaussian grain


def smooth_colour(moved: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The residual with its colour smoothed and its brightness kept, (H, W, 3).

    Colour is smoothed along what is bright and what is dark (a guided filter), so that teeth do not take on the lips'
    colour; and what gets darker loses colour with its brightness, so that hair painted on skin has no coloured rim, and
    keeps its hue for the most part, so that a mustache is not green, nor the lip of an open mouth gray.
    """
    painted = moved + residual
    light, light_before = brightness(painted), brightness(moved)
    fading = np.clip(np.maximum(light, _DARKEST) / np.maximum(light_before, _DARKEST), 0, 1)
    kept = fading * (moved - light_before)
    darkened = np.clip((1 - fading) / _DARKENED, 0, 1)
    colour = kept + _in_shade(_guided(painted - light - kept, light), kept, darkened)
    return np.asarray(light + colour - brightness(colour) - moved)


def _in_shade(added: np.ndarray, kept: np.ndarray, darkened: np.ndarray) -> np.ndarray:
    """What is `added` to the colour that was `kept`, as far as it may where a pixel was `darkened` (H, W, 1) in [0, 1].

    The kept hue may get stronger, as on painted lips, but not weaker; another one comes in by half.
    """
    ratio = (added * kept).sum(axis=2, keepdims=True) / ((kept * kept).sum(axis=2, keepdims=True) + 1e-6)
    weaker, other_hue = np.minimum(ratio, 0) * kept, added - ratio * kept
    return np.asarray(added - darkened * (weaker + _OTHER_HUE * other_hue))


def _guided(image: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """The guided filter (He, Sun & Tang, ECCV 2010): `image` (H, W, C) smoothed, but not across edges of `guide`."""
    mean, guide_mean = _box(image), _box(guide)
    slope = (_box(guide * image) - guide_mean * mean) / (_box(guide * guide) - guide_mean**2 + _GUIDE_NOISE**2)
    return np.asarray(_box(slope) * guide + _box(mean - slope * guide_mean))


def _box(image: np.ndarray) -> np.ndarray:
    return cv2.blur(image, (_COLOUR_WINDOW, _COLOUR_WINDOW)).reshape(image.shape)


def novelty(residual: np.ndarray) -> np.ndarray:
    """How far a residual paints new structure, (H, W, 1) in [0, 1]: its local contrast, shading left out."""
    light = brightness(residual)
    contrast = np.sqrt(_blur((light - _blur(light, 4)) ** 2, 2.5))
    return _blur(np.clip((contrast - _NOVELTY_LOW) / (_NOVELTY_HIGH - _NOVELTY_LOW), 0, 1), 1.5)


def sharpening(painted: np.ndarray, scale: float) -> np.ndarray:
    """What makes the edges of the frame `painted` (H, W, 3) sharper at `scale` photo pixels per frame pixel.

    Returns the change of brightness, (kH, kW, 1), k from 1 to _MAX_ENLARGEMENT. A shock filter: pixels on the dark side
    of an edge go to their darkest neighbour, those on the bright side to the brightest; the sides are told apart by the
    second derivative across the edge of a smoothed copy (Alvarez & Mazorra, SIAM J. Numer. Anal. 31(2), 1994).
    """
    k = int(np.clip(round(scale), 1, _MAX_ENLARGEMENT))
    size = (k * painted.shape[1], k * painted.shape[0])
    soft = cv2.resize(brightness(painted)[..., 0], size, interpolation=cv2.INTER_CUBIC)
    sharp = soft
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(k if k > 1 else 0):
        smooth = cv2.GaussianBlur(sharp, (0, 0), _EDGE_BLUR * k)
        derivative = {
            (dx, dy): cv2.Sobel(smooth, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1), (2, 0), (0, 2), (1, 1))
        }
        x, y = derivative[1, 0], derivative[0, 1]
        across = x * x * derivative[2, 0] + 2 * x * y * derivative[1, 1] + y * y * derivative[0, 2]
        across /= x * x + y * y + 1e-8
        side = np.tanh(across / (np.abs(across).mean() + 1e-6))
        darker, brighter = sharp - cv2.erode(sharp, cross), cv2.dilate(sharp, cross) - sharp
        sharp = sharp - _STEP * (np.maximum(side, 0) * darker - np.maximum(-side, 0) * brighter)
    return np.asarray(_SHARPENING * (sharp - soft))[..., None]


def grain_limit(fine: np.ndarray) -> float:
    """The size up to which a photo's fine detail (H, W, C) is taken for skin texture and grain, in units of white."""
    return float(_GRAIN_LIMIT * np.median(np.abs(fine)))


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)
