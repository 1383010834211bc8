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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# When other programs use the cores (GIMP does), OpenMP's spinning threads slow each other down several times over.
# It is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tqdm import tqdm

# What imports torch takes seconds to import: each command takes what it needs. `dfi serve` binds at once, and torch
# comes with the model, in the worker's process.
from dfi_server import __version__, lfw, paths, protocol
from dfi_server.errors import DFIError, ErrorCode

if TYPE_CHECKING:
    from dfi_server.batch import Edit, Job, Plan
    from dfi_server.build import Accumulate
    from dfi_server.messages import FaceChoice
    from dfi_server.photo import Patch, Pixels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 after a failure that was explained, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dfi", description="Deep Feature Interpolation for portraits.")
    parser.add_argument("--version", action="version", version=f"dfi {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    setup = commands.add_parser("setup", help="build the store of attribute vectors")
    setup.add_argument("--vgg19", type=Path, metavar="FILE", help="VGG-19 weights, torchvision's key names")
    setup.add_argument("--lfw", type=Path, metavar="FILE.tgz", help="lfw-deepfunneled.tgz")
    setup.add_argument("--attributes", type=Path, metavar="FILE", help="lfw_attributes.txt")
    setup.add_argument(
        "--method", choices=("ridge", "mean"), default="ridge", help="how vectors are made (default: ridge)"
    )
    setup.add_argument("--limit", type=_positive, metavar="N", help="use the first N photos only")
    _add_engine(setup)
    _add_device(setup)
    setup.set_defaults(run=_setup)

    names = commands.add_parser("attributes", help="list what can be edited")
    names.add_argument("--json", action="store_true", help="as a JSON list of names")
    _add_store(names)
    names.set_defaults(run=_attributes)

    edit = commands.add_parser("edit", help="edit one photo")
    edit.add_argument("input", type=Path)
    edit.add_argument("output", type=Path)
    _add_set(edit)
    edit.add_argument("--server", metavar="ENDPOINT", help="let a running server do it, e.g. tcp://127.0.0.1:5577")
    edit.add_argument("--keys", type=Path, metavar="DIR", help="this client's keys, for --server (see 'dfi keygen')")
    _add_edit(edit)
    edit.set_defaults(run=_edit)

    batch = commands.add_parser("batch", help="edit a folder of photos through a server")
    batch.add_argument("input", type=Path, metavar="IN", help="a folder; those inside it are edited as well")
    batch.add_argument("output", type=Path, metavar="OUT", help="a folder; photos that are there already are left")
    _add_set(batch)
    batch.add_argument("--face", type=_face, default="largest", metavar="N|largest|all", help="see 'dfi faces'")
    batch.add_argument("--iterations", type=_positive, metavar="N", help="of L-BFGS")
    batch.add_argument("--jobs", type=_positive, metavar="N", help="photos under way at once (default: enough)")
    batch.add_argument("--server", metavar="ENDPOINT", help="a running server; without it, one is started if need be")
    _add_engine(batch)
    batch.set_defaults(run=_batch)

    found = commands.add_parser("faces", help="find the faces in a photo")
    found.add_argument("input", type=Path)
    found.add_argument("--draw", type=Path, metavar="FILE", help="write a copy with boxes, numbers and landmarks")
    found.add_argument("--json", action="store_true", help="as JSON")
    _add_store(found)
    found.set_defaults(run=_faces)

    strip = commands.add_parser("strip", help="one picture with an edit at several alphas")
    strip.add_argument("input", type=Path)
    strip.add_argument("output", type=Path)
    strip.add_argument("--set", required=True, metavar="NAME", help="the attribute")
    strip.add_argument("--alphas", default="0.1,0.2,0.3,0.4,0.5", metavar="A,B,...", help="--alphas=-0.4,0.4 too")
    _add_edit(strip)
    strip.set_defaults(run=_strip)

    serve = commands.add_parser("serve", help="the server that GIMP and other clients talk to")
    serve.add_argument("--endpoint", default=protocol.DEFAULT_ENDPOINT)
    serve.add_argument("--keys", type=Path, metavar="DIR", help="answer only clients with keys (see 'dfi keygen')")
    _add_device(serve)
    _add_store(serve)
    serve.set_defaults(run=_serve)

    keygen = commands.add_parser(
        "keygen",
        help="keys for a server that other machines may use",
        description="Makes DIR/server, for 'dfi serve --keys', and DIR/NAME for each client, to be carried to its "
        "machine: for 'dfi edit --keys', or the environment variable DFI_KEYS. To shut a client out, delete "
        "DIR/server/clients/NAME.key and start the server again.",
    )
    keygen.add_argument("folder", type=Path, metavar="DIR")
    keygen.add_argument("clients", nargs="*", default=["client"], metavar="NAME", help="of a client (default: client)")
    keygen.set_defaults(run=_keygen)

    bench = commands.add_parser("bench", help="how fast edits are here, against a plain implementation")
    bench.add_argument("--faces", type=_positive, default=8, metavar="N", help="how many (default: 8)")
    bench.add_argument("--lfw", type=Path, metavar="FILE.tgz", help="take them from LFW, not from the sample portrait")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    bench.add_argument("--plot", type=Path, metavar="FILE.png", help="draw objective against time (needs matplotlib)")
    _add_device(bench)
    _add_store(bench)
    bench.set_defaults(run=_bench)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        required=True,
        metavar="NAME=ALPHA",
        help="an attribute and its strength: 0.1 to 0.5 adds it, negative takes it away; may be repeated",
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: on a Ray cluster, the one named by RAY_ADDRESS or one of this machine's cores (default: local)",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")


def _add_store(parser: argparse.ArgumentParser) -> None:
    default = f"{paths.FULL_STORE} once 'dfi setup' has built it, until then {paths.STARTER.name}"
    parser.add_argument("--store", metavar="NAME", help=f"store of vectors (default: {default})")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--face", type=_face, default="largest", metavar="N|largest|all", help="see 'dfi faces'")
    parser.add_argument(
        "--box", type=_box, metavar="X,Y,W,H", help="edit only in there; the face itself where none is found in it"
    )
    parser.add_argument("--iterations", type=_positive, metavar="N", help="of L-BFGS")
    _add_device(parser)
    _add_store(parser)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _face(text: str) -> "FaceChoice":
    if text == "largest":
        return "largest"
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither 'largest', 'all' nor a face's number from 1")
    return int(text)


def _box(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not four whole numbers X,Y,W,H") from None
    return x, y, width, height


def parse_alphas(settings: Sequence[str]) -> dict[str, float]:
    """["smiling=0.4", ...] as {name: alpha}. Raises DFIError(BAD_ALPHA | BAD_REQUEST)."""
    from dfi_server.attributes import check_alphas

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
        from dfi_server import ray_engine

        with ray_engine.connected():
            _build(options, ray_engine.accumulate)
    else:
        _build(options, None)


def _build(options: argparse.Namespace, engine: "Accumulate | None") -> None:
    from dfi_server import build, vgg

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
    from dfi_server import attributes

    names = attributes.open_store(options.store).info.attributes
    print(json.dumps(names) if options.json else "\n".join(names))


def _faces(options: argparse.Namespace) -> None:
    import numpy as np

    from dfi_server import attributes, contact_sheet, faces, photo, photo_file

    if options.draw:
        photo_file.check_writable(options.draw)
    source = photo_file.read(options.input)
    found = faces.find_faces(source.pixels, attributes.open_store(options.store).canonical_landmarks)
    if options.json:
        print(json.dumps([{"box": face.box, "landmarks": face.landmarks.tolist()} for face in found]))
    elif not found:
        print(f"{options.input}: no face was found")
    else:
        for number, face in enumerate(found, start=1):
            print(f"{number}: --box {','.join(map(str, face.box))}")
    if options.draw:
        photo_file.write(options.draw, photo.Photo(np.asarray(contact_sheet.draw_faces(source.pixels, found))))


def _edit(options: argparse.Namespace) -> None:
    from dfi_server import colour, photo, photo_file

    alphas = parse_alphas(options.set)
    if options.keys and not options.server:
        raise DFIError(ErrorCode.BAD_REQUEST, "--keys goes with --server: name the server that asks for them.")
    photo_file.check_writable(options.output)
    source = photo_file.read(options.input)
    work = _edit_by_server if options.server else _edit_here
    srgb = colour.to_srgb(source)
    patch, how = work(srgb, alphas, options)
    photo_file.write(options.output, photo.edited(source, colour.from_srgb(source, srgb, patch)))
    done = " ".join(f"{name}={alpha:g}" for name, alpha in alphas.items())
    print(f"{options.output}: {done}, {how}")


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
    from dfi_server import remote
    from dfi_server.client import Client

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
    from dfi_server import batch

    job = batch.Job(options.input, options.output, parse_alphas(options.set), options.face, options.iterations)
    plan = batch.plan(job)
    if plan.differing:  # said at once, not only after hours
        print(f"dfi: {_differing(job, plan)}", file=sys.stderr)
    if options.engine == "ray":
        if options.server:
            raise DFIError(ErrorCode.BAD_REQUEST, "--server and --engine ray exclude each other: leave one out.")
        from dfi_server import ray_engine

        with ray_engine.connected():
            _run_batch(job, plan, ray_engine.editing(), options.jobs or 2 * ray_engine.slots())
        return
    from dfi_server.client import Client, start_server

    endpoint = options.server or protocol.DEFAULT_ENDPOINT
    command = [sys.executable, "-P", "-m", "dfi_server.cli", "serve", "--endpoint", endpoint]

    def start() -> None:
        if options.server:
            with Client(endpoint) as client:
                client.hello()
        else:
            start_server(command, endpoint, log=paths.home() / "server.log")

    start()
    _run_batch(job, plan, batch.by_server(endpoint, restart=start), options.jobs or batch.IN_FLIGHT)


def _run_batch(job: "Job", plan: "Plan", edit: "Edit", in_flight: int) -> None:
    from dfi_server import batch

    found = len(plan.todo) + len(plan.done)
    with tqdm(desc="photos", unit="photo", total=found, initial=len(plan.done), disable=None, smoothing=0.05) as bar:

        def progress(outcome: batch.Outcome) -> None:
            bar.update()
            if outcome.why:
                bar.write(f"{outcome.file}: {outcome.why}", file=sys.stderr)

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

    from dfi_server import attributes, colour, contact_sheet, photo, photo_file
    from dfi_server.edit import Editor

    name = lfw.attribute_name(options.set)
    alphas = [_alpha(name, text) for text in options.alphas.split(",")]
    for alpha in alphas:
        attributes.check_alphas({name: alpha})
    photo_file.check_writable(options.output)
    source = colour.to_srgb(photo_file.read(options.input))
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
    pictures = [photo.crop(photo.composite(source, edit.patch), box) for edit in edits]
    labels = ["original", *(f"{name} {alpha:g}" for alpha in alphas)]
    sheet = contact_sheet.contact_sheet([[photo.crop(source, box), *pictures]], labels)
    photo_file.write(options.output, photo.Photo(np.asarray(sheet)))
    print(f"{options.output}: {name} at {', '.join(f'{alpha:g}' for alpha in alphas)}")


def _serve(options: argparse.Namespace) -> None:
    from dfi_server import server, worker_process

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    server.serve(options.endpoint, worker_process.commands(options.store, options.device), options.keys)


def _keygen(options: argparse.Namespace) -> None:
    from dfi_server import keys

    for folder in keys.generate(options.folder, options.clients):
        print(folder)


def _bench(options: argparse.Namespace) -> None:
    from dfi_server import bench
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


if __name__ == "__main__":
    sys.exit(main())
