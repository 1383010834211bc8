"""Make keys for a server that other machines may use.

DIR/server is for 'dfi serve --keys', and DIR/NAME for each client, to be carried to its machine: for 'dfi edit --keys',
or the environment variable DFI_KEYS. To shut a client out, delete DIR/server/clients/NAME.key and start the server
again.
"""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder for them, made if need be")
    parser.add_argument("clients", nargs="*", default=["client"], metavar="NAME", help="of a client (default: client)")


def run(options: argparse.Namespace) -> None:
    from dfi_server.wire import keys

    for folder in keys.generate(options.folder, options.clients):
        print(folder)
