"""What compressing the starter's vectors changes: edits with whole vectors and with the bundled ones, side by side.

    python benchmarks/quality/compression.py --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt --sheet OUT.png

The first run builds the store "starter-whole", which differs from the starter in that only. Printed for each attribute,
medians over people held out: how far the two edits are apart where they act, in 8-bit steps, and as a fraction of what
the edit changes; and, as a yardstick, the same between edits at alpha 0.4 and 0.38.
"""

import argparse
from pathlib import Path

import numpy as np

from dfi_server import paths
from dfi_server.commands.contact_sheet import contact_sheet
from dfi_server.edit import Editor
from dfi_server.errors import DFIError
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, composite
from dfi_server.vectors import build, lfw
from dfi_server.vectors.store import open_store

WHOLE = "starter-whole"
ATTRIBUTES = ("smiling", "eyeglasses", "senior", "mustache", "mouth_wide_open")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=8)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    try:
        open_store(WHOLE)
    except DFIError:
        starter = open_store(paths.STARTER.name)
        build.build_lfw(
            paths.stores() / WHOLE,
            starter.weights(),
            options.lfw,
            options.attributes,
            keep=lambda key: not lfw.is_held_out(key),
            iterations=starter.info.iterations,
            gain=starter.info.gain,
        )
    whole, bundled = Editor(WHOLE), Editor(paths.STARTER.name)
    held_out = (jpeg for key, jpeg in lfw.read_photos(options.lfw) if lfw.is_held_out(key) and key.endswith("_0001"))
    faces = [np.asarray(lfw.decode(next(held_out))) for _ in range(options.faces)]
    rows = [[face] for face in faces]
    print(
        "| attribute | apart, 8-bit steps | of the change | alpha 0.38: steps | of the change |\n|---|---|---|---|---|"
    )
    for name in ATTRIBUTES:
        figures = []
        for row, face in zip(rows, faces, strict=True):
            one, other = (composite(face, e.edit(face, {name: 0.4}).patch) for e in (whole, bundled))
            weaker = composite(face, whole.edit(face, {name: 0.38}).patch)
            figures.append([*apart(face, one, other), *apart(face, one, weaker)])
            row += [one, other]
        steps, fraction, yard_steps, yard_fraction = np.median(figures, axis=0)
        print(f"| {name} | {steps:.1f} | {fraction:.0%} | {yard_steps:.1f} | {yard_fraction:.0%} |", flush=True)
    if options.sheet:
        labels = ["photo", *(f"{name}: {kind}" for name in ATTRIBUTES for kind in ("whole", "bundled"))]
        disk.write(options.sheet, Photo(np.asarray(contact_sheet(rows, labels, cell=150))))


def apart(face: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean absolute difference where `one` changes the face, and its share of what `one` changes."""
    change, difference = (np.abs(a.astype(float) - b) for a, b in ((one, face), (one, other)))
    where = change.max(axis=2) > 2
    return float(difference[where].mean()), float(difference.sum() / change.sum())


if __name__ == "__main__":
    main()
