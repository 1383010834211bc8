"""Photographs on disk: libvips reads and writes the pixels at their own depth, extras.py and Pillow what it lacks."""

import contextlib
import io
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import ExifTags, Image, ImageOps

from dfi_server.errors import DFIError, ErrorCode, unwritable
from dfi_server.photo import exif, extras, formats, lossless, metadata, pages, signalled, unended
from dfi_server.photo.containers import opened
from dfi_server.photo.pixels import Metadata, Photo, Pixels, Size, to_image, with_alpha
from dfi_server.photo.whole import check_place, write_whole
from dfi_server.wire.limits import MAX_PIXELS

# Decoders that libvips itself would not trust with a stranger's file, as for SVG and PDF.
pyvips.block_untrusted_set(True)
logging.getLogger("pyvips").setLevel(logging.CRITICAL)  # what is wrong with a file is said in one sentence
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit would refuse photos that the rest of the program takes

# Pillow's name of a format -> libvips' saver with its options, and those for a photo that was lossless
_SAVERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "AVIF": ("heifsave_buffer", {"compression": "av1", "Q": 90}, {"compression": "av1", "lossless": True}),
    "JPEG": ("jpegsave_buffer", {"Q": 95, "subsample_mode": "off"}, {}),
    "PNG": ("pngsave_buffer", {"compression": 1}, {}),  # higher levels take seconds for a few percent
    "TIFF": ("tiffsave_buffer", {}, {}),
    "WEBP": ("webpsave_buffer", {"Q": 95}, {"lossless": True, "exact": True}),  # colours under transparency, too
}
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16, "float": np.float32}
_INTERPRETATIONS = {("uint8", 1): "b-w", ("uint16", 1): "grey16", ("uint8", 3): "srgb", ("uint16", 3): "rgb16"}


def read(path: Path) -> Photo:
    """Read an image file, its first page, turned upright by its EXIF orientation.

    Pixels come in the file's own depth and colour space; palettes, CMYK and Lab are turned into sRGB, black and white
    into gray. What else the file holds is in `pages` and `notes`. Raises DFIError(BAD_IMAGE | TOO_LARGE).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below, in one sentence
            try:
                # no path: libvips would take "[...]" at its end for options, and wants it in UTF-8
                with path.open("rb") as file:
                    return _read_by_vips(path, pyvips.Source.new_from_descriptor(file.fileno()), "truncated")
            except pyvips.Error:
                return _read_otherwise(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DFIError(
            ErrorCode.TOO_LARGE,
            f"{path} has more than {MAX_PIXELS // 1_000_000} megapixels, the most that is opened: scale it down first.",
        ) from error
    except FileNotFoundError as error:
        raise DFIError(ErrorCode.BAD_IMAGE, f"There is no image at {path}.") from error
    except PermissionError as error:
        raise DFIError(ErrorCode.BAD_IMAGE, f"{path} may not be read by this user: get permission to.") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        raise DFIError(ErrorCode.BAD_IMAGE, f"{path} is not an image that can be read ({error}).") from error


def _read_by_vips(path: Path, source: pyvips.Source, fail_on: str) -> Photo:
    image = pyvips.Image.new_from_source(source, "", fail_on=fail_on)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if image.format not in _DTYPES and image.interpretation != "labs":
        raise ValueError("its numbers have no known range: convert it to 8 or 16 bits, or to floating point")
    if pages.is_cut_off(path):
        raise EOFError("it ends too early")
    orientation, count = (image.get(name) if image.get_typeof(name) else 1 for name in ("orientation", "n-pages"))
    channels = 3 if image.bands > 2 else 1
    photo = Photo(np.empty((0, 0, channels)), icc_profile=_blob(image, "icc-profile-data"))
    known = Metadata(_blob(image, "exif-data"), _blob(image, "xmp-data"))
    if not known.exif and (block := metadata.exif_of_png(path)):
        known, orientation, image = replace(known, exif=block), exif.orientation(block), image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image = image.autorot()
    photo = _with_the_rest(photo, path, known, orientation, count, (image.width, image.height))
    if image.interpretation in ("cmyk", "lab", "labs", "labq", "xyz"):
        image = _as_srgb(image)
        photo = replace(photo, icc_profile=None)  # it describes other numbers than those that pixels have now
    transparent = image.bands in (2, 4)
    if image.bands > 4:
        raise ValueError(f"it has {image.bands} channels: save it as RGB")
    pixels = np.ascontiguousarray(image.numpy().reshape(image.height, image.width, image.bands))
    if not transparent:
        return replace(photo, pixels=pixels)
    return replace(photo, pixels=np.ascontiguousarray(pixels[..., :-1]), alpha=np.ascontiguousarray(pixels[..., -1]))


def _as_srgb(image: pyvips.Image) -> pyvips.Image:
    depth = 8 if image.format == "uchar" else 16
    with contextlib.suppress(pyvips.Error):  # a profile that does not fit
        if image.interpretation == "cmyk":
            image = image.icc_import(embedded=True)
    with contextlib.suppress(pyvips.Error):
        if image.interpretation in ("lab", "labs", "labq"):  # of D50, as in profiles
            return image.icc_export(output_profile="srgb", intent="relative", depth=depth)
    return image.colourspace("srgb" if depth == 8 else "rgb16")


def _blob(image: pyvips.Image, name: str) -> bytes | None:
    return bytes(image.get(name)) if image.get_typeof(name) else None


def _with_the_rest(photo: Photo, path: Path, known: Metadata, orientation: int, count: int, size: Size) -> Photo:
    """The photo with what its file holds beside the first picture's pixels."""
    all_pages, notes = pages.look(path, count)
    with opened(path) as data:
        photo = replace(
            photo,
            icc_profile=signalled.profile(data, photo.icc_profile, photo.pixels.shape[2]),
            is_lossless=lossless.is_lossless(data),
        )
    return replace(photo, metadata=metadata.read(path, known, orientation, size), pages=all_pages, notes=notes)


def _read_otherwise(path: Path) -> Photo:
    with opened(path) as data:
        if kind := extras.recognised(data):
            photo = extras.read(bytes(data), kind)
            height, width, _ = photo.pixels.shape
            return _with_the_rest(photo, path, photo.metadata, 1, photo.pages.count, (width, height))
        whole = unended.ended(data)
    if whole:
        return _read_by_vips(path, pyvips.Source.new_from_memory(whole), "warning")
    return _read_by_pillow(path)


def _read_by_pillow(path: Path) -> Photo:
    """Formats that libvips lacks, 8 bits a channel."""
    with Image.open(path) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ValueError("its numbers have no known range: convert it to 8 or 16 bits, or to floating point")
        upright = ImageOps.exif_transpose(image)
        transparent = upright.has_transparency_data
        gray = upright.mode in ("1", "L", "LA")
        pixels = np.asarray(upright.convert(("LA" if gray else "RGBA") if transparent else "L" if gray else "RGB"))
        icc_profile = image.info.get("icc_profile") if image.mode != "CMYK" else None
        known = Metadata(image.info.get("exif"), image.info.get("xmp"))
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        count = getattr(image, "n_frames", 1)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    photo = Photo(pixels, None, icc_profile)
    if transparent:
        photo = replace(photo, pixels=np.ascontiguousarray(pixels[..., :-1]), alpha=pixels[..., -1])
    return _with_the_rest(photo, path, known, orientation, count, upright.size)


def write(path: Path, photo: Photo) -> tuple[str, ...]:
    """Write a photo in the format of the path's extension, whole or not at all; sentences on what is not in the file.

    A depth that the format does not hold is reduced, transparency laid on white. Raises DFIError(BAD_IMAGE) for an
    extension that cannot be written, DFIError(NO_SPACE) where writing fails.
    """
    check_writable(path)
    check_size(path, photo.pixels)
    format_name = formats.of_path(path)
    assert format_name
    photo, notes = formats.fitted(photo, format_name)
    kept = False
    try:
        if format_name in _SAVERS:
            content = _encode(photo, format_name)
            together = pages.join(content, photo.pages) if format_name == "TIFF" else None
            content, kept = together or content, together is not None
        elif format_name in extras.FORMATS:
            content = extras.encode(photo, format_name)
        else:
            buffer = io.BytesIO()
            to_image(photo).save(buffer, format_name)
            content = buffer.getvalue()
        write_whole(path, lambda file: file.write(content))
    except (OSError, ValueError, RuntimeError, pyvips.Error) as error:
        raise unwritable(path, error) from error
    return (*photo.notes, *notes, *pages.said(photo.pages, kept))


def _encode(photo: Photo, format_name: str) -> bytes:
    saver, usual, without_loss = _SAVERS[format_name]
    options = without_loss if photo.is_lossless and without_loss else usual
    dtype, channels = photo.pixels.dtype.name, photo.pixels.shape[2]
    pixels = with_alpha(photo)
    height, width, bands = pixels.shape
    names = {np.dtype(kind).name: name for name, kind in _DTYPES.items()}
    raw = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).data, width, height, bands, names[dtype])
    interpretation = _INTERPRETATIONS.get((dtype, channels), "b-w" if channels == 1 else "rgb")
    image = raw.copy(interpretation=interpretation)
    by_vips = metadata.for_avif(photo.metadata) if format_name == "AVIF" else {}
    for name, content in {"icc-profile-data": photo.icc_profile, **by_vips}.items():
        if content:
            image.set_type(pyvips.GValue.blob_type, name, content)
    if format_name == "AVIF" and dtype == "uint16":
        options = {**options, "bitdepth": 12}
    kinds = [name.split("-")[0] for name in ("icc-profile-data", *by_vips)]
    encoded: bytes = getattr(image, saver)(**options, keep="|".join(kinds))
    return metadata.put(encoded, format_name, (width, height), photo.metadata)


def check_writable(path: Path) -> None:
    """Raise DFIError before any work is done, if a result could not be written to `path`."""
    format_name = formats.of_path(path)
    if not format_name:
        raise DFIError(
            ErrorCode.BAD_IMAGE, f"'{path.name}' has no extension of a photo's format: use .png, .jpg, .tif or .webp."
        )
    if format_name in extras.FORMATS:
        try:
            extras.check(format_name)
        except ValueError as error:
            raise DFIError(ErrorCode.BAD_REQUEST, f"{path.name} cannot be written ({error}).") from error
    check_place(path)


def check_size(path: Path, pixels: Pixels) -> None:
    """Raise DFIError(TOO_LARGE) before any work is done, if the format of `path` does not hold so many pixels."""
    name = formats.of_path(path)
    longest = formats.WRITTEN[name].longest if name else None
    height, width = pixels.shape[:2]
    if longest and max(width, height) > longest:
        raise DFIError(
            ErrorCode.TOO_LARGE,
            f"{path} cannot have {width} x {height} pixels: {formats.WRITTEN[str(name)].name} takes {longest} to "
            "a side. Write a .png or a .tif.",
        )
