"""At 100 %: a photo, its edits without what was learnt from portraits, and as they are; one sheet for each person.

    python benchmarks/quality/full_resolution.py PHOTO... --output FOLDER [--set smiling=0.35 ...] [--store NAME]

Each --set is a row; several attributes in one are joined by "+". A picture shows the middle of what the edit changed.
"""

import argparse
from pathlib import Path

import numpy as np
from detail import without_portraits
from tqdm import tqdm

from dfi_server.commands.arguments import parse_alphas
from dfi_server.commands.contact_sheet import contact_sheet
from dfi_server.edit import Editor
from dfi_server.face.find import align
from dfi_server.photo import disk
from dfi_server.photo.pixels import Box, Photo, composite, crop

ROWS = (
    "smiling=0.2",
    "smiling=0.45",
    "mouth_wide_open=0.4",
    "eyeglasses=0.35",
    "mustache=0.35",
    "senior=0.4",
    "youth=0.4",
)
# in the frame; of mouths and beards it is the third below
_MIDDLES = {"eyeglasses": (0.5, 0.41), "senior": (0.5, 0.5), "youth": (0.5, 0.5)}
_LOWER = (0.5, 0.68)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--set", action="append")
    parser.add_argument("--store")
    parser.add_argument("--side", type=int, default=400, help="pixels of the photo that each picture shows")
    options = parser.parse_args()
    editor = Editor(options.store)
    options.output.mkdir(parents=True, exist_ok=True)
    for path in tqdm(options.photos, unit="photo"):
        pixels = disk.read(path).pixels
        frame = align(editor.faces(pixels)[0].landmarks, editor.store.canonical_landmarks)
        rows = []
        for setting in options.set or ROWS:
            alphas = parse_alphas(setting.split("+"))
            with without_portraits(editor):
                without = editor.edit(pixels, alphas)
            pictures = (pixels, composite(pixels, without.patch), composite(pixels, editor.edit(pixels, alphas).patch))
            place = frame.size * np.array(_MIDDLES.get(next(iter(alphas)), _LOWER))
            middle = frame.matrix[:, :2] @ place + frame.matrix[:, 2]
            rows.append([crop(picture, _square(middle, options.side, pixels.shape)) for picture in pictures])
        sheet = contact_sheet(rows, ["photo", "without portraits", "now"], cell=options.side)
        disk.write(options.output / f"{path.stem}.jpg", Photo(np.asarray(sheet)))


def _square(middle: np.ndarray, side: int, shape: tuple[int, ...]) -> Box:
    """A square around a place of the photo, moved to lie in it."""
    width, height = min(side, shape[1]), min(side, shape[0])
    x, y = np.clip(np.rint(middle) - (width // 2, height // 2), 0, (shape[1] - width, shape[0] - height)).astype(int)
    return int(x), int(y), width, height


if __name__ == "__main__":
    main()
