"""dfi: the command line. Each command is a module of `subcommands`."""

import os
import sys
from collections.abc import Sequence

# When other programs use the cores (GIMP does), OpenMP's spinning threads slow each other down several times over.
# It is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from dfi_server.commands import console, subcommands
from dfi_server.commands.arguments import joined
from dfi_server.errors import DFIError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 after a failure that was explained, 2 for a wrong command line."""
    given = sys.argv[1:] if arguments is None else arguments
    options = subcommands.parser().parse_args(joined(given))
    try:
        options.run(options)
    except DFIError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print(console.INTERRUPTED, file=sys.stderr)
        return 130
    except MemoryError:
        return _failed("This computer has not enough memory for it: close other programs, or take a smaller photo.")
    except OSError as error:
        file = error.filename if error.filename is not None else "A file"
        reason = error.strerror or error
        return _failed(f"{file} cannot be used ({reason}): see that it is there, and that you may read and write it.")
    return 0


def _failed(sentence: str) -> int:
    print(f"dfi: {sentence}", file=sys.stderr)
    return 1
