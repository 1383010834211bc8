"""Fill what a mask covers of a face from the faces that are most like the rest of it.

Sunglasses, a hand on a cheek, a scratch: MASK is a picture of the photo's size, white where the photo is to be filled
and black where it stays as it is, bit for bit. What is under the white is not looked at. Without --from or --lfw the
faces that come with the program are used; other photos of the same person do best.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server.commands import arguments, console
from dfi_server.errors import DFIError, ErrorCode

if TYPE_CHECKING:
    import numpy as np

    from dfi_server.vectors.gallery import Gallery

_BLACK = 8 / 255  # of white: a JPEG's black is not quite black
_NOTABLE = 0.02  # of the mask, beyond the face


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="PHOTO", help="the photo; it is not changed")
    parser.add_argument("mask", type=Path, metavar="MASK", help="white where PHOTO is to be filled, as large as it is")
    parser.add_argument("output", type=Path, metavar="OUT", help="where the filled photo goes")
    parser.add_argument("--from", type=Path, dest="folder", metavar="DIR", help="a folder with photos of faces")
    parser.add_argument("--lfw", type=Path, metavar="FILE.tgz", help="lfw-deepfunneled.tgz, instead of a folder")
    parser.add_argument(
        "--box", type=arguments.box, metavar="X,Y,W,H", help="where the face is, if it is not found: hairline to throat"
    )
    parser.add_argument("--iterations", type=arguments.positive, metavar="N", help="of L-BFGS (default: as it takes)")
    arguments.add_device(parser)
    arguments.add_store(parser)


def run(options: argparse.Namespace) -> None:
    from dfi_server.fill import ITERATIONS, Filler, check_mask
    from dfi_server.photo import colour, disk
    from dfi_server.photo.pixels import edited

    if options.folder and options.lfw:
        raise DFIError(ErrorCode.BAD_REQUEST, "--from and --lfw exclude each other: leave one out.")
    disk.check_writable(options.output)
    source = disk.read(options.input)
    disk.check_size(options.output, source.pixels)
    mask = _mask(options.mask)
    check_mask(mask, source.pixels)
    filler = Filler(options.store, options.device)
    gallery = _gallery(options, filler.store.canonical_landmarks)
    srgb = colour.to_srgb(source)
    with console.iteration_bar("filling") as bar:
        filling = filler.fill(
            srgb,
            mask,
            gallery,
            box=options.box,
            iterations=options.iterations or ITERATIONS,
            progress=lambda done, total: console.advance(bar, done, total),
        )
    notes = disk.write(options.output, edited(source, colour.from_srgb(source, srgb, filling.patch)))
    if filling.outside > _NOTABLE:
        notes = (*notes, f"{filling.outside:.0%} of the mask lies beyond the face, and is filled smoothly.")
    console.say(options.input, notes)
    print(
        f"{options.output}: filled from {len(gallery.small)} faces, {filling.iterations} iterations in "
        f"{filling.seconds:.1f} s, store {filler.store.name}"
    )


def _mask(path: Path) -> "np.ndarray":
    """(H, W) uint8: how white a picture is; where it is transparent, it is black."""
    import numpy as np

    from dfi_server.photo import disk
    from dfi_server.photo.pixels import brightness, to_8bit, to_unit

    read = disk.read(path)
    white = np.clip(brightness(to_unit(read.pixels))[..., 0], 0, 1)
    if read.alpha is not None:
        white = white * to_unit(read.alpha)
    return np.where(white < _BLACK, 0, to_8bit(white)).astype(np.uint8)


def _gallery(options: argparse.Namespace, canonical: "np.ndarray") -> "Gallery":
    from tqdm import tqdm

    from dfi_server.vectors import gallery

    if not options.folder and not options.lfw:
        return gallery.of_package()
    with tqdm(desc="faces", unit="photo", disable=None) as bar:

        def progress(done: int, total: int | None) -> None:
            console.advance(bar, done, total)

        if options.lfw:
            photos = gallery.of_lfw(options.lfw, progress)
            photos.check(str(options.lfw))
            return photos
        found = gallery.of_folder(options.folder, canonical, progress)
    console.warn_of_unusable(found.unreadable, found.faceless)
    found.check(str(options.folder))
    return found
