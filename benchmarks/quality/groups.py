"""For whom an edit works less well: groups of people in LFW and in portraits, by the judges of quality.py.

    python benchmarks/quality/groups.py --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt \\
        --portraits faces-hd.tar [--store NAME] [--of-a-group 6] --output docs/groups

writes docs/groups.json (every verdict) and .jpg (who the portraits' groups are), and prints a table for LFW's people
and one for synthetic portraits. LFW's labels say who belongs where; portraits have none: portrait_groups.json has what
was seen by looking at them. All are held out (is_held_out of vectors/lfw.py and portraits.py) from vectors and judges.
Needs the extra "benchmarks".
"""

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import report
from drift import in_lfw_layout
from judges import Judges, Verdict
from quality import ALPHA
from tqdm import tqdm

from dfi_server.edit import Editor
from dfi_server.face.find import align, find_largest
from dfi_server.face.layout import PHOTO_SIZE
from dfi_server.photo.pixels import Pixels, composite
from dfi_server.vectors import lfw, portraits

ATTRIBUTES = ("smiling", "eyeglasses", "senior", "mustache")
_TURNED = 0.2  # of the eyes' distance, by which the base of the nose is off their middle: some 25 degrees
_PORTRAIT_GROUPS = Path(__file__).with_name("portrait_groups.json")  # all but TURNED, which is measured
TURNED = "turned heads"

Row = Mapping[str, float]
"""What someone shows: LFW's attributes, positive where they do; and "turned"."""
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
    TURNED: lambda row: row["turned"] > _TURNED,
}


@dataclass
class Face:
    """Someone's photo, and how the judges see it, edited or not: in LFW's layout."""

    key: str
    photo: Pixels
    in_layout: Callable[[Pixels], Pixels]
    before: Verdict
    groups: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, required=True, metavar="TAR")
    parser.add_argument("--store")
    parser.add_argument("--of-a-group", type=int, default=6, help="at least so many, if there are")
    parser.add_argument("--output", type=Path, required=True, help="without a suffix")
    options = parser.parse_args()
    photos, table = dict(lfw.read_photos(options.lfw)), lfw.read_attributes(options.attributes)
    judges = Judges(ATTRIBUTES, photos, table)
    editor = Editor(options.store)
    canonical = editor.store.canonical_landmarks
    sources = {
        "LFW": members(of_lfw(photos, table, judges, canonical), options.of_a_group),
        "synthetic portraits": list(of_portraits(options.portraits, judges, canonical)),
    }
    lines = [f"Store {editor.store_name}, alpha {ALPHA:g}"]
    records: dict[str, Any] = {}
    for source, faces in sources.items():
        edits = [
            judged(editor, judges, face, attribute) for face in tqdm(faces, desc=source) for attribute in ATTRIBUTES
        ]
        groups = {name: [face.key for face in faces if name in face.groups] for name in GROUPS}
        records[source] = {"groups": groups, "edits": edits}
        lines += ["", f"## {source}", "", f"| group | people | attribute | {report.FIGURES} |", "|" + "---|" * 7]
        for group, keys in groups.items():
            for attribute in ATTRIBUTES:
                those = [r for r in edits if r["face"] in keys and r["attribute"] == attribute]
                lines.append(f"| {group} | {len(keys)} | {attribute} | {report.figures(those)} |")
    options.output.with_suffix(".json").write_text(json.dumps(records, indent=1) + "\n")
    write_sheet(options.output.with_suffix(".jpg"), sources["synthetic portraits"], options.of_a_group)
    print("\n".join(lines))


def of_lfw(
    photos: Mapping[str, bytes], table: lfw.AttributeTable, judges: Judges, canonical: np.ndarray
) -> Iterator[Face]:
    first = [key for key in sorted(table.rows) if key in photos and lfw.is_held_out(key) and key.endswith("_0001")]
    random.Random(1).shuffle(first)
    for key in first:
        photo = np.ascontiguousarray(lfw.decode(photos[key]))
        if found := find_largest(photo, canonical):
            row = dict(zip(table.names, table.rows[key], strict=True)) | {"turned": turn(found[0].landmarks)}
            groups = [name for name, belongs in GROUPS.items() if belongs(row)]
            yield Face(key, photo, lambda picture: picture, judges.look(photo), groups)


def of_portraits(archive: Path, judges: Judges, canonical: np.ndarray) -> Iterator[Face]:
    labels: Mapping[str, list[str]] = json.loads(_PORTRAIT_GROUPS.read_text())
    for name, photo in portraits.read_portraits(archive):
        groups = [group for group, names in labels.items() if name in names]
        found = find_largest(photo, canonical) if groups and portraits.is_held_out(name) else ()
        if found:
            frame = align(found[0].landmarks, canonical)
            in_layout = partial(in_lfw_layout, frame)
            groups += [TURNED] * (turn(found[0].landmarks) > _TURNED)
            yield Face(name, photo, in_layout, judges.look(in_layout(photo)), groups)


def members(faces: Iterator[Face], count: int) -> list[Face]:
    """So many that each group has `count`, if there are."""
    chosen: list[Face] = []
    sizes = dict.fromkeys(GROUPS, 0)
    for face in tqdm(faces, desc="looking for members"):
        if any(sizes[name] < count for name in face.groups):
            chosen.append(face)
            for name in face.groups:
                sizes[name] += 1
        if min(sizes.values()) >= count:
            break
    return chosen


def turn(landmarks: np.ndarray) -> float:
    """How far the base of the nose is off the middle between the eyes, in units of these' distance."""
    left, right, nose = landmarks[:2].mean(axis=0), landmarks[2:4].mean(axis=0), landmarks[4]
    across = right - left
    return float(abs((nose - (left + right) / 2) @ across) / (across @ across))


def judged(editor: Editor, judges: Judges, face: Face, attribute: str) -> dict[str, Any]:
    after = composite(face.photo, editor.edit(face.photo, {attribute: ALPHA}).patch)
    record = report.compare("", attribute, face.key, face.before, judges.look(face.in_layout(after)))
    return {key: record[key] for key in ("attribute", "face", *report.COUNTED)}


def write_sheet(path: Path, faces: list[Face], count: int) -> None:
    """A group a column: its first members."""
    columns = [[face.in_layout(face.photo) for face in faces if group in face.groups][:count] for group in GROUPS]
    blank = np.full((PHOTO_SIZE, PHOTO_SIZE, 3), 255, np.uint8)
    rows = list(itertools.zip_longest(*columns, fillvalue=blank))
    report.write_sheet(path, rows, list(GROUPS), cell=110)


if __name__ == "__main__":
    main()
