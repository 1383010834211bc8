"""Which attributes a face shows, read from its features by the attribute vectors that a store has.

The vectors say what an attribute changes in features, so a ridge regression of a face's features on all vectors gives
the attributes back, up to a constant for each: what the mean face has of it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server.solver import vgg
from dfi_server.vectors.store import Store

_RIDGE = 1.0  # the vectors have unit length in each layer; 0.1 to 3 do about as well


class Reader:
    """`names`: the store's own attributes. `cosines`: between their vectors, (attributes, attributes)."""

    def __init__(self, store: Store, device: torch.device) -> None:
        self.names = store.info.attributes
        layers = zip(*(store.vector(name) for name in self.names), strict=True)
        self._vectors = [F.normalize(torch.stack(layer).to(device).float().flatten(1)) for layer in layers]
        self.cosines = torch.stack([layer @ layer.T for layer in self._vectors]).mean(dim=0).cpu()

    def read(self, features: Sequence[Tensor]) -> Tensor:
        """How much of each attribute faces show, (N, attributes) on the CPU, up to a constant for each.

        `features`: of N softened frames, one (N, C, H, W) tensor per layer. In units of the features' length, as alpha.
        """
        products = [
            F.normalize(layer.float().flatten(1)) @ known.T
            for layer, known in zip(features, self._vectors, strict=True)
        ]
        ridge = _RIDGE / len(vgg.LAYERS) * torch.eye(len(self.cosines))
        shown: Tensor = torch.linalg.solve(self.cosines + ridge, torch.stack(products).mean(dim=0).cpu().T)
        return shown.T
