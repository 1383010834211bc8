"""How many photos a batch edits in a minute: several in flight against one at a time, and on Ray, in one run.

    python benchmarks/speed/batch.py [--photos 8] [--rounds 3] [--megapixels 0.26 12] [--in-flight 1 2 3 6] [--ray]

The sample portrait in variants, as JPEG; smiling 0.4, the default store of DFI_HOME. The ways take turns, after one
round that does not count; each figure is the median of its rounds. "solver": the part of the time in which a solver
was at work. One photo at a time, it waits while a photo is read, sent, and searched for faces, and the result written.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from PIL import Image, ImageEnhance

from dfi_server import paths
from dfi_server.commands import batch
from dfi_server.wire.client import Client

ALPHAS = {"smiling": 0.4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.26, 12.0])
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 3, 6])
    parser.add_argument("--ray", action="store_true", help="on a Ray cluster as well: RAY_ADDRESS, or this machine")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        by_server = batch.by_server(stack.enter_context(_server(folder)))
        ways = {f"server, {count} in flight": (by_server, count, 1) for count in options.in_flight}
        if options.ray:
            from dfi_server.commands import ray_engine

            stack.enter_context(ray_engine.connected())
            slots = ray_engine.slots()
            ways[f"Ray, {slots} tasks at once"] = (ray_engine.editing(), 2 * slots, slots)
        units = torch.cuda.device_count() or os.cpu_count() or 1
        name = f"GPU ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "core"
        print(f"{units} x {name}, load {os.getloadavg()[0]:.1f}; {options.photos} photos, {options.rounds} rounds\n")
        print(f"| megapixels | way | photos a minute | a minute and {name} | solver | against the first |")
        print("|---" * 6 + "|")
        for megapixels in options.megapixels:
            source = folder / f"{megapixels:g}"
            _write_photos(source, options.photos, megapixels)
            rates: dict[str, list[float]] = {way: [] for way in ways}
            busy: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(options.rounds + 1):
                for way, (edit, in_flight, solvers) in ways.items():
                    job = batch.Job(source, folder / f"{megapixels:g} {way} {turn}", ALPHAS)
                    start = time.perf_counter()
                    outcomes = batch.run(job, batch.plan(job).todo, edit, in_flight=in_flight)
                    seconds = time.perf_counter() - start
                    if failed := [each for each in outcomes if each.status != "edited"]:
                        sys.exit(f"{failed[0]}")
                    if turn:
                        rates[way].append(60 * len(outcomes) / seconds)
                        busy[way].append(sum(each.seconds for each in outcomes) / seconds / solvers)
            first = statistics.median(rates[next(iter(ways))])
            for way in ways:
                rate, solver = statistics.median(rates[way]), statistics.median(busy[way])
                print(
                    f"| {megapixels:g} | {way} | {rate:.1f} | {rate / units:.1f} | {solver:.0%} | {rate / first:.2f} |"
                )


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A server of its own: the endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dfi_server", "serve", "--endpoint", endpoint], stdout=log, stderr=log
        )
    try:
        with Client(endpoint, timeout=60) as client:
            client.attributes()
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def _write_photos(folder: Path, count: int, megapixels: float) -> None:
    folder.mkdir()
    portrait = Image.open(paths.SAMPLE).convert("RGB")
    side = round((megapixels * 1e6) ** 0.5)
    for number in range(count):
        light = ImageEnhance.Brightness(portrait).enhance(0.8 + 0.4 * number / count)
        light.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:03}.jpg", quality=92)


if __name__ == "__main__":
    main()
