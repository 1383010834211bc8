"""Why an edit looks as it does: where its vectors act and what it moves, as pictures of the photo show it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

from dfi_server.edit import Edit, Editor
from dfi_server.face.frame import Frame, cut, sample, soften
from dfi_server.face.solved import SolvedFace
from dfi_server.photo.pixels import Box, Pixels, Size, crop, to_picture
from dfi_server.solver import vgg
from dfi_server.stage import Asked


@dataclass(frozen=True)
class View:
    """A part of a photo as a picture shows it: `box` of the photo at `size`, width and height in pixels."""

    box: Box
    size: Size

    @staticmethod
    def of_edit(photo: Pixels, edit: Edit, longest: int) -> "View":
        """What an edit's faces and its patch take up of the photo, at `longest` pixels or fewer to a side."""
        photo_size = (photo.shape[1], photo.shape[0])
        boxes = [edit.patch.box, *(face.frame.bounds(photo_size) for face in edit.faces)]
        left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
        right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
        return View.of_box((left, top, right - left, bottom - top), longest)

    @staticmethod
    def of_box(box: Box, longest: int) -> "View":
        """A box of the photo with its own pixels, or reduced to `longest` of them."""
        scale = min(1.0, longest / max(box[2:]))
        return View(box, (max(1, round(scale * box[2])), max(1, round(scale * box[3]))))

    @property
    def scale(self) -> float:
        """Pixels of the picture to one of the photo."""
        return self.size[0] / self.box[2]

    def look(self, photo: Pixels) -> np.ndarray:
        """The part of a photo: (height, width, 3) uint8, RGB."""
        return np.asarray(to_picture(crop(photo, self.box)).resize(self.size, Image.Resampling.LANCZOS))

    def shows(self, layer: np.ndarray, frame: Frame) -> np.ndarray:
        """A map of a face's frame, (h, w, C) with any number of pixels, as it lies on the picture; 0 around it."""
        height, width = layer.shape[:2]
        (left, top, across, down), (columns, rows) = self.box, self.size
        to_photo = np.array([[across / columns, 0, left], [0, down / rows, top]])
        to_frame = frame.inverse() @ np.vstack([to_photo, [0, 0, 1]])
        to_layer = np.diag([width / frame.size, height / frame.size]) @ to_frame
        to_layer[:, 2] += 1  # the border that is put around it
        around = np.pad(layer, ((1, 1), (1, 1), (0, 0)))
        return sample(around, to_layer, self.size, cv2.INTER_LINEAR)


@torch.inference_mode()
def energy(
    editor: Editor,
    photo: Pixels,
    frame: Frame,
    alphas: Mapping[str, float],
    *,
    keep: Collection[str] = (),
    neighbours: int | None = None,
) -> dict[str, np.ndarray]:
    """Where the shift acts that `alphas` ask for: layer -> its energy at each place of the layer, (h, w, 1) float32.

    In units of the photo's own energy in that layer, so that a layer's map adds up to about alpha squared. `keep`,
    `neighbours`: as Editor.edit has them.
    """
    frame = frame.of_size(editor.store.info.frame_size)
    phi = editor.network(soften(cut(photo, frame)).to(editor.device))
    shift = editor.stage.shift(Asked(alphas, keep, neighbours), phi)
    return {
        name: (layer[0].square().sum(dim=0) / features.float().square().sum().clamp_min(vgg.ENERGY_FLOOR))
        .cpu()
        .numpy()[..., None]
        for name, layer, features in zip(vgg.LAYERS, shift, phi, strict=True)
    }


def motion(face: SolvedFace, view: View) -> np.ndarray:
    """How far what a face shows was moved, expression and solves together: (h, w, 2) on the view, in photo pixels.

    Each pixel of the result shows the photo at the pixel plus this; what was painted does not count.
    """
    fields = [(solve.frame, solve.change.motion[0].permute(1, 2, 0).float().cpu().numpy()) for solve in face.solves]
    if face.expression:
        field = face.expression.motion
        fields.append((face.frame.of_size(field.shape[0]), field))
    total = np.zeros((view.size[1], view.size[0], 2), np.float32)
    for frame, field in fields:
        total += view.shows(field @ frame.matrix[:, :2].T.astype(np.float32), frame)
    return total
