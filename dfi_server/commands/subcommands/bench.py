"""Measure how fast edits are here, against a plain implementation."""

import argparse
import sys
from pathlib import Path

from dfi_server.commands import arguments


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

    editor = Editor(options.store, options.device)
    frames = bench.lfw_frames(options.lfw, options.faces) if options.lfw else bench.sample_frames(editor, options.faces)
    frames = [frame.to(editor.device) for frame in frames]
    report, traces = bench.run(editor, frames, lambda text: print(text, file=sys.stderr))
    print(bench.table(report))
    if options.json:
        bench.write_json(report, options.json)
    if options.plot:
        bench.plot(traces, options.plot)
