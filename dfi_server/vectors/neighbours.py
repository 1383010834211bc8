"""Attribute vectors from the faces most like the photo at hand, instead of from all.

Upchurch et al., section 3.2: the K faces with the attribute, and the K without it, that are nearest to the photo; the
vector is the difference of their means. They use the photo's labels for the first choice; a user's photo has none, so
they are read from its features (readout.py), on the scale that LFW's faces have. The nearest by attributes are then
sorted by the cosine between their relu5_1 and the photo's.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.solver import vgg
from dfi_server.vectors import build
from dfi_server.vectors.faces import Faces
from dfi_server.vectors.readout import Readout
from dfi_server.vectors.store import Store, unit_rms
from dfi_server.wire.limits import MIN_NEIGHBOURS

_CANDIDATES = 1.5  # times K: chosen by attributes, of which relu5_1 then chooses K
_SAMPLE = 192  # faces that tell how what is read from features goes with LFW's values
_FORWARD = 8  # faces per forward pass
_REMEMBERED = 8  # vectors


@dataclass(frozen=True)
class _Scale:
    """LFW's value of each attribute = slope * what is read + constant; `weight`: the squared correlation."""

    slope: np.ndarray
    constant: np.ndarray
    weight: np.ndarray


class Neighbours:
    """The faces on disk as a store's network sees them. `names`: the attributes that are known of them."""

    def __init__(self, store: Store, network: vgg.VGGFeatures, device: torch.device) -> None:
        """Raises DFIError(NO_STORE | BAD_STORE)."""
        self._store, self._network, self._device = store, network, device
        self._faces = Faces()
        self._readout = Readout(store, device)
        self.names = [name for name in self._readout.names if name in self._faces.names]
        self._values = self._faces.values[:, [self._faces.names.index(name) for name in self.names]]
        self._spread = self._values.std(axis=0).clip(1e-6)
        self._known_scale: _Scale | None = None
        self._made: OrderedDict[tuple[bytes, str, int], vgg.Features] = OrderedDict()

    def vectors(
        self, names: Sequence[str], phi: vgg.Features, count: int, alive: Callable[[], object]
    ) -> dict[str, vgg.Features]:
        """The vectors of `names` from `count` faces with each and `count` without, for a photo with features `phi`.

        One (C, H, W) float16 tensor per layer, of unit root mean square, as a store has them. What LFW does not know,
        an attribute of the user's own, is left out. `alive` is called between forward passes, and may raise. Raises
        DFIError(BAD_REQUEST) where there are too few faces.
        """
        photo = phi[-1].float().cpu().numpy().tobytes()
        shown = None
        result = {}
        for name in names:
            if name not in self.names:
                continue
            key = (photo, name, count)
            if key not in self._made:
                if shown is None:
                    shown = self.attributes(phi, alive)
                self._made[key] = self._vector(name, phi, shown, count, alive)
                if len(self._made) > _REMEMBERED:
                    self._made.popitem(last=False)
            result[name] = self._made[key]
        return result

    def _vector(
        self, name: str, phi: vgg.Features, shown: np.ndarray, count: int, alive: Callable[[], object]
    ) -> vgg.Features:
        apart = {name, *build.parts(name)}
        others = [i for i, other in enumerate(self.names) if other not in apart]
        scale = self._scale(alive)
        apart_by = ((self._values - shown) / self._spread)[:, others] ** 2
        distances = apart_by @ scale.weight[others]  # each counts by how well it can be read
        has = self._values[:, self.names.index(name)] > 0
        means = []
        for side in (has, ~has):
            those = np.flatnonzero(side)
            if len(those) < MIN_NEIGHBOURS:
                raise DFIError(
                    ErrorCode.BAD_REQUEST,
                    f"Only {len(those)} of the faces that were kept are {'with' if side is has else 'without'} "
                    f"'{name}': leave out --neighbours for it.",
                )
            candidates = those[np.argsort(distances[those], kind="stable")][: round(_CANDIDATES * count)]
            # float16: a hundred faces have 10^8 features
            parts = [[layer.half() for layer in features] for features in self._features(candidates, alive)]
            features = [torch.cat(layer) for layer in zip(*parts, strict=True)]
            nearness = F.cosine_similarity(features[-1].float().flatten(1), phi[-1].float().flatten(1).cpu())
            nearest = nearness.topk(min(count, len(candidates))).indices
            means.append([layer[nearest].mean(dim=0, dtype=torch.float32) for layer in features])
        relu3_1, relu4_1, relu5_1 = (
            unit_rms(with_it - without).half() for with_it, without in zip(*means, strict=True)
        )
        return relu3_1, relu4_1, relu5_1

    def attributes(self, phi: vgg.Features, alive: Callable[[], object] = lambda: None) -> np.ndarray:
        """What LFW's table would say of a photo with features `phi`: a value for each of `names`, > 0 where shown."""
        scale = self._scale(alive)
        shown: np.ndarray = scale.slope * self._read(phi)[0] + scale.constant
        return shown

    def _read(self, features: Sequence[Tensor]) -> np.ndarray:
        chosen = [self._readout.names.index(name) for name in self.names]
        return self._readout(features)[:, chosen].numpy()

    def _scale(self, alive: Callable[[], object]) -> _Scale:
        self._known_scale = self._known_scale or self._find_scale(alive)
        return self._known_scale

    def _find_scale(self, alive: Callable[[], object]) -> _Scale:
        """Measured once for each network and set of faces, and kept beside these."""
        file = paths.faces().with_suffix(".scale.json")
        what = [self._store.info.network_sha256, self._store.info.built, len(self._faces), *self.names]
        try:
            known = json.loads(file.read_text())
            if known["of"] == what:
                return _Scale(*(np.array(known[part]) for part in ("slope", "constant", "weight")))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # measured anew
        sample = np.linspace(0, len(self._faces) - 1, min(_SAMPLE, len(self._faces))).astype(int)
        read = np.concatenate([self._read(features) for features in self._features(sample, alive)])
        values = self._values[sample]
        covariance = ((read - read.mean(axis=0)) * (values - values.mean(axis=0))).mean(axis=0)
        slope = covariance / read.var(axis=0).clip(1e-12)
        weight = covariance**2 / (read.var(axis=0) * values.var(axis=0)).clip(1e-12)
        scale = _Scale(slope, values.mean(axis=0) - slope * read.mean(axis=0), weight)
        try:
            parts = {part: getattr(scale, part).tolist() for part in ("slope", "constant", "weight")}
            file.write_text(json.dumps({"of": what} | parts))
        except OSError:
            pass  # it is measured again the next time
        return scale

    def _features(self, numbers: np.ndarray, alive: Callable[[], object]) -> Iterator[list[Tensor]]:
        """Of some of the faces, a few at a time: (N, C, H, W) float32 a layer, on the CPU."""
        size = self._store.info.frame_size
        for start in range(0, len(numbers), _FORWARD):
            alive()
            frames = np.stack([self._faces.frame(int(number), size) for number in numbers[start:][:_FORWARD]])
            images = torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2) / 255
            with torch.inference_mode():
                yield [layer.float().cpu() for layer in self._network(images)]
