"""How much of each of a store's attributes faces show, read from their features.

The store's vectors say what an attribute changes in the features, so a ridge regression of the features on the vectors
gives the attributes back.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server.solver import vgg
from dfi_server.vectors.store import Store

_RIDGE = 1.0  # of the regression on the vectors, which have unit length in each layer; 0.1 to 3 do about as well


class Readout:
    """Of the attributes `names` that `store` was built with (not of the user's own).

    `cosines`: between their vectors, (attributes, attributes), the mean over the layers.
    """

    def __init__(self, store: Store, device: torch.device) -> None:
        """Raises DFIError(BAD_STORE) where a vector is damaged."""
        self.names = store.info.attributes
        layers = zip(*(store.vector(name) for name in self.names), strict=True)
        self._vectors = [F.normalize(torch.stack(layer).to(device).float().flatten(1)) for layer in layers]
        self.cosines = torch.stack([layer @ layer.T for layer in self._vectors]).mean(dim=0).cpu()

    def __call__(self, features: Sequence[Tensor]) -> Tensor:
        """Features, (N, C, H, W) a layer, to (N, attributes) on the CPU: up to a scale and a constant for each."""
        shown = [
            F.normalize(layer.float().flatten(1)) @ known.T
            for layer, known in zip(features, self._vectors, strict=True)
        ]
        products = torch.stack(shown).mean(dim=0).cpu()
        ridge = _RIDGE / len(vgg.LAYERS) * torch.eye(len(self.cosines))
        shown_of_each: Tensor = torch.linalg.solve(self.cosines + ridge, products.T)
        return shown_of_each.T
