"""`dfi` and `python -m dfi_server`, from the first moment of the process to its last."""

import sys

from dfi_server.commands import console


def main() -> int:
    """Run the command that the process was started with; returns its exit code, that of cli.main."""
    console.take_over()
    from dfi_server.commands import cli  # takes time, in which an interrupt must not show where it came

    console.heed_interrupts()
    try:
        code = cli.main()
    except SystemExit as ended:  # argparse has printed its help, or what is wrong
        code = int(ended.code or 0)
    return console.finish(code)


if __name__ == "__main__":
    sys.exit(main())
