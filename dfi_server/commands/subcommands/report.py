"""Make a web page that shows an edit and how it came about.

It has the photo before and after, the edit at several strengths, the attributes that the network reads from both, what
was moved and what was painted, where the vectors act, the solver's loss, and how to repeat it. The page is one file
that needs nothing else: no network, no scripts.
"""

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server import __version__, paths, system
from dfi_server.commands import arguments, console
from dfi_server.errors import DFIError, ErrorCode, unwritable

if TYPE_CHECKING:
    from dfi_server.edit import Edit, Editor
    from dfi_server.photo.pixels import Photo

_EXTENSIONS = (".html", ".htm")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, help="a photo")
    parser.add_argument("output", type=Path, help="the page, OUT.html")
    arguments.add_set(parser)
    arguments.add_local_edit(parser)


def run(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from dfi_server.photo import colour, disk, pages, whole

    alphas = arguments.parse_alphas(options.set)
    if options.output.suffix.lower() not in _EXTENSIONS:
        raise DFIError(ErrorCode.BAD_REQUEST, f"'{options.output.name}' has no extension of a web page: use .html.")
    whole.check_place(options.output)
    source = disk.read(options.input)
    console.say(options.input, pages.looked_at(source.pages))

    from dfi_server.commands.report.findings import find
    from dfi_server.commands.report.page import Settings, page
    from dfi_server.edit import Editor

    editor = Editor(options.store, options.device)
    with console.iteration_bar() as bar:
        findings = find(
            editor,
            replace(source, pixels=colour.to_srgb(source)),
            alphas,
            **arguments.choices(options),
            progress=lambda state: console.advance(bar, state.iteration, state.iterations),
        )
    settings = Settings(
        options.input.name,
        alphas,
        _command(options, alphas, editor),
        _details(options.input, source, editor, findings.edit),
    )
    text = page(findings, settings)
    try:
        whole.write_whole(options.output, lambda file: file.write(text.encode()))
    except OSError as error:
        raise unwritable(options.output, error) from error
    print(f"{options.output}: {' '.join(f'{name}={alpha:g}' for name, alpha in alphas.items())}")


def _command(options: argparse.Namespace, alphas: Mapping[str, float], editor: "Editor") -> str:
    """The command line that makes the edited photo."""
    words = ["dfi", "edit", str(options.input), f"{options.input.stem}-edited.png"]
    for name, alpha in alphas.items():
        words += ["--set", f"{name}={alpha}"]
    words += ["--store", editor.store_name, "--device", editor.device.type]
    if options.face != "largest":
        words += ["--face", str(options.face)]
    if options.box:
        words.append(f"--box={','.join(map(str, options.box))}")
    if options.iterations:
        words += ["--iterations", str(options.iterations)]
    for name in options.keep:
        words += ["--keep", name]
    if options.neighbours:
        words += ["--neighbours", str(options.neighbours)]
    return system.command_line(words)


def _details(path: Path, photo: "Photo", editor: "Editor", edit: "Edit") -> list[tuple[str, str]]:
    import torch

    height, width, channels = photo.pixels.shape
    kind = "RGB" if channels == 3 else "gray"
    info = editor.store.info
    hint = f"; {paths.STARTER_HINT}" if editor.store.is_starter else ""
    return [
        ("Version", f"dfi {__version__}, torch {torch.__version__}"),
        ("Photo", f"{width} × {height} pixels, {kind}, {photo.pixels.dtype}"),
        ("SHA-256 of its file", hashlib.sha256(path.read_bytes()).hexdigest()),
        ("Store", f"{editor.store_name}: {info.method}, from {info.photos} photos, built {info.built}{hint}"),
        ("SHA-256 of the network", info.network_sha256),
        ("Solver", f"{edit.iterations} iterations, {edit.evaluations} evaluations, loss {edit.loss:.4f}"),
        ("Time", f"{edit.seconds:.1f} s on {editor.device_name}"),
        ("Faces at", "; ".join(",".join(map(str, face.frame.bounds((width, height)))) for face in edit.faces)),
    ]
