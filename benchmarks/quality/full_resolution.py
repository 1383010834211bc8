"""At 100 %: a photo, its edit by plain upsampling of the frame's change, and its edit as it is done.

    python benchmarks/quality/full_resolution.py PHOTO --output OUT.jpg [--set smiling=0.35 ...] [--store NAME]

Each --set is a row; several attributes in one are joined by "+".
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dfi_server.commands.cli import parse_alphas
from dfi_server.commands.contact_sheet import contact_sheet
from dfi_server.edit import Editor
from dfi_server.face.find import align
from dfi_server.face.frame import Frame, cut, soften
from dfi_server.face.paste import paste
from dfi_server.photo import disk
from dfi_server.photo.pixels import Box, Photo, Pixels, composite, crop, from_unit, to_unit
from dfi_server.solver import reconstruct

ROWS = ("smiling=0.35", "mouth_wide_open=0.25", "mustache=0.4", "eyeglasses=0.4", "senior=0.4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--set", action="append")
    parser.add_argument("--store")
    parser.add_argument("--side", type=int, default=400, help="pixels of the photo that each picture shows")
    options = parser.parse_args()
    editor = Editor(options.store)
    pixels = disk.read(options.photo).pixels
    frame = align(editor.faces(pixels)[0].landmarks, editor.store.canonical_landmarks)
    image = soften(cut(pixels, frame))
    rows = []
    for setting in tqdm(options.set or ROWS, unit="edit"):
        alphas = parse_alphas(setting.split("+"))
        state = reconstruct.reconstruct(
            editor.network,
            image.to(editor.device),
            lambda phi, a=alphas: editor.store.shift(a, phi),
            tolerance=reconstruct.TOLERANCE,
        )
        patch = paste(pixels, frame, image.to(editor.device), state.change)
        change = (state.image - state.photo)[0].permute(1, 2, 0).cpu().numpy()
        x, y, width, height = _square(patch.box, options.side, pixels.shape)
        pictures = (pixels, upsampled(pixels, frame, change), composite(pixels, patch))
        rows.append([crop(picture, (x, y, width, height)) for picture in pictures])
    labels = ["photo", "change upsampled", "as it is done"]
    sheet = contact_sheet(rows, labels, cell=options.side)
    disk.write(options.output, Photo(np.asarray(sheet)))


def _square(box: Box, side: int, shape: tuple[int, ...]) -> Box:
    """As much of a square around the box's middle as lies in the photo."""
    x, y = (max(0, corner + length // 2 - side // 2) for corner, length in zip(box[:2], box[2:], strict=True))
    return x, y, min(side, shape[1] - x), min(side, shape[0] - y)


def upsampled(pixels: Pixels, frame: Frame, change: np.ndarray) -> Pixels:
    """The photo plus the frame's change (FRAME_SIZE, FRAME_SIZE, 3), enlarged by cubic interpolation."""
    to_frame = frame.inverse()
    to_frame[:, 2] += to_frame[:, :2] @ (0.5, 0.5) - 0.5
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    large = cv2.warpAffine(change, to_frame, (pixels.shape[1], pixels.shape[0]), flags=flags)
    return from_unit(to_unit(pixels) + large, pixels.dtype)


if __name__ == "__main__":
    main()
