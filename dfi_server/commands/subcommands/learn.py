"""Learn an attribute of your own from photos with it and photos without it.

Two folders show what it is, or a table that says what each photo of a folder shows: CelebA's list_attr_celeba.txt, or a
CSV with a column of paths and columns of numbers. A hundred photos of each kind teach well, 20 are the least.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dfi_server.commands import arguments, console
from dfi_server.errors import DFIError, ErrorCode

if TYPE_CHECKING:
    from dfi_server.vectors.examples import Examples
    from dfi_server.vectors.learn import Learnt
    from dfi_server.vectors.store import Store


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the attribute; with --table: of the one --column")
    parser.add_argument("--with", type=Path, dest="with_it", metavar="DIR", help="photos of faces with it")
    parser.add_argument("--without", type=Path, metavar="DIR", help="photos of faces without it")
    parser.add_argument("--table", type=Path, metavar="FILE", help="list_attr_celeba.txt or a CSV, instead of folders")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="the photos that --table names")
    parser.add_argument("--column", action="append", metavar="NAME", help="of --table; may be repeated (default: all)")
    parser.add_argument(
        "--method",
        choices=("ridge", "mean"),
        default="ridge",
        help="mean: what else differs between the photos comes along (default: ridge, which holds it still)",
    )
    parser.add_argument("--replace", action="store_true", help="an attribute of your own of that name")
    arguments.add_device(parser)
    arguments.add_store(parser)


def run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from dfi_server.face import layout
    from dfi_server.vectors import learn
    from dfi_server.vectors.store import open_store

    _check(options)
    store = open_store(options.store)
    if store.info.frame_size != layout.FRAME_SIZE:
        raise DFIError(ErrorCode.BAD_REQUEST, f"'{options.store}' is a part of another store: name that one.")
    examples, names = _from_table(options, store) if options.table else _from_folders(options, store)
    console.warn(examples.notes)
    with tqdm(desc="faces", unit="photo", disable=None) as bar:
        report = learn.learn(
            examples,
            names,
            store,
            method=options.method,
            device=options.device,
            replace=options.replace,
            progress=lambda done, total: console.advance(bar, done, total),
        )
    console.warn_of_unusable(report.unreadable, report.faceless)
    for learnt in report.learnt:
        console.warn(_differences(learnt))
        fine = ", and what is fine of it from those that are sharp" if learnt.fine else ""
        print(
            f"{learnt.name}: learnt from {learnt.photos_with} faces with it and {learnt.photos_without} without{fine}, "
            f"for the store {store.name}. Try it: dfi edit photo.jpg out.png --set {learnt.name}=0.4"
        )


def _check(options: argparse.Namespace) -> None:
    folders, table = (options.with_it, options.without), (options.table, options.photos)
    if not any(table) and not options.column and options.name and all(folders):
        return
    if not any(folders) and all(table) and not (options.name and len(options.column or ()) != 1):
        return
    raise DFIError(
        ErrorCode.BAD_REQUEST,
        "Learn from two folders (dfi learn NAME --with DIR --without DIR) or from a table (dfi learn --table FILE "
        "--photos DIR, with --column NAME for some of its columns, and a NAME for the attribute if it is one).",
    )


def _from_folders(options: argparse.Namespace, store: "Store") -> tuple["Examples", Mapping[str, str]]:
    from dfi_server.vectors import examples, learn

    name = learn.check_name(options.name, store, replace=options.replace)
    return examples.of_folders(name, options.with_it, options.without), {name: name}


def _from_table(options: argparse.Namespace, store: "Store") -> tuple["Examples", Mapping[str, str]]:
    """The table's examples, and the columns to learn: those that are named, or all whose names are free."""
    from dfi_server.vectors import examples, learn
    from dfi_server.vectors.lfw import attribute_name

    read = examples.of_table(options.table, options.photos)
    if options.column:
        columns = [attribute_name(column) for column in options.column]
        for column in columns:
            if column not in read.columns:
                raise DFIError(
                    ErrorCode.BAD_DATA,
                    f"{options.table} has no column '{column}' of numbers that vary: it has {', '.join(read.columns)}."
                    if read.columns
                    else f"{options.table} has no column of numbers that vary.",
                )
        return read, {
            column: learn.check_name(options.name or column, store, replace=options.replace) for column in columns
        }
    names = {}
    for column in read.columns:
        try:
            names[column] = learn.check_name(column, store, replace=options.replace)
        except DFIError as error:
            console.warn([f"Passed over: {error.message}"])
    if not names:
        raise DFIError(
            ErrorCode.BAD_DATA, f"{options.table} has no column of numbers that vary and whose name is free."
        )
    return read, names


def _differences(learnt: "Learnt") -> list[str]:
    """Figures of what differs between the photos with and without."""
    sentences = []
    if learnt.subject:
        sentences.append(
            f"Faces with and without '{learnt.name}' differ most in {_figures(learnt.subject)}: "
            "that is taken for what it is about."
        )
    if learnt.others:
        what = "held still (--method mean lets it come along)" if learnt.held else "part of the attribute now"
        sentences.append(
            f"Faces with and without '{learnt.name}' {'also ' if learnt.subject else ''}differ in "
            f"{_figures(learnt.others)}, in standard deviations: {what}."
        )
    return sentences


def _figures(differences: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {difference:+.1f}" for name, difference in differences.items())
