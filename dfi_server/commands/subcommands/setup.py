"""Build the store of attribute vectors (downloads VGG-19 and LFW, or takes files)."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server import paths
from dfi_server.commands import arguments, console

if TYPE_CHECKING:
    from dfi_server.vectors.build import Accumulate


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vgg19", type=Path, metavar="FILE", help="VGG-19 weights, torchvision's key names")
    parser.add_argument("--lfw", type=Path, metavar="FILE.tgz", help="lfw-deepfunneled.tgz")
    parser.add_argument("--attributes", type=Path, metavar="FILE", help="lfw_attributes.txt")
    parser.add_argument(
        "--method", choices=("ridge", "mean"), default="ridge", help="how vectors are made (default: ridge)"
    )
    parser.add_argument("--limit", type=arguments.positive, metavar="N", help="use the first N photos only")
    parser.add_argument(
        "--faces-only",
        action="store_true",
        help="keep LFW's faces, for 'dfi edit --neighbours'; build no store",
    )
    arguments.add_engine(parser)
    arguments.add_device(parser)


def run(options: argparse.Namespace) -> None:
    if options.faces_only:
        _keep_faces(*_lfw(options))
    elif options.engine == "ray":
        from dfi_server.commands import ray_engine

        with ray_engine.connected():
            _build(options, ray_engine.accumulate)
    else:
        _build(options, None)


def _lfw(options: argparse.Namespace) -> tuple[Path, Path]:
    """The archive of photos and the table of attributes."""
    from dfi_server.vectors import lfw

    table = options.attributes or lfw.download_attributes(paths.downloads())
    return options.lfw or lfw.download_photos(paths.downloads()), table


def _keep_faces(archive: Path, table: Path) -> None:
    from tqdm import tqdm

    from dfi_server.vectors import faces

    with tqdm(desc="keeping faces", unit="photo", disable=None) as bar:
        file = faces.write(archive, table, progress=lambda done, expected: console.advance(bar, done, expected))
    print(f"{file}: LFW's faces, for --neighbours and 'dfi fill --lfw'.")


def _build(options: argparse.Namespace, engine: "Accumulate | None") -> None:
    from tqdm import tqdm

    from dfi_server.solver import vgg
    from dfi_server.vectors import build

    weights = vgg.read_weights(options.vgg19) if options.vgg19 else vgg.download_weights()
    archive, table = _lfw(options)
    with tqdm(desc="faces", unit="photo", disable=None, smoothing=0.05) as bar:
        store, report = build.build_lfw(
            paths.stores() / paths.FULL_STORE,
            weights,
            archive,
            table,
            method=options.method,
            device=options.device,
            limit=options.limit,
            engine=engine,
            progress=lambda done, expected: console.advance(bar, done, expected),
        )
    print(
        f"{store.path}: {len(store.info.attributes)} attribute vectors ({store.info.method}) "
        f"from {report.photos} photos. "
        f"Left out: {report.photos_without_row} photos without attributes, {report.rows_without_photo} rows without "
        f"a photo, {report.unreadable} unreadable."
    )
    _keep_faces(archive, table)
