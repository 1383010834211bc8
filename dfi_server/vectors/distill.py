"""Knowledge distillation: a narrow network of VGG-19's shape learns, from random weights, to see faces as VGG-19 does.

It is shown photos of LFW and learns VGG-19's relu3_1, relu4_1 and relu5_1 through 1x1 convolutions (adapters) that
make up for its fewer channels (distillation by hints: Romero et al., "FitNets", arXiv 1412.6550). An edit follows
*differences* of features, so differences are learnt too: each photo comes twice, the second time with a part of
another face blended in at the same place.

    python -m dfi_server.vectors.distill --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt --vgg19 vgg19.pth

makes the store "starter" of this package from nothing: some 50 minutes of training and 5 of building vectors on two CPU
cores. People held out for evaluation (lfw.is_held_out) are seen by neither.
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur
from tqdm import tqdm

from dfi_server import paths
from dfi_server.errors import DFIError
from dfi_server.face import layout
from dfi_server.solver import vgg
from dfi_server.vectors import build, lfw, model_card
from dfi_server.vectors.store import Store, add_vectors

WIDTH = 0.5
"""Channels as a fraction of VGG-19's."""

RANK = 48
"""Of the vectors (see low_rank): with that, all of LFW's attributes fit into some 14 MB."""

ITERATIONS = 20
"""Of L-BFGS for an edit: with the narrow network fewer do."""

PREVIEW_RANK, PREVIEW_ITERATIONS = 32, 8
"""The same of a preview, whose frame is smaller: it shows what will change, though not all of it."""

GAIN = 0.75
"""What alpha is multiplied by: without it, edits are stronger than VGG-19's and move the face further from itself."""

STEPS = 12000
BATCH = 4  # photos a step; each with its blended twin
CROP = 128  # pixels
LEARNING_RATE = 1.5e-3
WEIGHT_DECAY = 1e-4
CLIP = 1.0  # largest norm of the gradient

_FRAME_SCALE = layout.FRAME_SIZE / layout.FRAME_BOX[2]  # from a photo's pixels to the face frame's, as edits see faces
_SCALES = (0.85, 1.2)  # times that
_LOG_EVERY = 50
_SAVE_EVERY = 500


class Student(nn.Module):
    """A narrow VGG-19 (`network`) and the adapters from its channels to the teacher's."""

    def __init__(self, teacher: vgg.VGGFeatures, width: float) -> None:
        """`width`: channels as a fraction of the teacher's. Weights are random: He initialisation, biases 0."""
        super().__init__()
        weights: dict[str, Tensor] = {}
        channels = 3
        for key, tensor in teacher.features.state_dict(prefix="features.").items():
            if key.endswith(".weight"):
                out = round(width * tensor.shape[0])
                weights[key] = nn.init.kaiming_normal_(torch.empty(out, channels, 3, 3), nonlinearity="relu")
                weights[key.replace("weight", "bias")] = torch.zeros(out)
                channels = out
        self.network = vgg.VGGFeatures(weights).requires_grad_(True)
        with torch.no_grad():
            here, there = (net(torch.zeros(1, 3, 16, 16, device=net.mean.device)) for net in (self.network, teacher))
        sizes = [(ours.shape[1], theirs.shape[1]) for ours, theirs in zip(here, there, strict=True)]
        self.adapters = nn.ModuleList(nn.Conv2d(narrow, wide, 1) for narrow, wide in sizes)

    def forward(self, images: Tensor) -> list[Tensor]:
        layers = self.network(images)
        return [adapter(layer) for adapter, layer in zip(self.adapters, layers, strict=True)]

    def weights(self) -> dict[str, Tensor]:
        """The narrow network's weights as `vgg.read_weights` gives them; the adapters are left behind."""
        return {key: tensor.detach().contiguous().clone() for key, tensor in self.network.state_dict().items()}


def batch(photos: list[np.ndarray], random: np.random.Generator) -> Tensor:
    """One step's images (2 * BATCH, 3, CROP, CROP) in [0, 1] from 2 * BATCH photos in LFW's layout.

    The first half: crops at random places and scales, mirrored, with light, contrast, sharpness and noise varied. The
    second half: the same crops, each with a soft-edged part of another photo's crop at the same place.
    """
    crops = []
    for pair in zip(photos[0::2], photos[1::2], strict=True):
        scale = _FRAME_SCALE * random.uniform(*_SCALES)
        side = CROP / scale
        x, y = random.uniform(0, layout.PHOTO_SIZE - side, 2) * 0.6 + 0.2 * (
            layout.PHOTO_SIZE - side
        )  # mostly the face
        box = (x, y, x + side, y + side)
        crops += [
            np.asarray(Image.fromarray(photo).resize((CROP, CROP), Image.Resampling.BICUBIC, box=box)) for photo in pair
        ]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    if random.random() < 0.5:
        images = images.flip(-1)
    # light and contrast of each photo
    gain = torch.from_numpy(random.uniform(0.75, 1.25, (len(images), 3, 1, 1)) ** 0.3).float()
    images = images * gain * float(random.uniform(0.8, 1.2)) + float(random.uniform(-0.08, 0.08))
    if random.random() < 0.3:
        sigma = float(random.uniform(0.4, 1.5))
        images = gaussian_blur(images, [9, 9], [sigma, sigma])
    if random.random() < 0.4:
        noise = torch.from_numpy(random.standard_normal(images.shape)).float()
        images = images + float(random.uniform(0, 0.06)) * noise
    images = images.clamp(0, 1)
    photo, other = images[0::2], images[1::2]
    coarse = torch.from_numpy(random.standard_normal((len(photo), 1, 5, 5))).float()
    part = torch.sigmoid(6 * F.interpolate(coarse, size=(CROP, CROP), mode="bicubic"))
    return torch.cat([photo, photo + part * (other - photo)])


def losses(seen: list[Tensor], wanted: vgg.Features) -> tuple[Tensor, Tensor]:
    """Squared errors relative to the teacher's energy, (3,) each: of the features, and of twins' differences."""
    features, differences = [], []
    for student, teacher in zip(seen, wanted, strict=True):
        error, target = student.float() - teacher.float(), teacher.float()
        features.append(error.square().sum() / target.square().sum())
        (error_a, error_b), (a, b) = error.chunk(2), target.chunk(2)
        differences.append((error_b - error_a).square().sum() / (b - a).square().sum())
    return torch.stack(features), torch.stack(differences)


def train(
    teacher: vgg.VGGFeatures,
    photos: list[bytes],
    *,
    width: float,
    steps: int = STEPS,
    seed: int = 0,
    report: Callable[[int, Student, list[float]], None] = lambda step, student, figures: None,
) -> Student:
    """Distil `teacher` into a network of `width` times its channels.

    `photos`: JPEG files in LFW's layout. `report` gets the step, the student and six losses (means since the last
    report): of relu3_1, relu4_1, relu5_1 and of their differences.
    """
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    device = teacher.mean.device
    student: Student = Student(teacher, width).to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    recent: list[Tensor] = []
    for step, images in zip(range(1, steps + 1), _batches(photos, random), strict=False):
        images = images.to(device)
        with torch.no_grad():
            wanted = teacher(images)
        with teacher.autocast():
            seen = student(images)
        features, differences = losses(seen, wanted)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(features.sum() + differences.sum())
        nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        recent.append(torch.cat([features, differences]).detach())
        if step % _LOG_EVERY == 0 or step == steps:
            report(step, student, torch.stack(recent).mean(0).tolist())
            recent.clear()
    return student


def _batches(photos: list[bytes], random: np.random.Generator) -> Iterator[Tensor]:
    while True:
        chosen = random.choice(len(photos), 2 * BATCH, replace=False)
        yield batch([np.asarray(Image.open(io.BytesIO(photos[i])).convert("RGB")) for i in chosen], random)


class Recorder:
    """Keeps a training's state in a folder, so that the store can be built from it whenever it is over."""

    def __init__(self, folder: Path, **settings: object) -> None:
        """`settings` are written beside the curve."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network, self.log = folder / "network.safetensors", folder / "training.json"
        self.settings = settings
        self.curve: list[list[float]] = []

    def is_complete(self) -> bool:
        """Whether a training with these settings has been recorded to its end."""
        if not self.log.exists():
            return False
        recorded = json.loads(self.log.read_text())
        self.curve = recorded.pop("curve")
        return bool(recorded == self.settings and self.curve[-1][0] == self.settings["steps"])

    def record(self, step: int, student: Student, figures: list[float]) -> None:
        self.curve.append([step, *(round(figure, 5) for figure in figures)])
        if step % _SAVE_EVERY == 0 or step == self.settings["steps"]:
            safetensors.torch.save_file(student.weights(), self.network)
            self.log.write_text(json.dumps({**self.settings, "curve": self.curve}))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dfi_server.vectors.distill", description=__doc__.split("\n")[0])
    parser.add_argument("--lfw", type=Path, required=True, metavar="TGZ", help="lfw-deepfunneled.tgz")
    parser.add_argument("--attributes", type=Path, required=True, metavar="TXT", help="lfw_attributes.txt")
    parser.add_argument("--vgg19", type=Path, required=True, metavar="FILE", help="VGG-19's weights: the teacher")
    parser.add_argument("--output", type=Path, default=paths.STARTER, metavar="FOLDER", help="the store to make")
    parser.add_argument("--work", type=Path, default=paths.home() / "distill", help="where the training is kept")
    parser.add_argument("--width", type=float, default=WIDTH, help="channels as a fraction of VGG-19's")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    try:
        make_starter(options)
    except DFIError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make_starter(options: argparse.Namespace) -> None:
    """Train, unless that is done; build the store from the result; describe it. Raises DFIError as `build_lfw`."""
    teacher = vgg.load(vgg.read_weights(options.vgg19), vgg.choose_device(options.device))
    photos = [jpeg for key, jpeg in lfw.read_photos(options.lfw) if not lfw.is_held_out(key)]
    settings = {"photos": len(photos), "width": options.width, "steps": options.steps, "seed": options.seed}
    recorder = Recorder(options.work, **settings)
    if not recorder.is_complete():
        recorder.curve = []
        with tqdm(desc="training", total=options.steps, unit="step") as bar:

            def report(step: int, student: Student, figures: list[float]) -> None:
                recorder.record(step, student, figures)
                bar.set_postfix_str(" ".join(f"{figure:.3f}" for figure in figures))
                bar.update(step - bar.n)

            train(teacher, photos, width=options.width, steps=options.steps, seed=options.seed, report=report)
    weights = {key: tensor.half() for key, tensor in vgg.read_weights(recorder.network).items()}

    def vectors(folder: Path, rank: int, iterations: int, frame_size: int) -> Store:
        with tqdm(desc=f"vectors, {frame_size} pixels", unit="photo", total=len(photos)) as bar:
            store, _ = build.build_lfw(
                folder,
                weights,
                options.lfw,
                options.attributes,
                device=options.device,
                keep=lambda key: not lfw.is_held_out(key),
                rank=rank,
                iterations=iterations,
                gain=GAIN,
                frame_size=frame_size,
                progress=lambda done, _: bar.update(done - bar.n),
            )
        return store

    store = vectors(options.output, RANK, ITERATIONS, layout.FRAME_SIZE)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        preview = Path(folder) / paths.PREVIEW
        add_vectors(store, vectors(preview, PREVIEW_RANK, PREVIEW_ITERATIONS, layout.PREVIEW_FRAME_SIZE))
    model_card.write(store, Store(store.path, layout.PREVIEW_FRAME_SIZE), recorder.log)


if __name__ == "__main__":
    sys.exit(main())
