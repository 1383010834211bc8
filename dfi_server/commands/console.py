"""What is said on a terminal beside a command's result."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm


def say(file: Path, notes: Sequence[str]) -> None:
    """What a user must know of a photo's edit that succeeded."""
    for note in notes:
        print(f"dfi: {file}: {note}", file=sys.stderr)


def iteration_bar() -> "tqdm[None]":
    """The progress of an edit, where there is a terminal."""
    return tqdm(desc="editing", unit="it", disable=None, leave=False)


def advance(bar: "tqdm[None]", done: int, total: int) -> None:
    """Let a bar show that `done` of at most `total` are done."""
    bar.total = total
    bar.update(done - bar.n)
