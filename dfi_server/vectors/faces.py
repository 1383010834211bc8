"""LFW's faces on disk, one by one: what `dfi setup` keeps of them, to look up a photo's neighbours and to fill from.

HOME/stores/faces.safetensors    "jpeg": all photos' bytes, one after the other, uint8; "ends": where each ends, int64;
                          "values": their attributes, (photos, attributes) float16; the attributes' names in the
                          header. The checksums lie beside it (see checksums).
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from dfi_server import checksums, paths
from dfi_server.errors import DFIError, ErrorCode, unwritable
from dfi_server.face import layout
from dfi_server.vectors import lfw

_FORMAT = 1
_JPEG, _ENDS, _VALUES = "jpeg", "ends", "values"


class Faces:
    """The faces that are kept: `names` of the attributes, `values` (photos, attributes) float32."""

    def __init__(self) -> None:
        """Raises DFIError(NO_STORE | BAD_STORE)."""
        self._path = paths.faces()
        try:
            with safetensors.safe_open(self._path, framework="numpy") as file:
                header = json.loads(file.metadata()["dfi"])
                ends, values = file.get_tensor(_ENDS), file.get_tensor(_VALUES)
                length = file.get_slice(_JPEG).get_shape()[0]
            self.names = tuple(map(str, header["attributes"]))
            checksums.check(self._path, {_ENDS: ends, _VALUES: values})
        except FileNotFoundError:
            raise DFIError(
                ErrorCode.NO_STORE,
                f"LFW's faces are asked for, which are not there ({self._path}): "
                "run 'dfi setup', or 'dfi setup --faces-only', which is a matter of a minute.",
            ) from None
        except (OSError, safetensors.SafetensorError, TypeError, KeyError, ValueError) as error:
            raise self._damaged() from error
        if header.get("format") != _FORMAT or values.shape != (len(ends), len(self.names)) or ends[-1] != length:
            raise self._damaged()
        self._ends = np.concatenate([[0], ends])
        self.values = values.astype(np.float32)

    def __len__(self) -> int:
        return len(self.values)

    def frame(self, number: int, size: int) -> np.ndarray:
        """The frame of a photo, (size, size, 3) uint8. Raises DFIError(BAD_STORE)."""
        start, end = (int(each) for each in self._ends[number : number + 2])
        try:
            with safetensors.safe_open(self._path, framework="numpy") as file:
                jpeg = file.get_slice(_JPEG)[start:end].tobytes()
        except (OSError, safetensors.SafetensorError) as error:
            raise self._damaged() from error
        photo = lfw.decode(jpeg)
        if photo is None:
            raise self._damaged()
        return layout.to_frame(photo, size)

    def _damaged(self) -> DFIError:
        return DFIError(
            ErrorCode.BAD_STORE,
            f"The faces in {self._path} are damaged or from another version: run 'dfi setup --faces-only' again.",
        )


def write(
    archive: Path,
    attribute_file: Path,
    *,
    keep: Callable[[str], bool] = lambda key: True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Keep LFW's photos that have attributes; put in place when it is complete.

    `keep`: which photo keys, as for `build.build_lfw`. `progress`: photos read and photos expected. Raises
    DFIError(BAD_DATA | NO_SPACE).
    """
    table = lfw.read_attributes(attribute_file)
    jpegs, values = [], []
    for key, jpeg in lfw.read_photos(archive):
        if key in table.rows and keep(key) and lfw.decode(jpeg) is not None:
            jpegs.append(jpeg)
            values.append(table.rows[key])
            progress(len(jpegs), len(table.rows))
    if not jpegs:
        raise DFIError(ErrorCode.BAD_DATA, f"No photo in {archive} has a row in {attribute_file}: are they LFW's?")
    tensors: dict[str, np.ndarray] = {
        _JPEG: np.frombuffer(b"".join(jpegs), np.uint8),
        _ENDS: np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64),
        _VALUES: np.stack(values).astype(np.float16),
    }
    path = paths.faces()
    metadata = {"dfi": json.dumps({"format": _FORMAT, "attributes": table.names})}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as building:
            file = Path(building) / path.name
            safetensors.numpy.save_file(tensors, file, metadata)
            checksums.write(file, tensors)
            for made in (checksums.beside(file), file):
                made.replace(path.with_name(made.name))
    except (OSError, safetensors.SafetensorError) as error:
        if isinstance(error, OSError):
            raise unwritable(path, error, "let DFI_HOME name another folder") from error
        raise DFIError(ErrorCode.NO_SPACE, f"{path} could not be written ({error}): is the disk full?") from error
    return path
