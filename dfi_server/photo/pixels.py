"""Photographs in memory, and laying an edit over one. disk.py has those on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire.limits import DTYPE_BYTES, MAX_PIXELS

BOX_FADE = 0.06
"""Width of the soft border of what is kept inside a box, as a fraction of its sides."""

Pixels: TypeAlias = np.ndarray
"""(H, W, 3) RGB or (H, W, 1) gray: uint8 or uint16 over their full range, or float32 with white at 1."""

Box: TypeAlias = tuple[int, int, int, int]
"""x, y, width, height in photo pixels."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # Rec. ITU-R BT.601


Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Metadata:
    """What is known of a photo that lies upright; None or empty where nothing is.

    `exif`: "Exif\\0\\0" and a TIFF structure, as in a JPEG. `iptc`: IPTC-IIM's records. `texts`: a PNG's, keywords and
    values; a JPEG's comment is one, "Comment".
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    dots_per_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class Pages:
    """How many pictures a photo's file has; where the others can be kept, that file and their numbers in it."""

    count: int = 1
    path: Path | None = None
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class Photo:
    """A photo as edits need it: colour apart from transparency, and what else its file carried.

    `pixels` are in the colour space of `icc_profile`, or sRGB where there is none; colour.py knows the way between.
    """

    pixels: Pixels
    alpha: np.ndarray | None = None  # (H, W), in the dtype of pixels
    icc_profile: bytes | None = None
    metadata: Metadata = Metadata()
    pages: Pages = Pages()
    is_lossless: bool = False  # in its file, whose format can do both
    notes: tuple[str, ...] = ()  # sentences on what of its file is not in it


@dataclass(frozen=True)
class Patch:
    """An edit: a rectangle of a photo with its new pixels, and how far each of them counts.

    `pixels` is (h, w, C) in the photo's dtype, not feathered; `mask` is (h, w) uint8: 0 keeps the photo, 255 takes
    the patch. `x`, `y`: the rectangle's corner in the photo.
    """

    x: int
    y: int
    pixels: Pixels
    mask: np.ndarray

    @property
    def box(self) -> Box:
        height, width = self.mask.shape
        return self.x, self.y, width, height


def crop(pixels: Pixels, box: Box) -> Pixels:
    """The part of `pixels` inside `box`, not copied."""
    x, y, width, height = box
    return pixels[y : y + height, x : x + width]


def to_unit(pixels: Pixels) -> np.ndarray:
    """Pixels of any dtype as float32; integers are scaled to [0, 1]."""
    if not np.issubdtype(pixels.dtype, np.integer):
        return pixels.astype(np.float32)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def from_unit(pixels: np.ndarray, dtype: np.dtype) -> Pixels:
    """The way back: integers are rounded and clipped, floats keep values outside [0, 1]."""
    if not np.issubdtype(dtype, np.integer):
        return pixels.astype(dtype)
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * np.iinfo(dtype).max), dtype=dtype)


def brightness(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) or (H, W, 1) float32 to (H, W, 1)."""
    return image if image.shape[2] == 1 else np.asarray(image @ _LUMA)[..., None]


def to_depth(pixels: Pixels, dtype: np.dtype) -> Pixels:
    """The same picture in another dtype."""
    return pixels if pixels.dtype == dtype else from_unit(to_unit(pixels), dtype)


def to_8bit(pixels: Pixels) -> np.ndarray:
    """The same picture as uint8, for what only looks at it."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        shifted: np.ndarray = (pixels >> 8).astype(np.uint8)
        return shifted
    scaled: np.ndarray = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return scaled


def to_picture(pixels: Pixels) -> Image.Image:
    """The same picture as an 8-bit RGB Pillow image, for what only looks at it."""
    return to_image(Photo(to_8bit(pixels))).convert("RGB")


def composite(pixels: Pixels, patch: Patch) -> Pixels:
    """A copy of `pixels` (H, W, C) with the patch laid over it; where the mask is 0 it is bit-identical."""
    result = pixels.copy()
    region = crop(result, patch.box)
    weight = patch.mask[..., None].astype(np.float32) / 255
    blend = region + weight * (patch.pixels.astype(np.float32) - region)
    if np.issubdtype(pixels.dtype, np.integer):
        blend = np.rint(blend)
    np.copyto(region, blend.astype(pixels.dtype), where=patch.mask[..., None] > 0)
    return result


def merge(pixels: Pixels, patches: Sequence[Patch]) -> Patch:
    """One patch for several on the same photo; where they overlap, the one whose mask is stronger counts."""
    if len(patches) == 1:
        return patches[0]
    x, y = min(p.x for p in patches), min(p.y for p in patches)
    right, bottom = max(p.x + p.mask.shape[1] for p in patches), max(p.y + p.mask.shape[0] for p in patches)
    whole = Patch(x, y, crop(pixels, (x, y, right - x, bottom - y)).copy(), np.zeros((bottom - y, right - x), np.uint8))
    for patch in patches:
        _, _, width, height = patch.box
        part = (slice(patch.y - y, patch.y - y + height), slice(patch.x - x, patch.x - x + width))
        stronger = patch.mask > whole.mask[part]
        whole.pixels[part][stronger] = patch.pixels[stronger]
        whole.mask[part][stronger] = patch.mask[stronger]
    return whole


def on_one_box(pixels: Pixels, patches: Sequence[Patch]) -> list[Patch]:
    """The same patches on the smallest rectangle that holds them all; what is added to one keeps the photo."""
    if len({patch.box for patch in patches}) == 1:
        return list(patches)
    nothing = [replace(patch, mask=np.zeros_like(patch.mask)) for patch in patches]
    return [merge(pixels, [patch, *nothing]) for patch in patches]


def over(pixels: Pixels, first: Patch, second: Patch) -> Patch:
    """One patch for two, where `second` was made for `pixels` with `first` laid over them.

    It covers altogether what `first` touches, and elsewhere as much as `second` does.
    """
    x, y = min(first.x, second.x), min(first.y, second.y)
    right = max(patch.x + patch.mask.shape[1] for patch in (first, second))
    bottom = max(patch.y + patch.mask.shape[0] for patch in (first, second))
    part = crop(pixels, (x, y, right - x, bottom - y))
    first, second = (replace(patch, x=patch.x - x, y=patch.y - y) for patch in (first, second))
    below, mask = composite(part, first), np.zeros(part.shape[:2], np.uint8)
    crop(mask, first.box)[first.mask > 0] = 255
    result = composite(below, second)
    alone = crop(mask, second.box) == 0
    crop(result, second.box)[alone] = second.pixels[alone]
    crop(mask, second.box)[alone] = second.mask[alone]
    return Patch(x, y, result, mask)


class Layers:
    """A photo and the patches laid over it one after the other; `patch` is the sum of them."""

    def __init__(self, photo: Pixels) -> None:
        self.patch = Patch(0, 0, photo[:0, :0], np.zeros((0, 0), np.uint8))
        self._original = photo
        self._photo: Pixels | None = photo

    @property
    def photo(self) -> Pixels:
        """The photo with all of them; a copy of it is made when asked for, which the last patch need not be."""
        if self._photo is None:
            self._photo = composite(self._original, self.patch)
        return self._photo

    def add(self, patch: Patch) -> None:
        """Lay a patch that was made for `photo` over it."""
        self.patch = over(self._original, self.patch, patch) if self.patch.mask.size else patch
        self._photo = None


def within(patch: Patch, box: Box) -> Patch:
    """The part of a patch inside `box`, fading out towards the box's sides."""
    x, y = max(patch.x, box[0]), max(patch.y, box[1])
    right = max(x, min(patch.x + patch.mask.shape[1], box[0] + box[2]))
    bottom = max(y, min(patch.y + patch.mask.shape[0], box[1] + box[3]))
    fade = [
        np.clip((np.minimum(steps - low, low + length - steps)) / (BOX_FADE * length), 0, 1)
        for steps, low, length in (
            (np.arange(y, bottom) + 0.5, box[1], box[3]),
            (np.arange(x, right) + 0.5, box[0], box[2]),
        )
    ]
    part = (x - patch.x, y - patch.y, right - x, bottom - y)
    mask = np.rint(crop(patch.mask, part) * np.outer(*fade)).astype(np.uint8)
    return Patch(x, y, crop(patch.pixels, part), mask)


def with_alpha(photo: Photo) -> np.ndarray:
    """The photo's pixels with transparency, where it has such, as one channel more."""
    return photo.pixels if photo.alpha is None else np.concatenate([photo.pixels, photo.alpha[..., None]], axis=2)


def to_image(photo: Photo) -> Image.Image:
    """The photo as a Pillow image: L, LA, RGB or RGBA."""
    pixels = with_alpha(photo)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def edited(photo: Photo, patch: Patch) -> Photo:
    """The photo with the patch laid over its colour; transparency, profile and metadata stay."""
    return replace(photo, pixels=composite(photo.pixels, patch))


def check_photo(photo: Pixels) -> None:
    """Raise DFIError(BAD_IMAGE | TOO_LARGE) unless it is one: (H, W, 1 or 3), of a type that edits know, finite."""
    if photo.ndim != 3 or photo.shape[2] not in (1, 3) or photo.dtype.name not in DTYPE_BYTES:
        raise DFIError(
            ErrorCode.BAD_IMAGE,
            f"A photo is height x width x 1 or 3 of {', '.join(DTYPE_BYTES)}, not {photo.shape} of {photo.dtype}.",
        )
    if 0 in photo.shape:
        raise DFIError(ErrorCode.BAD_IMAGE, "The photo has no pixels.")
    if photo.shape[0] * photo.shape[1] > MAX_PIXELS:
        raise DFIError(
            ErrorCode.TOO_LARGE,
            f"The photo has {photo.shape[1]} x {photo.shape[0]} pixels, more than {MAX_PIXELS // 10**6} megapixels.",
        )
    if photo.dtype == np.float32 and not np.isfinite(photo).all():
        raise DFIError(ErrorCode.BAD_IMAGE, "The photo has pixels that are not finite numbers.")
