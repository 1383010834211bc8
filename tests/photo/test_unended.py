"""A JPEG that lacks its end is a photo; one that lacks pixels is none."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cameras import ZOE, segment, with_segments
from support.checks import refusal

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import disk

KINDS = {
    "baseline": {},
    "every colour pixel": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3, "subsampling": 0},
    "progressive restarts": {"restart_marker_blocks": 2, "progressive": True},
    "thumbnail": {},
}


def jpeg(kind: str, mode: str) -> bytes:
    rng = np.random.default_rng(1)
    blocks = np.kron(rng.integers(0, 255, (5, 6, 3)), np.ones((9, 9, 1))) + rng.normal(0, 9, (45, 54, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(blocks, 0, 255).astype(np.uint8)).convert(mode).save(
        buffer, "JPEG", quality=90, **KINDS[kind]
    )
    content = buffer.getvalue()
    return with_segments(content, segment(0xFE, ZOE + content)) if kind == "thumbnail" else content


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_end_is_read_whole(kind: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(kind, mode))
    whole = disk.read(path)
    for missing in (1, 2):
        path.write_bytes(jpeg(kind, mode)[:-missing])
        photo = disk.read(path)
        assert np.array_equal(photo.pixels, whole.pixels)
        assert photo.metadata == whole.metadata


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_some_of_its_pixels_is_refused(kind: str, mode: str, tmp_path: Path) -> None:
    """Wherever it breaks off: between scans, at a restart, in the last block."""
    content = jpeg(kind, mode)
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    whole = disk.read(path).pixels
    start = content.rindex(b"\xff\xc0" if b"\xff\xc0" in content else b"\xff\xc2")
    for end in {*range(len(content) - 60, len(content) - 2), *range(start, len(content) - 2, 23), *scans(content)}:
        path.write_bytes(content[:end])
        try:
            photo = disk.read(path)
        except DFIError as error:
            assert error.code == ErrorCode.BAD_IMAGE
        else:  # what was cut off is padding
            assert np.array_equal(photo.pixels, whole)
            assert end > len(content) - 5


def scans(content: bytes) -> list[int]:
    """Where a JPEG's scans begin, and where each has just been announced."""
    starts = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    return starts + [at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") for at in starts]


def test_half_a_jpeg_says_that_it_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg("baseline", "RGB")[:900])
    assert str(path) in refusal(lambda: disk.read(path), ErrorCode.BAD_IMAGE)
