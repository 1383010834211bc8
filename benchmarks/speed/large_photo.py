"""What a 24-megapixel portrait costs beside the solve: seconds of each stage, and memory above the loaded model.

Seconds by the clock, and in brackets those of the CPU, all threads together.

    python benchmarks/speed/large_photo.py PORTRAIT [--megapixels 24] [--store NAME]

PORTRAIT is enlarged to that size and given grain. Each row is a process of its own, so that peaks do not mix; a small
edit comes first, so that the model and the libraries are there.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from dfi_server.edit import Editor
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import cut, soften
from dfi_server.face.paste import paste
from dfi_server.photo import colour, disk
from dfi_server.photo.pixels import Photo, edited, from_unit, to_unit
from dfi_server.solver import reconstruct

KINDS = {"8-bit JPEG": (".jpg", "uint8"), "8-bit PNG": (".png", "uint8"), "16-bit PNG": (".png", "uint16")}
KINDS |= {"16-bit TIFF": (".tif", "uint16"), "float TIFF": (".tif", "float32")}
STAGES = ("read", "colour", "find face", "cut", "paste", "composite", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portrait", type=Path)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--store")
    options = parser.parse_args()
    print("| file | " + " | ".join(STAGES) + " | in all | memory, GB |")
    print("|---" * (len(STAGES) + 3) + "|")
    fresh = multiprocessing.get_context("spawn")
    for name, (suffix, dtype) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"large{suffix}"
            _enlarge(options.portrait, path, options.megapixels, dtype)
            with ProcessPoolExecutor(1, mp_context=fresh) as pool:
                seconds, memory = pool.submit(_measure, path, options.portrait, options.store).result()
        seconds["in all"] = tuple(map(sum, zip(*seconds.values(), strict=True)))
        stages = " | ".join(f"{wall:.2f} ({cpu:.2f})" for wall, cpu in (seconds[s] for s in (*STAGES, "in all")))
        print(f"| {name} | {stages} | {memory:.2f} |", flush=True)


def _enlarge(portrait: Path, target: Path, megapixels: float, dtype: str) -> None:
    small = to_unit(disk.read(portrait).pixels)
    scale = (megapixels * 1e6 / (small.shape[0] * small.shape[1])) ** 0.5
    large = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    large += 0.01 * np.random.default_rng(0).standard_normal(large.shape, dtype=np.float32)
    disk.write(target, Photo(from_unit(np.clip(large, 0, 1), np.dtype(dtype))))


def _measure(path: Path, small: Path, store: str | None) -> tuple[dict[str, tuple[float, ...]], float]:
    editor = Editor(store)
    alphas = {"smiling": 0.4}
    editor.edit(disk.read(small).pixels, alphas, iterations=2)
    before = _resident()
    seconds: dict[str, tuple[float, ...]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start, start_cpu = time.perf_counter(), time.process_time()
        yield
        seconds[name] = (time.perf_counter() - start, time.process_time() - start_cpu)

    with stage("read"):
        source = disk.read(path)
    with stage("colour"):
        srgb = colour.to_srgb(source)
    canonical = editor.store.canonical_landmarks
    with stage("find face"):
        (face,) = find_largest(srgb, canonical)
    frame = align(face.landmarks, canonical)
    with stage("cut"):
        image = soften(cut(srgb, frame))
    state = reconstruct.reconstruct(editor.network, image, lambda phi: editor.store.shift(alphas, phi), iterations=3)
    with stage("paste"):
        patch = paste(srgb, frame, image, state.change)
    with stage("composite"):
        result = edited(source, colour.from_srgb(source, srgb, patch))
    with stage("write"):
        disk.write(path.with_stem("result"), result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, (peak - before) / 1e9


def _resident() -> float:
    """Bytes of memory in use now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
