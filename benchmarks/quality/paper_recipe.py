"""The paper's own recipe (Upchurch et al., arXiv 1611.05507, sections 3 and 4), to compare with.

w is the difference of means between the K photos most like the face that have the attribute and the K that lack it,
likeness being the number of LFW attributes shared. All pixels of the frame are free, and torch.optim.LBFGS with its
defaults (no line search) takes 500 iterations from the photo. What is not the paper's: each layer's distance is in
units of the photo's own energy in that layer, which stands in for the paper's normalised network.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from dfi_server.face import layout
from dfi_server.solver import vgg
from dfi_server.solver.reconstruct import TV_WEIGHT, FeatureLoss, TVLoss
from dfi_server.vectors import build, lfw

NEIGHBOURS = 100
ITERATIONS = 500
FRAME_BOX = (40, 20, 170, 170)
"""In LFW's layout, x, y, width, height: brow to chin. Not layout.FRAME_BOX, which may move without this recipe."""


def neighbours(table: lfw.AttributeTable, keys: Sequence[str], face: str, attribute: str) -> tuple[list[str], ...]:
    """The NEIGHBOURS photos among `keys` nearest to `face`: those with `attribute`, those without."""
    column = table.names.index(attribute)
    has = np.stack([table.rows[key] for key in keys]) > 0
    shared = np.delete(has == (table.rows[face] > 0), column, axis=1).sum(axis=1)
    order = np.argsort(-shared, kind="stable")
    return tuple([keys[i] for i in order if has[i, column] == wanted][:NEIGHBOURS] for wanted in (True, False))


def write_vectors(
    weights: dict[str, Tensor],
    archive: Path,
    table: lfw.AttributeTable,
    keys: Sequence[str],
    wanted: Sequence[tuple[str, str]],
    file: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Write one vector for each (face, attribute) of `wanted` to `file`, in one pass over the neighbours.

    They are kept as "face/attribute/layer", (C, H, W) float16.
    """
    share: dict[str, np.ndarray] = {}  # photo -> its part in each vector
    for j, (face, attribute) in enumerate(wanted):
        for sign, group in zip((1, -1), neighbours(table, keys, face, attribute), strict=True):
            for key in group:
                share.setdefault(key, np.zeros(len(wanted), np.float32))[j] = sign / len(group)

    def rows() -> Iterator[build.FaceRow]:
        for key, jpeg in lfw.read_photos(archive):
            photo = lfw.decode(jpeg) if key in share else None
            if photo is not None:
                yield build.FaceRow(key, layout.to_frame(photo, frame_box=FRAME_BOX), share[key])

    names = tuple("/".join(pair) for pair in wanted)
    sums = build.accumulate(rows(), names, weights, progress=lambda done: progress(done, len(share)))
    vectors = {
        f"{name}/{layer}": total[1 + j].unflatten(0, shape).permute(2, 0, 1).half().contiguous()
        for layer, total, shape in zip(vgg.LAYERS, sums.cross, sums.shapes, strict=True)
        for j, name in enumerate(names)
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(vectors, file)


def read_vector(file: Path, face: str, attribute: str) -> vgg.Features:
    """One vector of `write_vectors`."""
    with safetensors.safe_open(file, framework="pt") as vectors:
        relu3_1, relu4_1, relu5_1 = (vectors.get_tensor(f"{face}/{attribute}/{layer}") for layer in vgg.LAYERS)
    return relu3_1, relu4_1, relu5_1


def reconstruct(network: vgg.VGGFeatures, image: Tensor, vector: vgg.Features, alpha: float) -> Tensor:
    """z (1, 3, H, W) for the frame `image`; the shift is alpha |phi_l(x)| w_l / |w_l|, as in Store.shift."""
    with torch.no_grad():
        phi = network(image)
        w = [layer.to(image.device, torch.float32) for layer in vector]
        relu3_1, relu4_1, relu5_1 = (
            alpha * layer.float().norm() / step.norm() * step for layer, step in zip(phi, w, strict=True)
        )
        distance = FeatureLoss(phi, (relu3_1, relu4_1, relu5_1))
    variation = TVLoss()
    z = image.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    # tolerances of 0: all iterations are taken
    solver = torch.optim.LBFGS([z], max_iter=ITERATIONS, tolerance_grad=0, tolerance_change=0)

    def objective() -> Tensor:
        loss = distance(network(z)) + TV_WEIGHT * variation(z)
        (gradient,) = torch.autograd.grad(loss, z)
        z.grad = gradient.contiguous()  # torch's L-BFGS takes no other layout
        return loss.detach()

    solver.step(objective)
    return z.detach().clamp(0, 1)


def paste(photo: np.ndarray, z: Tensor) -> np.ndarray:
    """The photo in LFW's layout (250, 250, 3) uint8 with its whole frame replaced by z."""
    x, y, width, height = FRAME_BOX
    pixels = (255 * z[0].permute(1, 2, 0).cpu().numpy()).round().astype(np.uint8)
    result = photo.copy()
    result[y : y + height, x : x + width] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return result


def frame_of(photo: np.ndarray) -> Tensor:
    """The frame of a photo in LFW's layout, (1, 3, FRAME_SIZE, FRAME_SIZE) in [0, 1]."""
    return torch.from_numpy(layout.to_frame(photo, frame_box=FRAME_BOX).copy()).permute(2, 0, 1).unsqueeze(0) / 255
