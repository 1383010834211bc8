"""The report's charts, as SVG within HTML: sharp at any size, and readable without a script."""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from dfi_server.photo.pixels import Size
from dfi_server.solver.reconstruct import Losses
from dfi_server.solver.vgg import LAYERS

_COLOURS = ("#2f5d8a", "#6c9bc4", "#b9d3e8")  # of the layers
_WIDTH, _HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 34  # around the plot
_ACROSS = 26  # arrows in a row
_LEAST_ARROW = 0.1  # of the longest one: what is shorter is not drawn
_REACH = 2.2  # cells that the longest arrow spans


def loss_chart(losses: Sequence[Losses]) -> str:
    """The loss over the iterations, a stack of the layers' parts; of the total variation nothing would be seen."""
    parts = np.array([each.layers for each in losses])
    top = float(parts.sum(axis=1).max()) or 1.0
    step = _step(top / 5)
    top = step * math.ceil(top / step)

    def x(i: float) -> float:
        return _LEFT + i * (_WIDTH - _LEFT - _RIGHT) / max(len(losses) - 1, 1)

    def y(value: float) -> float:
        return float(_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM))

    shapes = []
    for value in np.arange(0, top + step / 2, step):
        shapes.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        shapes.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    edges = list(accumulate(parts.T, initial=np.zeros(len(losses))))
    for colour, low, high in zip(_COLOURS, edges, edges[1:], strict=False):
        up = [f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(high)]
        down = [f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(low)]
        shapes.append(f'<polygon fill="{colour}" points="{" ".join([*up, *reversed(down)])}"/>')
    ticks = range(0, len(losses), max(1, round(_step((len(losses) - 1) / 6))))
    shapes += [f'<text x="{x(i):.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{i}</text>' for i in ticks]
    shapes.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 3}" text-anchor="end">iterations</text>')
    label = f"Loss {parts[0].sum():.3g} at the start, {parts[-1].sum():.3g} after {len(losses) - 1} iterations"
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(shapes)}</svg>'
    )


def legend() -> str:
    """What the colours of `loss_chart` mean."""
    pairs = zip(_COLOURS, LAYERS, strict=True)
    items = (f'<li><i style="background:{colour}"></i>{layer}</li>' for colour, layer in pairs)
    return f'<ul class="legend">{"".join(items)}</ul>'


def arrows(motion: np.ndarray, size: Size, scale: float) -> tuple[str, float]:
    """Arrows over a picture of `size` from where something was to where it came, and how many times too long they are.

    `motion`: (h, w, 2), from pixels of the result back to the photo's; `scale`: picture pixels to one of the photo's.
    """
    width, height = size
    cell = max(size) / _ACROSS
    longest = float(np.hypot(motion[..., 0], motion[..., 1]).max()) * scale
    stretch = max(1.0, np.floor(2 * _REACH * cell / longest) / 2) if longest > 0 else 1.0
    lines = []
    for y in np.arange(cell / 2, height, cell):
        for x in np.arange(cell / 2, width, cell):
            dx, dy = -motion[int(y), int(x)] * scale
            if np.hypot(dx, dy) > max(_LEAST_ARROW * longest, 1e-3):
                lines.append(_arrow(x - stretch * dx, y - stretch * dy, x, y, cell))
    return f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(lines)}</svg>', stretch


def _arrow(x0: float, y0: float, x1: float, y1: float, cell: float) -> str:
    """A line with a head, as long as it may be."""
    length = float(np.hypot(x1 - x0, y1 - y0))
    head = min(cell / 3, length / 2)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    sides = [(x1 - head * (ux + s * uy * 0.6), y1 - head * (uy - s * ux * 0.6)) for s in (1, -1)]
    tip = " ".join(f"{x:.1f},{y:.1f}" for x, y in ((x1, y1), *sides))
    thick = f'stroke-width="{cell / 12:.1f}"'
    return f'<line {thick} x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/><polygon points="{tip}"/>'


def _step(value: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... and their tenths that is no smaller than `value`."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-9)))
    return float(min(factor for factor in (1, 2, 5, 10) if factor * power >= value) * power)
