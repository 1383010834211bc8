"""The server's work: the table of accepted edits, fair over the clients and bounded."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire.messages import Work

MAX_CLIENT_EDITS = 8  # accepted and unfinished, per connection
MAX_EDITS = 64
MAX_CLIENT_BYTES = 2 * 1024**3  # of pixels and masks in accepted edits; one edit of a client is always within it
MAX_BYTES = 4 * 1024**3


@dataclass(eq=False)
class Job:
    """An accepted edit, filling or search for faces, of one client (its ROUTER identity)."""

    client: bytes
    id: str
    request: Work | None
    size: int = field(init=False)
    """Bytes of the photo, and of its mask."""

    def __post_init__(self) -> None:
        self.size = self.request.frame_bytes if self.request else 0

    def take_request(self) -> Work:
        """The request, which is then no longer kept here: the worker has the photo."""
        request, self.request = self.request, None
        assert request is not None
        return request


class JobTable:
    """The accepted edits: bounded, and taken in turn over the clients, so that a batch holds nobody up."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, dict[str, Job]] = {}
        self._waiting: OrderedDict[bytes, deque[Job]] = OrderedDict()

    def __iter__(self) -> Iterator[Job]:
        return iter([job for jobs in self._jobs.values() for job in jobs.values()])

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def clients(self) -> list[bytes]:
        return list(self._jobs)

    def get(self, client: bytes, id: str | None) -> Job | None:
        return self._jobs.get(client, {}).get(id or "")

    def __contains__(self, job: Job) -> bool:
        return self.get(job.client, job.id) is job

    def add(self, job: Job) -> None:
        """Raises DFIError: bad_request for an id in use, busy when a limit is reached."""
        mine = self._jobs.get(job.client, {})
        if job.id in mine:
            raise DFIError(ErrorCode.BAD_REQUEST, f"The id {job.id!r} belongs to an unfinished edit already.")
        my_bytes = job.size + sum(other.size for other in mine.values())
        all_bytes = job.size + sum(other.size for other in self)
        if len(mine) >= MAX_CLIENT_EDITS or (mine and my_bytes > MAX_CLIENT_BYTES):
            raise DFIError(ErrorCode.BUSY, f"You have {len(mine)} unfinished edits; send the next when one is done.")
        if len(self) >= MAX_EDITS or (len(self) and all_bytes > MAX_BYTES):
            raise DFIError(ErrorCode.BUSY, f"The server has {len(self)} unfinished edits; try again in a moment.")
        self._jobs.setdefault(job.client, {})[job.id] = job
        self._waiting.setdefault(job.client, deque()).append(job)

    def next(self) -> Job | None:
        """The next job to run; its client goes to the end of the line."""
        if not self._waiting:
            return None
        client, jobs = self._waiting.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._waiting[client] = jobs
        return job

    def remove(self, job: Job) -> None:
        """Forget a job, waiting or running."""
        del self._jobs[job.client][job.id]
        if not self._jobs[job.client]:
            del self._jobs[job.client]
        waiting = self._waiting.get(job.client)
        if waiting and job in waiting:
            waiting.remove(job)
            if not waiting:
                del self._waiting[job.client]
