"""A worker for tests where timing matters: its editor runs each edit until told to go on. See Slow in
servers.py, which steers it through the files of a folder.

    python slow_worker.py FOLDER ENDPOINT
"""

import os
import signal
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.service import worker


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


FAILURES = {
    "odd": lambda: ValueError("odd tensor"),
    "memory": MemoryError,
    "cuda": lambda: OutOfMemoryError("CUDA out of memory."),
    "exit": lambda: SystemExit(3),
    "no face": lambda: DFIError(ErrorCode.NO_FACE, "No face."),
    "no store": lambda: DFIError(ErrorCode.NO_STORE, "There is no store."),
    "fire": lambda: OSError("the disk is on fire"),
}


class SlowEditor:
    """Runs each edit until `go` is there, it is cancelled or made to fail; the photo comes back as it is."""

    store_name, device_name, attributes = "slow", "none", ("smiling",)
    device = types.SimpleNamespace(type="cpu")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "pids").open("a") as pids:
            pids.write(f"{os.getpid()}\n")
        while (folder / "hold").exists():
            time.sleep(0.01)
        self.fail("load fails")

    def is_outdated(self) -> bool:
        return False

    def fail(self, when: str) -> None:
        path = self.folder / when
        if path.exists():
            how = path.read_text()
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "stuck":
                time.sleep(60)
            raise FAILURES[how]()

    def edit(
        self, photo: np.ndarray, alphas: Mapping[str, float], *, progress: Any, cancelled: Any, **_: Any
    ) -> types.SimpleNamespace:
        with (self.folder / "started").open("a") as started:
            started.write(f"{photo.flat[0]}\n")
        self.fail("fails")
        iteration = 0
        while not (self.folder / "go").exists():
            time.sleep(0.005)
            iteration += 1
            progress(types.SimpleNamespace(iteration=iteration, iterations=1_000_000, loss=1.0))
            if cancelled():
                (self.folder / "cancelled").touch()
                raise DFIError(ErrorCode.CANCELLED, "The edit was cancelled.")
        patch = types.SimpleNamespace(x=0, y=0, pixels=photo.copy(), mask=np.full(photo.shape[:2], 255, np.uint8))
        return types.SimpleNamespace(patch=patch, iterations=1, loss=1.0, seconds=0.1)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    worker.run(sys.argv[2], lambda: SlowEditor(folder))
