"""From target features back to an image: z = argmin sum_l |phi_l(z) - t_l|^2 / |phi_l(x)|^2 + lambda * TV(z).

This is equation (2) of Upchurch et al., "Deep Feature Interpolation for Image Content Changes" (arXiv 1611.05507),
with three departures:
- each layer's distance is divided by the photo's own energy in that layer, so that the three layers count alike and
  nothing depends on the scale of a set of weights (the paper's network is normalised to the same effect);
- z is the photo moved along a smooth displacement field plus a residual (change.py), solved for together: a lip that
  rises is moved, with all its detail, and only what is new, such as teeth, is painted;
- L-BFGS works on both through low-pass filters, which needs fewer evaluations than raw pixels do and
  leaves less noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfi_server.solver import vgg
from dfi_server.solver.change import Change, Unknowns
from dfi_server.solver.lbfgs import LBFGS, Pair
from dfi_server.solver.place import Window, place_of
from dfi_server.solver.predictor import Predictor

TV_WEIGHT = 1e-3
"""lambda, for total variation as the mean over neighbouring pixels' squared differences, pixels in [0, 1]."""

ITERATIONS = 60
"""L-BFGS iterations of a finished edit, at most."""

LED_ITERATIONS = 26
"""The same where another network's solution was a gain: it stands for LEAD_WORTH of them."""

LEAD_WORTH = 10

TOLERANCE = 0.01
"""A finished edit ends earlier where its last _RECENT iterations brought less than this part of all the way."""

_RECENT = 5
_FIRST_STEP = 0.03  # the largest change of an unknown in the first step, before any curvature is known


@dataclass(frozen=True)
class Losses:
    """What the objective is the sum of: each layer's distance to its target, and lambda times the total variation."""

    layers: tuple[float, ...]
    variation: float


@dataclass(frozen=True)
class Iteration:
    """The solver's state after an L-BFGS iteration; `losses`: at the start and after each iteration so far."""

    iteration: int
    evaluations: int
    loss: float
    losses: Sequence[Losses]
    photo: Tensor  # (1, 3, H, W) float32
    solution: "Solution"
    unknowns: Unknowns

    @property
    def change(self) -> Change:
        """Computed when asked for: it costs as much as a tenth of an iteration."""
        with torch.no_grad():
            return self.solution.window.whole(self.unknowns(self.solution.point))

    @property
    def image(self) -> Tensor:
        """The photo as changed so far, (1, 3, H, W) float32, not clipped to [0, 1]."""
        return self.change(self.photo)


@dataclass(frozen=True)
class Solution:
    """The solver's own view of where it is: a start for another solve of the same photo."""

    point: Tensor  # u, see Unknowns
    pairs: Sequence[Pair]
    window: Window

    def times(self, factor: float) -> "Solution":
        """A guess for a shift `factor` times as long: the change grows with it."""
        return Solution(factor * self.point, self.pairs, self.window)

    def within(self, window: Window) -> "Solution":
        """The same for another part of the image, as far as the two overlap."""
        if window == self.window:
            return self
        return Solution(window.of_image(self.window.in_image(self.point)), (), window)


class FeatureLoss(nn.Module):
    """Squared distance to phi + shift, each layer in units of the photo's own energy in that layer.

    `whole`: the photo's features to take that energy from, where phi is only a part of them.
    """

    def __init__(self, phi: vgg.Features, shift: vgg.Features, whole: vgg.Features | None = None) -> None:
        super().__init__()
        self.target = [layer.float() + change for layer, change in zip(phi, shift, strict=True)]
        self.weight = [1 / layer.float().square().sum().clamp_min(vgg.ENERGY_FLOOR) for layer in whole or phi]

    def of_layers(self, features: vgg.Features) -> Tensor:
        """The distance in each layer, (3,)."""
        distances = [
            weight * (layer.float() - target).square().sum()
            for layer, target, weight in zip(features, self.target, self.weight, strict=True)
        ]
        return torch.stack(distances)

    def forward(self, features: vgg.Features) -> Tensor:
        return self.of_layers(features).sum()


class TVLoss(nn.Module):
    """Total variation as the mean squared difference between neighbours (the paper's R_V with beta = 2)."""

    def forward(self, image: Tensor) -> Tensor:
        down = image[..., 1:, :] - image[..., :-1, :]
        right = image[..., :, 1:] - image[..., :, :-1]
        return down.square().mean() + right.square().mean()


def reconstruct(
    network: vgg.VGGFeatures,
    image: Tensor,
    shift: Callable[[vgg.Features], vgg.Features],
    *,
    iterations: int = ITERATIONS,
    tolerance: float = 0.0,
    tv_weight: float = TV_WEIGHT,
    start: Solution | None = None,
    predictor: Predictor | None = None,
    lead: Solution | None = None,
    everywhere: bool = False,
    kept: Tensor | None = None,
    towards: Tensor | None = None,
    callback: Callable[[Iteration], None] = lambda state: None,
) -> Iteration:
    """Change `image` until its features are those of the photo plus shift(features).

    `image`: (1, 3, H, W) float32 in [0, 1] on the network's device; it is the photo x of the paper, and the start,
    unless `start` is given: the solution for a similar shift of the same image, as far as both are about the same part.
    `predictor`: where there is no `start`, its passes take the place of the first iterations, each of predictor.worth
    of them; the first pass that brings no decrease is taken back, and ends that.
    `lead`: another network's solution for the same, which takes the place of LEAD_WORTH iterations where it is a
    decrease; with a `tolerance` the solve then ends after LED_ITERATIONS.
    `tolerance`: the solve ends before `iterations` when the last _RECENT of them brought less than this part of the
    objective's whole decrease, so that an attribute that is quick to come costs no more than it needs.
    `everywhere`: the whole image may change, as in the paper, not only where the shift acts.
    `kept`: (1, 1, H, W) in [0, 1], how far each pixel must stay as it is in `image`.
    `towards`: (1, 3, H, W), the photo x of the paper, where `image` is not it but has been changed already.
    `callback` sees every iteration; whatever it raises ends the solve (that is how an edit is cancelled).
    Returns the last state.
    """
    with torch.no_grad():
        wanted = image if towards is None else towards
        phi = network(wanted)
        change = shift(phi)
        size = (image.shape[-2], image.shape[-1])
        place = torch.ones(1, 1, *size, device=image.device) if everywhere else place_of(change, size)
        if kept is not None:
            place = place * (1 - kept)
        window = Window.around(place)
        photo = window.of_image(image)
        before = network(window.of_image(wanted))
        distance = FeatureLoss(before, window.of_features(change), whole=phi)
        variation = TVLoss()
        outside = variation(image) - window.share * variation(photo)
    unknowns = Unknowns(window.of_image(place))
    latest = Losses((), 0.0)
    seen = photo, before

    def objective(u: Tensor) -> tuple[float, Tensor]:
        nonlocal latest, seen
        u = u.detach().requires_grad_(True)
        z = unknowns(u)(photo)
        features = network(z)
        layers = distance.of_layers(features)
        smooth = tv_weight * (outside + window.share * variation(z))
        loss = layers.sum() + smooth
        (gradient,) = torch.autograd.grad(loss, u)
        total, last, *terms = torch.stack([loss, smooth, *layers]).tolist()  # the device is waited for once
        latest, seen = Losses(tuple(terms), last), (z, features)
        return total, gradient

    @torch.no_grad()
    def predicted(by: Predictor) -> Tensor:
        """What a predictor adds to the point. It sees the whole image, around the window as it is in the photo."""
        z, features = seen
        now, missing = [], []
        for layer, shifted, part, photos in zip(phi, change, features, before, strict=True):
            changed = window.in_features(part - photos, layer).float()
            now.append(layer.float() + changed)
            missing.append(shifted - changed)
        z_whole, gradient = image + window.in_image(z - photo), window.in_image(solver.gradient)
        with network.autocast():
            step = by(z_whole, place, gradient, now, missing)
        return window.of_image(step)

    def state(iteration: int) -> Iteration:
        solution = Solution(solver.point, tuple(solver.pairs), window)
        return Iteration(iteration, solver.evaluations, solver.loss, tuple(trace), image, solution, unknowns)

    warm = start.within(window) if start else Solution(unknowns.start(), (), window)
    solver = LBFGS(objective, warm.point, first_step=_FIRST_STEP, pairs=warm.pairs)
    trace = [latest]
    last = state(0)
    losses = [last.loss]
    count = 0

    def advance(by: int, moved: bool = True) -> None:
        nonlocal count, last
        by = min(by, iterations - count)
        trace.extend([latest if moved else trace[-1]] * by)  # what was evaluated last is what was taken
        count += by
        last = state(count)
        callback(last)
        losses.extend([last.loss] * by)

    if lead and not start and solver.jump(lead.within(window).point):
        iterations = min(iterations, LED_ITERATIONS) if tolerance else iterations
        advance(LEAD_WORTH)
    elif predictor and not start:
        for _ in range(predictor.passes):
            if count == iterations or not solver.jump(solver.point + predicted(predictor)):
                break
            advance(predictor.worth)
    while count < iterations:
        moved = solver.step()
        advance(1, moved)
        if not moved:
            break  # no step decreases the loss any further in this precision
        if count >= _RECENT and losses[-1 - _RECENT] - last.loss < tolerance * (losses[0] - last.loss):
            break
    return last
