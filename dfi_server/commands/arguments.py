"""What a command line of dfi may say."""

import argparse
import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server import __version__, paths
from dfi_server.wire import protocol

if TYPE_CHECKING:
    from dfi_server.wire.messages import FaceChoice


def parser() -> argparse.ArgumentParser:
    """Of all commands: `command` is the name of the one that was given, beside its options."""
    dfi = argparse.ArgumentParser(prog="dfi", description="Deep Feature Interpolation for portraits.")
    dfi.add_argument("--version", action="version", version=f"dfi {__version__}")
    commands = dfi.add_subparsers(dest="command", required=True, metavar="COMMAND")

    setup = commands.add_parser("setup", help="build the store of attribute vectors")
    setup.add_argument("--vgg19", type=Path, metavar="FILE", help="VGG-19 weights, torchvision's key names")
    setup.add_argument("--lfw", type=Path, metavar="FILE.tgz", help="lfw-deepfunneled.tgz")
    setup.add_argument("--attributes", type=Path, metavar="FILE", help="lfw_attributes.txt")
    setup.add_argument(
        "--method", choices=("ridge", "mean"), default="ridge", help="how vectors are made (default: ridge)"
    )
    setup.add_argument("--limit", type=_positive, metavar="N", help="use the first N photos only")
    _add_engine(setup)
    _add_device(setup)

    names = commands.add_parser("attributes", help="list what can be edited")
    names.add_argument("--json", action="store_true", help="as a JSON list of names")
    _add_store(names)

    edit = commands.add_parser("edit", help="edit one photo")
    edit.add_argument("input", type=Path)
    edit.add_argument("output", type=Path)
    _add_set(edit)
    edit.add_argument("--server", metavar="ENDPOINT", help="let a running server do it, e.g. tcp://127.0.0.1:5577")
    edit.add_argument("--keys", type=Path, metavar="DIR", help="this client's keys, for --server (see 'dfi keygen')")
    _add_edit(edit)

    batch = commands.add_parser("batch", help="edit a folder of photos through a server")
    batch.add_argument("input", type=Path, metavar="IN", help="a folder; those inside it are edited as well")
    batch.add_argument("output", type=Path, metavar="OUT", help="a folder; photos that are there already are left")
    _add_set(batch)
    _add_face_and_iterations(batch)
    batch.add_argument("--jobs", type=_positive, metavar="N", help="photos under way at once (default: enough)")
    batch.add_argument("--server", metavar="ENDPOINT", help="a running server; without it, one is started if need be")
    _add_engine(batch)

    found = commands.add_parser("faces", help="find the faces in a photo")
    found.add_argument("input", type=Path)
    found.add_argument("--draw", type=Path, metavar="FILE", help="write a copy with boxes, numbers and landmarks")
    found.add_argument("--json", action="store_true", help="as JSON")
    _add_store(found)

    strip = commands.add_parser("strip", help="one picture with an edit at several alphas")
    strip.add_argument("input", type=Path)
    strip.add_argument("output", type=Path)
    strip.add_argument("--set", required=True, metavar="NAME", help="the attribute")
    strip.add_argument("--alphas", default="0.1,0.2,0.3,0.4,0.5", metavar="A,B,...", help="--alphas=-0.4,0.4 too")
    _add_edit(strip)

    serve = commands.add_parser("serve", help="the server that GIMP and other clients talk to")
    serve.add_argument("--endpoint", default=protocol.DEFAULT_ENDPOINT)
    serve.add_argument("--keys", type=Path, metavar="DIR", help="answer only clients with keys (see 'dfi keygen')")
    serve.add_argument(
        "--rest-after",
        type=_minutes,
        default=10.0,
        metavar="MINUTES",
        help="give the model's memory back after so long without an edit, until the next one; 0: never (default: 10)",
    )
    serve.add_argument(
        "--end-after", type=_minutes, default=0.0, metavar="MINUTES", help="end after so long without any client"
    )
    _add_device(serve)
    _add_store(serve)

    keygen = commands.add_parser(
        "keygen",
        help="keys for a server that other machines may use",
        description="Makes DIR/server, for 'dfi serve --keys', and DIR/NAME for each client, to be carried to its "
        "machine: for 'dfi edit --keys', or the environment variable DFI_KEYS. To shut a client out, delete "
        "DIR/server/clients/NAME.key and start the server again.",
    )
    keygen.add_argument("folder", type=Path, metavar="DIR")
    keygen.add_argument("clients", nargs="*", default=["client"], metavar="NAME", help="of a client (default: client)")

    bench = commands.add_parser("bench", help="how fast edits are here, against a plain implementation")
    bench.add_argument("--faces", type=_positive, default=8, metavar="N", help="how many (default: 8)")
    bench.add_argument("--lfw", type=Path, metavar="FILE.tgz", help="take them from LFW, not from the sample portrait")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    bench.add_argument("--plot", type=Path, metavar="FILE.png", help="draw objective against time (needs matplotlib)")
    _add_device(bench)
    _add_store(bench)
    return dfi


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        required=True,
        metavar="NAME=ALPHA",
        help="an attribute and its strength: 0.1 to 0.5 adds it, negative takes it away; may be repeated",
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: on a Ray cluster, the one named by RAY_ADDRESS or one of this machine's cores (default: local)",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")


def _add_store(parser: argparse.ArgumentParser) -> None:
    default = f"{paths.FULL_STORE} once 'dfi setup' has built it, until then {paths.STARTER.name}"
    parser.add_argument("--store", metavar="NAME", help=f"store of vectors (default: {default})")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    _add_face_and_iterations(parser)
    parser.add_argument(
        "--box", type=_box, metavar="X,Y,W,H", help="edit only in there; the face itself where none is found in it"
    )
    _add_device(parser)
    _add_store(parser)


def _add_face_and_iterations(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--face", type=_face, default="largest", metavar="N|largest|all", help="see 'dfi faces'")
    parser.add_argument("--iterations", type=_positive, metavar="N", help="of L-BFGS (default: as it takes)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (minutes := float(text)) < math.inf:
            return minutes
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of minutes")


def _face(text: str) -> "FaceChoice":
    if text == "largest":
        return "largest"
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither 'largest', 'all' nor a face's number from 1")
    return int(text)


def _box(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not four whole numbers X,Y,W,H") from None
    return x, y, width, height
