"""HEIC and JPEG XL, read and written by packages that the extra dfi-server[heif] installs."""

import importlib.util
import io
import sys
from dataclasses import replace

import numpy as np
from PIL import Image

from dfi_server.photo import exif, icc, jxl
from dfi_server.photo.containers import Data
from dfi_server.photo.pixels import Metadata, Pages, Photo, with_alpha
from dfi_server.wire.limits import MAX_PIXELS

# Pillow's name of a format -> what it is called, the module that knows it, the package of that
_PACKAGES = {"HEIF": ("HEIC", "pillow_heif", "pillow-heif"), "JXL": ("JPEG XL", "pyjpegxl", "pyjpegxl")}

FORMATS = frozenset(_PACKAGES)
"""Pillow's names of what is read and written here."""

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
# About as much detail as a JPEG of quality 95; more effort takes several times as long for some percent.
# Tiles, but with transparency, which they cannot have: libde265 reads 16 MiB of each, x265 writes no long strips.
_HEIC = {"quality": 80, "chroma": 444, "enc_params": {"preset": "ultrafast"}, "tile_size": 1024}
_HEIC_WITHOUT_LOSS = {**_HEIC, "quality": -1, "matrix_coefficients": 0, "bit_depth": 12}  # deep ones; else 8
_MOST_IN_ONE = 1 << 24  # bytes
_JXL_QUALITY = 97


def recognised(data: Data) -> str | None:
    """The format of a file's bytes, if it is one of these."""
    if data[4:8] == b"ftyp":
        brands = data[8 : int.from_bytes(data[:4], "big")]
        return "HEIF" if brands[:4] in _BRANDS and b"avif" not in brands else None
    return "JXL" if jxl.is_one(data) else None


def missing(name: str) -> str:
    """What to do where a format's package is missing; empty where it is there."""
    called, module, package = _PACKAGES[name]
    if importlib.util.find_spec(module) is not None:
        return ""
    return f"{called} needs dfi-server[heif]: run '{sys.executable} -m pip install {package}'"


def check(name: str) -> None:
    """Raise ValueError, with what to install, where a format's package is missing."""
    if remedy := missing(name):
        raise ValueError(remedy)


def read(content: bytes, name: str) -> Photo:
    """The main picture of a file, upright, with its profile, EXIF and XMP, and how many there are, if that is known.

    Raises ValueError where the format's package is missing, and whatever that raises for a damaged file.
    """
    check(name)
    return _read_heic(content) if name == "HEIF" else _read_jxl(content)


def encode(photo: Photo, name: str) -> bytes:
    """A photo as a file. Raises ValueError where the format's package is missing, RuntimeError where it fails."""
    check(name)
    return _encode_heic(photo) if name == "HEIF" else _encode_jxl(photo)


def _read_heic(content: bytes) -> Photo:
    import pillow_heif

    image = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False)
    _check_size(*image.size)
    pixels = np.asarray(image).reshape(image.size[1], image.size[0], -1)
    known = Metadata(_block(image.info.get("exif")), image.info.get("xmp"))
    return replace(_photo(pixels, image.info.get("icc_profile"), known), pages=Pages(len(image)))


def _encode_heic(photo: Photo) -> bytes:
    import pillow_heif

    pixels = with_alpha(photo)
    mode = ("RGB" if photo.alpha is None else "RGBA") + (";16" if pixels.dtype == np.uint16 else "")
    height, width, _ = pixels.shape
    image = pillow_heif.from_bytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())
    buffer = io.BytesIO()
    known = {
        "icc_profile": photo.icc_profile,
        "exif": exif.with_resolution(photo.metadata.exif, photo.metadata.dots_per_mm),
        "xmp": photo.metadata.xmp,
    }
    image.info.update({key: value for key, value in known.items() if value})
    try:
        image.save(buffer, **(_HEIC_WITHOUT_LOSS if photo.is_lossless else _HEIC))
    except MemoryError:
        raise
    except Exception as error:  # what libheif says comes as nearly anything, SyntaxError and EOFError too
        raise RuntimeError(str(error)) from error
    if photo.alpha is not None and buffer.tell() > _MOST_IN_ONE:
        raise RuntimeError("with transparency, HEIC has room for less detail")
    return buffer.getvalue()


def _read_jxl(content: bytes) -> Photo:
    import pyjpegxl

    if jxl.header(content).is_animated:  # of which pyjpegxl reads the last frame
        raise ValueError("it is an animation: save one of its frames as a picture")
    facts = pyjpegxl.probe(content)
    _check_size(facts.width, facts.height)
    facts, pixels = pyjpegxl.decode_to_numpy(content)
    boxes = dict(jxl.metadata(content))
    block = boxes.get(b"Exif", b"")
    start = 4 + int.from_bytes(block[:4], "big")
    return _photo(pixels, facts.icc, Metadata(_block(block[start:]), boxes.get(b"xml ")))


def _encode_jxl(photo: Photo) -> bytes:
    import pyjpegxl

    profile = photo.icc_profile
    if not profile and photo.pixels.dtype == np.float32:  # which would mean linear light
        is_gray = photo.pixels.shape[2] == 1
        of_srgb = ("sRGB", icc.SRGB_PRIMARIES, icc.D65, icc.SRGB_CURVE)
        profile = icc.gray("sRGB", icc.SRGB_CURVE) if is_gray else icc.rgb(*of_srgb)
    block = exif.with_resolution(photo.metadata.exif, photo.metadata.dots_per_mm)
    encoded: bytes = pyjpegxl.encode_from_numpy(
        np.ascontiguousarray(with_alpha(photo)),
        lossless=photo.is_lossless,
        quality=_JXL_QUALITY,
        speed=pyjpegxl.EncoderSpeed.Hare,
        exif=bytes(4) + block.removeprefix(exif.HEADER) if block else None,
        xmp=photo.metadata.xmp,
        icc=profile,
    )
    return encoded


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _photo(pixels: np.ndarray, profile: bytes | None, known: Metadata) -> Photo:
    if pixels.shape[2] not in (2, 4):
        return Photo(pixels, None, profile, known)
    alpha = np.ascontiguousarray(pixels[..., -1])
    return Photo(np.ascontiguousarray(pixels[..., :-1]), alpha, profile, known)


def _block(found: bytes | None) -> bytes | None:
    """EXIF as it is in this package."""
    return exif.HEADER + found.removeprefix(exif.HEADER) if found else None
