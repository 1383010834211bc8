"""Have a server at login, for a GIMP from Flatpak or Snap, which can start none.

install makes the system start it: systemd when a client comes, launchd and Windows' task scheduler at login. uninstall
undoes that. See docs/install.md.
"""

import argparse

from dfi_server import paths


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("install", "uninstall"), metavar="install|uninstall", help="what to do about the server"
    )


def run(options: argparse.Namespace) -> None:
    from dfi_server.gimp import at_login
    from dfi_server.gimp.machine import Machine

    act = at_login.install if options.action == "install" else at_login.uninstall
    act(Machine.here(), paths.home().absolute(), print)
