"""What the choices of an edit are worth, by the judges of quality.py.

    python benchmarks/quality/choices.py --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt \\
        [--store NAME] [--people 16] --output docs/choices.json

writes every verdict there and prints the table. The people are held out (lfw.is_held_out) from vectors
and judges; from the neighbours' faces as well, if DFI_HOME is a new folder: the script keeps the others' there. Needs
the extra "benchmarks".
"""

import argparse
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import report
from judges import Judges, Verdict
from quality import ALPHA, plain_people
from tqdm import tqdm

from dfi_server import paths
from dfi_server.edit import Editor
from dfi_server.photo.pixels import Pixels, composite
from dfi_server.vectors import faces, lfw
from dfi_server.wire.messages import Choices

ATTRIBUTES = ("smiling", "eyeglasses", "senior", "mustache")
CHOICES: Mapping[str, Choices] = {
    "default": {},
    "--keep male": {"keep": ("male",)},
    "--keep male, and senior, youth": {"keep": ("male", "senior", "youth")},  # not where age is what is asked for
    "--neighbours 100": {"neighbours": 100},
}
AGE = {"senior", "youth"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--store")
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    photos, table = dict(lfw.read_photos(options.lfw)), lfw.read_attributes(options.attributes)
    if not paths.faces().exists():
        faces.write(options.lfw, options.attributes, keep=lambda key: not lfw.is_held_out(key))
    editor, judges = Editor(options.store), Judges(ATTRIBUTES, photos, table)

    @cache
    def before(face: str) -> tuple[Pixels, Verdict]:
        photo = np.ascontiguousarray(lfw.decode(photos[face]))
        return photo, judges.look(photo)

    def judged(face: str, attribute: str, choices: Choices, what: str) -> dict[str, Any]:
        photo, look = before(face)
        after = composite(photo, editor.edit(photo, {attribute: ALPHA}, **choices).patch)
        return report.compare(what, attribute, face, look, judges.look(after))

    plain = plain_people(photos, table)[: options.people]
    by_choice = [
        judged(face, attribute, _for(attribute, choices), name)
        for name, choices in CHOICES.items()
        for attribute in tqdm(ATTRIBUTES, desc=name)
        for face in plain
    ]
    lines = [f"# Choices: store {editor.store_name}, alpha {ALPHA:g}", ""]
    lines += [f"| attribute | choice | {report.FIGURES} |", "|---|---|---|---|---|---|"]
    for attribute in ATTRIBUTES:
        for name in CHOICES:
            those = [r for r in by_choice if (r["recipe"], r["attribute"]) == (name, attribute)]
            lines.append(f"| {attribute} | {name} | {report.figures(those)} |")
    options.output.write_text(json.dumps(by_choice, indent=1) + "\n")
    print("\n".join(lines))


def _for(attribute: str, choices: Choices) -> Choices:
    """What is to be changed is not kept."""
    keep = [name for name in choices.get("keep", ()) if attribute not in AGE or name not in AGE]
    return {**choices, "keep": keep}


if __name__ == "__main__":
    main()
