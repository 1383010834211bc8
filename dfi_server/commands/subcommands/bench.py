"""Measure how fast edits are here, against a plain implementation."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from dfi_server.commands import arguments
from dfi_server.errors import DFIError, ErrorCode


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--faces", type=arguments.positive, default=8, metavar="N", help="how many (default: 8)")
    parser.add_argument("--lfw", type=Path, metavar="FILE.tgz", help="take them from LFW, not from the sample portrait")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw objective against time (needs matplotlib)")
    arguments.add_device(parser)
    arguments.add_store(parser)


def run(options: argparse.Namespace) -> None:
    from dfi_server.commands import bench
    from dfi_server.edit import Editor
    from dfi_server.photo import whole

    for path in filter(None, (options.json, options.plot)):  # the figures take minutes
        whole.check_place(path)
    if options.plot and not find_spec("matplotlib"):
        raise DFIError(ErrorCode.BAD_REQUEST, "--plot needs matplotlib: pip install 'dfi-server[benchmarks]'.")
    editor = Editor(options.store, options.device)
    frames = bench.lfw_frames(options.lfw, options.faces) if options.lfw else bench.sample_frames(editor, options.faces)
    frames = [frame.to(editor.device) for frame in frames]
    if not frames:
        raise DFIError(ErrorCode.BAD_DATA, f"{options.lfw} has none of the photos that this takes: is it all of LFW?")
    report, traces = bench.run(editor, frames, lambda text: print(text, file=sys.stderr))
    print(bench.table(report))
    if options.json:
        bench.write_json(report, options.json)
    if options.plot:
        bench.plot(traces, options.plot)
