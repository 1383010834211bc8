"""What an edit does to an image, and the unknowns that L-BFGS finds it through."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_RESIDUAL_CORNER, _RESIDUAL_POWER = 0.04, 1.0  # see Smoothing
_MOTION_CORNER, _MOTION_POWER = 0.03, 2.0  # much smoother: a face is one piece
_MOTION_SCALE = 30.0  # pixels of displacement that cost L-BFGS as much as a change of a pixel by 1


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
