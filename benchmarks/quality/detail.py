"""Whether what is painted is as fine as what is real: edited smiles and glasses against real ones, octave by octave.

    python benchmarks/quality/detail.py --portraits faces-hd.tar --output docs/detail [--store NAME ...] [--people 10]

In the frame of 400 pixels the energy of brightness in two octaves is taken of the painted part, over that of the same
photo's other part (the mouth's over the eyes', the eyes' over the mouth's: photos differ in sharpness); then of edited
faces over real ones, each the geometric mean over people. 1 is as fine as real. "before" is the engine without what was
learnt from portraits. People edited are held out from that. Writes OUTPUT.json, .md and .jpg (mouths and eyes at 100 %
of the frame: photo, before, now; the last row: real ones).
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from tqdm import tqdm

from dfi_server import edit
from dfi_server.commands.contact_sheet import contact_sheet
from dfi_server.edit import Editor
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import Frame, seen
from dfi_server.face.landmarks import find_landmarks
from dfi_server.face.layout import DETAIL_FRAME_SIZE, SHARP_SPAN
from dfi_server.face.lips import openness
from dfi_server.face.portraits import load_portraits
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, Pixels, brightness, composite, to_8bit
from dfi_server.vectors.pictures import CHOSEN
from dfi_server.vectors.portraits import is_held_out, read_portraits

OCTAVES = ((0.06, 0.12), (0.12, 0.25))  # cycles per pixel
MOUTH = (slice(250, 330), slice(140, 260))
EYES = (slice(125, 205), slice(80, 320))
EDITS = {"smiling": (MOUTH, EYES), "eyeglasses": (EYES, MOUTH)}
ALPHA = 0.35
GLASSES = "sfhq-t2i/Glasses-Style_"  # a sheet of real ones
_OPEN, _CLOSED = 0.6, -0.1  # of lips.openness


class Person:
    """A sharp portrait and its frame."""

    def __init__(self, name: str, photo: Pixels, frame: Frame) -> None:
        self.name, self.photo, self.frame = name, photo, frame
        portraits = load_portraits()
        assert portraits
        self.openness = openness(self.seen(photo), find_landmarks(photo, frame), portraits.openness)

    def seen(self, photo: Pixels) -> np.ndarray:
        """(400, 400, 3) in [0, 1]."""
        return seen(photo, self.frame)


def energy(face: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
    """The energy of brightness per octave, (2,), in a part of a face's frame."""
    light = brightness(face[part])[..., 0]
    window = np.outer(*(np.hanning(side) for side in light.shape))
    spectrum = np.abs(np.fft.rfft2((light - light.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(light.shape[0])[:, None], np.fft.rfftfreq(light.shape[1])[None])
    return np.array([spectrum[(frequency >= low) & (frequency < high)].sum() for low, high in OCTAVES]) / light.size


def fineness(faces: list[np.ndarray], attribute: str) -> np.ndarray:
    """Of the painted part over the other, per octave, the geometric mean over faces."""
    painted, other = EDITS[attribute]
    return np.asarray(np.exp(np.mean([np.log(energy(f, painted) / energy(f, other)) for f in faces], axis=0)))


def people(archive: Path, count: int, with_real: bool = True) -> tuple[list[Person], dict[str, list[Person]]]:
    """Those to edit: held out, mouth closed, no glasses; and, if wanted, those with real smiles and real glasses."""
    canonical = Editor("starter", "cpu").store.canonical_landmarks
    plain: list[Person] = []
    real: dict[str, list[Person]] = {"smiling": [], "eyeglasses": []}
    for name, photo in tqdm(read_portraits(archive), unit="portrait", desc="portraits"):
        glasses = name.startswith(GLASSES)
        is_real = with_real and (glasses or name.startswith("sfhq-t2i/Expression"))
        if name in CHOSEN or not (is_real or is_held_out(name)):
            continue
        found = find_largest(photo, canonical)
        frame = align(found[0].landmarks, canonical).of_size(DETAIL_FRAME_SIZE) if found else None
        if frame is None or frame.scale * frame.size < SHARP_SPAN or found[0].score < 1:
            continue
        person = Person(name, photo, frame)
        if glasses:
            real["eyeglasses"].append(person)
        elif person.openness > _OPEN:
            real["smiling"].append(person)
        elif person.openness < _CLOSED and is_held_out(name):
            plain.append(person)
    return plain[:: max(1, len(plain) // count)][:count], real


def edited(editor: Editor, person: Person, attribute: str) -> np.ndarray:
    return person.seen(composite(person.photo, editor.edit(person.photo, {attribute: ALPHA}).patch))


@contextmanager
def without_portraits(editor: Editor) -> Iterator[None]:
    """As the engine was without what was learnt from portraits."""
    with mock.patch.object(edit, "load_portraits", lambda: None), mock.patch.dict(vars(editor), {"_detailer": None}):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, metavar="TAR")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--store", action="append")
    parser.add_argument("--people", type=int, default=10)
    options = parser.parse_args()
    plain, real = people(options.portraits, options.people)
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    rows = []
    for store in options.store or ["starter"]:
        editor = Editor(store)
        for attribute, (painted, _) in EDITS.items():
            reference = fineness([person.seen(person.photo) for person in real[attribute]], attribute)
            faces: dict[str, list[np.ndarray]] = {"unedited": [], "before": [], "now": []}
            for person in tqdm(plain, desc=f"{store}, {attribute}", unit="person"):
                faces["unedited"].append(person.seen(person.photo))
                with without_portraits(editor):
                    faces["before"].append(edited(editor, person, attribute))
                faces["now"].append(edited(editor, person, attribute))
                rows.append([_part(face[-1], painted) for face in faces.values()])
            results.setdefault(store, {})[attribute] = {
                which: [round(float(ratio), 2) for ratio in fineness(seen, attribute) / reference]
                for which, seen in faces.items()
            }
            shown = [_part(person.seen(person.photo), painted) for person in real[attribute][:3]]
            rows.append(shown)
    options.output.with_suffix(".json").write_text(
        json.dumps({"people": len(plain), "real": {k: len(v) for k, v in real.items()}, "ratios": results}, indent=1)
    )
    options.output.with_suffix(".md").write_text(table(results))
    sheet = contact_sheet(rows, ["photo", "before", "now"], cell=240)
    disk.write(options.output.with_suffix(".jpg"), Photo(np.asarray(sheet)))
    print(table(results))


def _part(face: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
    """A square around a part of the frame, uint8."""
    middle = [(side.start + side.stop) // 2 for side in part]
    half = (part[1].stop - part[1].start) // 2
    y, x = (int(np.clip(place - half, 0, len(face) - 2 * half)) for place in middle)
    return to_8bit(face[y : y + 2 * half, x : x + 2 * half])


def table(results: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    octaves = [f"{low:g}-{high:g}" for low, high in OCTAVES]
    lines = [
        "| store | painted | " + " | ".join(f"{which}, {o}" for which in ("unedited", "before", "now") for o in octaves)
    ]
    lines = [lines[0] + " |", "|---|---" + "|---" * (3 * len(octaves)) + "|"]
    for store, edits in results.items():
        for attribute, ratios in edits.items():
            cells = [f"{value:.2f}" for values in ratios.values() for value in values]
            lines.append(f"| {store} | {attribute} {ALPHA:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
