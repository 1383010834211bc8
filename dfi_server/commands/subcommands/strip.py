"""Make one picture with an edit at several alphas."""

import argparse
from pathlib import Path

from dfi_server.commands import arguments, console


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--set", required=True, metavar="NAME", help="the attribute")
    parser.add_argument("--alphas", default="0.1,0.2,0.3,0.4,0.5", metavar="A,B,...", help="--alphas=-0.4,0.4 too")
    arguments.add_edit(parser)


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from dfi_server.commands import contact_sheet
    from dfi_server.edit import Editor
    from dfi_server.photo import colour, disk, pages
    from dfi_server.photo.pixels import Photo, composite, crop
    from dfi_server.vectors.lfw import attribute_name
    from dfi_server.vectors.store import check_alphas

    name = attribute_name(options.set)
    alphas = [arguments.parse_alpha(name, text) for text in options.alphas.split(",")]
    for alpha in alphas:
        check_alphas({name: alpha})
    disk.check_writable(options.output)
    photo = disk.read(options.input)
    console.say(options.input, pages.looked_at(photo.pages))
    source = colour.to_srgb(photo)
    editor = Editor(options.store, options.device)
    with console.iteration_bar() as bar:
        edits = editor.sweep(
            source,
            [{name: alpha} for alpha in alphas],
            face=options.face,
            box=options.box,
            iterations=options.iterations,
            progress=lambda state: console.advance(bar, state.iteration, state.iterations),
        )
    box = max((edit.patch.box for edit in edits), key=lambda box: box[2] * box[3])
    pictures = [crop(composite(source, edit.patch), box) for edit in edits]
    labels = ["original", *(f"{name} {alpha:g}" for alpha in alphas)]
    sheet = contact_sheet.contact_sheet([[crop(source, box), *pictures]], labels)
    disk.write(options.output, Photo(np.asarray(sheet)))
    print(f"{options.output}: {name} at {', '.join(f'{alpha:g}' for alpha in alphas)}")
