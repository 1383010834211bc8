"""Attributes read from a face, beside what faces of LFW show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.checks import refusal
from support.tiny import write_tiny_lfw

from dfi_server import paths
from dfi_server.errors import ErrorCode
from dfi_server.face import layout
from dfi_server.face.frame import Frame
from dfi_server.vectors import averages, lfw
from dfi_server.vectors.averages import FaceReader
from dfi_server.vectors.store import open_store


def test_the_starter_comes_with_its_averages() -> None:
    reader = FaceReader(torch.device("cpu"))
    assert tuple(reader.averages) == open_store(paths.STARTER.name).info.attributes
    assert all(each.deviation > 0.005 for each in reader.averages.values())
    areas = {name: each.area for name, each in reader.averages.items() if each.area is not None}
    assert areas["smiling"] > 0.9 and areas["eyeglasses"] > 0.9 and 0.7 < np.mean(list(areas.values())) < 1


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"smiling": 1}'])
def test_without_whole_averages_there_is_a_sentence(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "averages.json"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(averages, "_FILE", file)
    reader = FaceReader(torch.device("cpu"))
    assert "install dfi-server again" in refusal(lambda: reader.averages, ErrorCode.BAD_STORE)


def test_averages_are_those_of_the_faces_that_were_read(tmp_path: Path) -> None:
    archive, table = write_tiny_lfw(tmp_path, faces=20)
    held_out = [jpeg for key, jpeg in lfw.read_photos(archive) if lfw.is_held_out(key)]
    reader = FaceReader(torch.device("cpu"))
    frame = Frame.of_box(layout.FRAME_BOX, (250, 250))
    photos = [lfw.decode(jpeg) for jpeg in held_out[::2]]
    scores = [reader.read(photo, frame) for photo in photos if photo is not None]
    measured = averages.measure(archive, table, "cpu")
    for name, score in zip(reader.names, np.mean(scores, axis=0), strict=True):
        known = reader.averages[name]
        assert measured[name].mean == pytest.approx(known.mean + score * known.deviation, abs=1e-3)
        assert measured[name].area is None  # so few tell nothing


def test_an_archive_without_the_people_held_out_is_refused(tmp_path: Path) -> None:
    archive, table = write_tiny_lfw(tmp_path, faces=1)
    assert not lfw.is_held_out("Face_Number0_0001")
    assert "is it all of LFW?" in refusal(lambda: averages.measure(archive, table, "cpu"), ErrorCode.BAD_DATA)


@pytest.mark.parametrize(("readings", "area"), [(range(40), 1.0), (range(40, 0, -1), 0.0), ([1] * 40, 0.5)])
def test_the_area_says_how_often_a_reading_is_right(readings: list[float], area: float) -> None:
    shown = np.arange(40) >= 20
    assert averages._area(np.array(readings, dtype=float), shown) == area
