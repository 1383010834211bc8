"""The half of fuzz.py that atheris makes: messages guided by what of the decoder they reach, sent to a server.

python benchmarks/reliability/fuzz_guided.py ENDPOINT MESSAGES
"""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["dfi_server"]):
    from dfi_server.wire.protocol import decode_request

from fuzz import BATCH, Attacker


def main(endpoint: str, count: str) -> None:
    attacker = Attacker(endpoint)
    batch: list[list[bytes]] = []

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        sizes = [provider.ConsumeIntInRange(0, 300) for _ in range(provider.ConsumeIntInRange(1, 3))]
        frames = [provider.ConsumeBytes(size) for size in sizes]
        with contextlib.suppress(Exception):
            decode_request(frames)
        batch.append(frames)
        if len(batch) == BATCH:
            attacker.attack(batch)
            batch.clear()

    atheris.Setup([sys.argv[0], f"-runs={count}", "-max_len=600"], one)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main(*sys.argv[1:])
