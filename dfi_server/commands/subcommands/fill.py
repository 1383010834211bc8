"""Fill what a mask covers of a face from the faces that are most like the rest of it.

Sunglasses, a hand on a cheek, a scratch: MASK is a picture of the photo's size, white where the photo is to be filled
and black where it stays as it is, bit for bit. What is under the white is not looked at. Without --from or --lfw the
faces that come with the program are used, as by a server; other photos of the same person do best.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server import paths
from dfi_server.commands import arguments, console
from dfi_server.errors import DFIError, ErrorCode

if TYPE_CHECKING:
    import numpy as np

    from dfi_server.fill import Filler
    from dfi_server.photo.pixels import Patch, Pixels
    from dfi_server.vectors.gallery import Gallery

_BLACK = 8 / 255  # of white: a JPEG's black is not quite black
_NOTABLE = 0.02  # of the mask, beyond the face


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="PHOTO", help="the photo; it is not changed")
    parser.add_argument("mask", type=Path, metavar="MASK", help="white where PHOTO is to be filled, as large as it is")
    parser.add_argument("output", type=Path, metavar="OUT", help="where the filled photo goes")
    parser.add_argument("--from", type=Path, dest="folder", metavar="DIR", help="a folder with photos of faces")
    parser.add_argument(
        "--lfw", action="store_true", help="LFW's faces, as 'dfi setup' keeps them, instead of a folder"
    )
    parser.add_argument(
        "--box", type=arguments.box, metavar="X,Y,W,H", help="where the face is, if it is not found: hairline to throat"
    )
    parser.add_argument("--iterations", type=arguments.positive, metavar="N", help="of L-BFGS (default: as it takes)")
    arguments.add_device(parser)
    arguments.add_store(parser)
    arguments.add_server(parser)


def run(options: argparse.Namespace) -> None:
    from dfi_server.fill import check_mask
    from dfi_server.photo import colour, disk
    from dfi_server.photo.pixels import edited

    arguments.check_server(options)
    if options.folder and options.lfw:
        raise DFIError(ErrorCode.BAD_REQUEST, "--from and --lfw exclude each other: leave one out.")
    if options.server and (options.folder or options.lfw):
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            "A server fills from the faces that come with it: leave out --server, or --from and --lfw.",
        )
    disk.check_writable(options.output)
    source = disk.read(options.input)
    disk.check_size(options.output, source.pixels)
    mask = _mask(options.mask)
    check_mask(mask, source.pixels)
    srgb = colour.to_srgb(source)
    patch, outside, how = (_by_server if options.server else _here)(srgb, mask, options)
    notes = disk.write(options.output, edited(source, colour.from_srgb(source, srgb, patch)))
    if outside > _NOTABLE:
        notes = (*notes, f"{outside:.0%} of the mask lies beyond the face, and is filled smoothly.")
    console.say(options.input, notes)
    print(f"{options.output}: filled from {how}")


def _here(pixels: "Pixels", mask: "np.ndarray", options: argparse.Namespace) -> tuple["Patch", float, str]:
    from dfi_server.fill import Filler

    filler = Filler.load(options.store, options.device)
    gallery = _gallery(options, filler)
    with console.iteration_bar("filling") as bar:
        filling = filler.fill(
            pixels,
            mask,
            gallery,
            box=options.box,
            iterations=options.iterations,
            progress=lambda done, total: console.advance(bar, done, total),
        )
    how = f"{len(gallery.small)} faces, {filling.iterations} iterations in {filling.seconds:.1f} s"
    return filling.patch, filling.outside, f"{how}, store {filler.store.name}"


def _by_server(pixels: "Pixels", mask: "np.ndarray", options: argparse.Namespace) -> tuple["Patch", float, str]:
    from dfi_server.commands import remote
    from dfi_server.wire.client import Client

    there = arguments.server_of(options)
    with Client(there.endpoint, keys=there.client_keys) as client, console.iteration_bar("filling") as bar:
        patch, result = remote.fill(
            client,
            pixels,
            mask,
            box=options.box,
            iterations=options.iterations,
            store=options.store,
            progress=lambda state: console.advance(bar, state.iteration, state.iterations),
        )
    how = f"the server's faces, {result.iterations} iterations in {result.seconds:.1f} s by {options.server}"
    return patch, result.outside or 0.0, how


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


def _gallery(options: argparse.Namespace, filler: "Filler") -> "Gallery":
    from tqdm import tqdm

    from dfi_server.vectors import gallery

    if not options.folder and not options.lfw:
        return filler.package_faces
    with tqdm(desc="faces", unit="photo", disable=None) as bar:

        def progress(done: int, total: int | None) -> None:
            console.advance(bar, done, total)

        if options.lfw:
            photos = gallery.of_lfw(progress)
            photos.check(str(paths.faces()))
            return photos
        found = gallery.of_folder(options.folder, filler.store.canonical_landmarks, progress)
    console.warn_of_unusable(found.unreadable, found.faceless)
    found.check(str(options.folder))
    return found
