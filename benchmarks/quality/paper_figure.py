"""The paper's six transformations (figure 4 of arXiv 1611.05507) with K = 100 at alpha 0.4, ours beside its recipe.

    python benchmarks/quality/paper_figure.py --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt \\
        [--store NAME] [--people 2] [--photo FILE ...] --output docs/paper_figure

writes docs/paper_figure.jpg, three rows a person: the paper's recipe (paper_recipe.py), ours with the same number of
neighbours, and ours as it is by default; and .md, seconds and ratios of one run. All three have the network of the same
store. The people are of LFW, held out (lfw.is_held_out) from the vectors, and from all neighbours if DFI_HOME is a new
folder; or those of the photos, which are brought to LFW's layout, and whose attributes are read from their features.
"""

import argparse
import dataclasses
import random
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paper_recipe
import report
import torch
from drift import in_lfw_layout
from tqdm import tqdm

from dfi_server import paths
from dfi_server.edit import Editor
from dfi_server.face import layout
from dfi_server.face.choice import FaceChooser
from dfi_server.face.frame import soften
from dfi_server.photo import disk
from dfi_server.photo.pixels import Pixels, composite
from dfi_server.solver import vgg
from dfi_server.vectors import faces, lfw
from dfi_server.vectors.neighbours import Neighbours

TRANSFORMATIONS = {
    "older": "senior",
    "mouth open": "mouth_slightly_open",
    "eyes open": "eyes_open",
    "smiling": "smiling",
    "facial hair": "mustache",
    "glasses": "eyeglasses",
}
ALPHA = 0.4
PAPER, NEIGHBOURS, OURS = "the paper's", f"ours, K = {paper_recipe.NEIGHBOURS}", "ours"
RECIPES = (PAPER, NEIGHBOURS, OURS)
_CELL = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--store")
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--photo", type=Path, action="append", metavar="FILE", help="instead of LFW's people")
    parser.add_argument("--output", type=Path, required=True, help="without a suffix")
    options = parser.parse_args()
    photos, table = dict(lfw.read_photos(options.lfw)), lfw.read_attributes(options.attributes)
    if not paths.faces().exists():
        faces.write(options.lfw, options.attributes, keep=lambda key: not lfw.is_held_out(key))
    editor = Editor(options.store)
    if options.photo:
        people = {path.stem: _in_layout(disk.read(path).pixels, editor) for path in options.photo}
        table = _with_read(table, editor, people)
    else:
        chosen = _people(photos, table)[: options.people]
        people = {key: np.ascontiguousarray(lfw.decode(photos[key])) for key in chosen}
    seconds: dict[str, list[float]] = {recipe: [] for recipe in RECIPES}
    rows: list[list[Pixels]] = []
    others = [key for key in photos if key in table.rows and not lfw.is_held_out(key)]
    for face, photo in tqdm(people.items(), desc="people"):
        vectors = _vectors(editor, options.lfw, table, others, face)
        for recipe in RECIPES:
            row = [photo]
            for name in tqdm(TRANSFORMATIONS.values(), desc=recipe, leave=False):
                began = time.perf_counter()
                row.append(_edit(recipe, editor, photo, name, vectors[name]))
                seconds[recipe].append(time.perf_counter() - began)
            rows.append(row)
    report.write_sheet(options.output.with_suffix(".jpg"), rows, ["photo", *TRANSFORMATIONS], cell=_CELL)
    text = _report(editor, seconds, len(people))
    options.output.with_suffix(".md").write_text(text)
    print(text)


def _people(photos: Mapping[str, bytes], table: lfw.AttributeTable) -> list[str]:
    """The first photos of people held out who show none of the six, shuffled."""

    def is_plain(key: str) -> bool:
        shown = dict(zip(table.names, table.rows[key], strict=True))
        absent = (*TRANSFORMATIONS.values(), "mouth_wide_open", "sunglasses")
        return shown["mouth_closed"] > 0 and all(shown[name] < 0 for name in absent)

    first = [key for key in sorted(table.rows) if key in photos and lfw.is_held_out(key) and key.endswith("_0001")]
    plain = [key for key in first if is_plain(key)]
    random.Random(0).shuffle(plain)
    return plain


def _in_layout(photo: Pixels, editor: Editor) -> Pixels:
    """Raises DFIError(NO_FACE)."""
    return in_lfw_layout(FaceChooser(editor.store.canonical_landmarks).frames(photo, "largest", None)[0], photo)


def _with_read(table: lfw.AttributeTable, editor: Editor, people: Mapping[str, Pixels]) -> lfw.AttributeTable:
    """The table with what it would say of these people."""
    neighbours = Neighbours(editor.store, editor.network, editor.device)
    rows = dict(table.rows)
    for face, photo in people.items():
        frame = torch.from_numpy(layout.to_frame(photo).copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            read = neighbours.attributes(editor.network(soften(frame.to(editor.device))))
        known = dict(zip(neighbours.names, read, strict=True))
        rows[face] = np.array([known[name] for name in table.names], np.float32)
    return dataclasses.replace(table, rows=rows)


def _vectors(
    editor: Editor, archive: Path, table: lfw.AttributeTable, keys: list[str], face: str
) -> dict[str, vgg.Features]:
    """The paper's vectors for one person, by attribute; made once."""
    file = paths.home() / "paper_figure" / f"{editor.store_name}-{face}.safetensors"
    if not file.exists():
        wanted = [(face, name) for name in TRANSFORMATIONS.values()]
        with tqdm(desc="the paper's neighbours", unit="photo", leave=False) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            paper_recipe.write_vectors(editor.store.weights(), archive, table, keys, wanted, file, progress)
    return {name: paper_recipe.read_vector(file, face, name) for name in TRANSFORMATIONS.values()}


def _edit(recipe: str, editor: Editor, photo: Pixels, name: str, vector: vgg.Features) -> Pixels:
    if recipe == PAPER:
        image = paper_recipe.frame_of(photo).to(editor.device)
        return paper_recipe.paste(photo, paper_recipe.reconstruct(editor.network, image, vector, ALPHA))
    neighbours = paper_recipe.NEIGHBOURS if recipe == NEIGHBOURS else None
    return composite(photo, editor.edit(photo, {name: ALPHA}, neighbours=neighbours).patch)


def _report(editor: Editor, seconds: Mapping[str, list[float]], people: int) -> str:
    slowest = statistics.median(seconds[PAPER])
    lines = [
        f"# The paper's six transformations: store {editor.store_name}, {editor.device_name}, alpha {ALPHA:g}",
        "",
        f"Medians of {len(seconds[PAPER])} edits of {people} people, in one run. The paper's recipe takes "
        f"{paper_recipe.ITERATIONS} iterations; what its vectors take, {2 * paper_recipe.NEIGHBOURS} passes of the "
        "network each, is not counted, in the second row it is.",
        "",
        "| recipe | seconds | times as quick |",
        "|---|---|---|",
    ]
    for recipe, each in seconds.items():
        median = statistics.median(each)
        lines.append(f"| {recipe} | {median:.1f} | {slowest / median:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
