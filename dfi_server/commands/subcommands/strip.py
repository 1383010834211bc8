"""Make one picture with an edit at several alphas."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server.commands import arguments, console
from dfi_server.errors import DFIError, ErrorCode

if TYPE_CHECKING:
    from dfi_server.photo.pixels import Patch, Pixels


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="a photo")
    parser.add_argument("output", type=Path, help="the picture, in the format that its extension says")
    parser.add_argument("--set", required=True, metavar="NAME", help="the attribute")
    parser.add_argument(
        "--alphas", default="0.1,0.2,0.3,0.4,0.5", metavar="A,B,...", help="its strengths (default: %(default)s)"
    )
    arguments.add_edit(parser)


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from dfi_server.commands import contact_sheet
    from dfi_server.photo import colour, disk, formats, pages
    from dfi_server.photo.pixels import Photo, composite, crop
    from dfi_server.vectors.lfw import attribute_name
    from dfi_server.vectors.store import check_alphas

    arguments.check_server(options)
    name = attribute_name(options.set)
    alphas = [arguments.parse_alpha(name, text) for text in options.alphas.split(",")]
    for alpha in alphas:
        check_alphas({name: alpha})
    disk.check_writable(options.output)
    photo = disk.read(options.input)
    console.say(options.input, pages.looked_at(photo.pages))
    srgb = colour.to_srgb(photo)
    patches = (_by_server if options.server else _here)(srgb, name, alphas, options)

    def seen(pixels: "Pixels") -> "Pixels":
        return crop(formats.on_white(replace(photo, pixels=pixels)).pixels, patches[0].box)

    pictures = [seen(srgb), *(seen(composite(srgb, patch)) for patch in patches)]
    labels = ["original", *(f"{name} {alpha:g}" for alpha in alphas)]
    disk.write(options.output, Photo(np.asarray(contact_sheet.contact_sheet([pictures], labels))))
    print(f"{options.output}: {name} at {', '.join(f'{alpha:g}' for alpha in alphas)}")


def _here(pixels: "Pixels", name: str, alphas: Sequence[float], options: argparse.Namespace) -> list["Patch"]:
    from dfi_server.edit import Editor

    editor = Editor(options.store, options.device)
    with console.iteration_bar() as bar:
        edits = editor.sweep(
            pixels,
            [{name: alpha} for alpha in alphas],
            **arguments.choices(options),
            progress=lambda state: console.advance(bar, state.iteration, state.iterations),
        )
    return [edit.patch for edit in edits]


def _by_server(pixels: "Pixels", name: str, alphas: Sequence[float], options: argparse.Namespace) -> list["Patch"]:
    from dfi_server.commands import remote
    from dfi_server.wire.client import Client
    from dfi_server.wire.limits import MAX_FACTORS

    if len(alphas) > MAX_FACTORS:
        raise DFIError(ErrorCode.BAD_REQUEST, f"A server edits with {MAX_FACTORS} alphas at once: name fewer.")
    there = arguments.server_of(options)
    with Client(there.endpoint, keys=there.client_keys) as client, console.iteration_bar() as bar:
        return remote.sweep(
            client,
            pixels,
            name,
            alphas,
            **arguments.choices(options),
            store=options.store,
            progress=lambda state: console.advance(bar, state.iteration, state.iterations),
        )
