"""What tests of every wing ask for: the command line as a user runs it, a refusal's sentence, a full disk."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfi_server.errors import DFIError, ErrorCode

Run = Callable[..., str]
"""Run a command line in this process; the sentence or text that it printed."""


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Within it no file can grow beyond `room` bytes: a write fails in its middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refusal(action: Callable[[], object], code: ErrorCode) -> str:
    """The sentence with which `action` is refused, under that code."""
    with pytest.raises(DFIError) as caught:
        action()
    assert caught.value.code is code
    return caught.value.message


def run_dfi(*arguments: str | Path, home: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "dfi_server", *map(str, arguments)],
        env={**os.environ, "DFI_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
