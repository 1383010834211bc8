"""The commands of `dfi`, one module each: its docstring is what `dfi NAME --help` says, and its first line the help.

What imports torch takes seconds to import: each command imports what it needs when it runs. `dfi serve` binds at once,
and torch comes with the model, in the worker's process.
"""

import argparse
from typing import Protocol

from dfi_server import __version__
from dfi_server.commands.subcommands import (
    attributes,
    batch,
    bench,
    edit,
    faces,
    fill,
    forget,
    gimp,
    keygen,
    learn,
    report,
    serve,
    service,
    setup,
    strip,
)


class Command(Protocol):
    """What such a module has; the name of the command is the module's."""

    __name__: str
    __doc__: str | None

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Tell the parser what the command takes."""

    def run(self, options: argparse.Namespace) -> None:
        """Do it, and print the result. Raises DFIError."""


_COMMANDS: tuple[Command, ...] = (
    *(setup, attributes, edit, batch, faces, strip, report, fill),
    *(learn, forget, gimp, serve, service, keygen, bench),
)


def parser() -> argparse.ArgumentParser:
    """Of all commands: `run` is the function of the one that was given, beside its options."""
    dfi = argparse.ArgumentParser(prog="dfi", description="Deep Feature Interpolation for portraits.")
    dfi.add_argument("--version", action="version", version=f"dfi {__version__}")
    parsers = dfi.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        text = command.__doc__ or ""
        first, *_ = text.splitlines()
        one = parsers.add_parser(command.__name__.rpartition(".")[2], help=first.rstrip("."), description=text)
        command.add_options(one)
        one.set_defaults(run=command.run)
    return dfi
