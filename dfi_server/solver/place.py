"""Where a shift acts in an image, and the window around it that has to go through the network."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server.solver import vgg
from dfi_server.solver.change import Change

FEATHER = 0.06
"""Width of the soft border of the frame, inside which an edit fades out, as a fraction of its sides."""

_PLACE_LOW, _PLACE_HIGH = 0.08, 0.23  # of the largest energy of the shift: see place_of
_PLACE_BLUR = 8.0  # frame pixels
_GRID = 16  # pixels of the image to a cell of relu5_1
_MARGIN = 8  # pixels between what may change and the window's sides


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

    def in_image(self, part: Tensor) -> Tensor:
        """The window's pixels in an image that is 0 around them."""
        height, width = self.size
        return F.pad(part, (self.columns.start, width - self.columns.stop, self.rows.start, height - self.rows.stop))

    def whole(self, change: Change) -> Change:
        """A change of the window as one of the image."""
        return Change(*(self.in_image(part) for part in (change.motion, change.residual, change.place)))

    def of_features(self, layers: vgg.Features) -> vgg.Features:
        """The same part of relu3_1, relu4_1 and relu5_1, which are 4, 8 and 16 times coarser."""
        relu3_1, relu4_1, relu5_1 = (
            layer[..., self.rows.start // s : self.rows.stop // s, self.columns.start // s : self.columns.stop // s]
            for layer, s in zip(layers, vgg.SCALES, strict=True)
        )
        return relu3_1, relu4_1, relu5_1

    def in_features(self, part: Tensor, whole: Tensor) -> Tensor:
        """Features of the window in a layer that is 0 around them, as large as the whole image's layer."""
        step = self.size[0] // whole.shape[-2]
        result = torch.zeros_like(whole, dtype=part.dtype)
        top, left = self.rows.start // step, self.columns.start // step
        result[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
        return result


def place_of(shift: vgg.Features, size: tuple[int, int]) -> Tensor:
    """Where a shift acts: (1, 1, *size) in [0, 1], from its energy over the feature maps.

    Each layer's energy counts relative to its own mean. What has less than _PLACE_LOW of the largest energy is left
    alone, so that neither background nor clothes shimmer. Towards the image's sides everything fades out.
    """
    energy = torch.zeros(1, 1, *size, device=shift[0].device)
    for layer in shift:
        density = layer.square().sum(dim=1, keepdim=True) / layer.square().mean().clamp_min(vgg.ENERGY_FLOOR)
        energy = energy + F.interpolate(density, size=size, mode="bilinear")
    energy = _blur(energy, _PLACE_BLUR)
    relative = energy / energy.max().clamp_min(vgg.ENERGY_FLOOR)
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
