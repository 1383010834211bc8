"""An edit made for a report: the pipeline's own, at several strengths, and what there is to see of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import cv2
import numpy as np

from dfi_server import explain
from dfi_server.edit import Edit, Editor, Progress
from dfi_server.explain import View
from dfi_server.photo import formats
from dfi_server.photo.pixels import Photo, Pixels, composite, crop, to_unit
from dfi_server.vectors.averages import FaceReader
from dfi_server.wire.messages import Choices

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Of the alphas asked for. The last is solved first, from nothing, so that its pixels are those of `dfi edit`."""

VISIBLE = 2.0
"""Of 255: a change that nobody sees is smaller."""

_LONGEST = 1000  # pixels of a picture in the page
_SHOWN = 12  # attributes that changed most, beside those that were set
_MOST_FACES = 6  # that are shown one by one


@dataclass(frozen=True)
class Reading:
    """An attribute before and after, in standard deviations from LFW's average; `area`: see vectors.averages."""

    name: str
    before: float
    after: float
    area: float | None
    is_set: bool
    is_kept: bool


@dataclass(frozen=True)
class Findings:
    """What a report shows. Pictures, (h, w, 3) uint8, maps and motion show `view`, the part of the photo edited.

    `steps`: the edit at each of STRENGTHS; the last is `edit`. `whole`: the photo before and after, as `whole_view` has
    it. `difference`: (h, w), of before and after in 255ths of white. `visibly`: the part of all the photo's pixels that
    changed by more than VISIBLE; `untouched`: that which is bit-identical. `energy`: layer -> (h, w), all faces
    together. `motion`: (h, w, 2) in photo pixels. `readings`: of each face, up to _MOST_FACES of them. `unread`:
    attributes that were set and that cannot be read.
    """

    view: View
    before: np.ndarray
    steps: Sequence[np.ndarray]
    whole_view: View
    whole: Sequence[np.ndarray]
    edit: Edit
    difference: np.ndarray
    visibly: float
    untouched: float
    energy: Mapping[str, np.ndarray]
    motion: np.ndarray
    readings: Sequence[Sequence[Reading]]
    unread: Sequence[str]


def find(
    editor: Editor,
    photo: Photo,
    alphas: Mapping[str, float],
    *,
    progress: Callable[[Progress], None] = lambda state: None,
    **choices: Unpack[Choices],
) -> Findings:
    """Edit a photo, whose pixels are sRGB, and look at the edit; for the rest as `Editor.edit`."""
    before = photo.pixels
    settings = [{name: strength * alpha for name, alpha in alphas.items()} for strength in STRENGTHS]
    edits = editor.sweep(before, settings, progress=progress, **choices)
    edit = edits[-1]
    after = composite(before, edit.patch)
    difference = 255 * np.abs(to_unit(after) - to_unit(before)).max(axis=2)
    view = View.of_edit(before, edit, _LONGEST)
    whole = View.of_box((0, 0, before.shape[1], before.shape[0]), _LONGEST)

    def on_white(pixels: Pixels) -> Pixels:
        return formats.on_white(replace(photo, pixels=pixels)).pixels

    reader, keep = FaceReader(editor.device), choices.get("keep", ())
    return Findings(
        view,
        view.look(on_white(before)),
        [view.look(on_white(composite(before, step.patch))) for step in edits],
        whole,
        [whole.look(on_white(pixels)) for pixels in (before, after)],
        edit,
        cv2.resize(crop(difference, view.box), view.size, interpolation=cv2.INTER_AREA),
        float((difference > VISIBLE).mean()),
        float((before == after).all(axis=2).mean()),
        _energy(editor, before, edit, alphas, view, choices),
        np.sum([explain.motion(each, view) for each in edit.faces], axis=0),
        [
            _readings(reader, reader.read(before, each.frame), reader.read(after, each.frame), alphas, keep)
            for each in edit.faces[:_MOST_FACES]
        ],
        [name for name in alphas if name not in reader.names],
    )


def _energy(
    editor: Editor, photo: Pixels, edit: Edit, alphas: Mapping[str, float], view: View, choices: Choices
) -> dict[str, np.ndarray]:
    total: dict[str, np.ndarray] = {}
    for face in edit.faces:
        keep, neighbours = choices.get("keep", ()), choices.get("neighbours")
        energy = explain.energy(editor, photo, face.frame, alphas, keep=keep, neighbours=neighbours)
        for layer, values in energy.items():
            total[layer] = total.get(layer, 0.0) + view.shows(values, face.frame)[..., 0]
    return total


def _readings(
    reader: FaceReader, before: np.ndarray, after: np.ndarray, alphas: Mapping[str, float], keep: Collection[str]
) -> list[Reading]:
    """Those of the attributes that were set or kept, in their order, then of those that changed most."""
    by_change = np.argsort(-np.abs(after - before))
    names = [name for name in (*alphas, *keep) if name in reader.names]
    names += [reader.names[i] for i in by_change if reader.names[i] not in names][:_SHOWN]
    at = reader.names.index
    return [
        Reading(name, before[at(name)], after[at(name)], reader.averages[name].area, name in alphas, name in keep)
        for name in names
    ]
