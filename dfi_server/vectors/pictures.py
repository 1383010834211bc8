"""The pictures of portraits/, of people who do not exist, chosen by eye among sharp portraits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from dfi_server import checksums
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import seen
from dfi_server.face.landmarks import INNER_LIPS, find_landmarks, hull
from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.face.lips import LOWER, UPPER, curve
from dfi_server.face.mouths import light_on
from dfi_server.face.portraits import BEARD, CROP, LINES, PICTURES, fineness, lines_as_bytes
from dfi_server.face.skin import lines_of, skin_of
from dfi_server.photo.pixels import to_8bit

SMILES = (
    "sfhq/sample_3x6_684_620",
    "sfhq/sample_3x6_684_1229",
    "sfhq/variability_expression_878_343",
    "sfhq/variability_expression_878_2667",
    "sfhq-t2i/Background_3_0",
    "sfhq-t2i/Expression_2_8",
    "sfhq-t2i/Expression_2_9",
    "sfhq-t2i/Facial-Hair_5_3",
    "sfhq-t2i/Hair-Style_0_5",
    "sfhq-t2i/Hair-Style_3_2",
)
OPEN = (
    "sfhq/sample_4x8_31_2749",
    "sfhq-t2i/Background-Color_4_4",
    "sfhq-t2i/Expression_x_Sex_1_6",
    "sfhq-t2i/Hair_Color_5_2",
)
"""Frontal, in even light, with inner lips where the landmarks say, and upper teeth; named as in portraits.py."""

FULL_BEARD = "sfhq-t2i/Facial-Features_3_3"
"""Frontal, with strands that can be told apart from ear to ear."""

OLD_SKIN = "sfhq-t2i/Ethnicity-x-Age-1_1_5"
"""Frontal, in even light, with fine lines from forehead to chin."""

CHOSEN = (*SMILES, *OPEN, FULL_BEARD, OLD_SKIN)

_TEETH = 70  # percentile of an opening's brightness above which its pixels are taken for teeth
_TEETH_COLOUR = np.array([1.12, 0.97, 0.885])  # over its brightness, in light that has no colour; skin's cast left in
_TEETH_LIGHT = 80  # the same percentile for their brightness, which is about that of well lit skin
_TRUST, _SOME = 0.8, 0.6  # how far that tells the light; below this part of the skin's there are no teeth to speak of
_BALANCED = 0.8  # of the way to that: people's teeth differ
_BLURS = np.array([0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0])


@dataclass(frozen=True)
class _Portrait:
    """A portrait in its frame: landmarks (68, 2) in the frame's pixels, the frame at DETAIL_FRAME_SIZE and larger."""

    landmarks: np.ndarray
    face: np.ndarray
    large: np.ndarray


def collect(portraits: Mapping[str, np.ndarray], canonical: np.ndarray, folder: Path) -> None:
    """Write portraits/pictures.safetensors and the pictures beside it. `portraits`: name -> (H, W, 3) uint8."""
    (folder / "mouths").mkdir(parents=True, exist_ok=True)
    chosen = [_aligned(portraits[name], canonical) for name in (*SMILES, *OPEN)]
    names = [name.replace("/", "-") for name in (*SMILES, *OPEN)]
    contours = [[(curve(p.landmarks[list(i)]) - CROP.box[:2]) * CROP.scale for i in (UPPER, LOWER)] for p in chosen]
    lights = [light_on(p.face, hull(p.landmarks[: INNER_LIPS.start])) for p in chosen]
    blurred = [[fineness(cv2.GaussianBlur(p.face, (0, 0), max(blur, 0.01))) for blur in _BLURS] for p in chosen]
    for name, portrait, sides, light in zip(names, chosen, contours, lights, strict=True):
        _save(_balanced(CROP.of(portrait.large), sides, light.mean()), folder / "mouths" / f"{name}.jpg")
    bearded = _aligned(portraits[FULL_BEARD], canonical)
    _save(BEARD.of(bearded.large), folder / "beard.jpg")
    old = _aligned(portraits[OLD_SKIN], canonical)
    whole = lines_of(old.large) * cv2.resize(skin_of(old.face, old.landmarks), old.large.shape[1::-1])
    Image.fromarray(lines_as_bytes(LINES.of(whole))).save(folder / "lines.png", optimize=True)
    arrays = {
        "upper": np.stack([upper for upper, _ in contours]),
        "lower": np.stack([lower for _, lower in contours]),
        "light": np.array(
            [
                _light(skin.mean(), CROP.of(p.large), sides)
                for skin, p, sides in zip(lights, chosen, contours, strict=True)
            ]
        ),
        "smiling": np.arange(len(names)) < len(SMILES),
        "beard": bearded.landmarks,
        "lines": old.landmarks,
        "skin": np.mean([light / light.mean() for light in lights], axis=0),
        "blurs": _BLURS,
        "fineness": np.median(blurred, axis=0),
    }
    arrays = {key: np.ascontiguousarray(array, dtype=np.float32) for key, array in arrays.items()}
    save_file(arrays, folder / PICTURES, metadata={"names": json.dumps(names)})
    checksums.write(folder / PICTURES, arrays)


def _aligned(photo: np.ndarray, canonical: np.ndarray) -> _Portrait:
    (found, *_) = find_largest(photo, canonical)
    frame = align(found.landmarks, canonical).of_size(DETAIL_FRAME_SIZE)
    face, large = (seen(photo, frame.of_size(size)) for size in (DETAIL_FRAME_SIZE, DETAIL_FRAME_SIZE * CROP.scale))
    return _Portrait(find_landmarks(photo, frame), face, large)


def _save(picture: np.ndarray, path: Path) -> None:
    Image.fromarray(to_8bit(picture)).save(path, quality=92)


def _light(light: float, mouth: np.ndarray, sides: list[np.ndarray]) -> float:
    """How bright the light was: mostly as teeth tell it where there are some, for they differ less than skin does."""
    inside = _inside(mouth, sides).mean(axis=1)
    teeth = float(np.percentile(inside, _TEETH_LIGHT))
    return light ** (1 - _TRUST) * teeth**_TRUST if teeth > _SOME * light else light


def _balanced(mouth: np.ndarray, sides: list[np.ndarray], light_around: float) -> np.ndarray:
    """A mouth's picture with its teeth, where it shows some, in the colour of teeth; their brightness stays."""
    colours = _inside(mouth, sides)
    if np.percentile(colours.mean(axis=1), _TEETH_LIGHT) < _SOME * light_around:
        return mouth
    light = colours.mean(axis=1)
    teeth = colours[light > np.percentile(light, _TEETH)].mean(axis=0)
    gain = (_TEETH_COLOUR / _TEETH_COLOUR.mean() * teeth.mean() / np.maximum(teeth, 0.02)) ** _BALANCED
    return np.asarray(mouth * gain / gain.mean())


def _inside(mouth: np.ndarray, sides: list[np.ndarray]) -> np.ndarray:
    """The colours between a mouth's inner contours, (N, 3)."""
    inside = np.zeros(mouth.shape[:2], dtype=np.uint8)
    cv2.fillPoly(inside, [np.rint(np.vstack([sides[0], sides[1][::-1]])).astype(np.int32)], 1)
    return np.asarray(mouth[inside > 0])
