"""What the choices of an edit are worth, and for whom it works less well, by the judges of quality.py.

    python benchmarks/quality/choices.py --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt \\
        [--store NAME] [--people 16] [--of-a-group 12] --output docs/choices

writes docs/choices.json (every verdict) and .md (the tables). The people are held out (lfw.is_held_out) from vectors
and judges; from the neighbours' faces as well, if DFI_HOME is a new folder: the script keeps the others' there. Needs
the extra "benchmarks".
"""

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import report
from judges import SAME_PERSON, Judges, Verdict
from quality import ALPHA, plain_people
from tqdm import tqdm

from dfi_server import paths
from dfi_server.edit import Editor
from dfi_server.face.find import find_largest
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
_TURNED = 0.2  # of the eyes' distance, by which the base of the nose is off their middle: some 25 degrees

Row = Mapping[str, float]
GROUPS: Mapping[str, Callable[[Row], bool]] = {
    "women": lambda row: row["male"] < 0,
    "men": lambda row: row["male"] > 0,
    "children": lambda row: max(row["child"], row["baby"]) > 0,
    "old people": lambda row: row["senior"] > 0,
    "dark skin": lambda row: max(row["black"], row["indian"]) > 0 > row["white"],
    "East Asian": lambda row: row["asian"] > 0 > row["white"],
    "light skin": lambda row: row["white"] > 0,
    "with glasses": lambda row: row["eyeglasses"] > 0,
    "with a beard": lambda row: row["no_beard"] < 0,
    "turned heads": lambda row: row["turned"] > _TURNED,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--store")
    parser.add_argument("--people", type=int, default=16, help="for the choices")
    parser.add_argument("--of-a-group", type=int, default=12, help="at least so many, if there are")
    parser.add_argument("--output", type=Path, required=True, help="without a suffix")
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
    members = _members(photos, table, editor.store.canonical_landmarks, options.of_a_group)
    everybody = sorted(set().union(*members.values()))
    by_group = [judged(face, attribute, {}, "") for face in tqdm(everybody, desc="groups") for attribute in ATTRIBUTES]
    lines = [f"# Choices, and groups of people: store {editor.store_name}, alpha {ALPHA:g}", ""]
    lines += ["| attribute | choice | appears | distance | age, years | P(male) |", "|---|---|---|---|---|---|"]
    for attribute in ATTRIBUTES:
        for name in CHOICES:
            those = [r for r in by_choice if (r["recipe"], r["attribute"]) == (name, attribute)]
            lines.append(f"| {attribute} | {name} | {_figures(those)} |")
    lines += ["", "| group | people | attribute | appears | distance | age, years | P(male) |", "|" + "---|" * 7]
    for group, keys in members.items():
        for attribute in ATTRIBUTES:
            those = [r for r in by_group if r["face"] in keys and r["attribute"] == attribute]
            lines.append(f"| {group} | {len(keys)} | {attribute} | {_figures(those)} |")
    options.output.with_suffix(".md").write_text("\n".join(lines) + "\n")
    records = {
        "choices": by_choice,
        "groups": {name: sorted(keys) for name, keys in members.items()},
        "edits": by_group,
    }
    options.output.with_suffix(".json").write_text(json.dumps(records, indent=1) + "\n")
    print("\n".join(lines))


def _for(attribute: str, choices: Choices) -> Choices:
    """What is to be changed is not kept."""
    keep = [name for name in choices.get("keep", ()) if attribute not in AGE or name not in AGE]
    return {**choices, "keep": keep}


def _members(
    photos: Mapping[str, bytes], table: lfw.AttributeTable, canonical: np.ndarray, count: int
) -> dict[str, set[str]]:
    """`count` people held out of each group; one may be in several."""
    first = [key for key in sorted(table.rows) if key in photos and lfw.is_held_out(key) and key.endswith("_0001")]
    random.Random(1).shuffle(first)
    members: dict[str, set[str]] = {name: set() for name in GROUPS}
    for key in tqdm(first, desc="looking for members"):
        if all(len(keys) >= count for keys in members.values()):
            break
        row = dict(zip(table.names, table.rows[key], strict=True))
        found = find_largest(np.ascontiguousarray(lfw.decode(photos[key])), canonical)
        if not found:
            continue
        row["turned"] = _turn(found[0].landmarks)
        groups = [name for name, belongs in GROUPS.items() if belongs(row)]
        if any(len(members[name]) < count for name in groups):
            for name in groups:
                members[name].add(key)
    return members


def _turn(landmarks: np.ndarray) -> float:
    """How far the base of the nose is off the middle between the eyes, in units of these' distance."""
    left, right, nose = landmarks[:2].mean(axis=0), landmarks[2:4].mean(axis=0), landmarks[4]
    across = right - left
    return float(abs((nose - (left + right) / 2) @ across) / (across @ across))


def _figures(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return "| | |"
    appears = [100 * np.mean([r[which] > 0.5 for r in records]) for which in ("probability_before", "probability")]
    distances = [r["identity_distance"] for r in records]
    same = 100 * np.mean(np.array(distances) < SAME_PERSON)
    age, male = ([r[which] for r in records] for which in ("age_shift", "male_shift"))
    return (
        f"{appears[0]:.0f}% → {appears[1]:.0f}% | {np.median(distances):.2f} ({same:.0f}% the same) "
        f"| {np.mean(age):+.1f} ({np.abs(age).mean():.1f}) | {np.mean(male):+.2f} ({np.abs(male).mean():.2f})"
    )


if __name__ == "__main__":
    main()
