"""A folder of photos edited: several at once, resumed where it was stopped, with a report.

What is done is what lies in the output folder: files are put there whole, so a run that was killed goes on with the
others. The report is a file of JSON lines there, one for each photo looked at, appended to as they end: its `Outcome`
and the settings. From it a later run knows where no face was found, and what was made with other settings.

Who edits is the caller's choice: `by_server` here, or a Ray cluster (ray_engine.py).
"""

import contextlib
import errno
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Literal, TypeAlias

import filelock

from dfi_server.commands import album, remote
from dfi_server.errors import NO_ROOM, DFIError, ErrorCode, unwritable
from dfi_server.photo import colour, disk, whole
from dfi_server.photo.pixels import Patch, Pixels, edited
from dfi_server.wire.client import Client
from dfi_server.wire.messages import Choices

REPORT = "dfi-batch.jsonl"
_LOCK = ".dfi-batch.lock"
IN_FLIGHT = 2  # one is solved, one is read or written; a third made it slower: docs/batch.md
_BUSY_SECONDS = 1.0  # between two tries to get a place in a server's queue
_LOST = {ErrorCode.UNREACHABLE, ErrorCode.TIMEOUT}
_EVERY_PHOTO = {ErrorCode.UNKNOWN_ATTRIBUTE, ErrorCode.NO_STORE, ErrorCode.BAD_STORE, ErrorCode.VERSION}
_NOWHERE = {*NO_ROOM, errno.EROFS}


@dataclass(frozen=True)
class Outcome:
    """What became of one photo: `file` is its path below the input folder, `why` a sentence unless it was edited.

    `seconds` are those of the solver, `notes` sentences on what of an edited photo's file is not in the result.
    """

    file: str
    status: Literal["edited", "skipped", "failed"]
    why: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What to do with each photo of `source`, a folder tree, and where to put it, under the same name."""

    source: Path
    target: Path
    alphas: Mapping[str, float]
    choices: Choices = field(default_factory=Choices)
    store: str | None = None

    @property
    def settings(self) -> dict[str, object]:
        """What decides how a photo comes out, as the report has it."""
        return {
            "set": dict(self.alphas),
            "face": self.choices.get("face", "largest"),
            "iterations": self.choices.get("iterations"),
            "box": list(box) if (box := self.choices.get("box")) else None,
            "keep": sorted(self.choices.get("keep", ())) or None,
            "neighbours": self.choices.get("neighbours"),
            "store": self.store,
        }


@dataclass(frozen=True)
class Plan:
    """The photos of a job, as paths below its source, in order.

    `todo`: not there yet. `done`: there, or without a face by the report. `differing`: those of `done` that were made
    with other settings. `left`: sentences on what else there is and is left alone.
    """

    todo: list[Path]
    done: list[Path]
    differing: list[Path]
    left: tuple[str, ...]


Edit: TypeAlias = Callable[[Pixels, Job, Callable[[], bool]], tuple[Patch, float]]
"""Edits one sRGB photo as the job says, unless the last argument tells it to stop; the seconds are the solver's.

Called from several threads. Raises DFIError as `Editor.edit` does, Hopeless for what every photo would meet.
"""


class Hopeless(DFIError):
    """An error that all other photos would meet as well: it ends the run."""


def plan(job: Job) -> Plan:
    """What is to be done. Raises DFIError(BAD_DATA) where the source is no folder, holds no photo, or is the target."""
    if not job.source.is_dir():
        raise DFIError(ErrorCode.BAD_DATA, f"There is no folder {job.source}: name one that holds photos.")
    source, target = job.source.resolve(), job.target.resolve()
    if source == target:
        raise DFIError(ErrorCode.BAD_DATA, f"{job.source} holds the photos: name another folder for what is made.")
    there = album.look(source, apart=target)
    left = tuple(there.said())
    if not there.photos:
        raise DFIError(
            ErrorCode.BAD_DATA, " ".join((f"No photos that can be edited were found in {job.source}.", *left))
        )
    told = _read_report(job.target / REPORT)
    result = Plan([], [], [], left)
    for file in there.photos:
        line = told.get(str(file), {})
        same = all(line.get(name) == value for name, value in job.settings.items())
        if (job.target / file).exists():
            result.done.append(file)
            if line.get("status") == "edited" and not same:
                result.differing.append(file)
        elif line.get("status") == "skipped" and same:
            result.done.append(file)
        else:
            result.todo.append(file)
    return result


def run(
    job: Job,
    files: Sequence[Path],
    edit: Edit,
    *,
    in_flight: int = IN_FLIGHT,
    progress: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Edit `files`, a plan's `todo`; the outcomes, in the order in which they ended, each also told to `progress`.

    Raises DFIError: BUSY where another run is at work in the target, NO_SPACE where that cannot be written, or what
    every photo would meet. What had been done by then is in the target and in the report.
    """
    stopping = threading.Event()
    outcomes: list[Outcome] = []
    waiting = iter(files)
    try:
        job.target.mkdir(parents=True, exist_ok=True)
        with _appending(job.target / REPORT) as report, ThreadPoolExecutor(in_flight) as pool:
            _remove_leftovers(job.target, files)

            def record(outcome: Outcome) -> None:
                report.write(json.dumps(asdict(outcome) | job.settings) + "\n")
                report.flush()
                outcomes.append(outcome)
                progress(outcome)

            running: set[Future[Outcome | DFIError]] = set()
            ended: DFIError | None = None
            try:
                while not ended:
                    more = islice(waiting, in_flight - len(running))
                    running |= {pool.submit(_work, job, file, edit, stopping.is_set) for file in more}
                    if not running:
                        break
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for result in (future.result() for future in done):
                        if isinstance(result, Outcome):
                            record(result)
                        else:
                            ended = result
            finally:  # after an interrupt or an error: what is under way ends now, and what was finished is told
                stopping.set()
                for future in running:
                    if isinstance(result := future.result(), Outcome):
                        record(result)
            if ended:
                raise ended
    except OSError as error:
        raise unwritable(job.target, error) from error
    return outcomes


def by_server(endpoint: str, restart: Callable[[], object] = lambda: None, keys: Path | None = None) -> Edit:
    """Edits through a server; `keys`: as for Client.

    Where it was lost, `restart` is called, and the photo tried once more: an error from `restart` ends the run. Where
    it is busy with others, a photo waits.
    """
    restarting = threading.Lock()

    def bring_back() -> None:
        try:
            with restarting:
                restart()
        except DFIError as error:
            raise Hopeless(error.code, error.message) from error

    def edit(pixels: Pixels, job: Job, cancelled: Callable[[], bool]) -> tuple[Patch, float]:
        lost = False
        while True:
            try:
                with Client(endpoint, keys=keys) as client:
                    patch, result = remote.edit(
                        client, pixels, job.alphas, store=job.store, cancelled=cancelled, **job.choices
                    )
                return patch, result.seconds
            except DFIError as error:
                busy = error.code == ErrorCode.BUSY
                if cancelled() or not (busy or (error.code in _LOST and not lost)):
                    raise
            if busy:
                time.sleep(_BUSY_SECONDS)
            else:
                lost = True
                bring_back()

    return edit


def _work(job: Job, file: Path, edit: Edit, cancelled: Callable[[], bool]) -> Outcome | DFIError:
    """One photo, from file to file; an error where the run must end."""
    try:
        target = job.target / file
        target.parent.mkdir(parents=True, exist_ok=True)
        disk.check_writable(target)
        source = disk.read(job.source / file)
        disk.check_size(target, source.pixels)
        srgb = colour.to_srgb(source)
        patch, seconds = edit(srgb, job, cancelled)
        notes = disk.write(target, edited(source, colour.from_srgb(source, srgb, patch)))
        return Outcome(str(file), "edited", seconds=round(seconds, 3), notes=notes)
    except DFIError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NOWHERE:
            return unwritable(job.target / file, error.__cause__)
        if isinstance(error, Hopeless) or error.code in _EVERY_PHOTO or cancelled():
            return error
        return Outcome(str(file), "skipped" if error.code == ErrorCode.NO_FACE else "failed", error.message)
    except Exception as error:  # one strange file must not be the end of a thousand others
        if isinstance(error, OSError) and error.errno in _NOWHERE:
            return unwritable(job.target / file, error)
        return Outcome(str(file), "failed", f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[IO[str]]:
    """A report to append to, by this run alone. Raises DFIError(BUSY)."""
    lock = filelock.FileLock(path.with_name(_LOCK), blocking=False)
    try:
        lock.acquire()  # let go when the process ends, however it does
    except filelock.Timeout:
        raise DFIError(
            ErrorCode.BUSY, f"Another 'dfi batch' is at work in {path.parent}: wait until it has ended."
        ) from None
    try:
        with path.open("a+", encoding="utf-8", errors="replace") as report:
            report.seek(0)
            if report.read()[-1:] not in ("", "\n"):
                report.write("\n")  # after a line that a killed run left unfinished
            yield report
    finally:
        with contextlib.suppress(OSError):  # Windows removes nothing that is open
            path.with_name(_LOCK).unlink()
        lock.release()


def _read_report(path: Path) -> dict[str, dict[str, object]]:
    """File -> its latest line; what is no line of a report is passed over."""
    lines: dict[str, dict[str, object]] = {}
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as report:
        for text in report:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                line = json.loads(text)
                lines[line["file"]] = line
    return lines


def _remove_leftovers(folder: Path, files: Sequence[Path]) -> None:
    """Remove what a killed run had begun to write of `files`."""
    parts = {folder / file.parent / whole.part_prefix(file.name) for file in files}
    for path in folder.rglob(f".*{whole.PART}"):
        name = re.fullmatch(rf"(\..+\.)[^.]+{re.escape(whole.PART)}", path.name)
        if name and path.with_name(name[1]) in parts:
            path.unlink(missing_ok=True)
