"""What ships in portraits/ and starter/detail.safetensors, from sharp portraits and LFW.

    python -m dfi_server.vectors.portraits --portraits faces-hd.tar --lfw lfw-deepfunneled.tgz \\
        --attributes lfw_attributes.txt

The portraits have no labels. They get those that LFW's photos have, by a kernel ridge regression on the starter's
features, of frames as soft as LFW's. From them the starter's vectors for a frame of layout.DETAIL_FRAME_SIZE are made
as others are (build.py), but from frames that are not softened. Landmark vectors come from LFW (expressions.py), the
pictures of mouths and of a beard from portraits chosen by eye (pictures.py). Some 40 minutes on two CPU cores.
"""

import argparse
import datetime
import io
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor
from tqdm import tqdm

from dfi_server import checksums, paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import seen, soften
from dfi_server.face.portraits import LANDMARKS
from dfi_server.photo.pixels import to_8bit
from dfi_server.solver import vgg
from dfi_server.vectors import build, expressions, lfw, model_card, pictures
from dfi_server.vectors.build import FaceRow
from dfi_server.vectors.store import Store, StoreInfo, add_vectors, write_store

ATTRIBUTES = ("eyeglasses", "sunglasses", "bushy_eyebrows")
"""What portraits' vectors paint better than LFW's do; of the others they know too little (docs/full-resolution.md)."""

RANK, ITERATIONS = 48, 25

_LEAST_SCORE = 0.8  # of the detector: the rest are turned or half hidden
_SHOWN = "sfhq/sample_2x4_"  # the people of docs/, who must not be what they are shown with
_LABELLED = 4000  # photos of LFW that portraits' labels are learnt from
_KERNEL, _RIDGE = 1.0, 0.5  # width of the Gaussian kernel for features of unit length, and the ridge: the best of nine
_POOL4, _POOL5 = 8, 12  # cells to a side that relu4_1 and relu5_1 are averaged to


@dataclass(frozen=True)
class Aligned:
    """A portrait's frame (DETAIL_FRAME_SIZE, DETAIL_FRAME_SIZE, 3) uint8."""

    name: str
    frame: np.ndarray


def is_held_out(name: str) -> bool:
    """Whether a portrait ("sfhq/sample_2x4_48_926") is kept for docs/ or an evaluation: one sheet in eight."""
    return name.startswith(_SHOWN) or lfw.is_held_out(name)


def read_portraits(archive: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (H, W, 3) uint8) of every JPEG in a .tar. Raises DFIError(BAD_DATA) where it cannot be read."""
    try:
        with tarfile.open(archive) as members:
            for member in members:
                content = members.extractfile(member) if member.name.endswith(".jpg") else None
                if content:
                    with Image.open(io.BytesIO(content.read())) as picture:
                        yield member.name.removeprefix("./").removesuffix(".jpg"), np.asarray(picture.convert("RGB"))
    except (OSError, tarfile.TarError) as error:
        raise DFIError(ErrorCode.BAD_DATA, f"The portraits in {archive} cannot be read ({error}).") from error


def sharp_frames(archive: Path, canonical: np.ndarray, progress: Callable[[int], None]) -> list[Aligned]:
    """The frames of those portraits that are sharp enough and not held out."""
    aligned = []
    for number, (name, photo) in enumerate(read_portraits(archive), 1):
        progress(number)
        found = [] if is_held_out(name) else find_largest(photo, canonical)
        if found and found[0].score > _LEAST_SCORE:
            frame = align(found[0].landmarks, canonical)
            if frame.scale * frame.size > layout.SHARP_SPAN:
                sharp = seen(photo, frame.of_size(layout.DETAIL_FRAME_SIZE))
                aligned.append(Aligned(name, to_8bit(sharp)))
    return aligned


@torch.no_grad()
def label(
    frames: list[np.ndarray], photos: list[np.ndarray], values: np.ndarray, network: vgg.VGGFeatures
) -> np.ndarray:
    """Attributes (N, K) for N frames of any size, from M labelled ones (`photos`, `values` (M, K))."""
    known, asked = (_features(images, network) for images in (photos, frames))
    mean = values.mean(axis=0)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T
        return torch.exp(-distance.clamp_min(0) / (2 * _KERNEL**2))

    ridge = kernel(known, known) + _RIDGE * torch.eye(len(known))
    weights = torch.linalg.solve(ridge, torch.from_numpy(values - mean))
    return np.asarray((kernel(asked, known) @ weights).numpy() + mean, dtype=np.float32)


def _features(frames: list[np.ndarray], network: vgg.VGGFeatures) -> Tensor:
    """relu4_1 and relu5_1 of frames as soft as LFW's, pooled, each of unit length, (N, F)."""
    rows = []
    for frame in frames:
        image = torch.from_numpy(frame.copy()).permute(2, 0, 1).unsqueeze(0) / 255
        small = F.interpolate(image, size=layout.FRAME_SIZE, mode="area")
        _, relu4_1, relu5_1 = network(soften(small).to(network.mean.device))
        pooled = (F.adaptive_avg_pool2d(relu4_1.float(), _POOL4), F.adaptive_avg_pool2d(relu5_1.float(), _POOL5))
        rows.append(torch.cat([F.normalize(layer.flatten(1)) for layer in pooled], dim=1).cpu())
    return torch.cat(rows)


def build_detail(store: Store, aligned: list[Aligned], values: np.ndarray, names: tuple[str, ...]) -> Store:
    """Give `store` its vectors for layout.DETAIL_FRAME_SIZE."""
    rows = (FaceRow(a.name, a.frame, row) for a, row in zip(aligned, values, strict=True))
    with tqdm(desc="vectors", total=len(aligned), unit="portrait") as bar:
        sums = build.accumulate(rows, names, store.weights(), progress=lambda done: bar.update(done - bar.n))
    vectors = sums.vectors()
    info = StoreInfo(
        network_sha256=store.info.network_sha256,
        attributes=ATTRIBUTES,
        face_set="portraits: US Congress, SFHQ, SFHQ-T2I",
        photos=len(aligned),
        method=f"ridge k={build.RIDGE:g}",
        built=datetime.date.today().isoformat(),
        frame_box=layout.FRAME_BOX,
        frame_size=layout.DETAIL_FRAME_SIZE,
        landmarks=store.info.landmarks,
        rank=RANK,
        iterations=ITERATIONS,
    )
    with tempfile.TemporaryDirectory() as folder:
        built = write_store(
            Path(folder) / paths.DETAIL, info, store.weights(), {name: vectors[name] for name in ATTRIBUTES}
        )
        add_vectors(store, built)
    return Store(store.path, layout.DETAIL_FRAME_SIZE)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dfi_server.vectors.portraits", description=__doc__.split("\n")[0])
    parser.add_argument("--portraits", type=Path, required=True, metavar="TAR", help="sharp portraits, JPEG")
    parser.add_argument("--lfw", type=Path, required=True, metavar="TGZ", help="lfw-deepfunneled.tgz")
    parser.add_argument("--attributes", type=Path, required=True, metavar="TXT", help="lfw_attributes.txt")
    parser.add_argument("--output", type=Path, default=paths.PORTRAITS, metavar="FOLDER")
    options = parser.parse_args()
    try:
        make(options)
    except DFIError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make(options: argparse.Namespace) -> None:
    """Make it all. Raises DFIError(BAD_DATA) where the photos or their attributes cannot be read."""
    store = Store(paths.STARTER)
    options.output.mkdir(parents=True, exist_ok=True)
    with tqdm(desc="landmarks", unit="photo") as bar:
        arrays = expressions.learn(options.lfw, options.attributes, lambda done: bar.update(done - bar.n))
    save_file(arrays, options.output / LANDMARKS)
    checksums.write(options.output / LANDMARKS, arrays)
    chosen = dict(each for each in read_portraits(options.portraits) if each[0] in pictures.CHOSEN)
    pictures.collect(chosen, store.canonical_landmarks, options.output)
    table = lfw.read_attributes(options.attributes)
    photos: list[np.ndarray] = []
    values: list[np.ndarray] = []
    usable = (each for each in lfw.read_photos(options.lfw) if each[0] in table.rows and not lfw.is_held_out(each[0]))
    for key, jpeg in usable:
        if (photo := lfw.decode(jpeg)) is not None and len(photos) < _LABELLED:
            photos.append(layout.to_frame(photo))
            values.append(table.rows[key])
    with tqdm(desc="portraits", unit="photo") as bar:
        aligned = sharp_frames(options.portraits, store.canonical_landmarks, lambda done: bar.update(done - bar.n))
    network = vgg.load(store.weights(), vgg.choose_device("auto"))
    labels = label([a.frame for a in aligned], photos, np.stack(values).astype(np.float32), network)
    detail = build_detail(store, aligned, labels, table.names)
    model_card.write_portraits(options.output, detail, [a.name for a in aligned])


if __name__ == "__main__":
    sys.exit(main())
