"""docs/commands.md is what the program's own parsers say."""

import runpy

import pytest
from gimp.gimp import REPOSITORY

from dfi_server.commands import subcommands

PAGE = REPOSITORY / "docs/commands.md"


@pytest.fixture(scope="module")
def made() -> str:
    page: str = runpy.run_path(str(PAGE.with_suffix(".py")))["reference"](subcommands.parser())
    return page


def test_the_page_is_the_one_that_the_parsers_make(made: str) -> None:
    assert PAGE.read_text() == made, "run: python docs/commands.py"


def test_everything_that_a_command_takes_is_explained(made: str) -> None:
    rows = [line for line in made.splitlines() if line.startswith("| `")]
    assert any(row.startswith("| `--set NAME=ALPHA` | an attribute") for row in rows)
    assert not [row for row in rows if row.endswith("|  |")]


def test_the_page_does_not_depend_on_the_terminal(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "40", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert runpy.run_path(str(PAGE.with_suffix(".py")))["reference"](subcommands.parser()) == made
