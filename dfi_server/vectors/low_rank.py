"""Attribute vectors in a fifth of the space: each layer as the product of two thin 8-bit matrices.

What an attribute changes is a few patterns of channels, each at its own places, so a layer's vector, as a matrix
(C, H*W), has few strong singular values; what the weak ones hold is mostly noise of the photos it was learnt from.
"""

import torch
from torch import Tensor

PARTS = ("channels", "places", "scales")
"""The names of a compressed layer's tensors."""

_STEPS = 127  # of 8-bit integers, to either side of 0


def compress(vector: Tensor, rank: int) -> dict[str, Tensor]:
    """`vector` (C, H, W) as PARTS: int8 (C, R), int8 (R, H, W), float32 (R,), R = `rank` or less if that is all.

    The best approximation of that rank (Eckart & Young 1936), each singular vector in steps of 1/127 of its peak.
    """
    left, values, right = torch.linalg.svd(vector.float().flatten(1), full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    left_peak, right_peak = left.abs().amax(dim=0), right.abs().amax(dim=1)
    parts = {
        "channels": (left / left_peak * _STEPS).round().to(torch.int8),
        "places": (right / right_peak[:, None] * _STEPS).round().to(torch.int8).unflatten(1, vector.shape[1:]),
        "scales": values * left_peak * right_peak / _STEPS**2,
    }
    return {part: tensor.contiguous() for part, tensor in parts.items()}


def expand(parts: dict[str, Tensor]) -> Tensor:
    """(C, H, W) float32 from what `compress` gave."""
    weighted = parts["channels"].float() * parts["scales"]
    return torch.einsum("cr,rhw->chw", weighted, parts["places"].float())
