"""Contact sheet of edits of whole photographs, cut to the part that changed.

    python benchmarks/quality/portraits.py PHOTO... --output docs/portraits.jpg [--set smiling=0.35 ...] [--store NAME]

Each --set is a column; several attributes in one are joined by "+": --set smiling=0.3+mouth_wide_open=0.1
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dfi_server.commands.arguments import parse_alphas
from dfi_server.commands.contact_sheet import contact_sheet
from dfi_server.edit import Editor
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, composite, crop

COLUMNS = ("smiling=0.35", "eyeglasses=0.4", "mustache=0.4", "senior=0.4", "youth=0.4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append")
    parser.add_argument("--store")
    parser.add_argument("--cell", type=int, default=250)
    options = parser.parse_args()
    columns = options.set or COLUMNS
    editor = Editor(options.store)
    rows, seconds = [], []
    for path in tqdm(options.photos, unit="photo"):
        pixels = disk.read(path).pixels
        edits = [editor.edit(pixels, parse_alphas(column.split("+"))) for column in columns]
        seconds += [edit.seconds for edit in edits]
        box = edits[0].patch.box
        pictures = [pixels, *(composite(pixels, edit.patch) for edit in edits)]
        rows.append([crop(picture, box) for picture in pictures])
    labels = ["photo", *(column.replace("=", " ") for column in columns)]
    disk.write(options.output, Photo(np.asarray(contact_sheet(rows, labels, cell=options.cell))))
    print(f"{options.output}: {len(seconds)} edits on {editor.device_name}, median {np.median(seconds):.1f} s each")


if __name__ == "__main__":
    main()
