"""dfi: the command line. Each command is a module of `subcommands`."""

import os
import sys
from collections.abc import Sequence

# When other programs use the cores (GIMP does), OpenMP's spinning threads slow each other down several times over.
# It is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from dfi_server.commands import subcommands
from dfi_server.errors import DFIError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 after a failure that was explained, 2 for a wrong command line."""
    options = subcommands.parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
    except DFIError as error:
        print(f"dfi: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dfi: interrupted; nothing was left half done.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `dfi attributes | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - open to the end of the process
        return 1
    return 0
