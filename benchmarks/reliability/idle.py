"""What a server holds while nobody edits, before and after its rest, and how long it takes to wake.

    python benchmarks/reliability/idle.py

Prints one JSON object: medians of three rounds, memory resident. The rest comes after three seconds instead of ten
minutes.
"""

import json
import statistics
import time

from server_process import ServerProcess, memory, photos, request, serving, wait_for

from dfi_server.wire.client import Client

ROUNDS = 3
REST_MINUTES = 0.05


def main() -> None:
    (photo,) = photos(1)
    figures: dict[str, list[float]] = {}
    with serving("--rest-after", str(REST_MINUTES)) as server, Client(server.endpoint) as client:

        def note(name: str, value: float) -> None:
            figures.setdefault(name, []).append(value)

        def edit(name: str) -> None:
            began = time.monotonic()
            client.edit(request(), photo.data)
            note(name, time.monotonic() - began)

        edit("first edit, s")
        for _ in range(ROUNDS):
            edit("edit, s")
            note("server awake, MB", memory(server.process.pid))
            note("worker awake, MB", memory(_worker(server)))
            wait_for(lambda: client.status().resting, 60, "its rest")
            wait_for(lambda: _settled(server), 60, "its libraries")
            note("server at rest, MB", memory(server.process.pid))
            note("worker at rest, MB", memory(_worker(server)))
            edit("edit that wakes it, s")
    print(json.dumps({name: round(statistics.median(values), 2) for name, values in figures.items()}, indent=1))


def _worker(server: ServerProcess) -> int:
    worker = server.worker
    assert worker
    return worker


def _settled(server: ServerProcess) -> bool:
    before = memory(_worker(server))
    time.sleep(3)
    return abs(memory(_worker(server)) - before) < 1


if __name__ == "__main__":
    main()
