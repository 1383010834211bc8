"""Make docs/commands.md, the reference of the command line, from its parsers: python docs/commands.py

The file is Markdown tables, not argparse's own help, whose format depends on Python's version and on the terminal.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from dfi_server.commands import subcommands

PAGE = Path(__file__).with_suffix(".md")
_HEAD = """# Commands

Every command of `dfi` and what it takes. This page is made from the program's own parsers by `python docs/commands.py`:
change those, not this. `dfi COMMAND --help` says the same in a terminal. The exit code is 0, 1 after a failure that was
explained in a sentence, 2 for a wrong command line, and 130 after Ctrl-C.
"""


def reference(parser: argparse.ArgumentParser) -> str:
    """The page for a parser with subcommands, as Markdown."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    firsts = {name: (one.description or "").splitlines()[0] for name, one in commands.choices.items()}
    index = _table(("command", "what it does"), ([f"[{name}](#dfi-{name})", first] for name, first in firsts.items()))
    return "\n".join([_HEAD, index, *(_section(f"dfi {name}", one) for name, one in commands.choices.items())])


def _section(title: str, parser: argparse.ArgumentParser) -> str:
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    needed = [action for action in actions if action.required or not action.option_strings]
    usage = " ".join([title, *map(_usage, needed), *(["[OPTIONS]"] if len(needed) < len(actions) else [])])
    rows = ([f"`{_escaped(_name(action))}`", _escaped(_help(action))] for action in actions)
    head = f"## {title}\n\n{(parser.description or '').strip()}\n\n```\n{usage}\n```\n"
    return f"{head}\n{_table(('', ''), rows)}"


def _usage(action: argparse.Action) -> str:
    return f"[{_name(action)}]" if action.nargs in ("?", "*") else _name(action)


def _name(action: argparse.Action) -> str:
    """An option with its value, or an argument: "--set NAME=ALPHA"."""
    if action.nargs == 0:
        return ", ".join(action.option_strings)
    default = "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    value = (action.metavar or default) + (" ..." if action.nargs in ("*", "+") else "")
    return f"{', '.join(action.option_strings)} {value}".strip()


def _help(action: argparse.Action) -> str:
    return (action.help or "") % vars(action)


def _table(head: tuple[str, str], rows: Iterator[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---", "---"), *rows)]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    PAGE.write_text(reference(subcommands.parser()))
