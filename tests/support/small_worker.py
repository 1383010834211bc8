"""A real worker that is short of memory.

python small_worker.py MEGABYTES ENDPOINT    its process may take so many more once its model is loaded
python small_worker.py gpu ENDPOINT          it says that it is on a GPU, where no edit fits
"""

import resource
import sys
from pathlib import Path
from typing import Any

import torch

from dfi_server.edit import Edit, Editor
from dfi_server.service import worker


def with_limit() -> Editor:
    editor = Editor()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(sys.argv[1]) * 1024**2
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return editor


class OnFullGpu(Editor):
    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cuda")

    def edit(self, *_: Any, **__: Any) -> Edit:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


if __name__ == "__main__":
    if sys.argv[1] == "gpu":
        worker.run(sys.argv[2], OnFullGpu, make_on_cpu=Editor)
    else:
        worker.run(sys.argv[2], with_limit)
