"""Files that state their colours by numbers, as cameras and encoders do: cICP, gAMA and cHRM, nclx, a TIFF's tags."""

import io
import re
import struct

import numpy as np
import pillow_heif
import pyvips

from support import cameras
from support.cameras import Tags, chunk, with_chunks

P3, BT2020, BT709 = 12, 9, 1
SRGB_CURVE, LINEAR, GAMMA_22, GAMMA_28, BT709_CURVE, PQ, HLG = 13, 8, 4, 5, 1, 16, 18

TO_SRGB = {  # linear light to linear light, D65 to D65
    BT709: np.eye(3),
    P3: np.array([[1.22494, -0.22494, 0.0], [-0.04206, 1.04206, 0.0], [-0.01964, -0.07864, 1.09827]]),
    BT2020: np.array([[1.66049, -0.58764, -0.07285], [-0.12455, 1.13290, -0.00835], [-0.01815, -0.10058, 1.11873]]),
}


POINTS = {  # red, green and blue, 1000 times x and y
    BT709: (640, 330, 300, 600, 150, 60),
    P3: (680, 320, 265, 690, 150, 60),
    BT2020: (708, 292, 170, 797, 131, 46),
}


def light_of(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """By the formulas of H.273."""
    light: np.ndarray = {
        SRGB_CURVE: lambda x: np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4),
        LINEAR: lambda x: x,
        GAMMA_22: lambda x: x**2.2,
        GAMMA_28: lambda x: x**2.8,
        BT709_CURVE: lambda x: np.where(x < 0.081, x / 4.5, ((x + 0.099) / 1.099) ** (1 / 0.45)),
    }[transfer](pixels)
    return light


def meaning(pixels: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """What unit pixels of these code points are in sRGB, clipped, by H.273 and IEC 61966-2-1."""
    light = light_of(pixels, transfer)
    if light.shape[2] == 3:
        light = light @ TO_SRGB[primaries].T
    light = np.clip(light, 0, 1)
    return np.asarray(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8 or 16 bits with chunks."""
    kind = ("grey16" if pixels.dtype == np.uint16 else "b-w") if pixels.shape[2] == 1 else None
    plain = pyvips.Image.new_from_array(pixels, interpretation=kind).pngsave_buffer(keep="none")
    return with_chunks(plain, *(chunk(name, content) for name, content in chunks))


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, matrix, full])


def gama(exponent: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(100_000 * exponent))


def chrm(*points: float) -> tuple[bytes, bytes]:
    """x and y of white, red, green and blue."""
    return b"cHRM", struct.pack(">8I", *(round(100_000 * each) for each in points))


def points(primaries: int, white: bool = True) -> Tags:
    """A TIFF's tags."""
    known = {318: ("R", (3127, 10_000, 3290, 10_000))} if white else {}
    return {**known, 319: ("R", tuple(number for each in POINTS[primaries] for number in (each, 1000)))}


def table(depth: int, *transfers: int) -> Tags:
    """A TIFF's transfer function, one for all channels or one for each."""
    steps = np.linspace(0, 1, 1 << depth)
    return {
        301: ("H", tuple(np.rint(65535 * np.concatenate([light_of(steps, each) for each in transfers])).astype(int)))
    }


def tiff(pixels: np.ndarray, primaries: int, transfer: int) -> bytes:
    """A TIFF of 8 or 16 bits that states this in tags of its own."""
    return cameras.tiff(pixels, {**points(primaries), **table(8 * pixels.itemsize, transfer)})


def avif(pixels: np.ndarray, primaries: int, transfer: int) -> bytes:
    """A lossless AVIF of 8 or 12 bits, whose nclx box states this instead of sRGB."""
    image = pyvips.Image.new_from_array(pixels)
    deep = {"bitdepth": 12} if pixels.dtype == np.uint16 else {}
    content = image.heifsave_buffer(compression="av1", lossless=True, keep="none", **deep)
    changed, count = re.subn(rb"nclx\0\x01\0\x0d", lambda _: b"nclx" + struct.pack(">HH", primaries, transfer), content)
    assert count == 1
    return bytes(changed)


def heic(pixels: np.ndarray, primaries: int = BT709, transfer: int = SRGB_CURVE, **options: object) -> bytes:
    """A lossless HEIC of 8 or 10 bits that states this in an nclx box; options are pillow_heif's."""
    mode = "RGB;16" if pixels.dtype == np.uint16 else "RGB"
    image = pillow_heif.from_bytes(mode, pixels.shape[1::-1], pixels.tobytes())
    said = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 0}
    buffer = io.BytesIO()
    image.save(buffer, quality=-1, chroma=444, save_nclx_profile=True, **said, **options)
    return buffer.getvalue()
