"""Labelled rows of pictures, to look at edits side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LABEL_HEIGHT = 26
_GAP = 4


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    column_labels: Sequence[str],
    *,
    cell: int = 250,
) -> Image.Image:
    """Lay out rows of pictures, (H, W, 3) or (H, W, 1) uint8 each, under column labels.

    Every picture is scaled to fit a square of `cell` pixels.
    """
    columns = max(map(len, rows))
    width = columns * (cell + _GAP) + _GAP
    height = len(rows) * (cell + _GAP) + _GAP + _LABEL_HEIGHT
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for column, label in enumerate(column_labels):
        centre = _GAP + column * (cell + _GAP) + cell / 2
        draw.text((centre, _LABEL_HEIGHT / 2 + _GAP / 2), label, fill="black", font=font, anchor="mm")
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
            scale = cell / max(picture.size)
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            sheet.paste(picture, (_GAP + j * (cell + _GAP), _LABEL_HEIGHT + _GAP + i * (cell + _GAP)))
    return sheet
