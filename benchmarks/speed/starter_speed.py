"""How much quicker an edit is with the starter than with VGG-19: the same frames and attributes, in turn, in one run.

    python benchmarks/speed/starter_speed.py [--store lfw] [--rounds 3]

Medians of a whole edit of a 200 x 200 frame, as `dfi edit --box` makes it (faces are not looked for).
"""

import argparse
import statistics
import time

from dfi_server import paths
from dfi_server.commands import bench
from dfi_server.edit import Editor
from dfi_server.face import layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default=paths.FULL_STORE)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    editors = {name: Editor(name) for name in (options.store, paths.STARTER.name)}
    photos = [bench.picture(frame) for frame in bench.sample_frames(editors[options.store], options.rounds)]
    box = (0, 0, layout.FRAME_SIZE, layout.FRAME_SIZE)
    seconds: dict[str, dict[str, list[float]]] = {name: {a: [] for a in bench.ATTRIBUTES} for name in editors}
    for editor in editors.values():
        editor.edit(photos[0], {"senior": 0.4}, box=box, iterations=2)  # threads and caches
    for photo in photos:
        for attribute in bench.ATTRIBUTES:
            for name, editor in editors.items():
                start = time.perf_counter()
                editor.edit(photo, {attribute: bench.ALPHA}, box=box)
                seconds[name][attribute].append(time.perf_counter() - start)
    print(f"| attribute | {options.store}, s | starter, s | ratio |\n|---|---|---|---|")
    for attribute in bench.ATTRIBUTES:
        full, small = (statistics.median(seconds[name][attribute]) for name in editors)
        print(f"| {attribute} | {full:.2f} | {small:.2f} | {full / small:.1f} |")
    full, small = (statistics.median(t for times in seconds[name].values() for t in times) for name in editors)
    print(f"| all | {full:.2f} | {small:.2f} | {full / small:.1f} |")


if __name__ == "__main__":
    main()
