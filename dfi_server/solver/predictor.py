"""A network that predicts what L-BFGS will find: a learnt step, in place of the first iterations.

It is not told which attributes are asked for, but what they ask: the features that are missing, and the objective's
gradient, so that it works for any sum of attributes, also for those it has never seen. From these it learns what the
gradient leaves out, the curvature: how much of what is asked to give where, and in which frequencies. Another pass,
from where the first led, corrects it (learnt optimisation: Andrychowicz et al., arXiv 1606.04474).

A step is what the network says times the length of what is missing: where nothing is asked, nothing changes.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfi_server.solver import vgg

WIDTHS = (24, 64, 128, 192)
"""Channels at a half, a quarter, an eighth and a sixteenth of the image's resolution."""

_SEEN = 48  # channels that a layer's features and its shift are each brought to
_FULL = 3 + 3 + 5 + 1  # at the image's resolution: the photo, what its colours are asked, the gradient, the place
_UNKNOWNS = 5
_GROUPS = 8


class Predictor(nn.Module):
    """A U-Net (Ronneberger et al., arXiv 1505.04597) from half the image's resolution to a sixteenth and back.

    `passes`: how often a solve takes its step. `worth`: the iterations of L-BFGS that one takes the place of.
    """

    def __init__(self, channels: Sequence[int], passes: int = 1, worth: int = 1) -> None:
        """`channels`: of phi's three layers. The weights are random, but for the last layer's, which are 0."""
        super().__init__()
        self.passes, self.worth = passes, worth
        half, *coarser = WIDTHS
        self.first = nn.Sequential(nn.Conv2d(4 * _FULL, half, 3, padding=1), _Block(half))
        self.seen = nn.ModuleList(nn.Conv2d(c, _SEEN, 1) for c in channels)
        self.missing = nn.ModuleList(nn.Conv2d(c, _SEEN, 1) for c in channels)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(finer + 2 * _SEEN + 1, width, 3, padding=1), _Block(width))
            for finer, width in zip(WIDTHS, coarser, strict=False)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(width, finer, 1) for finer, width in zip(WIDTHS, coarser, strict=False))
        self.up = nn.ModuleList(_Block(finer) for finer in WIDTHS[:-1])
        self.last = nn.Conv2d(half + 4 * _UNKNOWNS, 4 * _UNKNOWNS, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(
        self, image: Tensor, place: Tensor, gradient: Tensor, features: Sequence[Tensor], missing: Sequence[Tensor]
    ) -> Tensor:
        """What to add to `Unknowns`' u, (N, 5, H, W) float32, where images (N, 3, H, W) are as they are now.

        H and W are even. `place`: (N, 1, H, W). `gradient`: (N, 5, H, W), the objective's with respect to u.
        `features`: the images' phi. `missing`: what their targets have beside that.
        """
        features = [layer.float() for layer in features]
        lengths = [_norm(change) / _norm(layer) for change, layer in zip(missing, features, strict=True)]
        relative = torch.stack(lengths).square().mean(0).sqrt()
        asked = torch.cat([_unit(gradient[:, :3]), _unit(gradient[:, 3:])], dim=1)
        full = F.pixel_unshuffle(torch.cat([image - 0.5, image * asked[:, :3], asked, place], dim=1), 2)
        x = self.first(full)
        levels = [x]
        for seen, wanted, down, layer, change in zip(
            self.seen, self.missing, self.down, features, missing, strict=True
        ):
            size = layer.shape[-2:]
            length = relative.expand(-1, 1, *size)
            told = torch.cat([seen(_unit(layer)), wanted(_unit(change)), length], dim=1)
            x = down(torch.cat([F.avg_pool2d(x, 2), told], dim=1))  # places where VGG's pooling has them
            levels.append(x)
        levels.pop()
        for narrow, up, finer in zip(reversed(self.narrow), reversed(self.up), reversed(levels), strict=True):
            x = up(finer + F.interpolate(narrow(x), size=finer.shape[-2:], mode="bilinear"))
        u: Tensor = relative * F.pixel_shuffle(self.last(torch.cat([x, F.pixel_unshuffle(asked, 2)], dim=1)), 2)
        return u


class _Block(nn.Module):
    """A residual block of two convolutions (He et al., arXiv 1603.05027)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(_GROUPS, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def _norm(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, 1, 1, 1)."""
    # channel by channel: added up in the same order by any number of threads
    norm: Tensor = x.square().sum(dim=(2, 3), keepdim=True).sum(dim=1, keepdim=True).sqrt()
    return norm.clamp_min(vgg.ENERGY_FLOOR**0.5)


def _unit(x: Tensor) -> Tensor:
    """Scaled to a root mean square of 1, each of a batch by itself."""
    return x * (math.sqrt(x[0].numel()) / _norm(x))


def load(weights: Mapping[str, Tensor], device: torch.device, passes: int = 1, worth: int = 1) -> Predictor:
    """The predictor from its file's tensors, in float32. Raises KeyError or RuntimeError where they are not one's."""
    channels = [weights[f"seen.{layer}.weight"].shape[1] for layer in range(len(vgg.LAYERS))]
    predictor = Predictor(channels, passes, worth)
    predictor.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    return predictor.requires_grad_(False).eval().to(device)
