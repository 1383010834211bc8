"""The store of attribute vectors: one folder holding a network's weights and the vectors made with it.

    STORE/network.safetensors   the weights of phi (see vgg.read_weights)
    STORE/vectors.safetensors   "smiling/relu3_1" -> (C, H, W) float16, of unit root mean square; metadata in the header
                                (or "smiling/relu3_1/channels" and so on: see low_rank, where the info names a rank)
    STORE/preview.safetensors   the same for a smaller frame, layout.PREVIEW_FRAME_SIZE; only the starter has it
    STORE/detail.safetensors    the same for a larger one, layout.DETAIL_FRAME_SIZE; as above

Beside each file of vectors lie the checksums of its tensors (see checksums).

Nothing in it is pickled. Both files are memory-mapped, so a store opens in milliseconds whatever its size.

`dfi setup` builds the store "lfw", from VGG-19. The store "starter", with a small network, is part of the package: it
is the default until "lfw" is there.
"""

import difflib
import json
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dfi_server import checksums, paths
from dfi_server.errors import DFIError, ErrorCode, unwritable
from dfi_server.face import layout
from dfi_server.face.find import LANDMARKS
from dfi_server.solver import predictor, reconstruct, vgg
from dfi_server.vectors import low_rank, own

MAX_ALPHA = 2.0
"""Alpha beyond +-2 is refused; 0.1 to 0.5 is the useful range."""

PASSES, WORTH = 2, 4
"""How often a solve takes the predictor's step, and how many iterations of L-BFGS it takes the place of."""

_FORMAT = 1
_NETWORK = "network.safetensors"
_PREDICTED = (layout.PREVIEW_FRAME_SIZE, layout.FRAME_SIZE)  # the frames that the predictor is good at
_VECTORS = {
    layout.FRAME_SIZE: "vectors.safetensors",
    layout.PREVIEW_FRAME_SIZE: "preview.safetensors",
    layout.DETAIL_FRAME_SIZE: "detail.safetensors",
}


@dataclass(frozen=True)
class StoreInfo:
    """What a store was built from; kept in the header of its vectors."""

    network_sha256: str
    attributes: tuple[str, ...]
    face_set: str
    photos: int
    method: str
    built: str  # ISO 8601 date
    frame_box: tuple[int, ...]  # layout.FRAME_BOX
    frame_size: int
    landmarks: tuple[tuple[float, float], ...]  # LANDMARKS in LFW's 250x250 layout
    layers: tuple[str, ...] = vgg.LAYERS
    format: int = _FORMAT
    rank: int | None = None  # of compressed vectors
    iterations: int = reconstruct.ITERATIONS  # of a finished edit, at most
    gain: float = 1.0  # what alpha is multiplied by, so that it means the same with every network


class Store:
    """An opened store: `info`, `path`, and access to the weights and vectors in it."""

    def __init__(self, path: Path, frame_size: int = layout.FRAME_SIZE) -> None:
        """Open the store in the folder `path`: its vectors for a frame of so many pixels.

        Raises DFIError(NO_STORE | BAD_STORE).
        """
        self.path = path
        self._vectors = path / _VECTORS[frame_size]
        self._checked: set[str] = set()  # attributes
        if not path.is_dir():
            there = sorted(each.name for each in path.parent.glob("[!.]*") if each.is_dir())
            raise DFIError(
                ErrorCode.NO_STORE,
                f"There is no store of attribute vectors '{path.name}' in {path.parent}: choose one of "
                f"{', '.join((*there, paths.STARTER.name))}, or run 'dfi setup' to build '{paths.FULL_STORE}'.",
            )
        try:
            with safetensors.safe_open(self._vectors, framework="pt") as file:
                fields = json.loads(file.metadata()["dfi"])
                keys = set(file.keys())
            self._made = self._vectors.stat().st_mtime_ns
            tuples = ("attributes", "frame_box", "landmarks", "layers")
            self.info = StoreInfo(**{**fields, **{key: tuple(fields[key]) for key in tuples}})
            points = np.array(self.info.landmarks, dtype=np.float64)
        except (OSError, safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
            raise self._damaged() from error
        wanted = {key for name in self.info.attributes for layer in self.info.layers for key in self._keys(name, layer)}
        made_for = (self.info.format, self.info.layers, self.info.frame_box, self.info.frame_size)
        aligned = points.shape == (len(LANDMARKS), 2) and np.isfinite(points).all()
        if made_for != (_FORMAT, vgg.LAYERS, layout.FRAME_BOX, frame_size) or not (wanted <= keys and aligned):
            raise self._damaged()
        self._own = own.catalogue(self.info.network_sha256, frame_size)

    def __eq__(self, other: object) -> bool:
        """Whether the other is the same build in the same place, with the same attributes of the user's own."""
        return isinstance(other, Store) and (self._vectors, self.info, self._made, self._own) == (
            other._vectors,
            other.info,
            other._made,
            other._own,
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_starter(self) -> bool:
        """Whether this is the package's own store, which only stands in until `dfi setup` has built the full one."""
        return self.path == paths.STARTER

    @property
    def canonical_landmarks(self) -> np.ndarray:
        """find.LANDMARKS in LFW's 250x250 layout, (5, 2): where the vectors expect them."""
        return np.array(self.info.landmarks)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names that edits may use: the store's, then the user's own."""
        return (*self.info.attributes, *self.own_attributes)

    @property
    def own_attributes(self) -> tuple[str, ...]:
        """Those that the user has taught, as they were when the store was opened."""
        return tuple(name for name in self._own.usable if name not in self.info.attributes)

    def weights(self) -> dict[str, Tensor]:
        """The network's weights, checked against the fingerprint that the vectors were built with.

        Raises DFIError(BAD_STORE).
        """
        try:
            weights = vgg.read_weights(self.path / _NETWORK)
        except DFIError as error:  # whose advice is for who brings weights of their own
            raise self._damaged() from error
        if vgg.fingerprint(weights) != self.info.network_sha256:
            raise DFIError(
                ErrorCode.BAD_STORE,
                f"The vectors in {self.path} were built for other network weights than lie beside them: "
                f"{self._remedy}.",
            )
        return weights

    def predictor(self, device: torch.device) -> predictor.Predictor | None:
        """The learnt step that a solve begins with, of the package; None where its network has none.

        Raises DFIError(BAD_STORE).
        """
        file = self.predictor_file
        if self.info.frame_size not in _PREDICTED or not file.exists():
            return None
        try:
            tensors = safetensors.torch.load_file(file)
            checksums.check(file, {name: tensor.numpy() for name, tensor in tensors.items()})
            return predictor.load(tensors, device, PASSES, WORTH)
        except (OSError, safetensors.SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise _damaged(f"The file {file}", "install dfi-server again") from error

    @property
    def predictor_file(self) -> Path:
        """Where the predictor for this store's network would be."""
        return paths.PREDICTORS / f"{self.info.network_sha256[:16]}.safetensors"

    def vector(self, name: str) -> vgg.Features:
        """The attribute vector `name`: one (C, H, W) float tensor per layer, of unit root mean square."""
        self.check_names([name])
        if name in self.own_attributes:
            made, _ = self._own.usable[name]
            return own.read(name, made)
        try:
            with safetensors.safe_open(self._vectors, framework="pt") as file:
                stored = [[file.get_tensor(key) for key in self._keys(name, layer)] for layer in vgg.LAYERS]
            self._check(name, stored)
            relu3_1, relu4_1, relu5_1 = (
                low_rank.expand(dict(zip(low_rank.PARTS, parts, strict=True))) if self.info.rank else parts[0]
                for parts in stored
            )
        except (OSError, safetensors.SafetensorError, RuntimeError, ValueError) as error:
            # RuntimeError: shapes that do not fit; ValueError: a checksum that does not
            raise self._damaged() from error
        if not all(layer.isfinite().all() for layer in (relu3_1, relu4_1, relu5_1)):
            raise self._damaged()
        return relu3_1, relu4_1, relu5_1

    def shift(
        self,
        alphas: Mapping[str, float],
        phi: vgg.Features,
        keep: Collection[str] = (),
        instead: Mapping[str, vgg.Features] = MappingProxyType({}),
    ) -> vgg.Features:
        """What to add to phi(x): sum over attributes of alpha * |phi_l(x)| * w_l / |w_l|, layer by layer.

        `phi`: the photo's features, (1, C, H, W) each. So alpha is the shift's length as a fraction of the features'
        own, whatever the scale of the network's weights; times the store's gain. `keep`: attributes whose vectors are
        taken out of it; those that the store lacks have none. `instead`: vectors in place of the store's. Returns
        float32 on phi's device.
        """
        check_alphas(alphas)
        self.check_names(list(alphas))
        total = [torch.zeros_like(layer, dtype=torch.float32) for layer in phi]
        for name, alpha in alphas.items():
            for layer, features, vector in zip(total, phi, instead.get(name) or self.vector(name), strict=True):
                w = vector.to(features.device, torch.float32).unsqueeze(0)
                layer += self.info.gain * alpha * features.float().norm() / w.norm().clamp_min(1e-12) * w
        if kept := [self.vector(name) for name in sorted({*keep} & {*self.attributes})]:
            total = [_without(layer, vectors) for layer, vectors in zip(total, zip(*kept, strict=True), strict=True)]
        return total[0], total[1], total[2]

    def _check(self, name: str, stored: list[list[Tensor]]) -> None:
        """Raise ValueError where a vector that is read for the first time is not as it was written."""
        if name not in self._checked:
            keys = [key for layer in vgg.LAYERS for key in self._keys(name, layer)]
            tensors = (tensor.numpy() for parts in stored for tensor in parts)
            checksums.check(self._vectors, dict(zip(keys, tensors, strict=True)))
            self._checked.add(name)

    def _keys(self, name: str, layer: str) -> list[str]:
        """Where a vector's layer lies in the file."""
        return [f"{name}/{layer}/{part}" for part in low_rank.PARTS] if self.info.rank else [f"{name}/{layer}"]

    def check_names(self, names: list[str]) -> None:
        """Raise DFIError(UNKNOWN_ATTRIBUTE) with the nearest names for the first one that is not in the store."""
        for name in names:
            if name not in self.attributes:
                if name in self._own.unusable:
                    raise DFIError(ErrorCode.UNKNOWN_ATTRIBUTE, self._own.unusable[name])
                near = difflib.get_close_matches(name, self.attributes, n=3, cutoff=0.4)
                hint = f"did you mean {', '.join(near)}?" if near else "'dfi attributes' lists them all."
                raise DFIError(ErrorCode.UNKNOWN_ATTRIBUTE, f"There is no attribute '{name}': {hint}")

    def _damaged(self) -> DFIError:
        return _damaged(f"The store in {self.path}", self._remedy)

    @property
    def _remedy(self) -> str:
        return "install dfi-server again" if self.is_starter else "run 'dfi setup' again"


def _damaged(what: str, remedy: str) -> DFIError:
    return DFIError(ErrorCode.BAD_STORE, f"{what} is damaged or from another version: {remedy}.")


def open_store(name: str | None = None) -> Store:
    """Open a store by name; None means the full one, or the starter until that is there."""
    full = paths.stores() / paths.FULL_STORE
    if name is None:
        return Store(full if full.exists() else paths.STARTER)
    sizes = {
        paths.STARTER.name: layout.FRAME_SIZE,
        paths.PREVIEW: layout.PREVIEW_FRAME_SIZE,
        paths.DETAIL: layout.DETAIL_FRAME_SIZE,
    }
    if name in sizes:
        return Store(paths.STARTER, sizes[name])
    if Path(name).name != name or name.startswith("."):
        raise DFIError(ErrorCode.NO_STORE, f"'{name}' is not a store's name: use a plain name such as 'lfw'.")
    return Store(paths.stores() / name)


def _without(shift: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """A shift (1, C, H, W) less its orthogonal projection onto the span of vectors (C, H, W)."""
    basis = torch.stack([vector.to(shift.device, torch.float32).flatten() for vector in vectors])
    gram, products = (basis @ basis.T).cpu(), (basis @ shift.flatten()).cpu()
    amounts = torch.linalg.lstsq(gram, products, driver="gelsd").solution  # gelsd: of vectors that depend, too
    kept: Tensor = (amounts.to(shift.device) @ basis).view_as(shift)
    return shift - kept


def check_alphas(alphas: Mapping[str, float], keep: Collection[str] = ()) -> None:
    """Raise DFIError(BAD_ALPHA | BAD_REQUEST) unless `alphas` names something and each is within +-MAX_ALPHA.

    `keep`: what must stay as it is; none of it can be changed.
    """
    if not alphas:
        raise DFIError(ErrorCode.BAD_REQUEST, "No attribute was chosen: name at least one, such as smiling=0.4.")
    if both := sorted(alphas.keys() & set(keep)):
        raise DFIError(ErrorCode.BAD_REQUEST, f"'{both[0]}' cannot be changed and kept: leave one out.")
    for name, alpha in alphas.items():
        if not (math.isfinite(alpha) and abs(alpha) <= MAX_ALPHA):
            raise DFIError(
                ErrorCode.BAD_ALPHA,
                f"Alpha for '{name}' is {alpha}: it must be a number from -{MAX_ALPHA:g} to {MAX_ALPHA:g} "
                "(0.1 to 0.5 is the useful range, negative takes the attribute away).",
            )


def add_vectors(store: Store, other: Store) -> None:
    """Give a store the vectors of another one, built with the same network for a frame of another size."""
    name = _VECTORS[other.info.frame_size]
    shutil.copyfile(other.path / name, store.path / name)
    shutil.copyfile(checksums.beside(other.path / name), checksums.beside(store.path / name))


def write_store(
    final: Path, info: StoreInfo, weights: Mapping[str, Tensor], vectors: Mapping[str, vgg.Features]
) -> Store:
    """Write a store and put it in place at once: a store in the folder `final` is complete, or the old one, or absent.

    `vectors`: attribute -> one (C, H, W) tensor per layer. Raises DFIError(NO_SPACE) where the disk is full.
    """
    folder, name = final.parent, final.name
    building, old = folder / f".building-{name}", folder / f".old-{name}"
    tensors: dict[str, Tensor] = {}
    for attribute, layers in vectors.items():
        for layer, vector in zip(vgg.LAYERS, layers, strict=True):
            if info.rank:
                parts = low_rank.compress(unit_rms(vector), info.rank)
                tensors |= {f"{attribute}/{layer}/{part}": tensor for part, tensor in parts.items()}
            else:
                tensors[f"{attribute}/{layer}"] = unit_rms(vector).half().contiguous()
    try:
        if old.exists() and not final.exists():  # killed between the two renames below
            old.rename(final)
        for leftover in (building, old):
            _remove(leftover)
        building.mkdir(parents=True)
        safetensors.torch.save_file(dict(weights), building / _NETWORK)
        file = building / _VECTORS[info.frame_size]
        safetensors.torch.save_file(tensors, file, metadata={"dfi": json.dumps(asdict(info))})
        checksums.write(file, {key: tensor.numpy() for key, tensor in tensors.items()})
        if final.exists():
            final.rename(old)
        building.rename(final)
    except (OSError, safetensors.SafetensorError) as error:
        _remove(building)
        if old.exists() and not final.exists():
            old.rename(final)
        if isinstance(error, OSError):
            raise unwritable(folder, error, "name another folder in DFI_HOME") from error
        raise DFIError(
            ErrorCode.NO_SPACE, f"The store could not be written to {folder} ({error}): is the disk full?"
        ) from error
    _remove(old)
    return Store(final, info.frame_size)


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # a store that its owner keeps elsewhere: that stays, the link goes
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def unit_rms(vector: Tensor) -> Tensor:
    """The vector, float32, at the scale in which vectors are kept."""
    return vector.float() / vector.float().square().mean().sqrt().clamp_min(1e-12)
