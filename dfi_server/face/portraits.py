"""What was learnt from sharp portraits and is part of the package: landmark vectors, mouths. See portraits/README.md.

portraits/landmarks.safetensors   "mean" (68, 2), "vector/smiling" (68, 2) and so on: frame pixels at 400 to a side,
                                  per standard deviation; "openness/..." (see lips.openness)
portraits/pictures.safetensors    of the N mouths: contours, light; the beard's and the lines' landmarks; what blur does
                                  to eyes
portraits/mouths/*.jpg            their pictures
portraits/beard.jpg               that of the beard
portraits/lines.png               lines of an old face over the brightness around them: 128 is none (see lines_as_bytes)
"""

import functools
import json
import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import safetensors
from PIL import Image
from safetensors.numpy import load_file

from dfi_server import checksums, paths
from dfi_server.photo.pixels import Box, brightness, to_unit

LANDMARKS, PICTURES = "landmarks.safetensors", "pictures.safetensors"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """The part of a face's frame of 400 pixels that a picture shows, at `scale` pixels to each of these."""

    box: Box
    scale: int

    def of(self, large: np.ndarray) -> np.ndarray:
        """That part of a whole frame which has `scale` times its pixels."""
        x, y, width, height = (self.scale * side for side in self.box)
        return large[y : y + height, x : x + width]


CROP = Crop((100, 220, 200, 140), 2)
"""A mouth's."""

BEARD = Crop((60, 160, 280, 240), 2)
LINES = Crop((80, 60, 240, 280), 2)

DEEPEST = 0.25
"""How deep a line is at most, over the brightness around it: more is an edge."""

_EYES = (slice(110, 210), slice(90, 310))  # rows and columns of a frame of 400 pixels
_BANDS = (1.0, 2.0, 4.0)  # frame pixels: see fineness
_STRAND, _AROUND = 2.5, 7.0  # frame pixels: what is finer is a strand; how far around its contrast is made even
_LEAST_CONTRAST, _MOST = 0.015, 3.0  # of strands: in units of white; in standard deviations


@dataclass(frozen=True)
class Mouth:
    """A picture of an open mouth (H, W, 3) in [0, 1], its inner contours (N, 2) in the picture's pixels.

    `light`: brightness of the skin around it, which tells how bright the light was.
    """

    image: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    light: float
    smiling: bool


@dataclass(frozen=True)
class Portraits:
    """What is needed to move a face, to fill its mouth, to let hairs grow and to let it age.

    `strands`: the beard's fine bands (H, W), with a standard deviation of 1. `lines`: of an old face, over the
    brightness around them (H, W), 0 where there is no skin. `skin`: colour of skin over its brightness, (3,), the
    portraits' mean. `fineness` falls as `blurs` rise (pixels of a frame of 400).
    """

    mean_landmarks: np.ndarray
    landmark_vectors: dict[str, np.ndarray]
    openness: dict[str, np.ndarray]
    mouths: tuple[Mouth, ...]
    strands: np.ndarray
    beard_landmarks: np.ndarray
    lines: np.ndarray
    lines_landmarks: np.ndarray
    skin: np.ndarray
    blurs: np.ndarray
    fineness: np.ndarray


@functools.cache
def load_portraits(folder: Path = paths.PORTRAITS) -> Portraits | None:
    """None where files are missing or damaged, which is logged once: edits go without, as on small faces."""
    try:
        return _read(folder)
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        log.warning(
            "The portraits' files in %s are missing or damaged (%s): mouths and other painted things come out coarser. "
            "Install the package again to have them back.",
            folder,
            error,
        )
        return None


def fineness(face: np.ndarray) -> float:
    """How fine the finest detail of a face's eyes is: `face` (400, 400, C) in [0, 1].

    What two neighbouring octaves have of brightness' standard deviation, the finer over the coarser.
    """
    eyes = brightness(face[_EYES])[..., 0]
    layers = [cv2.GaussianBlur(eyes, (0, 0), sigma) for sigma in _BANDS]
    fine, coarse = (float((a - b).std()) for a, b in pairwise(layers))
    return fine / max(coarse, 1e-6)


def blur_of(face: np.ndarray, portraits: Portraits) -> float:
    """The blur that makes a portrait's detail as fine as a face's (400, 400, C): a standard deviation, frame pixels."""
    return float(np.interp(-fineness(face), -portraits.fineness, portraits.blurs))


def _read(folder: Path) -> Portraits:
    arrays = load_file(folder / LANDMARKS)
    with safetensors.safe_open(folder / PICTURES, framework="numpy") as file:
        names: list[str] = json.loads(file.metadata()["names"])
        pictures = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    checksums.check(folder / LANDMARKS, arrays)
    checksums.check(folder / PICTURES, pictures)
    mouths = []
    for i, name in enumerate(names):
        image = _picture(folder / "mouths" / f"{name}.jpg", CROP)
        upper, lower = pictures["upper"][i], pictures["lower"][i]
        mouths.append(Mouth(image, upper, lower, float(pictures["light"][i]), bool(pictures["smiling"][i])))
    vectors = {key.split("/")[1]: array for key, array in arrays.items() if key.startswith("vector/")}
    openness = {key.split("/")[1]: array for key, array in arrays.items() if key.startswith("openness/")}
    found = Portraits(
        arrays["mean"],
        vectors,
        openness,
        tuple(mouths),
        _strands(_picture(folder / "beard.jpg", BEARD)),
        pictures["beard"],
        (_picture(folder / "lines.png", LINES)[..., 0] * 255 - 128) * DEEPEST / 127,
        *(pictures[key] for key in ("lines", "skin", "blurs", "fineness")),
    )
    if not mouths or found.mean_landmarks.shape != (68, 2) or not {"mean", "deviation", "weights"} <= set(openness):
        raise ValueError("they are from another version")
    return found


def lines_as_bytes(lines: np.ndarray) -> np.ndarray:
    """Lines (H, W), over the brightness around them, as lines.png has them."""
    return np.asarray(np.rint(128 + np.clip(lines / DEEPEST, -1, 1) * 127), dtype=np.uint8)


def _picture(path: Path, crop: Crop) -> np.ndarray:
    with Image.open(path) as picture:
        image = to_unit(np.asarray(picture.convert("RGB")))
    if image.shape[:2] != (crop.scale * crop.box[3], crop.scale * crop.box[2]):
        raise ValueError(f"{path.name} has another size")
    return image


def _strands(beard: np.ndarray) -> np.ndarray:
    light = brightness(beard)[..., 0]
    fine = light - cv2.GaussianBlur(light, (0, 0), _STRAND * BEARD.scale)
    contrast = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), _AROUND * BEARD.scale))
    return np.asarray(np.clip(fine / (contrast + _LEAST_CONTRAST), -_MOST, _MOST), dtype=np.float32)
