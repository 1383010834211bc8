"""The way between a photo's own colour space and sRGB, in which edits are made."""

import functools
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import pyvips

from dfi_server import system
from dfi_server.photo import icc
from dfi_server.photo.pixels import Patch, Photo, Pixels, crop, from_unit, to_depth, to_unit

# It knows profiles by the names of their files, which are used again and again here.
pyvips.cache_set_max(0)

_SAME = 1 / 255  # profiles that differ from sRGB by less mean sRGB
_SRGB = "srgb"  # libvips' own profile


def to_srgb(photo: Photo) -> Pixels:
    """The photo's pixels in sRGB: as they are where that is their space, else as uint16; gray stays one channel.

    A profile that is damaged, or made for another kind of picture, is taken for sRGB.
    """
    if _means_srgb(photo.icc_profile, photo.pixels.shape[2]):
        return photo.pixels
    with _file(photo.icc_profile, photo.pixels.shape[2]) as profile:
        return _transform(photo.pixels, profile, _SRGB)


def from_srgb(photo: Photo, srgb: Pixels, patch: Patch) -> Patch:
    """An edit of `srgb` = to_srgb(photo) as one of the photo itself.

    What the edit changed is added to the photo's own pixels, so that colours which sRGB lacks are not clipped.
    """
    if srgb is photo.pixels:
        return patch
    with _file(photo.icc_profile, photo.pixels.shape[2]) as profile:
        before, after = (_transform(pixels, _SRGB, profile) for pixels in (crop(srgb, patch.box), patch.pixels))
    own = crop(photo.pixels, patch.box)
    change = to_unit(after) - to_unit(before)
    if (own == own[..., :1]).all():  # the last digit of two conversions is no colour
        change = change.mean(axis=2, keepdims=True)
    return replace(patch, pixels=from_unit(to_unit(own) + change, own.dtype))


def _transform(pixels: Pixels, source: str, target: str) -> Pixels:
    """(H, W, C) to (H, W, C) uint16, by relative colorimetric intent; a profile is a file's name.

    Raises pyvips.Error where a profile does not fit.
    """
    height, width, channels = pixels.shape
    deep = np.ascontiguousarray(np.broadcast_to(to_depth(pixels, np.dtype(np.uint16)), (height, width, 3)))
    image = pyvips.Image.new_from_memory(deep.data, width, height, 3, "ushort").copy(interpretation="rgb16")
    converted = image.icc_transform(target, input_profile=source, depth=16, intent="relative")
    return np.asarray(converted.numpy()).reshape(height, width, -1)[..., :channels]


@functools.lru_cache(maxsize=8)
def _means_srgb(icc_profile: bytes | None, channels: int) -> bool:
    if not icc_profile:
        return True
    steps = np.linspace(0, 65535, 9 if channels == 3 else 256).astype(np.uint16)
    colours = np.stack(np.meshgrid(*[steps] * channels), axis=-1).reshape(1, -1, channels)
    try:
        with _file(icc_profile, channels) as profile:
            seen, _ = _transform(colours, profile, _SRGB), _transform(colours, _SRGB, profile)
    except pyvips.Error:
        return True
    return bool(np.abs(to_unit(seen) - to_unit(colours)).max() < _SAME)


def _file(icc_profile: bytes | None, channels: int) -> AbstractContextManager[str]:
    """libvips takes output profiles from files only, and is far from exact in dark grays but where they are RGB."""
    profile = icc.gray_as_rgb(icc_profile) if icc_profile and channels == 1 else icc_profile
    return system.file_with(profile or b"", "profile.icc")
