"""Put the filter into GIMP 3, see how it is there, or take it away.

install puts it into every GIMP 3 of this computer, or brings it up to date there; status says which GIMP has it, and
what is missing; uninstall takes it away, and leaves presets, stores and attributes of your own. See docs/install.md.
"""

import argparse

from dfi_server import paths


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("install", "status", "uninstall"),
        metavar="install|status|uninstall",
        help="what to do about the filter",
    )


def run(options: argparse.Namespace) -> None:
    from dfi_server.gimp import installation
    from dfi_server.gimp.machine import Machine

    def say(line: str) -> None:
        print(line, flush=True)

    getattr(installation, options.action)(Machine.here(), paths.home().absolute(), say)
