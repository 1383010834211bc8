"""What a server holds while nobody edits, before and after its rest, and how long it takes to wake.

    python benchmarks/reliability/idle.py

Prints one JSON object: medians of three rounds, memory resident. The rest comes after three seconds instead of ten
minutes.
"""

import json
import statistics
import time

from server_process import memory, photos, request, serving, wait_for

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
            worker = server.worker
            assert worker
            note("server awake, MB", memory(server.process.pid))
            note("worker awake, MB", memory(worker))
            wait_for(lambda: client.status().resting, 60, "its rest")
            wait_for(lambda: not server.worker, 10, "the end of its worker")
            note("server asleep, MB", memory(server.process.pid))
            edit("edit that wakes it, s")
    print(json.dumps({name: round(statistics.median(values), 2) for name, values in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
