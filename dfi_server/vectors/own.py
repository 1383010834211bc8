"""Attributes of one's own on disk: one file each, whatever store is in use and however often it is rebuilt.

    HOME/own/NAME.safetensors    "SHA-256/200/relu3_1" -> (C, H, W) float16, of unit root mean square: for each network
                                 and frame size that the attribute was made for; the header says what of (`Made`)

A vector means nothing to another network, so each is bound to the fingerprint of its own. One file holds what all
stages of an edit need (the store's network, the preview's), so that an attribute is there for all of them or for none.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import safetensors
import safetensors.torch
from torch import Tensor

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode, unwritable
from dfi_server.photo.whole import PART, write_whole
from dfi_server.solver import vgg

_FORMAT = 1
_SUFFIX = ".safetensors"
_LOCK = ".lock"


@dataclass(frozen=True)
class Made:
    """What one of an attribute's vectors was made for, and of what."""

    network_sha256: str
    frame_size: int
    store: str  # its name when the vector was made
    method: str
    photos_with: int
    photos_without: int
    held: tuple[str, ...]  # attributes that were held still
    built: str  # ISO 8601 date

    def key(self, layer: str) -> str:
        """Where its vector's layer lies in the file."""
        return f"{self.network_sha256}/{self.frame_size}/{layer}"


@dataclass(frozen=True)
class Catalogue:
    """The own attributes for one network and frame size, by name in order, with the state of their files.

    `unusable`: those that cannot be used here, with a sentence that says why.
    """

    usable: Mapping[str, tuple[Made, int]]
    unusable: Mapping[str, str]


def catalogue(network_sha256: str, frame_size: int) -> Catalogue:
    """What lies in the folder for a network and frame size, at this moment."""
    usable: dict[str, tuple[Made, int]] = {}
    unusable: dict[str, str] = {}
    for path in sorted(paths.own().glob(f"[!.]*{_SUFFIX}")):
        name = path.stem
        try:
            changed = path.stat().st_mtime_ns
            all_made = _read_header(path)
        except DFIError as error:
            unusable[name] = error.message
            continue
        except FileNotFoundError:  # forgotten just now
            continue
        fitting = [made for made in all_made if (made.network_sha256, made.frame_size) == (network_sha256, frame_size)]
        if fitting:
            usable[name] = (fitting[0], changed)
        else:
            stores = ", ".join(sorted({made.store for made in all_made}))
            unusable[name] = (
                f"'{name}' was learnt for another network (store {stores}): run 'dfi learn {name}' again for this one."
            )
    return Catalogue(usable, unusable)


def read(name: str, made: Made) -> vgg.Features:
    """A vector, one (C, H, W) float16 tensor per layer. Raises DFIError(BAD_STORE)."""
    path = path_of(name)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            relu3_1, relu4_1, relu5_1 = (file.get_tensor(made.key(layer)) for layer in vgg.LAYERS)
    except (OSError, safetensors.SafetensorError) as error:
        raise _damaged(path) from error
    if not all(layer.isfinite().all() for layer in (relu3_1, relu4_1, relu5_1)):
        raise _damaged(path)
    return relu3_1, relu4_1, relu5_1


def write(name: str, vectors: Sequence[tuple[Made, vgg.Features]]) -> None:
    """Put an attribute in place at once, whole; what it has for other networks stays.

    `vectors`: as `read` gives them. Raises DFIError(NO_SPACE).
    """
    path = path_of(name)
    tensors = {
        made.key(layer): part for made, layers in vectors for layer, part in zip(vgg.LAYERS, layers, strict=True)
    }
    all_made = [made for made, _ in vectors]
    with contextlib.suppress(DFIError, FileNotFoundError):  # what was damaged is replaced
        kept = [made for made in _read_header(path) if made.key("") not in {new.key("") for new in all_made}]
        tensors |= _tensors(name, kept)
        all_made += kept
    metadata = {"dfi": json.dumps({"format": _FORMAT, "made": [asdict(made) for made in all_made]})}
    content = safetensors.torch.save({key: part.contiguous() for key, part in tensors.items()}, metadata)
    try:
        write_whole(path, lambda file: file.write(content))
    except OSError as error:
        raise unwritable(path, error, "let DFI_HOME name another folder") from error


def forget(name: str) -> None:
    """Remove an attribute, for all networks. Raises DFIError(UNKNOWN_ATTRIBUTE | BUSY)."""
    with alone():
        try:
            path_of(name).unlink()
        except FileNotFoundError:
            known = sorted(path.stem for path in paths.own().glob(f"[!.]*{_SUFFIX}"))
            there = f"there are {', '.join(known)}." if known else "there is none ('dfi learn' makes them)."
            raise DFIError(
                ErrorCode.UNKNOWN_ATTRIBUTE, f"There is no attribute of your own '{name}': {there}"
            ) from None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Change what is in the folder, and nobody else does. Raises DFIError(BUSY | NO_SPACE)."""
    folder = paths.own()
    lock = filelock.FileLock(folder / _LOCK, blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()  # let go when the process ends, however it does
    except filelock.Timeout:
        raise DFIError(ErrorCode.BUSY, "Another 'dfi learn' is at work: wait until it has ended.") from None
    except OSError as error:
        raise unwritable(folder, error, "let DFI_HOME name another folder") from error
    try:
        for leftover in folder.glob(f".*{PART}"):  # of one that was killed
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def path_of(name: str) -> Path:
    """The file of an attribute, whether it is there or not."""
    return paths.own() / f"{name}{_SUFFIX}"


def _tensors(name: str, all_made: Sequence[Made]) -> dict[str, Tensor]:
    return {
        made.key(layer): part for made in all_made for layer, part in zip(vgg.LAYERS, read(name, made), strict=True)
    }


def _read_header(path: Path) -> list[Made]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["dfi"])
            keys = set(file.keys())
        all_made = [Made(**{**fields, "held": tuple(fields["held"])}) for fields in header["made"]]
    except FileNotFoundError:
        raise
    except (OSError, safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
        raise _damaged(path) from error
    if header["format"] != _FORMAT or not {made.key(layer) for made in all_made for layer in vgg.LAYERS} <= keys:
        raise _damaged(path)
    return all_made


def _damaged(path: Path) -> DFIError:
    name = path.stem
    return DFIError(
        ErrorCode.BAD_STORE,
        f"The file of your own attribute '{name}', {path}, is damaged or from another version: "
        f"run 'dfi learn {name} --replace' again, or 'dfi forget {name}'.",
    )
