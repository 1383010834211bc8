"""Filling a hole in a face: `dfi fill` beside the two methods of OpenCV's inpaint.

    python benchmarks/quality/fill.py PHOTO... --output docs/filling [--from DIR | --lfw]

Of each photo a block of a quarter of the face, half its width and half its height, is made gray, at one of five places
in turn (_PLACES). Where no face is found then, `dfi fill` is told where it is, as with --box. Writes OUTPUT.json and
OUTPUT.jpg (the first --rows photos), prints the table. Pictures are kept in the folder --work, so that a run which was
interrupted goes on where it stopped. Needs the extra "benchmarks".

PSNR is that inside the block, in dB; identity is how far dlib's face-recognition embedding of the filled photo is from
the untouched one's: two photos of one person are some 0.4 apart, below 0.6 it takes them for one person.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import dlib
import numpy as np
from tqdm import tqdm

from dfi_server import paths
from dfi_server.commands.contact_sheet import contact_sheet
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import Frame
from dfi_server.fill import Filler
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo, composite
from dfi_server.vectors import gallery
from dfi_server.vectors.store import open_store

_FACE = (43.5, 63.5, 122.4, 117.6)  # x, y, width, height in the frame: the detector's rectangle over LFW's photos
_PLACES = {
    "left eye": (0, 0),
    "right eye": (1, 0),
    "left of mouth": (0, 1),
    "right of mouth": (1, 1),
    "nose": (0.5, 0.5),
}
_RADIUS = 3  # of cv2.inpaint, in pixels
METHODS = ("Telea", "Navier-Stokes", "dfi fill")


def main() -> None:
    options = _parser().parse_args()
    canonical = open_store(options.store).canonical_landmarks
    faces = (
        gallery.of_folder(options.folder, canonical)
        if options.folder
        else gallery.of_lfw()
        if options.lfw
        else gallery.of_package()
    )
    filler = Filler.load(options.store)
    embed = _embedder()
    options.work.mkdir(parents=True, exist_ok=True)
    records, rows = [], []
    for number, path in enumerate(tqdm(options.photos, unit="photo")):
        photo = disk.read(path).pixels
        found = find_largest(photo, canonical)
        place = list(_PLACES)[number % len(_PLACES)]
        frame = align(found[0].landmarks, canonical)
        mask = _block(frame, _PLACES[place], photo.shape[:2])
        damaged = np.where(mask[..., None] > 0, np.uint8(128), photo)
        pictures = {
            name: _filled(name, damaged, mask, frame, filler, faces, options.work / path.stem) for name in METHODS
        }
        before = embed(photo, found[0].landmarks)
        for name, (picture, seconds) in pictures.items():
            records.append(
                {
                    "photo": path.name,
                    "place": place,
                    "method": name,
                    "psnr": cv2.PSNR(picture[mask > 0], photo[mask > 0]),
                    "identity": float(np.linalg.norm(embed(picture, found[0].landmarks) - before)),
                    "seconds": seconds,
                }
            )
        if number < options.rows:
            x, y, width, height = frame.bounds((photo.shape[1], photo.shape[0]))
            shown = (damaged, *(picture for picture, _ in pictures.values()), photo)
            rows.append([picture[y : y + height, x : x + width] for picture in shown])
    options.output.with_suffix(".json").write_text(json.dumps(records, indent=1) + "\n")
    sheet = contact_sheet(rows, ["block", *METHODS, "photo"], cell=options.cell)
    disk.write(options.output.with_suffix(".jpg"), Photo(np.asarray(sheet)))
    print(_table(records))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True, help="without a suffix")
    parser.add_argument("--from", type=Path, dest="folder", metavar="DIR")
    parser.add_argument("--lfw", action="store_true")
    parser.add_argument("--store")
    parser.add_argument("--rows", type=int, default=5, help="photos in the picture")
    parser.add_argument("--cell", type=int, default=240, help="pixels to a side of each in it")
    parser.add_argument("--work", type=Path, default=paths.home() / "filling", help="where pictures are kept")
    return parser


def _block(frame: Frame, place: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) of half the face's width and half its height."""
    x, y, width, height = _FACE
    left, top = x + place[0] * width / 2, y + place[1] * height / 2
    corners = np.array(
        [(left, top), (left + width / 2, top), (left + width / 2, top + height / 2), (left, top + height / 2)]
    )
    mask = np.zeros(size, np.uint8)
    on_photo = corners @ frame.matrix[:, :2].T + frame.matrix[:, 2]
    cv2.fillConvexPoly(mask, np.rint(on_photo).astype(np.int32), 255)
    return mask


def _filled(
    name: str,
    damaged: np.ndarray,
    mask: np.ndarray,
    frame: Frame,
    filler: Filler,
    faces: gallery.Gallery,
    kept: Path,
) -> tuple[np.ndarray, float]:
    file = kept.with_name(f"{kept.name}-{name}.png")
    took = file.with_suffix(".txt")
    if not took.exists():
        began = time.perf_counter()
        if name == METHODS[-1]:
            try:
                filling = filler.fill(damaged, mask, faces)
            except DFIError as error:
                if error.code is not ErrorCode.NO_FACE:
                    raise
                box = frame.bounds((damaged.shape[1], damaged.shape[0]))
                print(f"{kept.name}: no face was found")
                filling = filler.fill(damaged, mask, faces, box=box)
            picture = composite(damaged, filling.patch)
        else:
            method = cv2.INPAINT_TELEA if name == "Telea" else cv2.INPAINT_NS
            picture = cv2.inpaint(damaged, mask, _RADIUS, method)
        disk.write(file, Photo(picture))
        took.write_text(str(time.perf_counter() - began))
    return disk.read(file).pixels, float(took.read_text())


def _embedder():
    """dlib's embedding of a face, given its five landmarks: those of the untouched photo, for all of its versions."""
    models = Path(str(importlib.util.find_spec("face_recognition_models").origin)).parent / "models"
    network = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))

    def embed(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        points = [dlib.point(*map(int, point)) for point in landmarks]
        low, high = landmarks.min(axis=0).astype(int), landmarks.max(axis=0).astype(int)
        shape = dlib.full_object_detection(dlib.rectangle(*low.tolist(), *high.tolist()), points)
        return np.array(network.compute_face_descriptor(np.ascontiguousarray(photo), shape))

    return embed


def _table(records: Sequence[Mapping[str, object]]) -> str:
    lines = ["| | PSNR, dB | identity | " + " | ".join(_PLACES) + " |", "|---|---|---|" + "---|" * len(_PLACES)]
    for name in METHODS:
        own = [each for each in records if each["method"] == name]

        def both(chosen: Sequence[Mapping[str, object]]) -> tuple[str, str]:
            if not chosen:
                return "", ""
            return (
                f"{np.mean([each['psnr'] for each in chosen]):.1f}",
                f"{np.mean([each['identity'] for each in chosen]):.2f}",
            )

        cells = [", ".join(both([each for each in own if each["place"] == place])) for place in _PLACES]
        lines.append("| " + " | ".join([name, *both(own), *cells]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
