"""The real server in a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gimp.gimp import REPOSITORY, free_endpoint

from dfi_server.client import Client


@contextlib.contextmanager
def serving(home: Path, endpoint: str | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real server process, ready to edit: its endpoint and the process."""
    endpoint = endpoint or free_endpoint()
    process = subprocess.Popen(
        [sys.executable, "-m", "dfi_server.cli", "serve", "--endpoint", endpoint],
        cwd=REPOSITORY,
        env={**os.environ, "DFI_HOME": str(home)},
    )
    try:
        with Client(endpoint, timeout=60) as client:
            client.attributes(patience=120)
        yield endpoint, process
    finally:
        process.kill()
        process.wait()


def editing(endpoint: str) -> bool:
    """Whether the server works on an edit now."""
    with Client(endpoint) as client:
        return client.status().state == "busy"
