"""Run the server that GIMP and other clients talk to."""

import argparse
import contextlib
import logging
import math
import sys
from pathlib import Path

from dfi_server import paths
from dfi_server.commands import arguments
from dfi_server.wire import place


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--endpoint",
        default=place.OWN,
        help=f"where it listens, such as {place.EXAMPLE} (default: {place.OWN}, a socket that only you can enter; "
        f"{place.OWN_TCP}: a port with keys that only you can read)",
    )
    parser.add_argument("--keys", type=Path, metavar="DIR", help="answer only clients with keys (see 'dfi keygen')")
    parser.add_argument(
        "--rest-after",
        type=_minutes,
        default=10.0,
        metavar="MINUTES",
        help="give the model's memory back after so long without an edit, until the next one; 0: never (default: 10)",
    )
    parser.add_argument(
        "--end-after", type=_minutes, default=0.0, metavar="MINUTES", help="end after so long without any client"
    )
    arguments.add_device(parser)
    arguments.add_store(parser)


def run(options: argparse.Namespace) -> None:
    from dfi_server.service import server, worker_process
    from dfi_server.wire import keys

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    rest_after, end_after = (60.0 * minutes if minutes else None for minutes in (options.rest_after, options.end_after))
    workers = worker_process.commands(options.store, options.device)
    here = place.find(options.endpoint, paths.home())
    if here.server_keys and here.client_keys and not options.keys:
        keys.ensure(here.server_keys, here.client_keys)
    server.serve(here.endpoint, workers, options.keys or here.server_keys, rest_after, end_after)


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (minutes := float(text)) < math.inf:
            return minutes
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of minutes")
