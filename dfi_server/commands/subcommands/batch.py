"""Edit a folder of photos through a server.

Without --server, the one of this machine is used, and started if need be.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server import paths
from dfi_server.commands import arguments, console
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.wire.place import Place

if TYPE_CHECKING:
    from dfi_server.commands.batch import Edit, Job, Plan


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="IN", help="a folder; those inside it are edited as well")
    parser.add_argument("output", type=Path, metavar="OUT", help="a folder; photos that are there already are left")
    arguments.add_set(parser)
    arguments.add_edit(parser)
    parser.add_argument("--jobs", type=arguments.positive, metavar="N", help="photos at once (default: enough)")
    arguments.add_engine(parser)


def run(options: argparse.Namespace) -> None:
    from dfi_server.commands import batch

    arguments.check_server(options)
    if options.server and options.engine == "ray":
        raise DFIError(ErrorCode.BAD_REQUEST, "--server and --engine ray exclude each other: leave one out.")
    alphas = arguments.parse_alphas(options.set)
    job = batch.Job(options.input, options.output, alphas, arguments.choices(options), options.store)
    plan = batch.plan(job)
    console.say(options.input, plan.left)
    if plan.differing:  # said at once, not only after hours
        print(f"dfi: {_differing(job, plan)}", file=sys.stderr)
    if options.engine == "ray":
        from dfi_server.commands import ray_engine

        with ray_engine.connected():
            edit = ray_engine.editing(options.store, options.device)
            _run(job, plan, edit, options.jobs or 2 * ray_engine.slots(options.device))
        return
    from dfi_server.wire.client import Client

    there = arguments.server_of(options)

    def start() -> None:
        if options.server:
            with Client(there.endpoint, keys=there.client_keys) as client:
                client.check_listener()  # each photo would be refused singly
                client.hello()
        else:
            _start_server(there, options)

    start()
    edit = batch.by_server(there.endpoint, restart=start, keys=there.client_keys)
    _run(job, plan, edit, options.jobs or batch.IN_FLIGHT)


def _start_server(there: Place, options: argparse.Namespace) -> None:
    """Have a server of one's own. Raises DFIError, BAD_REQUEST where one is there that does not work as asked."""
    from dfi_server.wire.client import ENDS_ALONE, Client, start_server

    command = [sys.executable, "-P", "-m", "dfi_server", "serve", *ENDS_ALONE, "--device", options.device]
    command += ["--store", options.store] if options.store else []
    command += ["--endpoint", there.to_serve]  # at the end, where GIMP's filter looks for it to end that server
    start_server(command, there.endpoint, keys=there.client_keys, log=paths.home() / "server.log")
    if options.store is None and options.device == "auto":
        return
    with Client(there.endpoint, keys=there.client_keys) as client:
        client.attributes()  # when they are there, the model is
        info = client.status()
    for word, asked, has in (("store", options.store, info.store), ("device", options.device, info.device)):
        if asked not in (None, "auto", has, *has.split()):
            raise DFIError(
                ErrorCode.BAD_REQUEST,
                f"A server of yours runs already, whose {word} is {has}: leave --{word} out, end that server, "
                f"or start another one (dfi serve --{word} {asked} --endpoint ENDPOINT) and name it with --server.",
            )


def _run(job: "Job", plan: "Plan", edit: "Edit", in_flight: int) -> None:
    from tqdm import tqdm

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
