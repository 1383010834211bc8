"""A folder of photos through the server: several at once, resumed where it was stopped, with a report.

What is done is what lies in the output folder: files are put there whole, so a run that was killed goes on with the
others. The report is a file of JSON lines, one for each photo looked at, appended to as they end.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from PIL import Image

from dfi_server import colour, photo, photo_file, remote
from dfi_server.client import Client
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.messages import FaceChoice

REPORT = "dfi-batch.jsonl"
IN_FLIGHT = 3  # one is solved, one is read or written, one waits
_LOST = (ErrorCode.UNREACHABLE, ErrorCode.TIMEOUT)


@dataclass(frozen=True)
class Outcome:
    """What became of one photo: `file` is its path below the input folder, `why` a sentence unless it was edited."""

    file: str
    status: Literal["edited", "skipped", "failed"]
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """What to do with each photo of `source`, a folder tree, and where to put it, under the same name."""

    source: Path
    target: Path
    alphas: Mapping[str, float]
    face: FaceChoice = "largest"
    iterations: int | None = None


def photos(job: Job) -> list[Path]:
    """The files of the source folder that have a photo's name, as paths below it, in order."""
    known = Image.registered_extensions()
    return sorted(
        path.relative_to(job.source)
        for path in job.source.rglob("*")
        if path.suffix.lower() in known and path.is_file() and not path.is_relative_to(job.target)
    )


def run(
    job: Job,
    endpoint: str,
    *,
    in_flight: int = IN_FLIGHT,
    restart: Callable[[], object] = lambda: None,
    progress: Callable[[Outcome | None, int], None] = lambda outcome, total: None,
) -> list[Outcome]:
    """Edit what is not there yet; the outcomes, in the order in which they ended.

    `restart` is called when the server was lost, once for a photo, which is then tried again. `progress` gets each
    outcome (None for a photo that was there already) and the number of photos. Raises DFIError(BAD_DATA) where the
    source is no folder or holds no photo, DFIError(NO_SPACE) where the target cannot be written.
    """
    if not job.source.is_dir():
        raise DFIError(ErrorCode.BAD_DATA, f"There is no folder {job.source}: name one that holds photos.")
    found = photos(job)
    if not found:
        raise DFIError(ErrorCode.BAD_DATA, f"No photos were found in {job.source}.")
    stopping = threading.Event()
    restarting = threading.Lock()

    def work(file: Path) -> Outcome:
        try:
            try:
                return _edit(job, file, endpoint, stopping.is_set)
            except DFIError as error:
                if error.code not in _LOST:
                    raise
            with restarting:
                restart()
            return _edit(job, file, endpoint, stopping.is_set)
        except DFIError as error:
            return Outcome(str(file), "skipped" if error.code == ErrorCode.NO_FACE else "failed", error.message)
        except Exception as error:  # one strange file must not be the end of a thousand others
            return Outcome(str(file), "failed", f"{type(error).__name__}: {error}")

    outcomes: list[Outcome] = []
    waiting = iter(found)
    try:
        job.target.mkdir(parents=True, exist_ok=True)
        with (job.target / REPORT).open("a") as report, ThreadPoolExecutor(in_flight) as pool:
            try:
                for outcome in _in_turn(
                    pool, work, _undone(job, waiting, lambda: progress(None, len(found))), in_flight
                ):
                    report.write(json.dumps(asdict(outcome)) + "\n")
                    report.flush()
                    outcomes.append(outcome)
                    progress(outcome, len(found))
            finally:
                stopping.set()  # after an interrupt: what is under way ends now
    except OSError as error:
        raise DFIError(ErrorCode.NO_SPACE, f"{job.target} cannot be written ({error}).") from error
    return outcomes


def _undone(job: Job, files: Iterator[Path], tell: Callable[[], None]) -> Iterator[Path]:
    for file in files:
        if (job.target / file).exists():
            tell()
        else:
            yield file


def _in_turn(
    pool: ThreadPoolExecutor, work: Callable[[Path], Outcome], files: Iterator[Path], in_flight: int
) -> Iterator[Outcome]:
    """Outcomes as they come, with so many files under way."""
    running: set[Future[Outcome]] = {pool.submit(work, file) for file in islice(files, in_flight)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(work, file) for file in islice(files, len(done))}
        for future in done:
            yield future.result()


def _edit(job: Job, file: Path, endpoint: str, cancelled: Callable[[], bool]) -> Outcome:
    target = job.target / file
    target.parent.mkdir(parents=True, exist_ok=True)
    photo_file.check_writable(target)
    source = photo_file.read(job.source / file)
    srgb = colour.to_srgb(source)
    with Client(endpoint) as client:
        patch, result = remote.edit(
            client, srgb, job.alphas, face=job.face, iterations=job.iterations, cancelled=cancelled
        )
    photo_file.write(target, photo.edited(source, colour.from_srgb(source, srgb, patch)))
    return Outcome(str(file), "edited", seconds=round(result.seconds, 3))
