"""Attributes of one's own, from photos: found, aligned and softened as edits do it, one pass through the networks.

The vector is that of a ridge regression on two kinds of columns: what the photos are said to show, and those of the
store's attributes in which photos with and without it differ as well, which are thereby held still (build.py). How much
of each of these a photo shows is read from its features (readout.py).
"""

import datetime
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import seen, soften
from dfi_server.photo import colour, disk
from dfi_server.photo.pixels import to_8bit
from dfi_server.solver import vgg
from dfi_server.vectors import build, own
from dfi_server.vectors.examples import Examples
from dfi_server.vectors.lfw import attribute_name
from dfi_server.vectors.readout import Readout
from dfi_server.vectors.store import Store, open_store, unit_rms
from dfi_server.wire.limits import MAX_ATTRIBUTES, MAX_NAME_LENGTH

log = logging.getLogger(__name__)

LEAST_FACES = 20
"""With the attribute, and without: fewer teach what these people look like."""

_FORWARD = 8  # photos per forward pass
_SEEN = "seen: {}"  # a column of what the store sees in a photo, beside those that the examples have
_NOTABLE = 0.3  # standard deviations between the means of two sets, below which nobody sees a difference
_SURE = 3.0  # times the standard error of such a difference
_SUBJECT = 1.2  # sets that differ by more in an attribute were chosen for it
_RELATED = 0.3  # cosine between the vectors of two attributes that show in the same place


@dataclass(frozen=True)
class Learnt:
    """What was learnt. Differences are those between the means of the two sets in standard deviations.

    `subject`: the store's attribute in which the sets differ so much that it must be what is meant, if there is one.
    `others`: those in which they differ as well, the largest difference first. `held`: whether these were held still.
    `fine`: whether enough photos were sharp enough for the frame of layout.DETAIL_FRAME_SIZE as well.
    """

    name: str
    photos_with: int
    photos_without: int
    subject: Mapping[str, float]
    others: Mapping[str, float]
    held: bool
    fine: bool


@dataclass(frozen=True)
class Report:
    """All that was learnt, and the photos that could not be used: with the reason, or for want of a face."""

    learnt: tuple[Learnt, ...]
    unreadable: tuple[DFIError, ...]
    faceless: tuple[Path, ...]


def check_name(title: str, store: Store, *, replace: bool) -> str:
    """The name of a new attribute. Raises DFIError(BAD_REQUEST) for one that is none, or taken."""
    name = attribute_name(title)
    if not name or len(name) > MAX_NAME_LENGTH:
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            f"'{title}' is no name: an attribute's has 1 to {MAX_NAME_LENGTH} letters (a to z), digits, underscores.",
        )
    if name in store.info.attributes or name in open_store(paths.STARTER.name).info.attributes:
        raise DFIError(
            ErrorCode.BAD_REQUEST, f"'{name}' is one of the attributes that come with the program: choose another name."
        )
    if name in store.own_attributes and not replace:
        raise DFIError(
            ErrorCode.BAD_REQUEST,
            f"There is an attribute of your own '{name}' already: choose another name, or learn it anew (--replace).",
        )
    if name not in store.attributes and len(store.attributes) >= MAX_ATTRIBUTES:
        raise DFIError(
            ErrorCode.BAD_REQUEST, f"There are {MAX_ATTRIBUTES} attributes, the most that work: 'dfi forget' one first."
        )
    return name


def learn(
    examples: Examples,
    names: Mapping[str, str],
    store: Store,
    *,
    method: build.Method = "ridge",
    device: str = "auto",
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Learn attributes from columns of `examples` and keep them for `store` and for the preview; all, or none.

    `names`: column -> what the attribute shall be called. "ridge" holds still what else differs, and the other columns;
    "mean" does not. `replace`: attributes of one's own that there are. `progress`: photos looked at, and all.
    Raises DFIError(BAD_REQUEST | BAD_DATA | BUSY | NO_SPACE).
    """
    with own.alone():
        names = {column: check_name(name, store, replace=replace) for column, name in names.items()}
        place = vgg.choose_device(device)
        readout = Readout(store, place)
        columns = (*examples.columns, *map(_SEEN.format, readout.names))
        main, preview = (_Stage(each, columns, place) for each in (store, open_store(paths.PREVIEW)))
        detail = _detail_stage(columns, place)
        above = examples.values > examples.values.mean(axis=0)
        _check_counts(names, examples, above, "photos")
        unreadable: list[DFIError] = []
        faceless: list[Path] = []
        used: list[int] = []
        sharp: list[int] = []

        def faces() -> Iterator[_Face]:
            for number, photo in enumerate(examples.photos):
                try:
                    face = _face(number, photo, store.canonical_landmarks)
                except DFIError as error:
                    unreadable.append(error)
                else:
                    if face is None:
                        faceless.append(photo)
                    else:
                        yield face
                progress(number + 1, len(examples.photos))

        for batch in build.prefetch(build.batches(faces(), build.BATCH)):
            used += [face.number for face in batch]
            frames = _stack([face.frame for face in batch])
            features = main.features(frames)
            labels = torch.from_numpy(examples.values[[face.number for face in batch]])
            values = torch.cat([labels, readout(features)], dim=1)
            main.sums.add(values, features)
            preview.sums.add(values, preview.features(frames))
            fine = [i for i, face in enumerate(batch) if face.sharp is not None]
            if detail and fine:
                sharp += [batch[i].number for i in fine]
                portraits = _stack([face.sharp for face in batch if face.sharp is not None])
                detail.sums.add(values[fine], detail.features(portraits))
        _check_counts(names, examples, above[used], "faces")
        made = []
        for column, name in names.items():
            shown, shown_sharp = (above[numbers, examples.columns.index(column)] for numbers in (used, sharp))
            stages = {main: shown, preview: shown}
            if detail and min(_counts(shown_sharp)) >= LEAST_FACES:
                stages[detail] = shown_sharp
            made.append(_solve(stages, readout, column, name, method))
        for learnt, vectors in made:
            own.write(learnt.name, vectors)
    return Report(tuple(learnt for learnt, _ in made), tuple(unreadable), tuple(faceless))


@dataclass(frozen=True)
class _Face:
    """The largest face of a photo, by the photo's number.

    Its frame of FRAME_SIZE, and where the photo is sharp enough that of DETAIL_FRAME_SIZE, (size, size, 3) uint8.
    """

    number: int
    frame: np.ndarray
    sharp: np.ndarray | None


def _face(number: int, photo: Path, canonical: np.ndarray) -> _Face | None:
    """None without one. Raises DFIError."""
    pixels = colour.to_srgb(disk.read(photo))
    found = find_largest(pixels, canonical)
    if not found:
        return None
    frame = align(found[0].landmarks, canonical)
    is_sharp = frame.scale * frame.size >= layout.SHARP_SPAN
    sharp = to_8bit(seen(pixels, frame.of_size(layout.DETAIL_FRAME_SIZE))) if is_sharp else None
    return _Face(number, to_8bit(seen(pixels, frame)), sharp)


def _stack(frames: Sequence[np.ndarray]) -> Tensor:
    """(N, 3, size, size) in [0, 1]."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255


class _Stage:
    """One network with a store's vectors for one size of frame, and the sums of what it saw."""

    def __init__(self, store: Store, columns: tuple[str, ...], device: torch.device) -> None:
        self.store, self._device = store, device
        self._network = vgg.load(store.weights(), device)
        self.sums = build.Sums(columns, "ridge", device)

    @torch.inference_mode()
    def features(self, frames: Tensor) -> list[Tensor]:
        """Of frames (N, 3, size, size) in [0, 1], as an edit sees them; one (N, C, H, W) tensor per layer."""
        size = self.store.info.frame_size
        images = F.interpolate(frames, size=size, mode="area")
        images = images if size == layout.DETAIL_FRAME_SIZE else soften(images)
        parts = [self._network(each.to(self._device)) for each in torch.split(images, _FORWARD)]
        return [torch.cat(layer).float() for layer in zip(*parts, strict=True)]

    def differences(self, column: str, names: Sequence[str], share: float) -> dict[str, float]:
        """By how many standard deviations photos with and without differ in each of `names` (Cohen's d).

        `share`: of the photos with. d from the correlation r with the column: r / sqrt(share (1 - share) (1 - r²)).
        """
        gram = self.sums.gram / self.sums.photos
        covariance = gram - gram[:1].T @ gram[:1]
        chosen = [1 + self.sums.names.index(_SEEN.format(name)) for name in names]
        i = 1 + self.sums.names.index(column)
        r = covariance[i, chosen] / (covariance[i, i] * covariance.diagonal()[chosen]).clamp_min(1e-24).sqrt()
        d = r / (share * (1 - share) * (1 - r.square()).clamp_min(1e-6)).sqrt()
        return dict(zip(names, d.tolist(), strict=True))

    def vector(self, column: str, held: Sequence[str]) -> vgg.Features:
        relu3_1, relu4_1, relu5_1 = (
            unit_rms(layer).half() for layer in self.sums.only((column, *held)).vectors()[column]
        )
        return relu3_1, relu4_1, relu5_1


def _detail_stage(columns: tuple[str, ...], device: torch.device) -> _Stage | None:
    """For photos of many pixels; None where its files are missing or damaged, which is said as edits say it."""
    try:
        return _Stage(open_store(paths.DETAIL), columns, device)
    except DFIError as error:
        log.warning("%s Until then nothing fine is learnt from sharp photos.", error)
        return None


def _solve(
    stages: Mapping[_Stage, np.ndarray], readout: Readout, column: str, name: str, method: build.Method
) -> tuple[Learnt, list[tuple[own.Made, vgg.Features]]]:
    """An attribute's vectors for all stages; the first says what is held still.

    `stages`: for each, which of the photos that it saw have the attribute.
    """
    main, shown = next(iter(stages.items()))
    counts = _counts(shown)
    differences = main.differences(column, readout.names, counts[0] / sum(counts))
    subject, others = _subject_and_others(differences, readout, counts)
    held = [_SEEN.format(other) for other in others]
    held += [other for other in main.sums.names if not other.startswith(_SEEN.format("")) and other != column]
    if method == "mean":
        held = []
    vectors = [
        (
            own.Made(
                network_sha256=stage.store.info.network_sha256,
                frame_size=stage.store.info.frame_size,
                store=stage.store.name,
                method=build.describe(method),
                photos_with=_counts(seen_by)[0],
                photos_without=_counts(seen_by)[1],
                held=tuple(held),
                built=datetime.date.today().isoformat(),
            ),
            stage.vector(column, held),
        )
        for stage, seen_by in stages.items()
    ]
    fine = any(made.frame_size == layout.DETAIL_FRAME_SIZE for made, _ in vectors)
    return Learnt(name, *counts, subject, others, method == "ridge", fine), vectors


def _counts(shown: np.ndarray) -> tuple[int, int]:
    """Photos with the attribute, and without."""
    return int(shown.sum()), int((~shown).sum())


def _subject_and_others(
    differences: Mapping[str, float], readout: Readout, counts: tuple[int, int]
) -> tuple[dict[str, float], dict[str, float]]:
    names = sorted(differences, key=lambda name: -abs(differences[name]))
    least = max(_NOTABLE, _SURE * math.sqrt(1 / counts[0] + 1 / counts[1]))
    subject = {name: differences[name] for name in names[:1] if abs(differences[name]) > _SUBJECT}
    index = readout.names.index

    def belongs(name: str) -> bool:
        cosines = (float(readout.cosines[index(name), index(each)]) for each in subject)
        return any(name in {each, *build.parts(each)} for each in subject) or any(abs(c) > _RELATED for c in cosines)

    return subject, {name: differences[name] for name in names if abs(differences[name]) > least and not belongs(name)}


def _check_counts(names: Mapping[str, str], examples: Examples, above: np.ndarray, what: str) -> None:
    """Raise DFIError(BAD_DATA) unless there are enough photos, or faces, with each attribute and without."""
    for column, name in names.items():
        shown = above[:, examples.columns.index(column)]
        counts = _counts(shown)
        if min(counts) < LEAST_FACES:
            raise DFIError(
                ErrorCode.BAD_DATA,
                f"There are {counts[0]} {what} with '{name}' and {counts[1]} without: {LEAST_FACES} of each is the "
                "least to learn from, and a hundred teach more.",
            )
