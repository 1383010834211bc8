"""Clients, workers and the server killed at random moments, and a disk that is full.

    python benchmarks/reliability/faults.py [--rounds 200] [--seed 0]

In each round three clients edit: two here, one in a process of its own that writes a file. At a random moment the
client that writes, the worker or the server gets SIGKILL, or the server SIGTERM. Whatever happens, a result is right
to the last bit or there is none, a file is whole or not there, every client ends with a result or a sentence, and the
next edit works. Said at the end: how long that took, from the signal. Then `dfi batch` writes to a disk without room,
and again with it. The exit code is 0 only if all of that held.
"""

import argparse
import collections
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image
from server_process import ServerProcess, is_alive, percentile, photos, request, serving, wait_for

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo
from dfi_server.wire.client import Client

ITERATIONS = 4
STUCK_SECONDS = 60.0
EXPECTED_ERRORS = {
    "client": set(),
    "worker": {ErrorCode.INTERNAL},
    "server": {ErrorCode.UNREACHABLE},
    "sigterm": {ErrorCode.UNREACHABLE},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--client", nargs=2, metavar=("ENDPOINT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        return write_edit(*options.client)
    rng = random.Random(options.seed)
    recovery: dict[str, list[float]] = collections.defaultdict(list)
    ends: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        right = [edit(server.endpoint, n) for n in range(3)]
        start = time.monotonic()
        edit(server.endpoint, 0)
        usual = time.monotonic() - start
        for round_number in range(options.rounds):
            victim = list(EXPECTED_ERRORS)[round_number % len(EXPECTED_ERRORS)]
            seconds = play(server, victim, rng.uniform(0, 4 * usual), right, Path(folder) / f"{round_number}.png", ends)
            recovery[victim].append(seconds)
            print(f"{round_number}: {victim}, {seconds:.2f} s", file=sys.stderr)
        full_disk(server.endpoint, Path(folder))
    report = {
        "rounds": options.rounds,
        "an edit, s": round(usual, 2),
        "how clients ended": dict(ends),
        "until the next edit was done, s: median and longest": {
            victim: [round(percentile(all_seconds, 50), 2), round(max(all_seconds), 2)]
            for victim, all_seconds in recovery.items()
        },
        "full disk": "each photo reported failed, no file; with room again all were edited",
    }
    print(json.dumps(report, indent=1))


def edit(endpoint: str, number: int) -> tuple[bytes, bytes]:
    with Client(endpoint) as client:
        result = client.edit(request(ITERATIONS), photos(number + 1)[number].data)
    return bytes(result.pixels), bytes(result.mask)


def write_edit(endpoint: str, path: str) -> None:
    """What the client in a process of its own does."""
    with Client(endpoint) as client:
        result = client.edit(request(ITERATIONS), photos(3)[2].data)
    pixels = np.frombuffer(result.pixels, np.uint8).reshape(result.height, result.width, 3)
    disk.write(Path(path), Photo(pixels))


def play(
    server: ServerProcess,
    victim: str,
    delay: float,
    right: list[tuple[bytes, bytes]],
    file: Path,
    ends: collections.Counter[str],
) -> float:
    """One round; seconds from the signal to the next edit's result."""
    command = [sys.executable, __file__, "--client", server.endpoint, str(file)]
    outcomes: list[tuple[bytes, bytes] | DFIError | None] = [None, None]

    def run(number: int) -> None:
        try:
            outcomes[number] = edit(server.endpoint, number)
        except DFIError as error:
            outcomes[number] = error

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as writer:
        threads = [threading.Thread(target=run, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(delay)
        worker = server.worker
        start = time.monotonic()
        if victim == "client":
            writer.kill()
        elif victim == "worker" and worker:
            os.kill(worker, signal.SIGKILL)
        elif victim in ("server", "sigterm"):
            server.process.send_signal(signal.SIGKILL if victim == "server" else signal.SIGTERM)
            code = server.process.wait(STUCK_SECONDS)
            assert code == (-signal.SIGKILL if victim == "server" else 0), f"the server ended with {code}"
            if worker:
                wait_for(lambda: not is_alive(worker), 2, "the worker to end with its server")
            server.start()
        for thread in threads:
            thread.join(STUCK_SECONDS)
            assert not thread.is_alive(), "a client is stuck"
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, DFIError):
                assert outcome.code in EXPECTED_ERRORS[victim], f"{victim}: {outcome.code}: {outcome}"
                ends[f"{victim} killed: {outcome.code}"] += 1
            else:
                assert outcome == right[number], "a wrong image"
                ends[f"{victim} killed: the right image"] += 1
        wait_for(lambda: recovered(server.endpoint, victim, right[0]), STUCK_SECONDS, "the next edit")
        seconds = time.monotonic() - start
        complaint = writer.communicate(timeout=STUCK_SECONDS)[1]
    assert writer.returncode == 0 or victim == "client" or "DFIError" in complaint, complaint
    if file.exists():
        assert disk.read(file).pixels.tobytes() == right[2][0], "a wrong or half-written file"
    else:
        assert writer.returncode != 0, "the client lost its file"
    return seconds


def recovered(endpoint: str, victim: str, right: tuple[bytes, bytes]) -> bool:
    try:
        assert edit(endpoint, 0) == right, "a wrong image"
    except DFIError as error:
        assert error.code in EXPECTED_ERRORS[victim], f"{victim}: {error.code}: {error}"
        return False
    return True


def full_disk(endpoint: str, folder: Path) -> None:
    """`dfi batch` where a file cannot grow beyond 2 kB: its writes fail in their middle, as on a full disk."""
    source, target = folder / "in", folder / "out"
    source.mkdir()
    with Client(endpoint) as client:
        sample = Image.open(paths.SAMPLE).resize((256, 256))
        assert client.hello()
    for n in range(2):
        sample.save(source / f"{n}.png")
    command = [sys.executable, "-m", "dfi_server", "batch", str(source), str(target), "--server", endpoint]
    command += ["--set", "smiling=0.4", "--iterations", "1"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not list(target.rglob("*.png")), "a half-written file"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for n in range(2):
        assert disk.read(target / f"{n}.png").pixels.shape == (256, 256, 3)


if __name__ == "__main__":
    main()
