"""The formats of files of photos: how they are called, and what each can hold."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dfi_server.photo import colour, icc
from dfi_server.photo.pixels import Photo, from_unit, to_depth, to_unit


@dataclass(frozen=True)
class Format:
    """What a format can hold: a dtype at most, transparency, a colour profile, a picture of one channel.

    `longest`: pixels to a side that the libraries here write; None: more than a photo may have.
    """

    name: str
    deepest: str
    transparency: bool = True
    profile: bool = True
    gray: bool = True
    longest: int | None = None


WRITTEN = {  # by Pillow's names
    "AVIF": Format("AVIF", "uint16", gray=False, longest=16_384),
    "BMP": Format("BMP", "uint8", transparency=False, profile=False),
    "HEIF": Format("HEIC", "uint16", gray=False, longest=65_520),
    "JPEG": Format("JPEG", "uint8", transparency=False, longest=65_500),
    "JPEG2000": Format("JPEG 2000", "uint8", profile=False),
    "JXL": Format("JPEG XL", "float32"),
    "PNG": Format("PNG", "uint16"),
    "TIFF": Format("TIFF", "float32"),
    "WEBP": Format("WebP", "uint8", gray=False, longest=16_383),
}
EXTENSIONS = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jxl": "JXL"} | Image.registered_extensions()
"""Of what is read or written, in lower case, with Pillow's name of the format."""


def of_path(path: Path) -> str | None:
    """The name of the format that a file's extension stands for, if it can be written."""
    name = EXTENSIONS.get(path.suffix.lower())
    return name if name in WRITTEN else None


def fitted(photo: Photo, name: str) -> tuple[Photo, tuple[str, ...]]:
    """The photo as a format can hold it, and sentences on what a user would not expect.

    Where there is no transparency it lies on white; without a place for its profile it is in sRGB.
    """
    holds, notes = WRITTEN[name], list[str]()
    if photo.alpha is not None and not holds.transparency:
        if (photo.alpha < _opaque(photo.alpha)).any():
            notes.append(f"Its transparent parts are white in the result: {holds.name} has no transparency.")
        photo = on_white(photo)
    if photo.pixels.shape[2] == 1 and not holds.gray:
        profile = icc.gray_as_rgb(photo.icc_profile) if photo.icc_profile else None
        photo = replace(photo, pixels=np.repeat(photo.pixels, 3, axis=2), icc_profile=profile)
    if photo.icc_profile and not holds.profile:
        photo = replace(photo, pixels=to_depth(colour.to_srgb(photo), photo.pixels.dtype), icc_profile=None)
    if photo.pixels.dtype.itemsize > np.dtype(holds.deepest).itemsize:
        photo = _at_depth(photo, np.dtype(holds.deepest))
    return photo, tuple(notes)


def _opaque(alpha: np.ndarray) -> float:
    return np.iinfo(alpha.dtype).max if np.issubdtype(alpha.dtype, np.integer) else 1.0


def on_white(photo: Photo) -> Photo:
    """Without transparency, and with every pixel that is opaque as it is."""
    if photo.alpha is None:
        return photo
    pixels, seen_through = photo.pixels.copy(), photo.alpha < _opaque(photo.alpha)
    weight = np.clip(to_unit(photo.alpha[seen_through]), 0, 1)[:, None]
    pixels[seen_through] = from_unit(1 + weight * (to_unit(pixels[seen_through]) - 1), pixels.dtype)
    return replace(photo, pixels=pixels, alpha=None)


def _at_depth(photo: Photo, dtype: np.dtype) -> Photo:
    alpha = None if photo.alpha is None else to_depth(photo.alpha, dtype)
    return replace(photo, pixels=to_depth(photo.pixels, dtype), alpha=alpha)
