"""Makes the faces that `dfi fill` fills from when it is given none: people who do not exist, some of each kind.

    python -m dfi_server.vectors.package_gallery FOLDER=COUNT... --output dfi_server/portraits/faces

From each folder of portraits COUNT are chosen among those whose face is in good light and large enough, and whose frame
lies in the picture: two thirds at random, the rest so that each is as unlike those before it as can be. With
sfhq=192 sfhq-t2i=128 the result is some 3 MB.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from dfi_server import paths
from dfi_server.errors import DFIError
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import seen
from dfi_server.face.layout import DETAIL_FRAME_SIZE
from dfi_server.photo import disk
from dfi_server.photo.pixels import to_8bit
from dfi_server.vectors.examples import photos_below
from dfi_server.vectors.store import open_store

_LEFT_OUT = ("sample", "Accessories", "Hats", "bad-things", "Lighting", "Background-Color", "Jewelry")
"""How the names begin of sheets that are left out: what hides faces, what lights them oddly, and what docs/ shows."""

_LEAST_SPAN = 215  # photo pixels across the frame
_MIDDLE = np.s_[60:380, 80:320]  # of the frame: the face
_DARK = 60  # of 255
_REPEATED = 1.5  # of 255: rows or columns at a frame's side that differ by less go on beyond the picture's border
_QUALITY = 78  # of WebP
_SIDE = 24  # pixels to a side in which faces are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER=COUNT")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    canonical = open_store(paths.STARTER.name).canonical_landmarks
    for folder, count in (each.rsplit("=", 1) for each in options.folders):
        found = list(_frames(Path(folder), canonical))
        for number in _varied([frame for _, frame in found], int(count)):
            name, frame = found[number]
            Image.fromarray(frame).save(options.output / f"{Path(folder).name}-{name}.webp", quality=_QUALITY, method=6)


def _frames(folder: Path, canonical: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The photos that will do: their names, and the frames of their faces, 8 bits."""
    for path in tqdm(photos_below(folder), desc=folder.name, unit="photo", disable=None):
        if path.name.startswith(_LEFT_OUT):
            continue
        try:
            photo = disk.read(path).pixels
        except DFIError:
            continue
        for face in find_largest(photo, canonical):
            frame = align(face.landmarks, canonical)
            picture = to_8bit(seen(photo, frame.of_size(DETAIL_FRAME_SIZE)))
            large = frame.scale * frame.size >= _LEAST_SPAN
            if large and picture[_MIDDLE].mean() >= _DARK and not _reaches_beyond(picture):
                yield path.stem, picture


def _reaches_beyond(picture: np.ndarray) -> bool:
    whole = picture.astype(np.int16)
    sides = ((whole[0], whole[8]), (whole[-1], whole[-9]), (whole[:, 0], whole[:, 8]), (whole[:, -1], whole[:, -9]))
    return any(float(np.abs(first - second).mean()) < _REPEATED for first, second in sides)


def _varied(frames: Sequence[np.ndarray], count: int) -> list[int]:
    """The numbers of `count` of them, or of all where there are fewer."""
    small = np.stack([cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in frames])
    points = small.reshape(len(frames), -1).astype(np.float32) / 255
    chosen = np.random.default_rng(0).permutation(len(frames))[: max(1, count * 2 // 3)].tolist()
    apart = np.min([np.square(points - points[number]).sum(axis=1) for number in chosen], axis=0)
    while len(chosen) < min(count, len(frames)):
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, np.square(points - points[chosen[-1]]).sum(axis=1))
    return sorted(chosen)


if __name__ == "__main__":
    main()
