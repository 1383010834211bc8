"""Pictures for people to look at: labelled rows of edits side by side, and the faces found in a photo."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dfi_server.face.find import Face
from dfi_server.photo.pixels import Pixels, to_picture

_LABEL_HEIGHT = 26
_LABEL_SIZE = 15
_GAP = 4


def contact_sheet(
    rows: Sequence[Sequence[Pixels]],
    column_labels: Sequence[str],
    *,
    cell: int = 250,
) -> Image.Image:
    """Lay out rows of pictures, (H, W, 3) or (H, W, 1) each, under column labels.

    Every picture is scaled to fit a square of `cell` pixels.
    """
    columns = max(map(len, rows))
    width = columns * (cell + _GAP) + _GAP
    height = len(rows) * (cell + _GAP) + _GAP + _LABEL_HEIGHT
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_LABEL_SIZE)
    if (longest := max(map(font.getlength, column_labels), default=0)) > cell:
        font = ImageFont.load_default(size=_LABEL_SIZE * cell / longest)
    for column, label in enumerate(column_labels):
        centre = _GAP + column * (cell + _GAP) + cell / 2
        draw.text((centre, _LABEL_HEIGHT / 2 + _GAP / 2), label, fill="black", font=font, anchor="mm")
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            picture = to_picture(pixels)
            scale = cell / max(picture.size)
            picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            sheet.paste(picture, (_GAP + j * (cell + _GAP), _LABEL_HEIGHT + _GAP + i * (cell + _GAP)))
    return sheet


def draw_faces(pixels: Pixels, faces: Sequence[Face]) -> Image.Image:
    """A copy of a photo with each face's box, number (from 1) and landmarks drawn on it, 8-bit RGB."""
    picture = to_picture(pixels)
    draw = ImageDraw.Draw(picture)
    for number, face in enumerate(faces, start=1):
        x, y, width, height = face.box
        line = max(1, width // 80)
        draw.rectangle((x, y, x + width, y + height), outline="yellow", width=line)
        draw.text((x + 2 * line, y + 2 * line), str(number), fill="yellow", font=ImageFont.load_default(size=width / 6))
        for px, py in face.landmarks:
            draw.circle((px, py), 1.5 * line, fill="lime")
    return picture
