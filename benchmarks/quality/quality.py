"""Quality table: does the attribute appear, what else changes, is it still the same person?

    python benchmarks/quality/quality.py --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt --vgg19 vgg19.pth \\
        --output docs/quality.json

writes every verdict there, and prints the tables; sheet.jpg, to look at, is in the folder --work: its people are real
ones. Needs the extra "benchmarks".

One person in eight is held out (lfw.is_held_out): the vectors, the paper's neighbours and the judges' training come
from the others. The first run builds the store "heldout" from them. Edits are kept in the folder --work, so that a run
which was interrupted goes on where it stopped; remove it after a change of the engine. The paper's recipe takes by far
the longest: 500 evaluations of the network an edit.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paper_recipe
import report
import torch
from judges import Judges
from PIL import Image
from report import PAPER
from tqdm import tqdm

from dfi_server import paths
from dfi_server.edit import Editor
from dfi_server.errors import DFIError
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, composite
from dfi_server.solver import vgg
from dfi_server.vectors import build, lfw
from dfi_server.vectors.store import open_store

STORE = "heldout"
ATTRIBUTES = ("smiling", "eyeglasses", "senior", "mustache", "mouth_wide_open")
ALPHA = 0.4
ALONE = "-alone"
"""What the name of a store ends with where L-BFGS does without the store's predictor."""
_SHEET_ROWS = 10


class Task(NamedTuple):
    """One edit, by PAPER or by ours: a store's name."""

    recipe: str
    attribute: str
    face: str
    jpeg: bytes
    work: Path

    @property
    def picture(self) -> Path:
        """Where its result, in LFW's layout, is kept."""
        return self.work / self.recipe / self.attribute / f"{self.face}.png"


def main() -> None:
    options = _parser().parse_args()
    photos = dict(lfw.read_photos(options.lfw))
    table = lfw.read_attributes(options.attributes)
    faces = plain_people(photos, table)[: options.people]
    paper_faces = faces[: options.paper_people]
    _make_store(options)
    _make_neighbour_vectors(options, table, photos, paper_faces)
    tasks = [
        Task(recipe, attribute, face, photos[face], options.work)
        for recipe in (*options.stores, PAPER)
        for face in (paper_faces if recipe == PAPER else faces)
        for attribute in ATTRIBUTES
    ]
    todo = [task for task in tasks if not task.picture.exists()]
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with concurrent.futures.ProcessPoolExecutor(options.workers, **one_thread) as pool:
        for _ in tqdm(pool.map(edit, todo), total=len(todo), desc="editing", unit="edit"):
            pass
    judges = Judges(ATTRIBUTES, photos, table)
    originals = {face: np.ascontiguousarray(lfw.decode(photos[face])) for face in faces}
    before = {face: judges.look(original) for face, original in originals.items()}
    records = []
    for task in tqdm(tasks, desc="judging", unit="edit"):
        with Image.open(task.picture) as picture:
            after = np.asarray(picture)
        records.append(
            report.compare(task.recipe, task.attribute, task.face, before[task.face], judges.look(after))
            | {"background": report.background_change(originals[task.face], after)}
        )
    report.write(options.output, records, judges.accuracy, ALPHA)
    shown = {face: [originals[face]] for face in paper_faces[:_SHEET_ROWS]}
    for task in sorted(tasks, key=lambda task: ATTRIBUTES.index(task.attribute)):
        if task.face in shown:
            shown[task.face].append(np.asarray(Image.open(task.picture)))
    labels = ["photo", *(f"{a}: {recipe}" for a in ATTRIBUTES for recipe in (*options.stores, PAPER))]
    report.write_sheet(options.work / "sheet.jpg", list(shown.values()), labels)
    print(report.report(records, judges.accuracy, ALPHA, options.output.name))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--vgg19", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--paper-people", type=int, default=20, help="how many of them for the paper's recipe")
    parser.add_argument(
        "--stores",
        nargs="+",
        default=[STORE, paths.STARTER.name],
        help=f"built without the people held out; NAME{ALONE}: without its predictor",
    )
    parser.add_argument("--work", type=Path, default=paths.home() / "quality", help="where edits are kept")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, of one thread each")
    return parser


def plain_people(photos: Mapping[str, bytes], table: lfw.AttributeTable) -> list[str]:
    """The first photos of people held out that show none of ATTRIBUTES, shuffled."""

    def is_plain(key: str) -> bool:
        value = dict(zip(table.names, table.rows[key], strict=True))
        return value["mouth_closed"] > 0 and all(value[name] < 0 for name in ATTRIBUTES)

    first = [key for key in sorted(table.rows) if key in photos and lfw.is_held_out(key) and key.endswith("_0001")]
    plain = [key for key in first if is_plain(key)]
    random.Random(0).shuffle(plain)
    return plain


def _make_store(options: argparse.Namespace) -> None:
    """Build STORE unless it is there."""
    try:
        open_store(STORE)
    except DFIError:
        with _bar("faces") as progress:
            weights = vgg.read_weights(options.vgg19)
            keep = lambda key: not lfw.is_held_out(key)  # noqa: E731
            build.build_lfw(
                paths.stores() / STORE, weights, options.lfw, options.attributes, keep=keep, progress=progress
            )


def _make_neighbour_vectors(
    options: argparse.Namespace, table: lfw.AttributeTable, photos: Mapping[str, bytes], faces: list[str]
) -> None:
    """Make the vectors of the paper's recipe unless they are there."""
    file = _neighbour_file(options.work)
    if not file.exists():
        others = [key for key in photos if key in table.rows and not lfw.is_held_out(key)]
        wanted = [(face, attribute) for face in faces for attribute in ATTRIBUTES]
        with _bar("neighbours") as progress:
            weights = vgg.read_weights(options.vgg19)
            paper_recipe.write_vectors(weights, options.lfw, table, others, wanted, file, progress)


def _neighbour_file(work: Path) -> Path:
    return work / "neighbours.safetensors"


@contextlib.contextmanager
def _bar(text: str) -> Iterator[Callable[[int, int], None]]:
    with tqdm(desc=text, unit="photo") as bar:

        def progress(done: int, expected: int) -> None:
            bar.total = expected
            bar.update(done - bar.n)

        yield progress


@functools.cache  # once a process
def _editor(recipe: str) -> Editor:
    editor = Editor(recipe.removesuffix(ALONE))
    if recipe.endswith(ALONE):
        editor.stage.led = False
    return editor


def edit(task: Task) -> None:
    """Carry out one edit and keep its picture."""
    original = np.asarray(lfw.decode(task.jpeg))
    if task.recipe == PAPER:
        network = _editor(STORE).network
        vector = paper_recipe.read_vector(_neighbour_file(task.work), task.face, task.attribute)
        z = paper_recipe.reconstruct(network, paper_recipe.frame_of(original).to(_editor(STORE).device), vector, ALPHA)
        result = paper_recipe.paste(original, z)
    else:
        result = composite(original, _editor(task.recipe).edit(original, {task.attribute: ALPHA}).patch)
    task.picture.parent.mkdir(parents=True, exist_ok=True)
    disk.write(task.picture, Photo(result))  # whole or not at all


if __name__ == "__main__":
    main()
