"""Put the filter into GIMP 3, see how it is there, or take it away.

install puts it into every GIMP 3 of this computer, or brings it up to date there; status says which GIMP has it, and
what is missing; uninstall takes it away, and leaves presets, stores and attributes of your own; settings prints what a
filter that was unpacked from an archive asks, in JSON: how this program is reached and started. See docs/install.md.
"""

import argparse
import json

from dfi_server import paths


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=("install", "status", "uninstall", "settings"),
        metavar="install|status|uninstall|settings",
        help="what to do about the filter",
    )


def run(options: argparse.Namespace) -> None:
    from dfi_server.gimp import files, installation
    from dfi_server.gimp.machine import Machine

    home = paths.home().absolute()
    if options.action == "settings":
        print(json.dumps(files.settings(Machine.here(), home)))
        return

    def say(line: str) -> None:
        print(line, flush=True)

    getattr(installation, options.action)(Machine.here(), home, say)
