"""The vectors' factory: one streaming pass over a face set, from photos to a store of attribute vectors.

Only the sums A'A and A'Phi are kept (A: one row of attributes per photo, Phi: one row of features), never the
features of the whole set. From them come two kinds of vectors:

ridge  W = (A'A + kI)^-1 A'Phi, columns standardised: what one attribute changes while the others are held still. This
       differs from the paper, whose vectors drag correlated attributes along (smiling people in LFW are more often
       women, and younger). What belongs to an attribute by nature (`parts`) is not held still: nobody smiles without
       raising the cheeks.
mean   the paper's difference of means between photos with and without the attribute, over the whole set.
"""

import datetime
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face.find import lfw_landmarks
from dfi_server.solver import reconstruct, vgg
from dfi_server.vectors import lfw
from dfi_server.vectors.store import Store, StoreInfo, write_store

Row = TypeVar("Row")
Method = Literal["ridge", "mean"]
RIDGE = 20.0
"""k of the ridge, in photos: columns are standardised, so A'A's diagonal is the number of photos."""

BATCH = 64
"""Photos per update of the sums: updating them touches 0.3 GB, so it must not happen for each photo."""

_FORWARD = 2  # photos per forward pass on the CPU, where larger batches fall out of the cache
_FORWARD_CUDA = 64
_LANDMARK_PHOTOS = 1000  # enough for medians to a fraction of a pixel

_EXPRESSION = {"smiling", "frowning", "high_cheekbones", "strong_nose_mouth_lines"}
_MOUTH = {"mouth_slightly_open", "mouth_closed", "teeth_not_visible"}
_EYEWEAR = {"eyeglasses", "no_eyewear"}
_EYELIDS = {"eyes_open", "narrow_eyes"}
_MAKEUP = {"heavy_makeup", "wearing_lipstick"}
_HAIR = {"black_hair", "blond_hair", "brown_hair", "gray_hair"}
_YEARS = {"senior", "middle_aged", "youth"}
_AGED_SKIN = {"bags_under_eyes", "double_chin", "strong_nose_mouth_lines"}
_BEAUTY = {"attractive_man", "attractive_woman"}  # as LFW's labels judge it: youth, for the most part
_AGE = _YEARS | _AGED_SKIN | _HAIR | {"bald", "receding_hairline"} | _EYELIDS | _BEAUTY
_PARTS: tuple[tuple[set[str], set[str]], ...] = (  # attributes, and what belongs to each of them
    ({"smiling", "frowning"}, _EXPRESSION | _MOUTH),
    ({"mouth_wide_open", "mouth_slightly_open", "mouth_closed"}, _MOUTH | {"mouth_wide_open"}),
    (_YEARS, _AGE),
    *((family, family) for family in (_EYEWEAR, _EYELIDS, _MAKEUP, _HAIR)),
)


def parts(name: str) -> set[str]:
    """The attributes that come and go with one by nature; a ridge regression for it does not hold them still."""
    return set().union(*(belonging for names, belonging in _PARTS if name in names)) - {name}


@dataclass(frozen=True)
class FaceRow:
    """One face: its frame (frame_size, frame_size, 3) uint8 and its attributes (K,) float32."""

    key: str
    frame: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class BuildReport:
    """What a build read: photos used, photos without a row, rows without a photo, photos and lines unreadable."""

    photos: int
    photos_without_row: int
    rows_without_photo: int
    unreadable: int


class Sums:
    """A'A and A'Phi, accumulated batch by batch; a first column of ones is A's intercept."""

    def __init__(self, names: tuple[str, ...], method: Method, device: torch.device) -> None:
        self.names = names
        self.method = method
        self.device = device
        self.photos = 0
        self.gram = torch.zeros(len(names) + 1, len(names) + 1, dtype=torch.float64)
        self.cross: list[Tensor] = []  # per layer (K + 1, H*W*C) float32: channels last, as the network leaves them
        self.shapes: list[torch.Size] = []  # (H, W, C)

    def add(self, values: Tensor, features: list[Tensor]) -> None:
        """Take in `values` (N, K) float32 on the CPU and one (N, C, H, W) tensor per layer."""
        columns = values if self.method == "ridge" else (values > 0).float()
        design = torch.cat([torch.ones(len(columns), 1), columns], dim=1)
        self.gram += design.double().T @ design.double()
        self.photos += len(columns)
        features = [layer.permute(0, 2, 3, 1) for layer in features]
        if not self.cross:
            self.shapes = [layer.shape[1:] for layer in features]
            self.cross = [torch.zeros(design.shape[1], s.numel(), device=self.device) for s in self.shapes]
        design = design.to(self.device)
        for total, layer in zip(self.cross, features, strict=True):
            total.addmm_(design.T, layer.float().flatten(1))

    def merge(self, other: "Sums") -> None:
        """Take in what another one of the same names and method has accumulated over other photos."""
        if not self.cross:
            self.shapes = other.shapes
            self.cross = [torch.zeros_like(total, device=self.device) for total in other.cross]
        self.photos += other.photos
        self.gram += other.gram
        for total, part in zip(self.cross, other.cross, strict=True):
            total += part.to(self.device)

    def only(self, names: tuple[str, ...]) -> "Sums":
        """The sums of some of the columns: for a regression that holds only these still."""
        chosen = [0, *(1 + self.names.index(name) for name in names)]
        part = Sums(names, self.method, self.device)
        part.photos, part.shapes = self.photos, self.shapes
        part.gram, part.cross = self.gram[chosen][:, chosen], [total[chosen] for total in self.cross]
        return part

    def on_cpu(self) -> "Sums":
        """The same, moved to the CPU's memory."""
        self.device = torch.device("cpu")
        self.cross = [total.to(self.device) for total in self.cross]
        return self

    def vectors(self) -> dict[str, vgg.Features]:
        """Attribute -> vector of the three layers. An attribute that never varies over the faces is left out."""
        return {name: (layers[0], layers[1], layers[2]) for name, layers in self.solve().items()}

    def solve(self) -> dict[str, list[Tensor]]:
        """The same for any layers: attribute -> one (C, H, W) tensor per layer that `add` was given."""
        count = self.gram[0, 0]
        mean = self.gram[0, 1:] / count
        deviation = (self.gram.diagonal()[1:] / count - mean**2).clamp_min(0).sqrt()
        varies = deviation > 1e-6 * (self.gram.diagonal()[1:] / count).sqrt()  # rounding leaves 1e-8 of the values
        kept = [name for name, varying in zip(self.names, varies.tolist(), strict=True) if varying]
        # centre and scale the columns afterwards, in A'A and A'Phi: B = (A - mean) / deviation
        to_standard = torch.cat([-mean[varies, None], torch.eye(len(mean), dtype=torch.float64)[varies]], dim=1)
        to_standard /= deviation[varies, None]
        if self.method == "ridge":
            gram = to_standard @ self.gram @ to_standard.T + RIDGE * torch.eye(len(kept), dtype=torch.float64)
            rows = [_ridge_row(gram, to_standard, kept, name) for name in kept]
            solver = torch.stack(rows) if rows else to_standard
        else:
            # difference of means = covariance with the 0/1 column / its variance
            solver = to_standard / (count * deviation[varies, None])
        layers = [
            (solver.to(self.device, torch.float32) @ total).cpu().reshape(len(kept), *shape).permute(0, 3, 1, 2)
            for total, shape in zip(self.cross, self.shapes, strict=True)
        ]
        return {name: [layer[i] for layer in layers] for i, name in enumerate(kept)}


def _ridge_row(gram: Tensor, to_standard: Tensor, names: list[str], name: str) -> Tensor:
    """The weights of A'Phi's rows that make one attribute's vector, its parts left out of the regression."""
    held = [i for i, other in enumerate(names) if other not in parts(name)]
    row: Tensor = torch.linalg.solve(gram[held][:, held], to_standard[held])[held.index(names.index(name))]
    return row


def describe(method: Method) -> str:
    """How vectors are made, for people."""
    return f"ridge k={RIDGE:g}" if method == "ridge" else "mean difference"


class Accumulate(Protocol):
    """Every face through the network once: `accumulate` here, or its counterpart on a cluster in ray_engine.py."""

    def __call__(
        self,
        rows: Iterator[FaceRow],
        names: tuple[str, ...],
        weights: dict[str, Tensor],
        *,
        method: Method,
        device: str,
        progress: Callable[[int], None],
    ) -> Sums: ...


def build_lfw(
    folder: Path,
    weights: dict[str, Tensor],
    archive: Path,
    attribute_file: Path,
    *,
    method: Method = "ridge",
    device: str = "auto",
    limit: int | None = None,
    keep: Callable[[str], bool] = lambda key: True,
    rank: int | None = None,
    iterations: int = reconstruct.ITERATIONS,
    gain: float = 1.0,
    frame_size: int = layout.FRAME_SIZE,
    engine: Accumulate | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Store, BuildReport]:
    """Build the store in `folder` from LFW in one pass and put it in place when it is complete.

    `limit`: the first so many photos only. `keep`: which photo keys ("Aaron_Eckhart_0001") to use, so that an
    evaluation can hold people out. `rank`: of compressed vectors (see low_rank); None: they are kept whole.
    `iterations`, `gain`, `frame_size`: see StoreInfo. `engine`: what runs the network over the faces; None:
    `accumulate`. `progress`: called with photos done and photos expected.
    Raises DFIError(BAD_DATA | BAD_WEIGHTS | NO_SPACE | BAD_REQUEST).
    """
    table = lfw.read_attributes(attribute_file)
    expected = min(limit or len(table.rows), sum(map(keep, table.rows)))
    counts = {"orphan": 0, "met": 0, "unreadable": table.skipped}
    landmarks: list[np.ndarray] = []

    def rows() -> Iterator[FaceRow]:
        found = 0
        for key, jpeg in lfw.read_photos(archive):  # to its end whatever the limit: it is checked and counted whole
            if key not in table.rows:
                counts["orphan"] += 1
                continue
            counts["met"] += 1
            if found != limit and keep(key):
                photo = lfw.decode(jpeg)
                if photo is None:
                    counts["unreadable"] += 1
                    continue
                found += 1
                if len(landmarks) < _LANDMARK_PHOTOS:
                    landmarks.append(lfw_landmarks(photo))
                yield FaceRow(key, layout.to_frame(photo, frame_size), table.rows[key])

    engine = engine or accumulate
    sums = engine(rows(), table.names, weights, method=method, device=device, progress=lambda n: progress(n, expected))
    if sums.photos < 2:
        raise DFIError(
            ErrorCode.BAD_DATA,
            f"{sums.photos} photos in {archive} have a row in {attribute_file}, and two is the least to learn from: "
            "are they LFW's deep-funneled photos and its table?",
        )
    vectors = sums.vectors()
    if not vectors:
        raise DFIError(ErrorCode.BAD_DATA, f"All {sums.photos} photos have the same attributes: use more photos.")
    info = StoreInfo(
        network_sha256=vgg.fingerprint(weights),
        attributes=tuple(vectors),
        face_set="LFW deep funneled",
        photos=sums.photos,
        method=describe(method),
        built=datetime.date.today().isoformat(),
        frame_box=layout.FRAME_BOX,
        frame_size=frame_size,
        landmarks=tuple((float(x), float(y)) for x, y in np.median(landmarks, axis=0)),
        rank=rank,
        iterations=iterations,
        gain=gain,
    )
    store = write_store(folder, info, weights, vectors)
    report = BuildReport(sums.photos, counts["orphan"], len(table.rows) - counts["met"], counts["unreadable"])
    return store, report


def accumulate(
    rows: Iterator[FaceRow],
    names: tuple[str, ...],
    weights: dict[str, Tensor],
    *,
    method: Method = "ridge",
    device: str = "auto",
    progress: Callable[[int], None] = lambda done: None,
) -> Sums:
    """Run every face through the network once and keep only the sums. Decoding runs in a thread beside it."""
    place = vgg.choose_device(device)
    network = vgg.load(weights, place)
    sums = Sums(names, method, place)
    forward = _FORWARD_CUDA if place.type == "cuda" else _FORWARD
    layers: list[Tensor] = []  # one batch of features, float32
    with torch.inference_mode():
        for batch in prefetch(batches(rows, BATCH)):
            images = torch.from_numpy(np.stack([row.frame for row in batch])).to(place).permute(0, 3, 1, 2) / 255
            for start in range(0, len(batch), forward):
                part = network(images[start : start + forward])
                layers = layers or [_batch_like(layer) for layer in part]
                for layer, features in zip(layers, part, strict=True):
                    layer[start : start + len(features)] = features
                progress(sums.photos + start + len(part[0]))
            sums.add(
                torch.from_numpy(np.stack([row.values for row in batch])), [layer[: len(batch)] for layer in layers]
            )
    return sums


def _batch_like(features: Tensor) -> Tensor:
    """Room for BATCH photos' features (C, H, W), float32."""
    shape = (BATCH, *features.shape[1:])
    return torch.empty(shape, device=features.device, memory_format=torch.channels_last)


def batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """The rows in lists of `size`; the last may be shorter."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def prefetch(drawn: Iterator[list[Row]]) -> Iterator[list[Row]]:
    """Draw in a thread, two ahead; an exception there is raised here."""
    ready: queue.Queue[list[Row] | BaseException | None] = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def put(item: list[Row] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for batch in drawn:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # handed over, not swallowed
            put(error)

    threading.Thread(target=fill, daemon=True, name="decode").start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
