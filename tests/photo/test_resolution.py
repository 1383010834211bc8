"""A photo's resolution: kept and turned with it, never made up."""

import struct
from pathlib import Path

import pytest
from support import cameras
from support.cameras import chunk, saved, with_chunks, with_segments
from support.carried import PIXELS, dpi_of, edited, every_source, every_target, exif_of


@every_source
@every_target
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_resolution_is_kept_and_turned(source: str, target: str, orientation: int, tmp_path: Path) -> None:
    options = {"dpi": (300, 150)} if source in (".jpg", ".png") else {}
    resolution = {282: ("R", (300, 1)), 283: ("R", (150, 1)), 296: ("H", 2)} if not options else {}
    tags = {**resolution, 274: ("H", orientation), 256: ("I", 40), 257: ("I", 24)}
    detail = {40962: ("H", 40), 40963: ("H", 24), 37396: ("H", (9, 9))}
    path = edited(cameras.taken(PIXELS, source, tags, detail, **options), source, target, tmp_path)
    turned = orientation == 6
    assert dpi_of(path) == pytest.approx((150, 300) if turned else (300, 150), abs=0.1)
    detail = exif_of(path).get_ifd(34665)
    assert (detail[40962], detail[40963]) == ((24, 40) if turned else (40, 24))
    assert (37396 in detail) != turned  # where the subject is


@every_source
@every_target
def test_no_resolution_is_invented(source: str, target: str, tmp_path: Path) -> None:
    path = edited(saved(PIXELS, source), source, target, tmp_path)
    assert dpi_of(path) is None
    if target in (".webp", ".avif", ".png", ".jpg"):
        assert not exif_of(path)


NO_UNIT = {
    ".jpg": with_segments(saved(PIXELS, ".jpg")).replace(b"JFIF\0\1\1\0\0\1\0\1", b"JFIF\0\1\1\0\0\2\0\1"),
    ".png": with_chunks(saved(PIXELS, ".png"), chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0))),
    ".tif": saved(PIXELS, ".tif", tiffinfo={282: 2.0, 283: 1.0, 296: 1}),
}


@pytest.mark.parametrize("source", NO_UNIT)
@every_target
def test_a_resolution_of_unknown_unit_does_not_become_inches(source: str, target: str, tmp_path: Path) -> None:
    assert dpi_of(edited(NO_UNIT[source], source, target, tmp_path)) is None


@pytest.mark.parametrize("dpi", [20, 25.4, 72, 1200])
@pytest.mark.parametrize("source", [".png", ".tif", ".jpg"])
@every_target
def test_a_resolution_that_is_stated_is_kept(source: str, target: str, dpi: float, tmp_path: Path) -> None:
    path = edited(saved(PIXELS, source, dpi=(dpi, dpi)), source, target, tmp_path)
    assert dpi_of(path) == pytest.approx((dpi, dpi), abs=0.5 if ".jpg" in (source, target) else 0.03)
