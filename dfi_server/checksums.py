"""Whether tensors are as they were written: the checksums of NAME.safetensors lie beside it, in NAME.crc32.json.

{"smiling/relu3_1": 3735928559, ...}: CRC-32 of each tensor's bytes, so that one is checked when it is read, without
reading the others. Files without checksums, of an older version say, are taken as they are.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def beside(file: Path) -> Path:
    """Where the checksums of a .safetensors file are."""
    return file.with_suffix(".crc32.json")


def write(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the checksums of `tensors`, all that is in `file`."""
    beside(file).write_text(json.dumps({name: _of(tensor) for name, tensor in sorted(tensors.items())}) + "\n")


def check(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError if one of `tensors`, read from `file`, is not as it was written, or if the checksums are not."""
    try:
        known = json.loads(beside(file).read_bytes())
    except FileNotFoundError:
        return
    for name, tensor in tensors.items():
        if not isinstance(known, dict) or known.get(name) != _of(tensor):
            raise ValueError(f"{name} in {file.name} is damaged")


def _of(tensor: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(tensor).data)
