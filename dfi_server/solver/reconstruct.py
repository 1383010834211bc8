"""From target features back to an image: z = argmin sum_l |phi_l(z) - t_l|^2 / |phi_l(x)|^2 + lambda * TV(z).

This is equation (2) of Upchurch et al., "Deep Feature Interpolation for Image Content Changes" (arXiv 1611.05507),
with three departures:
- each layer's distance is divided by the photo's own energy in that layer, so that the three layers count alike and
  nothing depends on the scale of a set of weights (the paper's network is normalised to the same effect);
- z is the photo moved along a smooth displacement field plus a residual (`Change`), solved for together: a lip that
  rises is moved, with all its detail, and only what is new, such as teeth, is painted;
- L-BFGS works on both through low-pass filters (`Smoothing`), which needs fewer evaluations than raw pixels do and
  leaves less noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfi_server.solver import vgg
from dfi_server.solver.lbfgs import LBFGS, Pair

TV_WEIGHT = 1e-3
"""lambda, for total variation as the mean over neighbouring pixels' squared differences, pixels in [0, 1]."""

ITERATIONS = 60
"""L-BFGS iterations of a finished edit, at most."""

TOLERANCE = 0.01
"""A finished edit ends earlier where its last _RECENT iterations brought less than this part of all the way."""

FEATHER = 0.06
"""Width of the soft border of the frame, inside which an edit fades out, as a fraction of its sides."""

_RECENT = 5
_FIRST_STEP = 0.03  # the largest change of an unknown in the first step, before any curvature is known
_RESIDUAL_CORNER, _RESIDUAL_POWER = 0.04, 1.0  # see Smoothing
_MOTION_CORNER, _MOTION_POWER = 0.03, 2.0  # much smoother: a face is one piece
_MOTION_SCALE = 30.0  # pixels of displacement that cost L-BFGS as much as a change of a pixel by 1
_PLACE_LOW, _PLACE_HIGH = 0.08, 0.23  # of the largest energy of the shift: see place_of
_PLACE_BLUR = 8.0  # frame pixels
_ENERGY_FLOOR = 1e-12
_GRID = 16  # pixels of the image to a cell of relu5_1
_MARGIN = 8  # pixels between what may change and the window's sides


@dataclass(frozen=True)
class Change:
    """What an edit does to an image of H x W pixels.

    `motion`: (1, 2, H, W) float32: result pixel p shows the image at p + motion(p); x and y, in pixels.
    `residual`: (1, 3, H, W) float32, added after that. `place`: (1, 1, H, W) in [0, 1]: where the edit may act; motion
    and residual are zero where it is 0.
    """

    motion: Tensor
    residual: Tensor
    place: Tensor

    def moved(self, image: Tensor) -> Tensor:
        """`image` (1, C, H, W), moved; beyond its edge the border pixels go on."""
        height, width = image.shape[-2:]
        y, x = (torch.arange(size, device=image.device, dtype=torch.float32) + 0.5 for size in (height, width))
        grid = torch.stack([(x + self.motion[:, 0]) / width, (y[:, None] + self.motion[:, 1]) / height], dim=-1)
        return F.grid_sample(image, 2 * grid - 1, mode="bicubic", padding_mode="border", align_corners=False)

    def __call__(self, image: Tensor) -> Tensor:
        return self.moved(image) + self.residual


@dataclass(frozen=True)
class Iteration:
    """The solver's state after an L-BFGS iteration."""

    iteration: int
    evaluations: int
    loss: float
    photo: Tensor  # (1, 3, H, W) float32
    solution: "Solution"
    unknowns: "Unknowns"

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
    window: "Window"

    def times(self, factor: float) -> "Solution":
        """A guess for a shift `factor` times as long: the change grows with it."""
        return Solution(factor * self.point, self.pairs, self.window)


class FeatureLoss(nn.Module):
    """Squared distance to phi + shift, each layer in units of the photo's own energy in that layer.

    `whole`: the photo's features to take that energy from, where phi is only a part of them.
    """

    def __init__(self, phi: vgg.Features, shift: vgg.Features, whole: vgg.Features | None = None) -> None:
        super().__init__()
        self.target = [layer.float() + change for layer, change in zip(phi, shift, strict=True)]
        self.weight = [1 / layer.float().square().sum().clamp_min(_ENERGY_FLOOR) for layer in whole or phi]

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
    """A symmetric low-pass filter P, so that a solver may look for u in z = P u instead of for z itself.

    Gains fall as 1 / (1 + (f / corner)^power), f in cycles per pixel. With power 1 that is the power law of natural
    images: a step of L-BFGS moves shapes before it moves grain.
    """

    def __init__(self, height: int, width: int, corner: float, power: float) -> None:
        super().__init__()
        frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :])
        self.gain: Tensor
        self.register_buffer("gain", 1 / (1 + (frequency / corner) ** power))

    def forward(self, u: Tensor) -> Tensor:
        smoothed: Tensor = torch.fft.irfft2(torch.fft.rfft2(u) * self.gain, s=u.shape[-2:])
        return smoothed


class Unknowns(nn.Module):
    """What L-BFGS solves for: u (1, 5, H, W), three residual and two motion channels, to a `Change`."""

    def __init__(self, place: Tensor) -> None:
        super().__init__()
        height, width = place.shape[-2:]
        self.place = place
        self.residual = Smoothing(height, width, _RESIDUAL_CORNER, _RESIDUAL_POWER)
        self.motion = Smoothing(height, width, _MOTION_CORNER, _MOTION_POWER)
        self.to(place.device)

    def forward(self, u: Tensor) -> Change:
        residual, motion = self.residual(u[:, :3]), self.motion(u[:, 3:])
        return Change(self.place * _MOTION_SCALE * motion, self.place * residual, self.place)

    def start(self) -> Tensor:
        return torch.zeros(1, 5, *self.place.shape[-2:], device=self.place.device)


@dataclass(frozen=True)
class Window:
    """The part of an image that an edit can touch, with a margin: only that part goes through the network.

    What lies outside does not change, nor do its features, but for those near the window's sides, whose view ends
    there in the photo and in z alike. `size`: height and width of the image.
    """

    rows: slice
    columns: slice
    size: tuple[int, int]

    @staticmethod
    def around(place: Tensor) -> "Window":
        """The window around where `place` (1, 1, H, W) is not 0; it starts and ends on relu5_1's grid."""
        sides = []
        for dimension in (3, 2):
            length = place.shape[5 - dimension]
            (touched,) = torch.nonzero(place.amax(dim=(0, 1, dimension)) > 0, as_tuple=True)
            low, high = (touched[0].item(), touched[-1].item() + 1) if len(touched) else (0, length)
            start = max(0, low - _MARGIN) // _GRID * _GRID
            stop = -(-(high + _MARGIN) // _GRID) * _GRID
            # a rest too short for another cell of relu5_1 goes with the last one
            sides.append(slice(start, length if stop + _GRID > length else stop))
        rows, columns = sides
        return Window(rows, columns, (place.shape[2], place.shape[3]))

    def of_image(self, image: Tensor) -> Tensor:
        return image[..., self.rows, self.columns]

    @property
    def share(self) -> float:
        """Its area as a fraction of the image's."""
        height, width = self.size
        return len(range(height)[self.rows]) * len(range(width)[self.columns]) / (height * width)

    def whole(self, change: Change) -> Change:
        """A change of the window as one of the image."""
        height, width = self.size
        sides = (self.columns.start, width - self.columns.stop, self.rows.start, height - self.rows.stop)
        return Change(*(F.pad(part, sides) for part in (change.motion, change.residual, change.place)))

    def of_features(self, layers: vgg.Features) -> vgg.Features:
        """The same part of relu3_1, relu4_1 and relu5_1, which are 4, 8 and 16 times coarser."""
        relu3_1, relu4_1, relu5_1 = (
            layer[..., self.rows.start // s : self.rows.stop // s, self.columns.start // s : self.columns.stop // s]
            for layer, s in zip(layers, (4, 8, 16), strict=True)
        )
        return relu3_1, relu4_1, relu5_1


def place_of(shift: vgg.Features, size: tuple[int, int]) -> Tensor:
    """Where a shift acts: (1, 1, *size) in [0, 1], from its energy over the feature maps.

    Each layer's energy counts relative to its own mean. What has less than _PLACE_LOW of the largest energy is left
    alone, so that neither background nor clothes shimmer. Towards the image's sides everything fades out.
    """
    energy = torch.zeros(1, 1, *size, device=shift[0].device)
    for layer in shift:
        density = layer.square().sum(dim=1, keepdim=True) / layer.square().mean().clamp_min(_ENERGY_FLOOR)
        energy = energy + F.interpolate(density, size=size, mode="bilinear")
    energy = _blur(energy, _PLACE_BLUR)
    relative = energy / energy.max().clamp_min(_ENERGY_FLOOR)
    return _smooth_step((relative - _PLACE_LOW) / (_PLACE_HIGH - _PLACE_LOW)) * _border(size).to(energy.device)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """A Gaussian over (1, 1, H, W), mirrored at the sides. torchvision's takes as long to import as torch does."""
    radius = round(2.5 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = F.pad(image, [radius] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _border(size: tuple[int, int]) -> Tensor:
    """(1, 1, *size): 1 inside, falling to 0 at the sides over FEATHER of them."""
    sides = [(torch.arange(length) + 0.5) / length for length in size]
    down, across = (_smooth_step(torch.minimum(side, 1 - side) / FEATHER) for side in sides)
    return (down[:, None] * across)[None, None]


def _smooth_step(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def reconstruct(
    network: vgg.VGGFeatures,
    image: Tensor,
    shift: Callable[[vgg.Features], vgg.Features],
    *,
    iterations: int = ITERATIONS,
    tolerance: float = 0.0,
    tv_weight: float = TV_WEIGHT,
    start: Solution | None = None,
    everywhere: bool = False,
    callback: Callable[[Iteration], None] = lambda state: None,
) -> Iteration:
    """Change `image` until its features are those of the photo plus shift(features).

    `image`: (1, 3, H, W) float32 in [0, 1] on the network's device; it is the photo x of the paper, and the start
    unless `start` is given: the solution for a similar shift of the same image. One for another part of it is ignored.
    `tolerance`: the solve ends before `iterations` when the last _RECENT of them brought less than this part of the
    objective's whole decrease, so that an attribute that is quick to come costs no more than it needs.
    `everywhere`: the whole image may change, as in the paper, not only where the shift acts.
    `callback` sees every iteration; whatever it raises ends the solve (that is how an edit is cancelled).
    Returns the last state.
    """
    with torch.no_grad():
        phi = network(image)
        change = shift(phi)
        size = (image.shape[-2], image.shape[-1])
        place = torch.ones(1, 1, *size, device=image.device) if everywhere else place_of(change, size)
        window = Window.around(place)
        photo = window.of_image(image)
        distance = FeatureLoss(network(photo), window.of_features(change), whole=phi)
        variation = TVLoss()
        outside = variation(image) - window.share * variation(photo)
    unknowns = Unknowns(window.of_image(place))

    def objective(u: Tensor) -> tuple[float, Tensor]:
        u = u.detach().requires_grad_(True)
        z = unknowns(u)(photo)
        loss = distance(network(z)) + tv_weight * (outside + window.share * variation(z))
        (gradient,) = torch.autograd.grad(loss, u)
        return loss.item(), gradient

    def state(iteration: int) -> Iteration:
        solution = Solution(solver.point, tuple(solver.pairs), window)
        return Iteration(iteration, solver.evaluations, solver.loss, image, solution, unknowns)

    warm = start if start and start.window == window else Solution(unknowns.start(), (), window)
    solver = LBFGS(objective, warm.point, first_step=_FIRST_STEP, pairs=warm.pairs)
    last = state(0)
    losses = [last.loss]
    for count in range(1, iterations + 1):
        moved = solver.step()
        last = state(count)
        callback(last)
        losses.append(last.loss)
        if not moved:
            break  # no step decreases the loss any further in this precision
        if count >= _RECENT and losses[-1 - _RECENT] - last.loss < tolerance * (losses[0] - last.loss):
            break
    return last
