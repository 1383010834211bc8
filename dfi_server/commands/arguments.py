"""Options that several commands take, and what their values mean."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire.place import EXAMPLE, OWN, OWN_TCP, Place, find

if TYPE_CHECKING:
    from dfi_server.wire.messages import Choices, FaceChoice

_NEGATIVE = re.compile(r"-[0-9.][-+0-9.,eE]*")  # a number, or several


def add_set(parser: argparse.ArgumentParser) -> None:
    """--set NAME=ALPHA, for parse_alphas."""
    parser.add_argument(
        "--set",
        action="append",
        required=True,
        metavar="NAME=ALPHA",
        help="an attribute and its strength: 0.1 to 0.5 adds it, negative takes it away; may be repeated",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--engine local|ray."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: on a Ray cluster, the one named by RAY_ADDRESS or one of this machine's cores (default: local)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device auto|cpu|cuda|mps."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where it is computed (default: auto, the fastest that is here)",
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    """--store NAME; None is the default one."""
    default = f"{paths.FULL_STORE} once 'dfi setup' has built it, until then {paths.STARTER.name}"
    parser.add_argument("--store", metavar="NAME", help=f"store of vectors (default: {default})")


def add_edit(parser: argparse.ArgumentParser) -> None:
    """What an edit can choose, here or by a server: add_local_edit, add_server. See check_server and choices."""
    add_local_edit(parser)
    add_server(parser)


def add_server(parser: argparse.ArgumentParser) -> None:
    """--server, --keys. See check_server."""
    parser.add_argument(
        "--server",
        metavar="ENDPOINT",
        help=f"let a running server do it: {OWN}, that of 'dfi serve' and of GIMP, or an address such as {EXAMPLE}",
    )
    parser.add_argument("--keys", type=Path, metavar="DIR", help="this client's keys, for --server (see 'dfi keygen')")


def add_local_edit(parser: argparse.ArgumentParser) -> None:
    """What an edit in this process can choose: see choices."""
    parser.add_argument(
        "--face",
        type=_face,
        default="largest",
        metavar="N|largest|all",
        help="which face, by its number in 'dfi faces' (default: %(default)s)",
    )
    parser.add_argument("--iterations", type=positive, metavar="N", help="of L-BFGS (default: as it takes)")
    parser.add_argument(
        "--box", type=box, metavar="X,Y,W,H", help="edit only in there; the face itself where none is found in it"
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAME",
        help="an attribute that stays as it is, whatever the edit brings along; may be repeated",
    )
    parser.add_argument(
        "--neighbours",
        type=positive,
        metavar="K",
        help="vectors from the K faces of LFW with the attribute, and K without, that are most like this one, such as "
        "100 (default: from all)",
    )
    add_device(parser)
    add_store(parser)


def server_of(options: argparse.Namespace) -> Place:
    """Where the server is that --server names, or the user's own, with the keys for it.

    The user's own has the stores of this machine. Raises DFIError(NO_STORE | BAD_STORE) where --store names none of
    them, UNREACHABLE where --server means the own with keys, and none has run that would have made them.
    """
    named = options.server or OWN
    if options.store and named in (OWN, OWN_TCP):
        from dfi_server.vectors.store import open_store

        open_store(options.store)
    found = find(named, paths.home())
    if options.server and not options.keys and found.client_keys and not found.client_keys.exists():
        raise DFIError(
            ErrorCode.UNREACHABLE,
            f"No server of yours is there: start it (dfi serve --endpoint {named}) and try again.",
        )
    return found._replace(client_keys=options.keys or found.client_keys)


def check_server(options: argparse.Namespace) -> None:
    """Raise DFIError(BAD_REQUEST) for options of add_server and add_device that make no sense together."""
    if options.keys and not options.server:
        raise DFIError(ErrorCode.BAD_REQUEST, "--keys goes with --server: name the server that asks for them.")
    if options.server and options.device != "auto":
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            "--device and --server exclude each other: leave one out, or start the server with --device.",
        )


def choices(options: argparse.Namespace) -> "Choices":
    """Those of add_edit's options that say how the edit is made, wherever it is."""
    from dfi_server.vectors.lfw import attribute_name

    return {
        "face": options.face,
        "box": options.box,
        "iterations": options.iterations,
        "keep": tuple(map(attribute_name, options.keep)),
        "neighbours": options.neighbours,
    }


def joined(words: Sequence[str]) -> list[str]:
    """A command line with each value that begins with a minus joined to its option by "=".

    argparse would take the value of `--box -25,33,116,116`, as `dfi faces` prints it, for another option.
    """
    result: list[str] = []
    for word in words:
        if _NEGATIVE.fullmatch(word) and result and result[-1].startswith("--") and "=" not in result[-1]:
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def positive(text: str) -> int:
    """A whole number from 1, as argparse's `type`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _face(text: str) -> "FaceChoice":
    if text == "largest":
        return "largest"
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither 'largest', 'all' nor a face's number from 1")
    return int(text)


def box(text: str) -> tuple[int, int, int, int]:
    """X,Y,W,H as argparse's `type`."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not four whole numbers X,Y,W,H") from None
    return x, y, width, height


def parse_alphas(settings: Sequence[str]) -> dict[str, float]:
    """["smiling=0.4", ...] as {name: alpha}. Raises DFIError(BAD_ALPHA | BAD_REQUEST)."""
    from dfi_server.vectors.lfw import attribute_name
    from dfi_server.vectors.store import check_alphas

    alphas: dict[str, float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        name = attribute_name(name)
        if name in alphas:
            raise DFIError(ErrorCode.BAD_REQUEST, f"'{name}' is set twice.")
        alphas[name] = parse_alpha(name, text)
    check_alphas(alphas)
    return alphas


def parse_alpha(name: str, text: str) -> float:
    """An attribute's alpha. Raises DFIError(BAD_ALPHA) for what is no number."""
    try:
        return float(text)
    except ValueError:
        raise DFIError(
            ErrorCode.BAD_ALPHA, f"Alpha for '{name}' is '{text}', not a number: write it as {name}=0.4."
        ) from None
