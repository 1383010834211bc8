"""From target features back to an image: z = argmin sum_l |phi_l(z) - t_l|^2 / |phi_l(x)|^2 + lambda * TV(z).

This is equation (2) of Upchurch et al., "Deep Feature Interpolation for Image Content Changes" (arXiv 1611.05507),
with two departures:
- each layer's distance is divided by the photo's own energy in that layer, so that the three layers count alike and
  nothing depends on the scale of a set of weights (the paper's network is normalised to the same effect);
- L-BFGS runs in a smoothed parametrisation of the image (`Smoothing`), which needs fewer evaluations than raw
  pixels do and leaves less noise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfi_server import vgg

TV_WEIGHT = 1e-3
"""lambda, for total variation as the mean over neighbouring pixels' squared differences, pixels in [0, 1]."""

ITERATIONS = 50
"""L-BFGS iterations of a finished edit."""

_HISTORY = 12  # pairs that L-BFGS keeps
_ARMIJO = 1e-4  # sufficient decrease: Nocedal & Wright, Numerical Optimization, section 3.1
_MAX_BACKTRACKS = 6
_FIRST_STEP = 0.03  # the largest change of a pixel in the first step, before any curvature is known
_ENERGY_FLOOR = 1e-12


@dataclass(frozen=True)
class Iteration:
    """The solver's state after an L-BFGS iteration; `image` is (1, 3, H, W) float32, not clipped to [0, 1]."""

    iteration: int
    evaluations: int
    loss: float
    image: Tensor


class FeatureLoss(nn.Module):
    """Squared distance to the target features, each layer in units of the photo's own energy in that layer."""

    def __init__(self, phi: vgg.Features, shift: vgg.Features) -> None:
        super().__init__()
        self.target = [layer.float() + change for layer, change in zip(phi, shift, strict=True)]
        self.weight = [1 / layer.float().square().sum().clamp_min(_ENERGY_FLOOR) for layer in phi]

    def forward(self, features: vgg.Features) -> Tensor:
        distances = [
            weight * (layer.float() - target).square().sum()
            for layer, target, weight in zip(features, self.target, self.weight, strict=True)
        ]
        return torch.stack(distances).sum()


class TVLoss(nn.Module):
    """Total variation as the mean squared difference between neighbours (the paper's R_V with beta = 2)."""

    def forward(self, image: Tensor) -> Tensor:
        down = image[..., 1:, :] - image[..., :-1, :]
        right = image[..., :, 1:] - image[..., :, :-1]
        return down.square().mean() + right.square().mean()


class Smoothing(nn.Module):
    """A symmetric low-pass filter P: the solver looks for u in z = x + P u instead of for z itself.

    Gains fall as 1 / (1 + f / corner), f in cycles per pixel: the power law of natural images, so that a step of
    L-BFGS moves shapes before it moves grain. P is its own transpose, so the gradient in u is P of that in z.
    """

    def __init__(self, height: int, width: int, corner: float = 0.04) -> None:
        super().__init__()
        fy = torch.fft.fftfreq(height)[:, None]
        fx = torch.fft.rfftfreq(width)[None, :]
        self.gain: Tensor
        self.register_buffer("gain", 1 / (1 + torch.hypot(fy, fx) / corner))

    def forward(self, u: Tensor) -> Tensor:
        smoothed: Tensor = torch.fft.irfft2(torch.fft.rfft2(u) * self.gain, s=u.shape[-2:])
        return smoothed


def reconstruct(
    network: vgg.VGGFeatures,
    image: Tensor,
    shift: Callable[[vgg.Features], vgg.Features],
    *,
    iterations: int = ITERATIONS,
    tv_weight: float = TV_WEIGHT,
    callback: Callable[[Iteration], None] = lambda state: None,
) -> Iteration:
    """Move `image` until its features are those of the photo plus shift(features).

    `image`: (1, 3, H, W) float32 in [0, 1] on the network's device; it is the start and the photo x of the paper.
    `callback` sees every iteration; whatever it raises ends the solve (that is how an edit is cancelled).
    Returns the last state.
    """
    with torch.no_grad():
        phi = network(image)
        distance = FeatureLoss(phi, shift(phi))
    variation = TVLoss()
    smoothing = Smoothing(*image.shape[-2:]).to(image.device)

    def objective(u: Tensor) -> tuple[float, Tensor]:
        z = (image + smoothing(u)).requires_grad_(True)
        loss = distance(network(z)) + tv_weight * variation(z)
        (gradient,) = torch.autograd.grad(loss, z)
        return loss.item(), smoothing(gradient)

    start = torch.zeros_like(image)
    solver = LBFGS(objective, start, first_step=_FIRST_STEP)
    state = Iteration(0, solver.evaluations, solver.loss, image)
    for count in range(1, iterations + 1):
        moved = solver.step()
        state = Iteration(count, solver.evaluations, solver.loss, image + smoothing(solver.point))
        callback(state)
        if not moved:
            break  # no step decreases the loss any further in this precision
    return state


class LBFGS:
    """L-BFGS (Nocedal & Wright, algorithm 7.5) with a backtracking line search, on one tensor.

    torch.optim.LBFGS would do; this one costs one evaluation in a usual iteration, hands control back after each, and
    survives a loss in bfloat16, whose last digits are noise.
    """

    def __init__(
        self, objective: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, *, first_step: float
    ) -> None:
        """`objective(point) -> (loss, gradient)`; `first_step`: the largest change of an entry in the first step."""
        self.objective = objective
        self.point = start
        self.loss, self.gradient = objective(start)
        self.evaluations = 1
        self._first_step = first_step
        self._pairs: list[tuple[Tensor, Tensor, float]] = []  # s, y, 1 / s.y

    def step(self) -> bool:
        """Take one iteration; False where no decrease was found, and the point stays as it was."""
        direction = self._direction()
        slope = torch.sum(self.gradient * direction).item()
        if slope >= 0:  # the curvature is spoilt by rounding: start afresh from the gradient
            self._pairs.clear()
            direction = -self.gradient
            slope = torch.sum(self.gradient * direction).item()
        length = 1.0 if self._pairs else self._first_step / max(direction.abs().max().item(), _ENERGY_FLOOR)
        for _ in range(_MAX_BACKTRACKS):
            point = self.point + length * direction
            loss, gradient = self.objective(point)
            self.evaluations += 1
            if loss <= self.loss + _ARMIJO * length * slope:
                break
            # minimum of the parabola through both losses and the slope, kept within [0.1, 0.5] of the step
            curvature = loss - self.loss - length * slope
            parabola = -slope * length**2 / (2 * curvature) if curvature > 0 else 0.0
            length = min(max(parabola, 0.1 * length), 0.5 * length)
        else:
            return False
        s, y = point - self.point, gradient - self.gradient
        curvature = torch.sum(s * y).item()
        if curvature > 1e-10 * torch.sum(y * y).item():
            self._pairs = [*self._pairs[-(_HISTORY - 1) :], (s, y, 1 / curvature)]
        self.point, self.loss, self.gradient = point, loss, gradient
        return True

    def _direction(self) -> Tensor:
        """Minus the inverse Hessian's estimate times the gradient: the two-loop recursion."""
        q = self.gradient.clone()
        coefficients = []
        for s, y, rho in reversed(self._pairs):
            a = rho * torch.sum(s * q)
            coefficients.append(a)
            q -= a * y
        if self._pairs:
            _, y, rho = self._pairs[-1]
            q /= rho * torch.sum(y * y)
        for (s, y, rho), a in zip(self._pairs, reversed(coefficients), strict=True):
            q += (a - rho * torch.sum(y * q)) * s
        return -q
