"""Edit one photo."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server import paths
from dfi_server.commands import arguments, console

if TYPE_CHECKING:
    from dfi_server.photo.pixels import Patch, Pixels


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="a photo")
    parser.add_argument("output", type=Path, help="the result, in the format that its extension says")
    arguments.add_set(parser)
    arguments.add_edit(parser)


def run(options: argparse.Namespace) -> None:
    from dfi_server.photo import colour, disk
    from dfi_server.photo.pixels import edited

    arguments.check_server(options)
    alphas = arguments.parse_alphas(options.set)
    disk.check_writable(options.output)
    source = disk.read(options.input)
    disk.check_size(options.output, source.pixels)
    work = _by_server if options.server else _here
    srgb = colour.to_srgb(source)
    patch, how = work(srgb, alphas, options)
    notes = disk.write(options.output, edited(source, colour.from_srgb(source, srgb, patch)))
    console.say(options.input, notes)
    done = " ".join(f"{name}={alpha:g}" for name, alpha in alphas.items())
    print(f"{options.output}: {done}, {how}")


def _here(pixels: "Pixels", alphas: Mapping[str, float], options: argparse.Namespace) -> tuple["Patch", str]:
    from dfi_server.edit import Editor

    editor = Editor(options.store, options.device)
    with console.iteration_bar() as bar:
        edit = editor.edit(
            pixels,
            alphas,
            **arguments.choices(options),
            progress=lambda state: console.advance(bar, state.iteration, state.iterations),
        )
    how = f"{edit.iterations} iterations in {edit.seconds:.1f} s on {editor.device_name}, store {editor.store_name}"
    return edit.patch, how + (f" ({paths.STARTER_HINT})" if editor.store.is_starter else "")


def _by_server(pixels: "Pixels", alphas: Mapping[str, float], options: argparse.Namespace) -> tuple["Patch", str]:
    from dfi_server.commands import remote
    from dfi_server.wire.client import Client

    there = arguments.server_of(options)
    with Client(there.endpoint, keys=there.client_keys) as client, console.iteration_bar() as bar:
        patch, result = remote.edit(
            client,
            pixels,
            alphas,
            **arguments.choices(options),
            store=options.store,
            progress=lambda state: console.advance(bar, state.iteration, state.iterations),
        )
    return patch, f"{result.iterations} iterations in {result.seconds:.1f} s by {options.server}"
