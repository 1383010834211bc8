"""What people of LFW show of each attribute on average, so that a face's readings mean something: standard scores.

    python -m dfi_server.vectors.averages --lfw lfw-deepfunneled.tgz --attributes lfw_attributes.txt

reads people whom the starter has not seen (lfw.is_held_out) and writes starter/averages.json: for each attribute mean
and standard deviation of its reading, and how well readings tell faces that are labelled with it from others: the area
under the ROC curve, 0.5 for a guess and 1 for never wrong.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from tqdm import tqdm

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face.frame import Frame, cut, soften
from dfi_server.photo.pixels import Pixels
from dfi_server.solver import vgg
from dfi_server.vectors import lfw
from dfi_server.vectors.readout import Readout
from dfi_server.vectors.store import open_store

_FILE = paths.STARTER / "averages.json"
_EVERY = 2  # of the held-out photos one in so many is enough
_LEAST_LABELLED = 10  # photos with an attribute, and without, below which an area means nothing


@dataclass(frozen=True)
class Average:
    """Of an attribute over LFW: mean and standard deviation of its readings, and their area under the ROC curve.

    `area`: None where too few faces are labelled with the attribute, or without, to tell.
    """

    mean: float
    deviation: float
    area: float | None


class FaceReader:
    """Reads which attributes faces of photos show: `names`, in standard deviations from what LFW's people show.

    It is the starter that reads, whatever store an edit was made with: what VGG-19 has painted is not read by VGG-19.
    """

    def __init__(self, device: torch.device) -> None:
        """Load the starter. Raises DFIError(BAD_STORE)."""
        store = open_store(paths.STARTER.name)
        self._network = vgg.load(store.weights(), device)
        self._device = device
        self._readout = Readout(store, device)
        self.names = self._readout.names

    @cached_property
    def averages(self) -> dict[str, Average]:
        """What LFW's people show of each attribute. Raises DFIError(BAD_STORE)."""
        try:
            known = json.loads(_FILE.read_bytes())
            return {name: Average(**known[name]) for name in self.names}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DFIError(ErrorCode.BAD_STORE, f"{_FILE} is missing or damaged: install dfi-server again.") from error

    def read(self, photo: Pixels, frame: Frame) -> np.ndarray:
        """The standard scores of `names` for the face in a frame of a photo."""
        raw = self.read_frame(cut(photo, frame.of_size(layout.FRAME_SIZE)))
        mean, deviation = np.array([(each.mean, each.deviation) for each in self.averages.values()]).T
        return np.asarray((raw - mean) / deviation)

    @torch.inference_mode()
    def read_frame(self, image: torch.Tensor) -> np.ndarray:
        """The same for a frame (1, 3, FRAME_SIZE, FRAME_SIZE), as Readout has it."""
        return np.asarray(self._readout(self._network(soften(image).to(self._device)))[0].numpy())


def measure(archive: Path, attribute_file: Path, device: str = "auto") -> dict[str, Average]:
    """The averages over the held-out photos. Raises DFIError(BAD_DATA)."""
    table = lfw.read_attributes(attribute_file)
    reader = FaceReader(vgg.choose_device(device))
    held_out = ((key, jpeg) for key, jpeg in lfw.read_photos(archive) if lfw.is_held_out(key) and key in table.rows)
    readings, labels = [], []
    for number, (key, jpeg) in enumerate(tqdm(held_out, desc="reading", unit="photo", disable=None)):
        if number % _EVERY == 0 and (photo := lfw.decode(jpeg)) is not None:
            size = (photo.shape[1], photo.shape[0])
            readings.append(reader.read_frame(cut(photo, Frame.of_box(layout.FRAME_BOX, size))))
            labels.append(table.rows[key] > 0)
    if not readings:
        raise DFIError(ErrorCode.BAD_DATA, f"{archive} has no photo of the people that are held out: is it all of LFW?")
    values, shown = np.stack(readings), dict(zip(table.names, np.stack(labels).T, strict=True))
    none = np.zeros(len(values), dtype=bool)
    return {
        name: Average(
            round(float(column.mean()), 5), round(float(column.std()), 5), _area(column, shown.get(name, none))
        )
        for name, column in zip(reader.names, values.T, strict=True)
    }


def _area(readings: np.ndarray, shown: np.ndarray) -> float | None:
    """Under the ROC curve: how often a face with the attribute has a higher reading than one without."""
    with_it, without = int(shown.sum()), int((~shown).sum())
    if min(with_it, without) < _LEAST_LABELLED:
        return None
    ranks = float(rankdata(readings)[shown].sum())
    return round((ranks - with_it * (with_it + 1) / 2) / (with_it * without), 3)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dfi_server.vectors.averages", description=__doc__.split("\n")[0])
    parser.add_argument("--lfw", type=Path, required=True, metavar="TGZ", help="lfw-deepfunneled.tgz")
    parser.add_argument("--attributes", type=Path, required=True, metavar="TXT", help="lfw_attributes.txt")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    try:
        averages = measure(options.lfw, options.attributes, options.device)
    except DFIError as error:
        print(error, file=sys.stderr)
        return 1
    _FILE.write_text(json.dumps({name: asdict(average) for name, average in averages.items()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
