"""Where landmarks go with an attribute, and what an open mouth looks like: learnt from LFW, on the way to portraits/.

The landmarks' vectors are made as the features' are (see build.py), with the 68 landmarks of each aligned photo in
their place.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dfi_server.face import layout
from dfi_server.face.frame import Frame, seen
from dfi_server.face.landmarks import find_landmarks
from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.face.lips import features
from dfi_server.vectors import build, lfw

OPENNESS_RIDGE = 300.0  # photos; of 30 to 3,000 it tells people held out best: 92 % right
_EVERY = 3  # one photo in so many is enough: 68 points need fewer than a million features do


def learn(archive: Path, attribute_file: Path, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
    """The arrays of portraits/landmarks.safetensors, from LFW without the people held out."""
    table = lfw.read_attributes(attribute_file)
    frame = Frame.of_box(layout.FRAME_BOX, (layout.PHOTO_SIZE, layout.PHOTO_SIZE)).of_size(DETAIL_FRAME_SIZE)
    values, points, mouths = [], [], []
    usable = (each for each in lfw.read_photos(archive) if each[0] in table.rows and not lfw.is_held_out(each[0]))
    for number, (key, jpeg) in enumerate(usable):
        if number % _EVERY or (photo := lfw.decode(jpeg)) is None:
            continue
        landmarks = find_landmarks(photo, frame)
        values.append(table.rows[key])
        points.append(landmarks)
        mouths.append(features(seen(photo, frame), landmarks))
        progress(len(values))
    rows, places = np.stack(values).astype(np.float32), np.stack(points)
    sums = build.Sums(table.names, "ridge", torch.device("cpu"))
    mean = places.mean(axis=0)
    sums.add(torch.from_numpy(rows), [torch.from_numpy((places - mean).astype(np.float32)).unsqueeze(1)])
    vectors = {f"vector/{name}": layer[0].numpy() for name, (layer,) in sums.solve().items()}
    is_open, known = _is_open(rows, table.names)
    regression = openness_regression(np.stack(mouths)[known], is_open[known])
    arrays = {"mean": mean, **vectors, **{f"openness/{key}": array for key, array in regression.items()}}
    return {key: np.ascontiguousarray(array, dtype=np.float32) for key, array in arrays.items()}


def openness_regression(mouths: np.ndarray, is_open: np.ndarray) -> dict[str, np.ndarray]:
    """A ridge regression from lips.features (N, F) to -1 (closed) and 1 (open); `is_open`: (N,) of bool."""
    mean, deviation = mouths.mean(axis=0), mouths.std(axis=0) + 1e-6
    design = np.hstack([np.ones((len(mouths), 1)), (mouths - mean) / deviation])
    gram = design.T @ design + OPENNESS_RIDGE * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, design.T @ np.where(is_open, 1.0, -1.0))
    return {"mean": mean, "deviation": deviation, "weights": weights}


def _is_open(rows: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which photos show an open mouth, and for which of them the labels agree; (N,) of bool both."""
    has = {name: rows[:, names.index(name)] > 0 for name in ("mouth_closed", "mouth_slightly_open", "mouth_wide_open")}
    smile, hidden = (rows[:, names.index(name)] > 0 for name in ("smiling", "teeth_not_visible"))
    is_open = has["mouth_slightly_open"] | has["mouth_wide_open"] | (smile & ~hidden)
    return is_open, is_open != has["mouth_closed"]
