"""dfi: the command line.

dfi setup         build the store of attribute vectors (downloads VGG-19 and LFW, or takes files)
dfi attributes    list what can be edited
dfi faces         find the faces in a photo
dfi edit          edit one photo
dfi batch         edit a folder of photos
dfi strip         one picture with an edit at several alphas
dfi serve         the server that GIMP and other clients talk to
dfi keygen        keys for a server that other machines may use
dfi bench         how fast edits are here, against a plain implementation
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# When other programs use the cores (GIMP does), OpenMP's spinning threads slow each other down several times over.
# It is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tqdm import tqdm

# What imports torch takes seconds to import: each command takes what it needs. `dfi serve` binds at once, and torch
# comes with the model, in the worker's process.
from dfi_server import paths
from dfi_server.commands.arguments import parser
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.vectors import lfw
from dfi_server.wire import protocol

if TYPE_CHECKING:
    from dfi_server.commands.batch import Edit, Job, Plan
    from dfi_server.photo.pixels import Patch, Pixels
    from dfi_server.vectors.build import Accumulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 after a failure that was explained, 2 for a wrong command line."""
    options = parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
    except DFIError as error:
        print(f"dfi: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dfi: interrupted; nothing was left half done.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone: `dfi attributes | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - open to the end of the process
        return 1
    return 0


def parse_alphas(settings: Sequence[str]) -> dict[str, float]:
    """["smiling=0.4", ...] as {name: alpha}. Raises DFIError(BAD_ALPHA | BAD_REQUEST)."""
    from dfi_server.vectors.store import check_alphas

    alphas: dict[str, float] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        name = lfw.attribute_name(name)
        if name in alphas:
            raise DFIError(ErrorCode.BAD_REQUEST, f"'{name}' is set twice.")
        alphas[name] = _alpha(name, text)
    check_alphas(alphas)
    return alphas


def _alpha(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DFIError(
            ErrorCode.BAD_ALPHA, f"Alpha for '{name}' is '{text}', not a number: write it as {name}=0.4."
        ) from None


def _setup(options: argparse.Namespace) -> None:
    if options.engine == "ray":
        from dfi_server.commands import ray_engine

        with ray_engine.connected():
            _build(options, ray_engine.accumulate)
    else:
        _build(options, None)


def _build(options: argparse.Namespace, engine: "Accumulate | None") -> None:
    from dfi_server.solver import vgg
    from dfi_server.vectors import build

    weights = vgg.read_weights(options.vgg19) if options.vgg19 else vgg.download_weights()
    table = options.attributes or lfw.download_attributes(paths.downloads())
    archive = options.lfw or lfw.download_photos(paths.downloads())
    with tqdm(desc="faces", unit="photo", disable=None, smoothing=0.05) as bar:

        def progress(done: int, expected: int) -> None:
            bar.total = expected
            bar.update(done - bar.n)

        store, report = build.build_lfw(
            paths.stores() / paths.FULL_STORE,
            weights,
            archive,
            table,
            method=options.method,
            device=options.device,
            limit=options.limit,
            engine=engine,
            progress=progress,
        )
    print(
        f"{store.path}: {len(store.info.attributes)} attribute vectors ({store.info.method}) "
        f"from {report.photos} photos. "
        f"Left out: {report.photos_without_row} photos without attributes, {report.rows_without_photo} rows without "
        f"a photo, {report.unreadable} unreadable."
    )


def _attributes(options: argparse.Namespace) -> None:
    from dfi_server.vectors.store import open_store

    names = open_store(options.store).info.attributes
    print(json.dumps(names) if options.json else "\n".join(names))


def _faces(options: argparse.Namespace) -> None:
    import numpy as np

    from dfi_server.commands import contact_sheet
    from dfi_server.face.find import find_faces
    from dfi_server.photo import disk, pages
    from dfi_server.photo.pixels import Photo
    from dfi_server.vectors.store import open_store

    if options.draw:
        disk.check_writable(options.draw)
    source = disk.read(options.input)
    _say(options.input, pages.looked_at(source.pages))
    found = find_faces(source.pixels, open_store(options.store).canonical_landmarks)
    if options.json:
        print(json.dumps([{"box": face.box, "landmarks": face.landmarks.tolist()} for face in found]))
    elif not found:
        print(f"{options.input}: no face was found")
    else:
        for number, face in enumerate(found, start=1):
            print(f"{number}: --box {','.join(map(str, face.box))}")
    if options.draw:
        disk.write(options.draw, Photo(np.asarray(contact_sheet.draw_faces(source.pixels, found))))


def _edit(options: argparse.Namespace) -> None:
    from dfi_server.photo import colour, disk
    from dfi_server.photo.pixels import edited

    alphas = parse_alphas(options.set)
    if options.keys and not options.server:
        raise DFIError(ErrorCode.BAD_REQUEST, "--keys goes with --server: name the server that asks for them.")
    disk.check_writable(options.output)
    source = disk.read(options.input)
    work = _edit_by_server if options.server else _edit_here
    srgb = colour.to_srgb(source)
    patch, how = work(srgb, alphas, options)
    notes = disk.write(options.output, edited(source, colour.from_srgb(source, srgb, patch)))
    _say(options.input, notes)
    done = " ".join(f"{name}={alpha:g}" for name, alpha in alphas.items())
    print(f"{options.output}: {done}, {how}")


def _say(file: Path, notes: Sequence[str]) -> None:
    """What a user must know of an edit that succeeded."""
    for note in notes:
        print(f"dfi: {file}: {note}", file=sys.stderr)


def _edit_here(pixels: "Pixels", alphas: dict[str, float], options: argparse.Namespace) -> tuple["Patch", str]:
    from dfi_server.edit import Editor

    editor = Editor(options.store, options.device)
    with _iteration_bar() as bar:
        edit = editor.edit(
            pixels,
            alphas,
            face=options.face,
            box=options.box,
            iterations=options.iterations,
            progress=lambda state: _advance(bar, state.iteration, state.iterations),
        )
    how = f"{edit.iterations} iterations in {edit.seconds:.1f} s on {editor.device_name}, store {editor.store_name}"
    return edit.patch, how + (f" ({paths.STARTER_HINT})" if editor.store.is_starter else "")


def _edit_by_server(pixels: "Pixels", alphas: dict[str, float], options: argparse.Namespace) -> tuple["Patch", str]:
    from dfi_server.commands import remote
    from dfi_server.wire.client import Client

    with Client(options.server, keys=options.keys) as client, _iteration_bar() as bar:
        patch, result = remote.edit(
            client,
            pixels,
            alphas,
            face=options.face,
            box=options.box,
            iterations=options.iterations,
            progress=lambda state: _advance(bar, state.iteration, state.iterations),
        )
    return patch, f"{result.iterations} iterations in {result.seconds:.1f} s by {options.server}"


def _batch(options: argparse.Namespace) -> None:
    from dfi_server.commands import batch

    job = batch.Job(options.input, options.output, parse_alphas(options.set), options.face, options.iterations)
    plan = batch.plan(job)
    if plan.differing:  # said at once, not only after hours
        print(f"dfi: {_differing(job, plan)}", file=sys.stderr)
    if options.engine == "ray":
        if options.server:
            raise DFIError(ErrorCode.BAD_REQUEST, "--server and --engine ray exclude each other: leave one out.")
        from dfi_server.commands import ray_engine

        with ray_engine.connected():
            _run_batch(job, plan, ray_engine.editing(), options.jobs or 2 * ray_engine.slots())
        return
    from dfi_server.wire.client import ENDS_ALONE, Client, start_server

    endpoint = options.server or protocol.DEFAULT_ENDPOINT
    command = [sys.executable, "-P", "-m", "dfi_server", "serve", *ENDS_ALONE, "--endpoint", endpoint]

    def start() -> None:
        if options.server:
            with Client(endpoint) as client:
                client.hello()
        else:
            start_server(command, endpoint, log=paths.home() / "server.log")

    start()
    _run_batch(job, plan, batch.by_server(endpoint, restart=start), options.jobs or batch.IN_FLIGHT)


def _run_batch(job: "Job", plan: "Plan", edit: "Edit", in_flight: int) -> None:
    from dfi_server.commands import batch

    found = len(plan.todo) + len(plan.done)
    with tqdm(desc="photos", unit="photo", total=found, initial=len(plan.done), disable=None, smoothing=0.05) as bar:

        def progress(outcome: batch.Outcome) -> None:
            bar.update()
            for sentence in filter(None, (outcome.why, *outcome.notes)):
                bar.write(f"{outcome.file}: {sentence}", file=sys.stderr)

        outcomes = batch.run(job, plan.todo, edit, in_flight=in_flight, progress=progress)
    count = {status: sum(each.status == status for each in outcomes) for status in ("edited", "skipped", "failed")}
    told = ", ".join(f"{number} {status}" for status, number in count.items())
    print(f"{job.target}: {told}; {len(plan.done)} were done before")
    if count["failed"]:
        raise DFIError(ErrorCode.BAD_DATA, f"{count['failed']} photos failed: see {job.target / batch.REPORT}.")
    if plan.differing:
        raise DFIError(ErrorCode.BAD_DATA, _differing(job, plan))


def _differing(job: "Job", plan: "Plan") -> str:
    return (
        f"{len(plan.differing)} photos in {job.target} were made with other settings, and are left as they are: "
        "delete them, or name another folder, to have them made with these."
    )


def _strip(options: argparse.Namespace) -> None:
    import numpy as np

    from dfi_server.commands import contact_sheet
    from dfi_server.edit import Editor
    from dfi_server.photo import colour, disk, pages
    from dfi_server.photo.pixels import Photo, composite, crop
    from dfi_server.vectors.store import check_alphas

    name = lfw.attribute_name(options.set)
    alphas = [_alpha(name, text) for text in options.alphas.split(",")]
    for alpha in alphas:
        check_alphas({name: alpha})
    disk.check_writable(options.output)
    photo = disk.read(options.input)
    _say(options.input, pages.looked_at(photo.pages))
    source = colour.to_srgb(photo)
    editor = Editor(options.store, options.device)
    with _iteration_bar() as bar:
        edits = editor.sweep(
            source,
            [{name: alpha} for alpha in alphas],
            face=options.face,
            box=options.box,
            iterations=options.iterations,
            progress=lambda state: _advance(bar, state.iteration, state.iterations),
        )
    box = max((edit.patch.box for edit in edits), key=lambda box: box[2] * box[3])
    pictures = [crop(composite(source, edit.patch), box) for edit in edits]
    labels = ["original", *(f"{name} {alpha:g}" for alpha in alphas)]
    sheet = contact_sheet.contact_sheet([[crop(source, box), *pictures]], labels)
    disk.write(options.output, Photo(np.asarray(sheet)))
    print(f"{options.output}: {name} at {', '.join(f'{alpha:g}' for alpha in alphas)}")


def _serve(options: argparse.Namespace) -> None:
    from dfi_server.service import server, worker_process

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    rest_after, end_after = (60.0 * minutes if minutes else None for minutes in (options.rest_after, options.end_after))
    workers = worker_process.commands(options.store, options.device)
    server.serve(options.endpoint, workers, options.keys, rest_after, end_after)


def _keygen(options: argparse.Namespace) -> None:
    from dfi_server.wire import keys

    for folder in keys.generate(options.folder, options.clients):
        print(folder)


def _bench(options: argparse.Namespace) -> None:
    from dfi_server.commands import bench
    from dfi_server.edit import Editor

    editor = Editor(options.store, options.device)
    frames = bench.lfw_frames(options.lfw, options.faces) if options.lfw else bench.sample_frames(editor, options.faces)
    frames = [frame.to(editor.device) for frame in frames]
    report, traces = bench.run(editor, frames, lambda text: print(text, file=sys.stderr))
    print(bench.table(report))
    if options.json:
        bench.write_json(report, options.json)
    if options.plot:
        bench.plot(traces, options.plot)


def _iteration_bar() -> "tqdm[None]":
    return tqdm(desc="editing", unit="it", disable=None, leave=False)


def _advance(bar: "tqdm[None]", iteration: int, iterations: int) -> None:
    bar.total = iterations
    bar.update(iteration - bar.n)


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "setup": _setup,
    "attributes": _attributes,
    "faces": _faces,
    "edit": _edit,
    "batch": _batch,
    "strip": _strip,
    "serve": _serve,
    "keygen": _keygen,
    "bench": _bench,
}

if __name__ == "__main__":
    sys.exit(main())
