"""Whether several edits at once on the device would be faster: a forward and backward pass of 1, 2, 4, 8 frames.

    python benchmarks/speed/device_batch.py [--store starter] [--device auto] [--rounds 5]

What an edit consists of are such passes. The medians are for one frame, so that a smaller figure means a gain; on the
CPU they are of the process's CPU time, all threads together, which other programs do not disturb much.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as dfi_server.commands.cli does

import torch

from dfi_server.edit import Editor
from dfi_server.face import layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="starter")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    editor = Editor(options.store, options.device)
    sizes = (1, 2, 4, 8)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for round_number in range(options.rounds + 1):
        for size in sizes:  # in turn: what else the machine does falls on all of them
            taken = one_pass(editor, size)
            if round_number:  # the first warms up
                seconds[size].append(taken / size)
    print(f"{editor.device_name}, {torch.get_num_threads()} threads, store {editor.store_name}")
    print("| frames in a pass | seconds for one frame | against 1 |\n|---|---|---|")
    alone = statistics.median(seconds[1])
    for size in sizes:
        median = statistics.median(seconds[size])
        print(f"| {size} | {median:.3f} | {median / alone:.2f} |")


def one_pass(editor: Editor, frames: int) -> float:
    image = torch.rand(frames, 3, layout.FRAME_SIZE, layout.FRAME_SIZE, device=editor.device, requires_grad=True)
    clock = time.process_time if editor.device.type == "cpu" else time.perf_counter
    start = clock()
    sum(layer.float().square().mean() for layer in editor.network(image)).backward()  # type: ignore[union-attr]
    if editor.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    main()
