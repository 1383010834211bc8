"""Labeled Faces in the Wild, deep funneled, and its 73 attributes: the faces that the vectors are built from.

Photos: G. Huang et al., "Learning to align from scratch", NIPS 2012 (lfw-deepfunneled.tgz).
Attributes: N. Kumar et al., "Attribute and simile classifiers for face verification", ICCV 2009
(lfw_attributes.txt).
"""

import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.vectors import download

# Mirrors of the original files; the hash is torchvision's (torchvision.datasets.LFWPeople).
_MIRROR = "https://github.com/hse-aml/intro-to-dl/releases/download/v0.4"
_PHOTOS_URLS = ("http://vis-www.cs.umass.edu/lfw/lfw-deepfunneled.tgz", f"{_MIRROR}/lfw-deepfunneled.tgz")
_PHOTOS_MD5 = "68331da3eb755a505a502b5aacb3c201"
_ATTRIBUTES_URLS = (
    "https://www.cs.columbia.edu/CAVE/databases/pubfig/download/lfw_attributes.txt",
    f"{_MIRROR}/lfw_attributes.txt",
)

_PHOTO_NAME = re.compile(r"(?P<person>[^/]+)/(?P=person)_(?P<number>\d{4})\.jpg$")


@dataclass(frozen=True)
class AttributeTable:
    """Attribute names, lower case with underscores, and one row of values for each photo."""

    names: tuple[str, ...]
    rows: dict[str, np.ndarray]  # photo key, e.g. "Aaron_Eckhart_0001" -> (len(names),) float32
    skipped: int  # lines that could not be read


def download_photos(folder: Path) -> Path:
    """lfw-deepfunneled.tgz in `folder`, downloaded unless it is there. Raises DFIError(UNREACHABLE)."""
    return download.fetch(_PHOTOS_URLS, folder / "lfw-deepfunneled.tgz", _PHOTOS_MD5)


def download_attributes(folder: Path) -> Path:
    """lfw_attributes.txt in `folder`, as `download_photos`; its authors publish no hash, reading it is the check."""
    path = download.fetch(_ATTRIBUTES_URLS, folder / "lfw_attributes.txt", None)
    try:
        read_attributes(path)
    except DFIError:
        path.unlink()  # a web page in its place, say: the next call must not take it for the file
        raise
    return path


def attribute_name(title: str) -> str:
    """LFW's column title as the name used everywhere here: "5 o' Clock Shadow" -> "5_o_clock_shadow"."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def read_attributes(path: Path) -> AttributeTable:
    """Read lfw_attributes.txt: tab separated; person, image number, then one number per attribute.

    Values are Kumar et al.'s classifier scores or their signs; both work. Raises DFIError(BAD_DATA) where the
    file is missing or is not such a table; single broken lines are skipped and counted.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DFIError(ErrorCode.BAD_DATA, f"The attribute file {path} cannot be read ({error}).") from error
    header = next((line for line in lines[:5] if line.lstrip("#\t ").startswith("person\t")), None)
    if header is None:
        raise DFIError(
            ErrorCode.BAD_DATA,
            f"{path} is not LFW's attribute table: no header line with 'person' and 'imagenum' was found.",
        )
    names = tuple(attribute_name(title) for title in header.lstrip("#\t ").rstrip().split("\t")[2:])
    if not names or len(set(names)) != len(names):
        raise DFIError(ErrorCode.BAD_DATA, f"{path} names no attributes, or one of them twice.")
    rows: dict[str, np.ndarray] = {}
    skipped = 0
    for line in lines[lines.index(header) + 1 :]:
        fields = line.split("\t")
        try:
            values = np.array(fields[2:], dtype=np.float32)
            key = f"{fields[0].replace(' ', '_')}_{int(fields[1]):04d}"
        except (ValueError, IndexError):
            skipped += 1
            continue
        if values.shape != (len(names),) or not np.isfinite(values).all():
            skipped += 1
            continue
        rows[key] = values
    if not rows:
        raise DFIError(ErrorCode.BAD_DATA, f"{path} has a header but no row of {len(names)} numbers.")
    return AttributeTable(names, rows, skipped)


def read_photos(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (key, JPEG bytes) for every photo of the .tgz as distributed, in the archive's order, streaming.

    Raises DFIError(BAD_DATA) where the archive is missing or damaged.
    """
    try:
        # gzip checks length and checksum, which tarfile's own "r|gz" does not: half an archive would pass for a whole
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
            for member in members:
                match = _PHOTO_NAME.search(member.name)
                content = members.extractfile(member) if match and member.isfile() else None
                if match and content:
                    yield f"{match['person']}_{match['number']}", content.read()
            while stream.read(1 << 20):
                pass  # to the checksum
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DFIError(
            ErrorCode.BAD_DATA,
            f"The photo archive {archive} is missing or damaged ({error}): fetch it again.",
        ) from error


def is_held_out(key: str) -> bool:
    """Whether an evaluation keeps the person of a photo ("Aaron_Eckhart_0001") out of building: one in eight."""
    person = key.rsplit("_", 1)[0]
    return int(hashlib.md5(person.encode()).hexdigest(), 16) % 8 == 0


def decode(jpeg: bytes) -> np.ndarray | None:
    """A photo of the archive, (H, W, 3) uint8; None where the bytes are no photo that can be read."""
    try:
        with Image.open(io.BytesIO(jpeg)) as photo:
            return np.asarray(photo.convert("RGB"))
    except Exception:  # damaged bytes make decoders raise nearly anything
        return None
