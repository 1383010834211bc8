"""List what can be edited."""

import argparse
import json

from dfi_server.commands import arguments


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as a JSON list of names")
    arguments.add_store(parser)


def run(options: argparse.Namespace) -> None:
    from dfi_server.vectors.store import open_store

    store = open_store(options.store)
    if options.json:
        print(json.dumps(store.attributes))
    else:
        print(*store.info.attributes, *(f"{name} (own)" for name in store.own_attributes), sep="\n")
