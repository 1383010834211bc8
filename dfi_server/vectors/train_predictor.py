"""Training of the predictor (solver/predictor.py) on DFI's own objective: no solved edits are shown to it.

    python -m dfi_server.vectors.train_predictor --lfw lfw-deepfunneled.tgz --portraits faces-hd.tar --work FOLDER

Each round takes a few faces and asks for another sum of attributes on each. The predictor changes them PASSES times;
the objective's gradient after each pass, in units of the objective at the photo, is what it learns from, and what it
is told at the next. People held out (lfw.is_held_out) are not trained on: with some of them it is measured, beside the
solver.

FOLDER holds the training's state, from which the same command goes on; a running average of the weights, of half
precision, under the name that it has in predictors/, with its checksums (--start begins from such a file); and
curve.jsonl. Its first line has the solver's mean objective after 0, 1, ... iterations relative to the photo's, the
others have the predictor's after 1, 2, ... passes: `train`, of what was trained on since the line before, and
`held_out`.
"""

import argparse
import copy
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from dfi_server import checksums, paths
from dfi_server.errors import DFIError
from dfi_server.face import layout
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import seen, soften
from dfi_server.photo.pixels import to_8bit
from dfi_server.photo.whole import write_whole
from dfi_server.solver import reconstruct, vgg
from dfi_server.solver.change import Unknowns
from dfi_server.solver.place import place_of
from dfi_server.solver.predictor import Predictor
from dfi_server.vectors import lfw, portraits
from dfi_server.vectors.store import Store, open_store

PASSES = 2
BATCH = 4
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-4
CLIP = 1.0  # largest norm of the gradient
AVERAGED = 0.995  # of the running average, what stays at each update
MOST_ALPHA, LEAST_ALPHA = 0.5, 0.05
MOST_ATTRIBUTES = 3  # in one sum

MEASURED = ("smiling", "eyeglasses", "senior", "mustache", "mouth_wide_open")
MEASURED_ALPHA = 0.4
MEASURED_FACES = 6
SOLVER_ITERATIONS = 24  # of the solver that the predictor is measured beside

_WARM_UP = 100  # updates
_MEASURE_EVERY, _SAVE_EVERY = 50, 25  # rounds

Setting = Mapping[str, float]


class Vectors:
    """A store's vectors, kept on the device."""

    def __init__(self, store: Store, device: torch.device) -> None:
        self.store, self.names = store, store.info.attributes
        self._vectors: dict[str, vgg.Features] = {}
        for name in self.names:
            relu3_1, relu4_1, relu5_1 = (layer.to(device) for layer in store.vector(name))
            self._vectors[name] = relu3_1, relu4_1, relu5_1

    def shift(self, setting: Setting, phi: vgg.Features) -> vgg.Features:
        return self.store.shift(setting, phi, instead=self._vectors)

    def random_setting(self, random: np.random.Generator) -> Setting:
        chosen = random.choice(len(self.names), random.integers(1, MOST_ATTRIBUTES + 1), replace=False)
        return {self.names[i]: random.uniform(LEAST_ALPHA, MOST_ALPHA) * random.choice((-1, 1)) for i in chosen}


@dataclass(frozen=True)
class Point:
    """Where some edits are: what they look like, and the objective there."""

    u: Tensor  # (N, 5, H, W), see Unknowns
    image: Tensor
    features: Sequence[Tensor]
    loss: Tensor  # (N,)
    gradient: Tensor  # with respect to u


class Edits:
    """The objectives of several edits at once: what reconstruct minimises, but for its window."""

    def __init__(self, network: vgg.VGGFeatures, vectors: Vectors, images: Tensor, settings: list[Setting]) -> None:
        """`images`: (N, 3, H, W), a setting for each."""
        self._network, self._images = network, images
        z = images.clone().requires_grad_(True)
        features = network(z)
        phi = _detached(features)
        each = [_one(phi, i) for i in range(len(images))]
        shifts = [vectors.shift(setting, phi) for setting, phi in zip(settings, each, strict=True)]
        self._losses = [reconstruct.FeatureLoss(phi, shift) for phi, shift in zip(each, shifts, strict=True)]
        self._place = torch.cat([place_of(shift, (images.shape[-2], images.shape[-1])) for shift in shifts])
        self._target = [
            layer + torch.cat(changes) for layer, changes in zip(phi, zip(*shifts, strict=True), strict=True)
        ]
        self._unknowns = Unknowns(self._place)
        loss = self._loss(z, features)
        (asked,) = torch.autograd.grad(loss.sum(), z)  # the photos' own features were needed first
        u = images.new_zeros(len(images), 5, *images.shape[-2:]).requires_grad_(True)
        (gradient,) = torch.autograd.grad(self._unknowns(u)(images), u, asked)
        self.start = Point(u.detach(), images, phi, loss.detach(), gradient)

    def _loss(self, z: Tensor, features: vgg.Features) -> Tensor:
        distance = [loss(_one(features, i)) for i, loss in enumerate(self._losses)]
        smooth = [reconstruct.TV_WEIGHT * reconstruct.TVLoss()(image) for image in torch.split(z, 1)]
        return torch.stack(distance) + torch.stack(smooth)

    def at(self, u: Tensor) -> Point:
        u = u.detach().requires_grad_(True)
        z = self._unknowns(u)(self._images)
        features = self._network(z)
        loss = self._loss(z, features)
        (gradient,) = torch.autograd.grad(loss.sum(), u)
        return Point(u.detach(), z.detach(), _detached(features), loss.detach(), gradient)

    def step(self, predictor: Predictor, point: Point) -> Tensor:
        """What the predictor adds to a point's u."""
        missing = [target - layer for target, layer in zip(self._target, point.features, strict=True)]
        with self._network.autocast():
            step: Tensor = predictor(point.image, self._place, point.gradient, point.features, missing)
        return step


def _detached(features: vgg.Features) -> vgg.Features:
    relu3_1, relu4_1, relu5_1 = (layer.detach() for layer in features)
    return relu3_1, relu4_1, relu5_1


def _one(features: vgg.Features, i: int) -> vgg.Features:
    relu3_1, relu4_1, relu5_1 = (layer[i : i + 1] for layer in features)
    return relu3_1, relu4_1, relu5_1


class Measure:
    """People held out, a few attributes at MEASURED_ALPHA: what the predictor makes of them, and the solver."""

    def __init__(self, network: vgg.VGGFeatures, vectors: Vectors, frames: Tensor) -> None:
        """`frames`: (N, 3, H, W) uint8."""
        images = _images(frames, network.mean.device)
        pairs = list(itertools.product(range(len(images)), MEASURED))
        self._edits = [
            Edits(network, vectors, images[[i for i, _ in some]], [{name: MEASURED_ALPHA} for _, name in some])
            for some in (pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH))
        ]
        self._network, self._vectors, self._images, self._pairs = network, vectors, images, pairs

    def solver(self) -> np.ndarray:
        """The solver's mean objective after 0, 1, ... iterations, relative to the photo's."""
        curves = []
        for i, name in tqdm(self._pairs, desc="solver", disable=None):
            state = reconstruct.reconstruct(
                self._network,
                self._images[i : i + 1],
                lambda phi, name=name: self._vectors.shift({name: MEASURED_ALPHA}, phi),  # type: ignore[misc]
                iterations=SOLVER_ITERATIONS,
            )
            trace = np.array([sum(losses.layers) + losses.variation for losses in state.losses])
            curves.append(np.pad(trace, (0, SOLVER_ITERATIONS + 1 - len(trace)), "edge") / trace[0])
        return np.asarray(np.mean(curves, axis=0))

    def __call__(self, predictor: Predictor) -> dict[str, object]:
        """After each pass the mean objective relative to the photo's, and the largest; the last means by attribute."""
        passes = []
        for edits in self._edits:
            point, figures = edits.start, []
            for _ in range(PASSES):
                with torch.no_grad():
                    step = edits.step(predictor, point)
                point = edits.at(point.u + step)
                figures.append((point.loss / edits.start.loss).cpu())
            passes.append(torch.stack(figures))
        all_passes = torch.cat(passes, dim=1).numpy()  # (PASSES, faces x attributes)
        by_attribute = all_passes[-1].reshape(-1, len(MEASURED)).mean(axis=0)
        return {
            "held_out": _rounded(all_passes.mean(axis=1)),
            "worst": _rounded(all_passes.max(axis=1)),
            "by_attribute": dict(zip(MEASURED, _rounded(by_attribute), strict=True)),
        }


def _rounded(figures: np.ndarray) -> list[float]:
    return [round(float(figure), 4) for figure in figures]


class Training:
    """The predictor, its running average and Adam's moments; kept in a folder."""

    def __init__(self, predictor: Predictor, rate: float) -> None:
        self.predictor, self.rounds, self.updates = predictor, 0, 0
        self.average = copy.deepcopy(predictor).requires_grad_(False)
        self._rate = rate
        self._optimiser = torch.optim.AdamW(predictor.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
        self._optimiser.zero_grad()

    def round(self, edits: Edits) -> np.ndarray:
        """PASSES updates; returns the mean objectives after them, relative to the photos'."""
        point, losses = edits.start, []
        for _ in range(PASSES):
            step = edits.step(self.predictor, point)
            point = edits.at(point.u + step)
            step.backward(point.gradient / (len(point.loss) * edits.start.loss.view(-1, 1, 1, 1)))  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.predictor.parameters(), CLIP)
            self.updates += 1
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate * min(1.0, self.updates / _WARM_UP)
            self._optimiser.step()
            self._optimiser.zero_grad()
            stays = min(AVERAGED, self.updates / (self.updates + 3))  # at first over the last third of all updates
            for average, parameter in zip(self.average.parameters(), self.predictor.parameters(), strict=True):
                average.lerp_(parameter.detach(), 1 - stays)
            losses.append((point.loss / edits.start.loss).mean())
        self.rounds += 1
        return np.asarray(torch.stack(losses).cpu().numpy())

    def save(self, folder: Path, name: str) -> None:
        """`name`: of the running average's file."""
        tensors = {
            f"{kind}/{name}": self._optimiser.state[parameter][kind]
            for name, parameter in self.predictor.named_parameters()
            for kind in ("exp_avg", "exp_avg_sq")
        }
        tensors |= {f"predictor/{name}": tensor for name, tensor in self.predictor.state_dict().items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        tensors |= {"rounds": torch.tensor(self.rounds), "updates": torch.tensor(self.updates)}
        new = folder / "state.new"
        safetensors.torch.save_file(tensors, new)
        new.replace(_state(folder))
        halves = {key: tensor.half().cpu() for key, tensor in self.average.state_dict().items()}
        safetensors.torch.save_file(halves, folder / name)
        checksums.write(folder / name, {key: tensor.numpy() for key, tensor in halves.items()})

    def load(self, folder: Path) -> None:
        tensors = safetensors.torch.load_file(_state(folder))

        def part(kind: str) -> dict[str, Tensor]:
            return {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}

        self.rounds, self.updates = int(tensors["rounds"]), int(tensors["updates"])
        self.predictor.load_state_dict(part("predictor"))
        self.average.load_state_dict(part("average"))
        first, second = part("exp_avg"), part("exp_avg_sq")
        for name, parameter in self.predictor.named_parameters():
            moments = {"exp_avg": first[name].to(parameter.device), "exp_avg_sq": second[name].to(parameter.device)}
            self._optimiser.state[parameter] = {"step": torch.tensor(float(self.updates)), **moments}


def _state(folder: Path) -> Path:
    return folder / "state.safetensors"


def read_frames(options: argparse.Namespace, store: Store) -> tuple[Tensor, Tensor]:
    """(N, 3, size, size) uint8 to train on, and of people held out to measure with."""
    size = store.info.frame_size
    frames: list[np.ndarray] = []
    held_out: list[np.ndarray] = []
    for key, jpeg in tqdm(lfw.read_photos(options.lfw), desc="LFW", unit="photo", disable=None):
        if (photo := lfw.decode(jpeg)) is not None:
            (held_out if lfw.is_held_out(key) else frames).append(layout.to_frame(photo, size))
    if options.portraits:
        frames.extend(_portrait_frames(options, store))
    measured = held_out[:: max(1, len(held_out) // MEASURED_FACES)][:MEASURED_FACES]
    to_train, to_measure = (torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2) for some in (frames, measured))
    return to_train, to_measure


def _portrait_frames(options: argparse.Namespace, store: Store) -> np.ndarray:
    """Finding their faces takes a quarter of an hour: they are kept beside the training's state."""
    kept = options.work / "portraits.npy"
    if not kept.exists():
        frames = []
        for name, photo in tqdm(portraits.read_portraits(options.portraits), desc="portraits", disable=None):
            found = [] if portraits.is_held_out(name) else find_largest(photo, store.canonical_landmarks)
            if found:
                frame = align(found[0].landmarks, store.canonical_landmarks).of_size(store.info.frame_size)
                frames.append(to_8bit(seen(photo, frame)))
        options.work.mkdir(parents=True, exist_ok=True)
        write_whole(kept, lambda file: np.save(file, np.stack(frames)))
    return np.asarray(np.load(kept, allow_pickle=False))


def _images(frames: Tensor, device: torch.device) -> Tensor:
    """As edits see them: in [0, 1], and soft."""
    return soften(frames.float() / 255).to(device)


def begin_with(predictor: Predictor, weights: Mapping[str, Tensor]) -> None:
    """Take another predictor's weights. One for another network has other channels of phi: those stay as they are."""
    own = predictor.state_dict()
    fitting = {key: tensor.float() for key, tensor in weights.items() if tensor.shape == own[key].shape}
    predictor.load_state_dict(own | fitting)


def train(options: argparse.Namespace) -> None:
    """Until options.rounds, or until it is interrupted. Raises DFIError as lfw.read_photos and open_store do."""
    device = vgg.choose_device(options.device)
    store = open_store(options.store)
    network = vgg.load(store.weights(), device)
    vectors = Vectors(store, device)
    frames, measured = read_frames(options, store)
    measure = Measure(network, vectors, measured)
    torch.manual_seed(options.seed)
    predictor = Predictor([layer.shape[0] for layer in store.vector(vectors.names[0])]).to(device)
    if options.start:
        begin_with(predictor, safetensors.torch.load_file(options.start))
    training = Training(predictor, options.rate)
    options.work.mkdir(parents=True, exist_ok=True)
    if _state(options.work).exists():
        training.load(options.work)

    def log(**figures: object) -> None:
        with (options.work / "curve.jsonl").open("a") as file:
            file.write(json.dumps(figures) + "\n")

    if training.rounds == 0:
        log(solver=_rounded(measure.solver()))
    recent = []
    began = time.monotonic()
    with tqdm(total=options.rounds, initial=training.rounds, unit="round", disable=None) as bar:
        while training.rounds < options.rounds:
            random = np.random.default_rng((options.seed, training.rounds))
            images = _images(frames[random.choice(len(frames), options.batch, replace=False)], device)
            if random.random() < 0.5:
                images = images.flip(-1)
            edits = Edits(network, vectors, images, [vectors.random_setting(random) for _ in images])
            recent.append(training.round(edits))
            bar.update()
            if training.rounds % _SAVE_EVERY == 0:
                figures = measure(training.average) if training.rounds % _MEASURE_EVERY == 0 else {}
                seconds = round(time.monotonic() - began)
                log(round=training.rounds, seconds=seconds, train=_rounded(np.mean(recent, axis=0)), **figures)
                training.save(options.work, store.predictor_file.name)
                recent.clear()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dfi_server.vectors.train_predictor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lfw", type=Path, required=True, metavar="TGZ", help="lfw-deepfunneled.tgz")
    parser.add_argument("--portraits", type=Path, metavar="TAR", help="faces-hd.tar: sharp faces, as many as there are")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="where the training is kept")
    parser.add_argument("--start", type=Path, metavar="FILE", help="a predictor to begin with, of any network")
    parser.add_argument("--store", default=paths.PREVIEW, help="whose network and vectors (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=100_000, help="in all (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=BATCH, help="faces a round (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="of learning (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    try:
        train(parser.parse_args())
    except DFIError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
