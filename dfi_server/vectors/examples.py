"""Photos that show what an attribute is: two folders, or a table that says what each photo of a folder shows."""

import csv
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.photo import formats
from dfi_server.vectors.lfw import attribute_name

_DELIMITERS = ",;\t| "
_SNIFFED = 8192  # characters of a table that tell its delimiter


@dataclass(frozen=True)
class Examples:
    """Photos, and for each the value of every column: `values` is (photos, columns) float32.

    `notes`: sentences on what was left out. Columns are called as attributes are.
    """

    photos: tuple[Path, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...] = ()


def of_folders(name: str, with_it: Path, without: Path) -> Examples:
    """All photos below two folders: one column, 1 in the first and -1 in the second.

    A photo that lies in a folder twice counts once. Raises DFIError(BAD_DATA) where the folders are not two, hold no
    photo, or share one.
    """
    first, second = with_it.resolve(), without.resolve()
    if first.is_relative_to(second) or second.is_relative_to(first):
        raise DFIError(
            ErrorCode.BAD_DATA,
            f"{with_it} and {without} are one folder, or one lies in the other: name two that share no photo.",
        )
    sides = [_distinct(photos_below(folder)) for folder in (with_it, without)]
    if shared := [sides[0][digest] for digest in sides[0] if digest in sides[1]]:
        also = f", and {len(shared) - 1} more," if len(shared) > 1 else ""
        raise DFIError(
            ErrorCode.BAD_DATA, f"{shared[0]}{also} lies in {without} as well: a photo has the attribute or has not."
        )
    photos = [photo for side in sides for photo in side.values()]
    values = np.concatenate(
        [np.full((len(side), 1), sign, np.float32) for side, sign in zip(sides, (1, -1), strict=True)]
    )
    return Examples(tuple(photos), (name,), values)


def of_table(table: Path, folder: Path) -> Examples:
    """The photos of a folder that a table has a row for, with all of its numeric columns that vary.

    `table`: CelebA's list_attr_celeba.txt (a count, the names of the columns, then `000001.jpg -1 1 ...`), or a CSV
    with a header, a column of paths below `folder` and columns of numbers. Raises DFIError(BAD_DATA).
    """
    header, rows = _read_table(table)
    if not rows:
        raise DFIError(ErrorCode.BAD_DATA, f"{table} has no rows below its header.")
    numeric = [i for i, text in enumerate(rows[0]) if math.isfinite(_number(text))]
    paths = [i for i in range(len(header)) if i not in numeric]
    names = {i: attribute_name(header[i]) for i in numeric}
    if not paths or not names:
        raise DFIError(
            ErrorCode.BAD_DATA,
            f"{table} needs a column of photos' paths, and columns of numbers with names above them.",
        )
    if not all(names.values()) or len(set(names.values())) < len(names):
        raise DFIError(ErrorCode.BAD_DATA, f"{table} has a column of numbers without a name, or a name twice.")
    if not folder.is_dir():
        raise DFIError(ErrorCode.BAD_DATA, f"There is no folder {folder}: name the one that holds the table's photos.")
    photos, values, broken, absent = [], [], 0, 0
    for row in rows:
        numbers = [_number(row[i]) for i in numeric] if len(row) == len(header) else [math.nan]
        if not np.isfinite(numbers).all():
            broken += 1
        elif not (photo := folder / row[paths[0]]).is_file():
            absent += 1
        else:
            photos.append(photo)
            values.append(numbers)
    if not photos:
        raise DFIError(ErrorCode.BAD_DATA, f"None of the photos that {table} names is in {folder}.")
    matrix = np.array(values, np.float32)
    varies = np.ptp(matrix, axis=0) > 0
    columns = tuple(names.values())
    constant = [column for column, varying in zip(columns, varies, strict=True) if not varying]
    notes = [
        f"{count} of its rows {what}."
        for count, what in ((broken, "cannot be read"), (absent, f"name a photo that is not in {folder}"))
        if count
    ]
    if constant:
        notes.append(f"The same number for every photo, which teaches nothing: {', '.join(constant)}.")
    kept = tuple(column for column, varying in zip(columns, varies, strict=True) if varying)
    return Examples(tuple(photos), kept, matrix[:, varies], tuple(f"{table}: {note}" for note in notes))


def photos_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DFIError(ErrorCode.BAD_DATA, f"There is no folder {folder}: name one that holds photos.")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in formats.EXTENSIONS and path.is_file()]
    if not found:
        raise DFIError(ErrorCode.BAD_DATA, f"No photos were found in {folder}.")
    return sorted(found)


def _distinct(photos: Iterable[Path]) -> Mapping[bytes, Path]:
    """The photos by what is in their files; one that cannot be read counts, and will be told about."""
    by_content: dict[bytes, Path] = {}
    for photo in photos:
        try:
            with photo.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            digest = bytes(photo)
        by_content.setdefault(digest, photo)
    return by_content


def _read_table(path: Path) -> tuple[Sequence[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DFIError(ErrorCode.BAD_DATA, f"The table {path} cannot be read ({error}).") from error
    lines = text.splitlines()
    if lines and lines[0].strip().isdecimal():  # CelebA's
        header = lines[1].split() if len(lines) > 1 else []
        return ["file", *header], [line.split() for line in lines[2:] if line.strip()]
    try:
        dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(text[:_SNIFFED], _DELIMITERS)
    except csv.Error:
        dialect = csv.excel
    try:
        header, *rows = [row for row in csv.reader(lines, dialect) if row]
    except (csv.Error, ValueError) as error:
        raise DFIError(ErrorCode.BAD_DATA, f"{path} is no table with a header ({error}).") from error
    return header, rows


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
