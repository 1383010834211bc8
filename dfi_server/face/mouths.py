"""What is seen between lips that part: teeth, tongue and dark, from sharp portraits of people who do not exist.

DFI paints it from features that are 4 to 16 pixels wide, so that single teeth melt into a bar. The mouths here are
pictures (see portraits/README.md): the one whose opening is most like the new one is fitted into it and given the
photo's light, blur and grain. A mouth that is open already keeps its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dfi_server.face.detail import grain_limit
from dfi_server.face.frame import Frame, warp
from dfi_server.face.portraits import CROP, Mouth
from dfi_server.photo.pixels import Patch, Pixels, brightness, from_unit, to_unit
from dfi_server.photo.tone import tone_of

TEETH = 0.97
"""Of a mouth's brightness. Real teeth are a sixth brighter; so bright, edited mouths have more contrast than real."""

_CROPPED = 1.6  # times as tall as its gap may a mouth be: what is more goes under a lip, the rest is compressed
_STRETCHED = 1.6  # times as tall as before an open mouth's own teeth may get; below them it is dark
_LEAST_OWN = 0.04  # height over width of a mouth that is open enough to show what is in it
_EVENED, _LESS = (1.3, 5.0), 0.35  # frame pixels: contrast between these scales is less than the picture's, by so much
_DARK = np.array([0.16, 0.08, 0.07])  # of a mouth, in units of white
_MARGIN = 8  # frame pixels around the gap
_EDGE = 1.2  # frame pixels: the blur of the gap's edge
_SHADE, _SHADE_DEPTH = 0.3, 2.5  # how much darker it is at the lips, and how many frame pixels far in
_PICTURE = 0.3  # the part of the light that the picture's brightest tell, against the face's skin
_SKIN = 40, 60  # percentiles of a face's brightness: its usual skin tells that of teeth better than its brightest does
_GRAIN_BLUR = 1.5  # photo pixels: what is finer counts as grain
_PLACES = np.linspace(0, 1, 11)[1:-1]  # along the mouth, where shapes are compared
_SHAPE, _KIND, _LIGHT = 4.0, 0.5, 0.3  # what a difference in these counts beside one in the logarithm of the height


@dataclass(frozen=True)
class Gap:
    """An opening between lips: smooth contours (N, 2) from the right corner to the left one."""

    upper: np.ndarray
    lower: np.ndarray

    def axes(self) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
        """The right corner, the width, and unit vectors across and down."""
        corner, across = self.upper[0], self.upper[-1] - self.upper[0]
        width = max(float(np.hypot(*across)), 1e-6)
        across = across / width
        return corner, width, across, np.array([-across[1], across[0]])

    def sides(self, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far down its upper and lower side lie at places `along` in [0, 1]; in widths."""
        corner, width, across, down = self.axes()
        upper, lower = (
            np.interp(along, (side - corner) @ across / width, (side - corner) @ down / width)
            for side in (self.upper, self.lower)
        )
        return upper, lower

    @property
    def height(self) -> float:
        """Its mean height in widths."""
        upper, lower = self.sides(_PLACES)
        return float(np.maximum(lower - upper, 0).mean())

    def shape(self) -> np.ndarray:
        """How its sides bend, (18,) in widths, wherever its corners are."""
        bent = np.concatenate(self.sides(_PLACES))
        return np.asarray(bent - bent[[4, 13]].mean())


def choose(mouths: Sequence[Mouth], gap: Gap, light: float, smiling: bool) -> Mouth:
    """The one that fits best into a gap, in a face as bright as `light`."""

    def difference(mouth: Mouth) -> float:
        other = Gap(mouth.upper, mouth.lower)
        return (
            abs(math.log((gap.height + 0.01) / (other.height + 0.01)))
            + _SHAPE * float(np.abs(gap.shape() - other.shape()).mean())
            + _KIND * (smiling != mouth.smiling)
            + _LIGHT * abs(math.log(light / mouth.light))
        )

    return min(mouths, key=difference)


def fill(
    photo: Pixels,
    patch: Patch,
    frame: Frame,
    gap: Gap,
    mouth: Mouth,
    blur: float,
    light: np.ndarray | None,
    is_own: bool,
) -> Patch:
    """Lay a mouth into the gap between the lips of a moved face.

    `patch`: the moved face in `photo`; `gap` in pixels of `frame`. `blur`: standard deviation in frame pixels. `light`:
    what the mouth's colours are multiplied by, (3,). `is_own`: it is the photo's own, light and grain are its own.
    """
    outline = np.vstack([gap.upper, gap.lower[::-1]])
    low, high = outline.min(axis=0) - _MARGIN, outline.max(axis=0) + _MARGIN
    low, high = np.clip(np.floor(low), 0, frame.size).astype(int), np.clip(np.ceil(high), 0, frame.size).astype(int)
    x, y, width, height = frame.bounds((photo.shape[1], photo.shape[0]), (*low.tolist(), *(high - low).tolist()))
    left, top = max(x, patch.x), max(y, patch.y)
    right, bottom = min(x + width, patch.x + patch.mask.shape[1]), min(y + height, patch.y + patch.mask.shape[0])
    if right <= left or bottom <= top:
        return patch
    part = (slice(top - patch.y, bottom - patch.y), slice(left - patch.x, right - patch.x))
    moved = to_unit(patch.pixels[part])
    places = np.stack(np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5), axis=-1)
    to_frame = frame.inverse()
    along, deep = _chart(gap, places @ to_frame[:, :2].T + to_frame[:, 2])
    inside = _fitted(mouth, along, deep, gap, frame.scale, is_own)
    if blur > 0:
        inside = cv2.GaussianBlur(inside, (0, 0), max(blur * frame.scale, 0.1))
    mask = np.zeros(moved.shape[:2], dtype=np.uint8)
    corners = outline @ frame.matrix[:, :2].T + frame.matrix[:, 2] - (left, top) - 0.5
    cv2.fillPoly(mask, [np.rint(corners * 32).astype(np.int32)], 255, cv2.LINE_AA, 5)
    if light is not None:
        depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5) / (_SHADE_DEPTH * frame.scale)
        inside = inside * light * (1 - _SHADE * np.exp(-(depth**2)))[..., None]
        fine, coarse = (cv2.GaussianBlur(inside, (0, 0), sigma * frame.scale) for sigma in _EVENED)
        inside = inside - _LESS * (fine - coarse)
    inside = inside.astype(np.float32) if moved.shape[2] == 3 else brightness(inside.astype(np.float32))
    if not is_own:
        fine = moved - cv2.GaussianBlur(moved, (0, 0), _GRAIN_BLUR).reshape(moved.shape)
        limit = grain_limit(fine)
        inside = inside + np.clip(fine, -limit, limit)
    if tone := tone_of(photo):
        inside = tone.of(inside)
    weight = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(_EDGE * frame.scale, 0.3))[..., None]
    pixels, cover = patch.pixels.copy(), patch.mask.copy()
    pixels[part] = from_unit(moved + weight * (inside - moved), photo.dtype)
    cover[part] = np.maximum(cover[part], np.rint(255 * np.minimum(2 * weight[..., 0], 1)).astype(np.uint8))
    return Patch(patch.x, patch.y, pixels, cover)


def own_mouth(photo: Pixels, frame: Frame, gap: Gap, light: float) -> Mouth:
    """What the photo shows in an open mouth, at the photo's own resolution up to twice that of portraits' mouths."""
    scale = float(np.clip(frame.scale, 1, 2 * CROP.scale))
    x, y, width, height = CROP.box
    to_frame = np.array([[1 / scale, 0, x], [0, 1 / scale, y], [0, 0, 1]])
    image = warp(photo, frame.matrix @ to_frame, (round(width * scale), round(height * scale)))
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    return Mouth(image, (gap.upper - (x, y)) * scale, (gap.lower - (x, y)) * scale, light, False)


def shows_something(gap: Gap) -> bool:
    """Whether an open mouth is open enough to go on with what it shows."""
    return gap.height > _LEAST_OWN


def light_on(face: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The light on a face (H, W, 3) in [0, 1], as a colour (3,), from its skin; `region` (H, W): 0 outside it.

    Skin alone would make teeth dark in a dark face, so a part of it is how bright the picture gets: of 36 real smiles
    teeth are as bright as the skin to the power of 0.7, within 27 %.
    """
    colours, light = face[region > 0], brightness(face)[..., 0]
    low, high = np.percentile(light[region > 0], _SKIN)
    skin = colours[(light[region > 0] >= low) & (light[region > 0] <= high)].mean(axis=0)
    brightest = np.percentile(light, 98)
    return np.asarray(skin * (brightest / max(float(skin.mean()), 1e-3)) ** _PICTURE)


def _chart(gap: Gap, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where places (H, W, 2) lie in a gap: along it, and from its upper to its lower side; both in [0, 1] inside."""
    corner, width, across, down = gap.axes()
    along = (places - corner) @ across / width
    upper, lower = gap.sides(along)
    return along, ((places - corner) @ down / width - upper) / np.maximum(lower - upper, 1e-3)


def _fitted(mouth: Mouth, along: np.ndarray, deep: np.ndarray, gap: Gap, scale: float, is_own: bool) -> np.ndarray:
    """The mouth's picture at places of a gap, (H, W, 3). `scale`: photo pixels per frame pixel of the gap."""
    cropped, stretched = (1.0, _STRETCHED) if is_own else (_CROPPED, math.inf)
    own = Gap(mouth.upper, mouth.lower)
    taller = gap.height / max(own.height, 1e-3)
    part = min(1.0, cropped * taller)
    deep = np.clip(deep, -0.1, 1.1)
    # a smile lowers the upper lip over its teeth, down to their edges; a mouth that opens shows them from above
    deep = 1 - part * (1 - deep) if mouth.smiling else part * max(1.0, taller / stretched) * deep
    below = np.clip((deep - 0.95) / 0.1, 0, 1)[..., None]
    deep = np.minimum(deep, 1.1)
    along = np.clip(along, 0, 1)
    upper, lower = own.sides(along)
    corner, width, across, down = own.axes()
    places = corner + width * (along[..., None] * across + (upper + (lower - upper) * deep)[..., None] * down)
    image = mouth.image
    shrunk = gap.axes()[1] * scale / width
    if shrunk < 1:  # low-pass before sampling more coarsely
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / shrunk)
    x, y = (places[..., k].astype(np.float32) - 0.5 for k in (0, 1))
    shown = cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if taller > stretched:
        shown = shown + below * (_DARK * mouth.light - shown)
    return np.clip(shown, 0, 1)
