"""What is said on a terminal, and what comes from there: output that cannot be taken, and Ctrl-C.

Standard library only, and little of it: the process begins with this.
"""

import io
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

INTERRUPTED = "dfi: interrupted; nothing was left half done."
_NAMED = 5  # photos that are named one by one
_IMPATIENT_SECONDS = 2.0  # a second Ctrl-C within them is the same one, or one of another key press too many


class _Sink(io.FileIO):
    """A file descriptor, left open, that keeps its first error: printing must not end the work that it tells about."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if not self.error:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def take_over() -> None:
    """Begin a process: from here on printing raises nothing, and an interrupt ends it without a word."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as a shell's background commands have it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for descriptor in range(3):  # one that is closed would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = (_stream(stream, number) for number, stream in ((1, sys.stdout), (2, sys.stderr)))


def _stream(old: Any, descriptor: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Sink(descriptor)),
        encoding=old.encoding if old else "utf-8",
        errors="backslashreplace",  # a file's name may have bytes that are no text
        line_buffering=bool(old and (old.line_buffering or old.write_through)),
    )


def warn(sentences: Iterable[str]) -> None:
    """Sentences on the standard error, a line each."""
    for sentence in sentences:
        print(f"dfi: {sentence}", file=sys.stderr)


def warn_of_unusable(unreadable: Sequence[Exception], faceless: Sequence[Path]) -> None:
    """Which of many photos could not be used: with the reason, or for want of a face."""
    warn(str(error) for error in unreadable[:_NAMED])
    if more := unreadable[_NAMED:]:
        warn([f"{len(more)} more photos could not be read."])
    if faceless:
        named = ", ".join(map(str, faceless[:_NAMED])) + (", ..." if faceless[_NAMED:] else "")
        warn([f"Without a face that was found: {len(faceless)} ({named})."])


def heed_interrupts() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, once: a second one ends the process, but not in a hurry.

    What the first one has begun to tidy up would be left as it is by another one that comes at once, and Python's own
    end has places where it shows a traceback.
    """
    first: float | None = None

    def heed(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
            raise KeyboardInterrupt
        if now - first > _IMPATIENT_SECONDS:
            os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, heed)


def finish(code: int) -> int:
    """Print what is still held back; the process' exit code, which is 1 where the output was not taken."""
    sys.stdout.flush()
    error = getattr(sys.stdout.buffer, "raw", None)
    error = error.error if isinstance(error, _Sink) else None
    if error and not isinstance(
        error, BrokenPipeError
    ):  # that is a reader who has seen enough: `dfi attributes | head`
        print(
            f"dfi: what this command prints could not be written ({error.strerror}): let it go somewhere else. "
            "Files that it made are whole.",
            file=sys.stderr,
        )
    return code or int(error is not None)


def say(file: Path, notes: Sequence[str]) -> None:
    """What a user must know of a photo's edit that succeeded."""
    for note in notes:
        print(f"dfi: {file}: {note}", file=sys.stderr)


def iteration_bar(what: str = "editing") -> "tqdm[None]":
    """The progress of an edit, where there is a terminal."""
    from tqdm import tqdm

    return tqdm(desc=what, unit="it", disable=None, leave=False)


def advance(bar: "tqdm[None]", done: int, total: int | None) -> None:
    """Let a bar show that `done` of at most `total` are done; None: nobody knows of how many."""
    bar.total = total
    bar.update(done - bar.n)
