"""Contact sheet of edits on LFW people that the vectors were not built from.

    python benchmarks/unseen_faces.py --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt \\
        --vgg19 vgg19.pth --output docs/unseen_faces.jpg

One person in eight is held out, by a hash of the name. The first run builds the store "heldout" from the others.
"""

import argparse
import hashlib
import io
import random
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dfi_server import build, lfw, photo, vgg
from dfi_server.contact_sheet import contact_sheet
from dfi_server.edit import Editor
from dfi_server.errors import DFIError

STORE = "heldout"
COLUMNS = {"smiling": 0.4, "eyeglasses": 0.4, "senior": 0.4, "mustache": 0.4}


def is_held_out(key: str) -> bool:
    """Whether the person of a photo ("Aaron_Eckhart_0001") is kept out of building."""
    person = key.rsplit("_", 1)[0]
    return int(hashlib.md5(person.encode()).hexdigest(), 16) % 8 == 0


def build_heldout(vgg19: Path, archive: Path, table: Path) -> None:
    """Build the store without the people held out."""
    with tqdm(desc="faces", unit="photo") as bar:

        def progress(done: int, expected: int) -> None:
            bar.total = expected
            bar.update(done - bar.n)

        build.build_lfw(
            STORE,
            vgg.read_weights(vgg19),
            archive,
            table,
            keep=lambda key: not is_held_out(key),
            progress=progress,
        )


def plain_faces(archive: Path, table: lfw.AttributeTable, count: int, seed: int) -> list[np.ndarray]:
    """`count` photos of people held out, none of whom smiles, wears glasses or a mustache, or is old."""

    def is_plain(key: str) -> bool:
        value = dict(zip(table.names, table.rows[key], strict=True))
        return value["mouth_closed"] > 0 and all(value[name] < 0 for name in COLUMNS)

    keys = [key for key in sorted(table.rows) if is_held_out(key) and key.endswith("_0001") and is_plain(key)]
    random.Random(seed).shuffle(keys)
    photos = dict(lfw.read_photos(archive))
    chosen = [key for key in keys if key in photos][:count]
    return [np.asarray(Image.open(io.BytesIO(photos[key])).convert("RGB")) for key in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--vgg19", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        editor = Editor(STORE)
    except DFIError:
        build_heldout(options.vgg19, options.lfw, options.attributes)
        editor = Editor(STORE)
    rows, seconds = [], []
    faces = plain_faces(options.lfw, lfw.read_attributes(options.attributes), options.faces, options.seed)
    for face in tqdm(faces, unit="face"):
        row = [face]
        for name, alpha in COLUMNS.items():
            edit = editor.edit(face, {name: alpha})
            seconds.append(edit.seconds)
            row.append(photo.composite(face, edit.patch))
        rows.append(row)
        labels = ["photo", *(f"{name} {alpha:g}" for name, alpha in COLUMNS.items())]
        photo.write(options.output, photo.Photo(np.asarray(contact_sheet(rows, labels, cell=200))))
    print(f"{options.output}: {len(seconds)} edits on {editor.device_name}, median {np.median(seconds):.1f} s each")


if __name__ == "__main__":
    main()
