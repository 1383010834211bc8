"""What a face does when it smiles or opens its mouth: the photo's own skin and lips moved, and a mouth between them.

The solver paints teeth onto lips rather than move them. So where landmarks go with an attribute is learnt apart, by the
same ridge regression with 68 landmarks in place of features (vectors/expressions.py): attribute vectors of landmarks. A
thin-plate spline takes the photo along, on either side of the line where the lips part by one of its own, so that lips
keep their size when they open and meet when they close. What comes to light between them is one of the mouths of
mouths.py, or the photo's own where it is open already.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from dfi_server.face import mouths
from dfi_server.face.frame import Frame, cut
from dfi_server.face.landmarks import INNER_LIPS, OUTER_LIPS, find_landmarks, hull
from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.face.lips import LOWER, UPPER, Lips, curve, find_lips
from dfi_server.face.paste import paste
from dfi_server.face.portraits import Portraits, blur_of
from dfi_server.face.spline import spline
from dfi_server.photo.pixels import Patch, Pixels
from dfi_server.solver.change import Change
from dfi_server.solver.place import FEATHER

EXPRESSIONS = {
    "smiling": {"smiling": 1.1},
    "frowning": {"frowning": 1.0},
    "mouth_closed": {"mouth_closed": 1.0},
    "mouth_slightly_open": {"mouth_slightly_open": 2.3},
    "mouth_wide_open": {"mouth_wide_open": 2.0, "mouth_slightly_open": 2.2},
    "teeth_not_visible": {"teeth_not_visible": 1.0},
}
"""The attributes that move landmarks, along which attribute vectors and how far where alpha is above 0.

The regression tells what each adds to the others, but who opens the mouth wide opens it slightly as well; and few in
LFW do, so that a standard deviation of it is little. Below 0 each goes along its own vector: lips that meet can close
no further. The other attributes are left to the solver, which is good at small motions.
"""

SOLVED = {"smiling": 0.8, "frowning": 0.8}
"""How much of alpha is left to the solver, for cheeks, eyes and lines; none of the others'."""

_DEVIATIONS = 9.0  # standard deviations of an attribute at alpha 1, before _MOST
_MOST = 4.0  # standard deviations that no alpha goes beyond: the tangent hyperbolic bends towards them
_GAP = 6.0  # frame pixels: lips that are to part or close by as much do so altogether, see _moved_lips
_SEAM = 0.5  # frame pixels: half the width of the change from one spline to the other
_STILL = 0.05, 0.5  # frame pixels of motion: where the face begins to move, and where it is moved altogether
_LEAST = 0.25  # frame pixels: an expression that moves nothing further is none
_ALIKE = 20.0  # frame pixels: root mean square of landmarks that are further from a face's than these are no face's
_AROUND = 16  # frame pixels around the lips that must stay as they were moved
_USUAL = 0.4  # alpha of the strongest attribute for which a mouth is chosen
_CAST = 0.3  # of the skin's colour that teeth take on: in real smiles they hardly do
_MOST_CAST = 1.35
_BLUR = 4.0  # frame pixels, of what is masked


@dataclass(frozen=True)
class Expression:
    """A face's new expression. `patch`: the photo's, moved. `kept`: (H, W) in [0, 1], what must stay of its frame.

    `motion`: (H, W, 2), from each pixel of the result to the frame's pixel that it shows; in its pixels.
    """

    patch: Patch
    kept: np.ndarray
    motion: np.ndarray


@dataclass(frozen=True)
class Expressive:
    """A face that can be given an expression: what is seen of it, whatever alphas are.

    `frame` is of DETAIL_FRAME_SIZE, `image` (1, 3, H, W) what it shows; `landmarks` (68, 2) and `lips` are in its
    pixels. `light`: on the skin, as a colour (3,). `blur`: what makes a portrait's detail as fine as this face's.
    """

    frame: Frame
    image: Tensor
    landmarks: np.ndarray
    lips: Lips
    light: np.ndarray
    blur: float


def look(photo: Pixels, frame: Frame, portraits: Portraits) -> Expressive | None:
    """What an expression needs to know of a face; None where no face is seen in the frame."""
    frame = frame.of_size(DETAIL_FRAME_SIZE)
    landmarks = find_landmarks(photo, frame)
    if not _is_face(landmarks, portraits.mean_landmarks):
        return None
    image = cut(photo, frame)
    face = image[0].permute(1, 2, 0).numpy()
    lips = find_lips(face, landmarks, portraits.openness)
    light = mouths.light_on(face, hull(landmarks[: INNER_LIPS.start]))
    return Expressive(frame, image, landmarks, lips, light, blur_of(face, portraits))


def express(photo: Pixels, seen: Expressive, alphas: Mapping[str, float], portraits: Portraits) -> Expression | None:
    """Give a face in a photo, `seen` by `look`, the expression that `alphas` asks for; None where that moves nothing.

    The patch is the photo's own pixels, moved, with a mouth between the lips where they part.
    """
    shift = _landmark_shift(alphas, portraits)
    if np.abs(shift).max() < _LEAST:
        return None
    frame, landmarks, before = seen.frame, seen.landmarks, seen.lips
    after = _moved_lips(before, landmarks, shift)
    motion = _motion(before, after, landmarks, shift) * _border()[..., None]
    size = np.hypot(motion[..., 0], motion[..., 1])
    place = _border() * cv2.GaussianBlur(np.clip((size - _STILL[0]) / (_STILL[1] - _STILL[0]), 0, 1), (0, 0), _BLUR)
    change = Change(_to_tensor(motion), torch.zeros_like(seen.image), _to_tensor(place[..., None]))
    patch = paste(photo, frame, seen.image, change)
    gap, was = (mouths.Gap(curve(lips.upper), curve(lips.lower)) for lips in (after, before))
    brightest = float(seen.light.mean())
    if after.is_open and before.is_open and mouths.shows_something(was):
        own = mouths.own_mouth(photo, frame, was, brightest)
        patch = mouths.fill(photo, patch, frame, gap, own, 0, None, is_own=True)
    elif after.is_open:
        # chosen for a fixed strength, so that the teeth stay the same as the strength changes
        usual = _moved_lips(before, landmarks, _landmark_shift(_of_usual_strength(alphas), portraits))
        mouth = mouths.choose(
            portraits.mouths,
            mouths.Gap(curve(usual.upper), curve(usual.lower)),
            brightest,
            smiling=alphas.get("smiling", 0.0) > 0,
        )
        cast = np.clip((seen.light / brightest / portraits.skin) ** _CAST, 1 / _MOST_CAST, _MOST_CAST)
        gain = mouths.TEETH * brightest / mouth.light * cast
        patch = mouths.fill(photo, patch, frame, gap, mouth, seen.blur, gain, is_own=False)
    kept = hull(np.vstack([(landmarks + shift)[OUTER_LIPS], gap.upper, gap.lower]))
    kept = cv2.dilate(kept, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _AROUND + 1,) * 2))
    return Expression(patch, cv2.GaussianBlur(kept, (0, 0), _AROUND / 2), motion)


def _landmark_shift(alphas: Mapping[str, float], portraits: Portraits) -> np.ndarray:
    """How far the landmarks go, (68, 2) in frame pixels."""
    total = np.zeros((68, 2))
    for name, gains in EXPRESSIONS.items():
        alpha = alphas.get(name, 0.0)
        deviations = _MOST * np.tanh(_DEVIATIONS * alpha / _MOST)
        gains = gains if alpha > 0 else {name: 1.0}
        total += deviations * sum(gain * portraits.landmark_vectors[along] for along, gain in gains.items())
    return total


def _of_usual_strength(alphas: Mapping[str, float]) -> dict[str, float]:
    strongest = max(abs(alphas.get(name, 0.0)) for name in EXPRESSIONS)
    return {name: _USUAL * alpha / strongest for name, alpha in alphas.items()}


def _is_face(landmarks: np.ndarray, mean: np.ndarray) -> bool:
    return bool(np.isfinite(landmarks).all() and np.sqrt(((landmarks - mean) ** 2).sum(axis=1).mean()) < _ALIKE)


def _moved_lips(before: Lips, landmarks: np.ndarray, shift: np.ndarray) -> Lips:
    """Where the inner contours go. They never cross.

    Landmark vectors are linear, mouths are not. The network's landmarks of a closed mouth lie apart: that much more it
    opens as it parts. And an open mouth that is to close does so altogether, however open it was.
    """
    upper, lower = before.upper + shift[list(UPPER)], before.lower + shift[list(LOWER)]
    opening = float((shift[list(LOWER)] - shift[list(UPPER)])[1:-1, 1].mean()) / _GAP
    middle = (upper + lower) / 2
    apart = landmarks[list(LOWER)] - landmarks[list(UPPER)]
    if not before.is_open:
        wider = np.clip(opening, 0, 1) * apart / 2
        upper, lower = upper - wider, lower + wider
    elif opening < 0:
        gap = np.clip(1 + opening, 0, 1) * apart / 2
        upper, lower = middle - gap, middle + gap
    crossed = np.minimum((lower - upper)[:, 1], 0) / 2
    upper[:, 1] += crossed
    lower[:, 1] -= crossed
    upper[[0, -1]] = lower[[0, -1]] = middle[[0, -1]]
    return Lips(upper, lower, bool((lower - upper)[:, 1].max() > 0))


def _motion(before: Lips, after: Lips, landmarks: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The way from each pixel of the result to the photo's, (H, W, 2) in frame pixels."""
    rest = landmarks[: INNER_LIPS.start]
    sides = [
        spline(np.vstack([rest, source]), np.vstack([rest + shift[: INNER_LIPS.start], target]))
        for source, target in ((before.upper, after.upper), (before.lower, after.lower))
    ]
    middle = (curve(after.upper) + curve(after.lower)) / 2
    order = np.argsort(middle[:, 0])
    pixels = np.arange(DETAIL_FRAME_SIZE) + 0.5
    line = np.interp(pixels, middle[order, 0], middle[order, 1])
    below = 1 / (1 + np.exp(np.clip((line - pixels[:, None]) / _SEAM, -30, 30)))[..., None]
    return np.asarray(sides[0] * (1 - below) + sides[1] * below, dtype=np.float32)


def _border() -> np.ndarray:
    """(H, W): 1 inside, falling to 0 at the frame's sides."""
    side = np.clip(
        np.minimum(np.arange(DETAIL_FRAME_SIZE) + 0.5, DETAIL_FRAME_SIZE - 0.5 - np.arange(DETAIL_FRAME_SIZE))
        / (FEATHER * DETAIL_FRAME_SIZE),
        0,
        1,
    )
    return np.outer(side, side).astype(np.float32)


def _to_tensor(layers: np.ndarray) -> Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(layers)).permute(2, 0, 1).unsqueeze(0)
