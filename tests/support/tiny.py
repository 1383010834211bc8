"""A tiny network, and faces drawn for it: a real store that is built in a second."""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dfi_server.solver import vgg

TINY_ATTRIBUTES = ("smiling", "eyeglasses", "senior", "mustache", "mouth_wide_open", "5_o_clock_shadow")


def tiny_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A network of VGG-19's shape with 8 to 32 channels and random weights, under torchvision's key names."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    channels = 3
    for i, width in zip(vgg._CONVOLUTIONS, [8, 8, 16, 16, *[24] * 4, *[32] * 4, 32], strict=True):
        weights[f"features.{i}.weight"] = (
            torch.randn(width, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
        )
        weights[f"features.{i}.bias"] = torch.randn(width, generator=generator) * 0.05
        channels = width
    return weights


def drawn_face(values: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A 250x250 cartoon face in LFW's layout whose parts follow the values of TINY_ATTRIBUTES."""
    shape = np.full((250, 250, 3), rng.uniform(60, 200, 3), dtype=np.float32)
    y, x = np.mgrid[:250, :250]
    shape[((x - 125) / 55) ** 2 + ((y - 125) / 75) ** 2 < 1] = rng.uniform((160, 120, 90), (240, 200, 170))
    for eye in (100, 150):
        shape[(x - eye) ** 2 + (y - 110) ** 2 < 40] = 20
        if values[1] > 0:
            shape[abs((x - eye) ** 2 + (y - 110) ** 2 - 300) < 60] = 10
    curve = (x - 125) ** 2 / (40 if values[0] > 0 else -80)
    shape[(abs(y + curve - 165) < (9 if values[4] > 0 else 3)) & (abs(x - 125) < 22)] = (150, 40, 50)
    if values[3] > 0:
        shape[(abs(y - 150) < 4) & (abs(x - 125) < 20)] = 30
    if values[2] > 0:
        shape[((x - 125) / 60) ** 2 + ((y - 60) / 25) ** 2 < 1] = 210
    if values[5] > 0:
        shape[(y > 165) & (((x - 125) / 52) ** 2 + ((y - 125) / 72) ** 2 < 1) & (rng.random((250, 250)) < 0.3)] -= 60
    return Image.fromarray(np.clip(shape + rng.normal(0, 4, shape.shape), 0, 255).astype(np.uint8))


def write_tiny_lfw(folder: Path, faces: int = 48) -> tuple[Path, Path]:
    """An archive and an attribute table in LFW's formats, of drawn faces with real-valued attributes."""
    rng = np.random.default_rng(7)
    titles = [name.replace("_", " ").title() for name in TINY_ATTRIBUTES]
    lines = ["# drawn", "\t".join(["#", "person", "imagenum", *titles])]
    archive = folder / "faces.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for i in range(faces):
            values = rng.normal(size=len(titles))
            lines.append("\t".join([f"Face Number{i}", "1", *map(str, values)]))
            content = io.BytesIO()
            drawn_face(values, rng).save(content, "JPEG", quality=95)
            member = tarfile.TarInfo(f"lfw-deepfunneled/Face_Number{i}/Face_Number{i}_0001.jpg")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)
    table = folder / "attributes.txt"
    table.write_text("\n".join(lines) + "\n")
    return archive, table
