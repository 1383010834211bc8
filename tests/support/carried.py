"""Photos that go through the program with nothing edited, and what the file then says, as other programs read it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfi_server.photo import disk

FORMATS = [".jpg", ".png", ".tif", ".webp", ".avif"]
PIXELS = np.random.default_rng(1).integers(0, 256, (24, 40, 3)).astype(np.uint8)

every_source = pytest.mark.parametrize("source", FORMATS)
every_target = pytest.mark.parametrize("target", FORMATS)


def edited(content: bytes, source: str, target: str, folder: Path) -> Path:
    """The file that is written for a file read, with nothing edited."""
    (folder / f"camera{source}").write_bytes(content)
    path = folder / f"edited{target}"
    disk.write(path, disk.read(folder / f"camera{source}"))
    return path


def exif_of(path: Path) -> Image.Exif:
    """EXIF as Pillow reads it: text is Latin-1 there."""
    tags = Image.Exif()
    with Image.open(path) as image, path.open("rb") as file:
        if image.format == "TIFF":
            tags.load_from_fp(file)
        elif "exif" in image.info:
            tags.load(image.info["exif"])
        for directory in (34665, 34853):
            tags.get_ifd(directory)
        return tags


def xmp_of(path: Path) -> str:
    with Image.open(path) as image:
        content = image.info.get("xmp") or (image.tag_v2.get(700) if image.format == "TIFF" else b"") or b""
    return content.decode()


def dpi_of(path: Path) -> tuple[float, float] | None:
    with Image.open(path) as image:
        dpi = image.info.get("dpi")
        tags = image.getexif()
    if dpi is None and 282 in tags and tags.get(296, 2) == 2:
        dpi = tags[282], tags[283]
    return None if dpi is None else (float(dpi[0]), float(dpi[1]))
