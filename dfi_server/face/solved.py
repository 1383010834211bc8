"""What was done to a face in an edit: kept for those who want to see how it came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfi_server.face.expression import Expression
from dfi_server.face.frame import Frame
from dfi_server.photo.pixels import Patch
from dfi_server.solver.change import Change
from dfi_server.solver.reconstruct import Losses


@dataclass(frozen=True)
class Solve:
    """One run of the solver. `frame`: as the network saw it. `alphas`: the part of the setting that it was for.

    `loss`: where it ended; `losses`: at its start and after each iteration.
    """

    frame: Frame
    alphas: Mapping[str, float]
    change: Change
    iterations: int
    evaluations: int
    loss: float
    losses: Sequence[Losses]


@dataclass(frozen=True)
class SolvedFace:
    """One face of an edit. `expression`: what was moved of the photo itself before the solves, if anything was."""

    frame: Frame
    patch: Patch
    expression: Expression | None
    solves: Sequence[Solve]
    seconds: float
