"""Find the faces in a photo."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from dfi_server.commands import arguments, console


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="a photo")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="write a copy with boxes, numbers and landmarks")
    parser.add_argument("--json", action="store_true", help="as JSON")
    arguments.add_store(parser)


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from dfi_server.commands import contact_sheet
    from dfi_server.face.find import find_faces
    from dfi_server.photo import colour, disk, formats, pages
    from dfi_server.photo.pixels import Photo
    from dfi_server.vectors.store import open_store

    if options.draw:
        disk.check_writable(options.draw)
    source = disk.read(options.input)
    console.say(options.input, pages.looked_at(source.pages))
    srgb = colour.to_srgb(source)
    found = find_faces(srgb, open_store(options.store).canonical_landmarks)
    if options.json:
        print(json.dumps([{"box": face.box, "landmarks": face.landmarks.tolist()} for face in found]))
    elif not found:
        print(f"{options.input}: no face was found")
    else:
        for number, face in enumerate(found, start=1):
            print(f"{number}: --box {','.join(map(str, face.box))}")
    if options.draw:
        seen = formats.on_white(replace(source, pixels=srgb)).pixels
        disk.write(options.draw, Photo(np.asarray(contact_sheet.draw_faces(seen, found))))
