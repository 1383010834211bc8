"""L-BFGS for an image's unknowns: one evaluation in a usual iteration, control after each, proof against bfloat16."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_HISTORY = 12  # pairs kept
_ARMIJO = 1e-4  # sufficient decrease: Nocedal & Wright, Numerical Optimization, section 3.1
_MAX_BACKTRACKS = 6
_TINY = 1e-12

Pair = tuple[Tensor, Tensor, float]
"""What a step told about the curvature: s (the step), y (the gradient's change) and 1 / s.y."""


class LBFGS:
    """L-BFGS (Nocedal & Wright, algorithm 7.5) with a backtracking line search, on one tensor.

    torch.optim.LBFGS would do; this one costs one evaluation in a usual iteration, hands control back after each, and
    survives a loss in bfloat16, whose last digits are noise.
    """

    def __init__(
        self,
        objective: Callable[[Tensor], tuple[float, Tensor]],
        start: Tensor,
        *,
        first_step: float,
        pairs: Sequence[Pair] = (),
    ) -> None:
        """`objective(point) -> (loss, gradient)`; `first_step`: the largest change of an entry in the first step.

        `pairs`: the curvature that a solver of a similar objective ended with.
        """
        self.objective = objective
        self.point = start
        self.loss, self.gradient = objective(start)
        self.evaluations = 1
        self._first_step = first_step
        self.pairs = list(pairs)

    def step(self) -> bool:
        """Take one iteration; False where no decrease was found, and the point stays as it was."""
        direction = self._direction()
        slope = _dot(self.gradient, direction).item()
        if slope >= 0:  # the curvature is spoilt by rounding: start afresh from the gradient
            self.pairs.clear()
            direction = -self.gradient
            slope = _dot(self.gradient, direction).item()
        length = 1.0 if self.pairs else self._first_step / max(direction.abs().max().item(), _TINY)
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
        self._go(point, loss, gradient)
        return True

    def jump(self, point: Tensor) -> bool:
        """Go on from `point`, however it was found, and learn the curvature on the way; False if it is no decrease."""
        loss, gradient = self.objective(point)
        self.evaluations += 1
        if not loss < self.loss:
            return False
        self._go(point, loss, gradient)
        return True

    def _go(self, point: Tensor, loss: float, gradient: Tensor) -> None:
        s, y = point - self.point, gradient - self.gradient
        curvature = _dot(s, y).item()
        if curvature > 1e-10 * _dot(y, y).item():
            self.pairs = [*self.pairs[-(_HISTORY - 1) :], (s, y, 1 / curvature)]
        self.point, self.loss, self.gradient = point, loss, gradient

    def _direction(self) -> Tensor:
        """Minus the inverse Hessian's estimate times the gradient: the two-loop recursion."""
        q = self.gradient.clone()
        coefficients = []
        for s, y, rho in reversed(self.pairs):
            a = rho * _dot(s, q)
            coefficients.append(a)
            q.addcmul_(y, a, value=-1)
        if self.pairs:
            _, y, rho = self.pairs[-1]
            q /= rho * _dot(y, y)
        for (s, y, rho), a in zip(self.pairs, reversed(coefficients), strict=True):
            q.addcmul_(s, a - rho * _dot(y, q))
        return -q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product, without a product tensor in between, and without waiting for the device."""
    return torch.dot(a.reshape(-1), b.reshape(-1))
