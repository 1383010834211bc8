"""Photographs on disk and in memory: read, write, and lay an edit over one."""

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.protocol import MAX_PIXELS

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit would refuse photos that the rest of the program takes

BOX_FADE = 0.06
"""Width of the soft border of what is kept inside a box, as a fraction of its sides."""

_FORMATS = {"AVIF", "BMP", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"}  # what keeps a photo's size and colours
_OPAQUE = {"BMP", "JPEG"}

Pixels: TypeAlias = np.ndarray
"""(H, W, 3) RGB or (H, W, 1) gray, sRGB: uint8 or uint16 over their full range, or float32 in [0, 1]."""

Box: TypeAlias = tuple[int, int, int, int]
"""x, y, width, height in photo pixels."""


@dataclass(frozen=True)
class Photo:
    """A photo as edits need it: colour apart from transparency, and what else its file carried."""

    pixels: Pixels
    alpha: np.ndarray | None = None  # (H, W), in the dtype of pixels
    icc_profile: bytes | None = None
    exif: bytes | None = None


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


def read(path: Path) -> Photo:
    """Read an image file that Pillow knows, turned upright by its EXIF orientation.

    Colour comes as 8-bit RGB (palette and CMYK are converted) or 8-bit gray. Raises DFIError(BAD_IMAGE | TOO_LARGE).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below, in one sentence
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                if image.mode in ("I", "F"):
                    raise ValueError("pixels of 32-bit numbers have no known range: convert it to 8 or 16 bits")
                # a CMYK profile does not describe the RGB that the pixels are turned into
                icc_profile = image.info.get("icc_profile") if image.mode != "CMYK" else None
                upright = ImageOps.exif_transpose(image)
                exif = upright.getexif().tobytes() if upright.getexif() else None
                if upright.mode.startswith("I;16"):  # Pillow would clip at 255 instead of scaling
                    upright = Image.fromarray(np.rint(np.asarray(upright) / 257).astype(np.uint8))
                transparent = upright.has_transparency_data
                gray = upright.mode in ("1", "L", "LA")
                converted = upright.convert(("LA" if gray else "RGBA") if transparent else "L" if gray else "RGB")
    except Image.DecompressionBombError as error:
        raise DFIError(
            ErrorCode.TOO_LARGE,
            f"{path} has more than {MAX_PIXELS // 1_000_000} megapixels, the most that is opened: scale it down first.",
        ) from error
    except FileNotFoundError as error:
        raise DFIError(ErrorCode.BAD_IMAGE, f"There is no image at {path}.") from error
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        raise DFIError(ErrorCode.BAD_IMAGE, f"{path} is not an image that can be read ({error}).") from error
    pixels = np.asarray(converted)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if not transparent:
        return Photo(pixels, None, icc_profile, exif)
    return Photo(np.ascontiguousarray(pixels[..., :-1]), pixels[..., -1], icc_profile, exif)


def write(path: Path, photo: Photo) -> None:
    """Write a photo in the format of the path's extension, whole or not at all.

    Raises DFIError(BAD_IMAGE) for an extension that cannot be written, DFIError(NO_SPACE) where writing fails.
    """
    check_writable(path)
    format_name = Image.registered_extensions()[path.suffix.lower()]
    image = to_image(replace(photo, alpha=None) if format_name in _OPAQUE else photo)
    extras = {key: getattr(photo, key) for key in ("icc_profile", "exif") if getattr(photo, key)}
    extras |= {"quality": 95} if format_name in ("AVIF", "JPEG", "WEBP") else {}
    extras |= {"subsampling": 0} if format_name == "JPEG" else {}
    try:
        write_whole(path, lambda file: image.save(file, format_name, **extras))
    except (OSError, ValueError) as error:
        raise DFIError(ErrorCode.NO_SPACE, f"{path} could not be written ({error}).") from error


def check_writable(path: Path) -> None:
    """Raise DFIError before any work is done, if a result could not be written to `path`."""
    format_name = Image.registered_extensions().get(path.suffix.lower())
    if format_name not in _FORMATS:
        raise DFIError(
            ErrorCode.BAD_IMAGE, f"'{path.name}' has no extension of a photo's format: use .png, .jpg, .tif or .webp."
        )
    if path.is_dir():
        raise DFIError(ErrorCode.BAD_REQUEST, f"{path} is a folder: name a file in it.")
    if not path.parent.is_dir():
        raise DFIError(ErrorCode.BAD_REQUEST, f"There is no folder {path.parent} to write {path.name} to.")


def write_whole(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    """Let `save` write to a temporary file beside `path`, and put it in place only when it is complete."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            save(file)
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_image(photo: Photo) -> Image.Image:
    """The photo as a Pillow image: L, LA, RGB or RGBA."""
    pixels = photo.pixels
    if photo.alpha is not None:
        pixels = np.concatenate([pixels, photo.alpha[..., None]], axis=2)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def edited(photo: Photo, patch: Patch) -> Photo:
    """The photo with the patch laid over its colour; transparency, profile and EXIF stay."""
    return replace(photo, pixels=composite(photo.pixels, patch))
