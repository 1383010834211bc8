"""Sharp faces: how often an edit appears, and how far it moves age, sex and identity, with and without portraits.

    python benchmarks/quality/drift.py --portraits faces-hd.tar --lfw lfw-deepfunneled.tgz \\
        --attributes lfw_attributes.txt [--store NAME] [--people 16] [--set smiling=0.4 ...]

quality.py does the same with LFW's own photos, whose faces are too small for what is learnt from portraits. The judges
are the same; they see the faces in LFW's layout, 250 pixels wide. The people are held out from all that was learnt.
"""

import argparse
from pathlib import Path

import numpy as np
from detail import ALPHA, people, without_portraits
from judges import Judges
from tqdm import tqdm

from dfi_server.commands.arguments import parse_alphas
from dfi_server.edit import Editor
from dfi_server.face.frame import Frame, warp
from dfi_server.face.layout import FRAME_BOX, PHOTO_SIZE
from dfi_server.photo.pixels import Pixels, composite, to_8bit
from dfi_server.vectors import lfw

SETTINGS = ("smiling=0.4", "mouth_wide_open=0.4", f"eyeglasses={ALPHA}", "mustache=0.4", "senior=0.4")


def in_lfw_layout(frame: Frame, photo: Pixels) -> np.ndarray:
    """(250, 250, 3) uint8: what the judges look at."""
    unit = frame.size / FRAME_BOX[2]
    to_frame = np.array([[unit, 0, -unit * FRAME_BOX[0]], [0, unit, -unit * FRAME_BOX[1]], [0, 0, 1]])
    return to_8bit(warp(photo, frame.matrix @ to_frame, (PHOTO_SIZE, PHOTO_SIZE)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, metavar="TAR")
    parser.add_argument("--lfw", type=Path, required=True, metavar="TGZ")
    parser.add_argument("--attributes", type=Path, required=True, metavar="TXT")
    parser.add_argument("--store")
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--set", action="append")
    options = parser.parse_args()
    settings = [parse_alphas([setting]) for setting in options.set or SETTINGS]
    names = [next(iter(alphas)) for alphas in settings]
    judges = Judges(names, dict(lfw.read_photos(options.lfw)), lfw.read_attributes(options.attributes))
    editor = Editor(options.store)
    chosen, _ = people(options.portraits, options.people, with_real=False)
    print("| edit | engine | appears | age, years | P(male) | identity |\n|---|---|---|---|---|---|")
    for alphas, name in zip(settings, names, strict=True):
        for engine in ("without portraits", "now"):
            rows = []
            for person in tqdm(chosen, desc=f"{name}, {engine}", unit="person", leave=False):
                if engine == "now":
                    patch = editor.edit(person.photo, alphas).patch
                else:
                    with without_portraits(editor):
                        patch = editor.edit(person.photo, alphas).patch
                pictures = (person.photo, composite(person.photo, patch))
                was, now = (judges.look(in_lfw_layout(person.frame, picture)) for picture in pictures)
                moved = np.linalg.norm(now.embedding - was.embedding)
                rows.append((now.attributes[name] > 0.5, abs(now.age - was.age), abs(now.male - was.male), moved))
            appears, age, male, identity = np.mean(rows, axis=0)
            print(
                f"| {name} {alphas[name]:g} | {engine} | {100 * appears:.0f} % | {age:.1f} | {male:.3f} "
                f"| {identity:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
