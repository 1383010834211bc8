"""GIMP's progress bar. Its Cancel kills this process, and so must find nothing half done."""

from collections.abc import Callable

import gi

gi.require_version("Gimp", "3.0")
from gi.repository import Gimp  # noqa: E402
from i18n import _  # noqa: E402


def show(text: str) -> None:
    """Say what is going on where nobody knows how long it takes."""
    Gimp.progress_set_text(text)
    Gimp.progress_pulse()


def following(name: str) -> Callable[[int, int], None]:
    """Begin a bar for an edit; what moves it takes the iteration, and of how many."""
    Gimp.progress_init(name)

    def progress(iteration: int, iterations: int) -> None:
        text = _("{edit}: iteration {iteration} of {iterations}")
        Gimp.progress_set_text(text.format(edit=name, iteration=iteration, iterations=iterations))
        Gimp.progress_update(iteration / iterations)

    return progress
