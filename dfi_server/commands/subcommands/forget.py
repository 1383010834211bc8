"""Remove an attribute of your own, which 'dfi learn' has made."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the attribute")


def run(options: argparse.Namespace) -> None:
    from dfi_server.vectors import own
    from dfi_server.vectors.lfw import attribute_name

    name = attribute_name(options.name)
    own.forget(name)
    print(f"{name} is forgotten.")
