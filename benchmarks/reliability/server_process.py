"""A real `dfi serve` at a free port of this machine, for the measurements of docs/reliability.md."""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dfi_server import paths
from dfi_server.errors import DFIError
from dfi_server.wire.client import Client, EditRequest

SIDE = 64
"""Pixels; of the photos that are all face."""


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


class ServerProcess:
    """The server, with the starter store and one thread for its worker."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self.endpoint = free_endpoint()
        self._home = tempfile.TemporaryDirectory(prefix="dfi-home-")
        self.log = Path(self._home.name) / "log"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "dfi_server", "serve", "--endpoint", self.endpoint, *self._options]
        environment = {**os.environ, "DFI_HOME": self._home.name, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--store", paths.STARTER.name, *self._options],
                env=environment,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self._home.cleanup()

    @property
    def worker(self) -> int | None:
        """The worker's process id."""
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
            children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
            return children[0] if children else None
        return None

    def wait_until_ready(self, seconds: float = 120.0) -> None:
        def ready() -> bool:
            with contextlib.suppress(DFIError), Client(self.endpoint, timeout=1.0) as client:
                return client.hello().state == "ready"
            return False

        wait_for(ready, seconds, "the server to be ready")


@contextlib.contextmanager
def serving(*options: str) -> Iterator[ServerProcess]:
    """With more options of `dfi serve`."""
    server = ServerProcess(*options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def wait_for(true: Callable[[], object], seconds: float, what: str) -> float:
    """Seconds until it was so. Raises AssertionError."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, f"waited for {seconds} s for {what}"
        time.sleep(0.01)
    return time.monotonic() - start


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def memory(pid: int) -> float:
    """Resident memory in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def handles(pid: int) -> int:
    """Open file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def photos(count: int) -> list[np.ndarray]:
    """Different photos, (SIDE, SIDE, 3) uint8, all face."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    pictures = []
    for _ in range(count):
        picture = np.full((SIDE, SIDE, 3), rng.uniform(40, 200, 3))
        picture[(x / 0.35) ** 2 + (y / 0.45) ** 2 < 1] = rng.uniform((160, 120, 90), (240, 200, 170))
        pictures.append((picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8))
    return pictures


def request(iterations: int = 1) -> EditRequest:
    """What to do with one of `photos`."""
    return EditRequest(SIDE, SIDE, 3, "uint8", {"smiling": 0.4}, iterations, box=(0, 0, SIDE, SIDE))


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
