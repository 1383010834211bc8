"""A server under mixed work for long: its memory, its open files and its threads must not grow.

    python benchmarks/reliability/soak.py [--minutes 60]

Four clients each do over and over, at random: an edit, a preview, a search for faces, an edit that is cancelled, one
whose client just goes, a bad request, a few questions. Sampled every few seconds: resident memory, open files and
threads of the server and of its worker. The exit code is 0 only if the last third's median is no more than 5 % or 10 MB
(2 files, 2 threads) above that of the second, every answer was as it must be, and the worker is still the first one.
"""

import argparse
import collections
import json
import random
import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
import zmq
from PIL import Image
from server_process import handles, memory, photos, request, serving, threads

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire.client import Client, EditRequest, PhotoRequest
from dfi_server.wire.messages import Edit
from dfi_server.wire.protocol import Message, MessageType, encode

CLIENTS = 4
SAMPLE_SECONDS = 2.0
MEASURES: dict[str, Callable[[int], float]] = {"memory, MB": memory, "open files": handles, "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    done: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    samples: list[list[float]] = []
    with serving() as server:
        stopping = threading.Event()
        work = lambda seed: client_work(server.endpoint, random.Random(seed), stopping, done, failures)  # noqa: E731
        clients = [threading.Thread(target=work, args=(seed,)) for seed in range(CLIENTS)]
        worker = server.worker
        assert worker
        for thread in clients:
            thread.start()
        start, still = time.monotonic(), 0.0  # how long this process was kept from running, at worst
        end = start + 60 * options.minutes
        while time.monotonic() < end and not failures:
            before = time.monotonic()
            time.sleep(SAMPLE_SECONDS)
            still = max(still, time.monotonic() - before - SAMPLE_SECONDS)
            samples.append([measure(pid) for measure in MEASURES.values() for pid in (server.process.pid, worker)])
        stopping.set()
        for thread in clients:
            thread.join()
        same_worker = server.worker == worker
        minutes = (time.monotonic() - start) / 60
        log = server.log.read_text().splitlines()[-20:] if failures else []
    third = len(samples) // 3
    report: dict[str, object] = {"minutes": round(minutes, 1), "done": dict(done), "failures": failures}
    report |= {"the clients' process stood still for, s, at worst": round(still, 2), "log": log}
    flat = True
    for n, name in enumerate(f"{whose} {what}" for what in MEASURES for whose in ("server's", "worker's")):
        thirds = [statistics.median(sample[n] for sample in samples[i * third : (i + 1) * third]) for i in range(3)]
        report[f"{name}: medians of the three thirds"] = [round(value, 1) for value in thirds]
        flat &= thirds[2] <= thirds[1] + max(10 if name.endswith("MB") else 2, 0.05 * thirds[1])
    print(json.dumps(report, indent=1))
    raise SystemExit(bool(failures) or not flat or not same_worker)


def client_work(
    endpoint: str,
    rng: random.Random,
    stopping: threading.Event,
    done: "collections.Counter[str]",
    failures: list[str],
) -> None:
    picture = photos(1)[0]
    with Image.open(paths.SAMPLE) as sample:
        portraits = [np.asarray(sample.convert("RGB").resize((side, side))) for side in (200, 400, 800)]
    right: dict[str, bytes] = {}

    def once(kind: str) -> None:
        portrait = rng.choice(portraits)
        side = portrait.shape[0]
        with Client(endpoint, timeout=30) as client:
            if kind in ("edit", "preview"):
                preview = kind == "preview"
                wanted = EditRequest(side, side, 3, "uint8", {"senior": 0.3}, 2, preview=preview)
                result = client.edit(wanted, portrait.data)
                assert bytes(result.pixels) == right.setdefault(f"{kind} {side}", bytes(result.pixels)), "a wrong image"
            elif kind == "faces":
                assert len(client.faces(PhotoRequest(side, side, 3, "uint8"), portrait.data)) == 1
            elif kind == "cancel":
                calls = iter(range(rng.randrange(1, 30)))
                with_code(
                    ErrorCode.CANCELLED,
                    lambda: client.edit(request(500), picture.data, cancelled=lambda: next(calls, None) is None),
                )
            elif kind == "bad":
                wanted = EditRequest(side, side, 3, "uint8", {"no such thing": 0.3})
                with_code(ErrorCode.UNKNOWN_ATTRIBUTE, lambda: client.edit(wanted, portrait.data))
            elif kind == "ask":
                for _ in range(20):
                    assert client.hello().store and client.attributes()
        if kind == "leave":
            leave(endpoint)

    while not stopping.is_set():
        kind = rng.choice(("edit", "preview", "faces", "cancel", "leave", "bad", "ask"))
        try:
            once(kind)
            done[kind] += 1
        except Exception as error:
            failures.append(f"{kind}: {type(error).__name__}: {error}")
            return


def with_code(code: ErrorCode, call: Callable[[], object]) -> None:
    try:
        call()
    except DFIError as error:
        assert error.code == code, f"{error.code}: {error}"
    else:
        raise AssertionError(f"no error {code}")


def leave(endpoint: str) -> None:
    """Send an edit and vanish."""
    socket: zmq.Socket[bytes]
    with zmq.Context.instance().socket(zmq.DEALER) as socket:
        socket.linger = 100
        socket.connect(endpoint)
        edit = Edit(**vars(request(500)), pixels=photos(1)[0].data)
        socket.send_multipart(encode(Message(MessageType.EDIT, "left", edit)))


if __name__ == "__main__":
    main()
