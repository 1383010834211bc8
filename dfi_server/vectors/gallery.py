"""Aligned faces that a hole in another face is filled from: a folder's, LFW's, or those that are part of the package.

What a folder's photos show is remembered in the state folder, so that only new ones are looked at the next time.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import safetensors
import safetensors.numpy

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face.find import align, find_largest
from dfi_server.face.frame import Frame, seen
from dfi_server.photo import colour, disk
from dfi_server.photo.pixels import to_8bit, to_unit
from dfi_server.photo.whole import write_whole
from dfi_server.vectors.examples import photos_below
from dfi_server.vectors.faces import Faces

SMALL = 64
"""Pixels to a side of the small frames that faces are compared in."""

LEAST_FACES = 20
"""Fewer say too little of what else a face may look like."""

_FRAMES = "*.webp"  # those of the package

Progress = Callable[[int, int | None], None]
"""Told how many photos were looked at, and how many there are (None: that is not known)."""


@dataclass(frozen=True)
class Gallery:
    """Aligned faces. `small`: (N, SMALL, SMALL, 3) uint8. `unreadable`, `faceless`: what could not be used."""

    small: np.ndarray
    frame: Callable[[int, int], np.ndarray]
    """frame(number, size): a face's frame, (size, size, 3) float32 in [0, 1]. Raises DFIError where it has gone."""
    unreadable: tuple[DFIError, ...] = ()
    faceless: tuple[Path, ...] = ()

    def check(self, where: str) -> None:
        """Raise DFIError(BAD_DATA) where there are too few faces; `where`: they were looked for."""
        if len(self.small) < LEAST_FACES:
            raise DFIError(
                ErrorCode.BAD_DATA,
                f"{where} has {len(self.small)} photos with a face that was found: {LEAST_FACES} are the least to fill "
                "from, and some hundreds do better; without --from the faces that come with the program are taken.",
            )


def of_package(folder: Path = paths.PORTRAITS / "faces") -> Gallery:
    """The faces that are part of the package. Raises DFIError(BAD_STORE) where they are missing or damaged."""
    files = sorted(folder.glob(_FRAMES))

    def frame(number: int, size: int) -> np.ndarray:
        try:  # not disk.read, which asks for metadata too: with 320 of them that is some seconds
            decoded = cv2.imdecode(np.fromfile(files[number], np.uint8), cv2.IMREAD_COLOR_RGB)
        except (OSError, cv2.error):
            decoded = None
        if decoded is None:
            raise _damaged(folder, f"{files[number].name} cannot be read")
        picture = to_unit(decoded)
        method = cv2.INTER_AREA if size < len(picture) else cv2.INTER_CUBIC
        return np.clip(cv2.resize(picture, (size, size), interpolation=method), 0, 1)

    if len(files) < LEAST_FACES:
        raise _damaged(folder, f"there are {len(files)}")
    small = [to_8bit(frame(number, SMALL)) for number in range(len(files))]
    return Gallery(np.array(small), frame)


def _damaged(folder: Path, how: str) -> DFIError:
    return DFIError(
        ErrorCode.BAD_STORE,
        f"The faces in {folder} are missing or damaged ({how}): install dfi-server again, or fill from other "
        "photos (dfi fill --from DIR).",
    )


def of_lfw(progress: Progress = lambda done, total: None) -> Gallery:
    """LFW's photos, which are aligned, as `dfi setup` keeps them. Raises DFIError(NO_STORE | BAD_STORE)."""
    faces = Faces()
    small = np.empty((len(faces), SMALL, SMALL, 3), np.uint8)
    for number in range(len(faces)):
        small[number] = faces.frame(number, SMALL)
        progress(number + 1, len(faces))
    return Gallery(small, lambda number, size: to_unit(faces.frame(number, size)))


def of_folder(folder: Path, canonical: np.ndarray, progress: Progress = lambda done, total: None) -> Gallery:
    """The largest face of every photo below a folder; `canonical`: see find_largest.

    Photos that cannot be read are left out, and told. Raises DFIError(BAD_DATA) where there is no folder, or no photo.
    """
    photos = photos_below(folder)
    memory = _Memory(folder, canonical)
    unreadable: list[DFIError] = []
    faces: list[tuple[Path, _Face]] = []
    faceless: list[Path] = []
    complete = False
    try:
        for count, photo in enumerate(photos, start=1):
            try:
                face = memory.face(photo)
            except DFIError as error:
                unreadable.append(error)
            else:
                if face.matrix is None:
                    faceless.append(photo)
                else:
                    faces.append((photo, face))
            progress(count, len(photos))
        complete = True
    finally:  # what was seen before an interruption counts as well
        memory.keep(complete)

    def frame(number: int, size: int) -> np.ndarray:
        photo, face = faces[number]
        assert face.matrix is not None
        return seen(colour.to_srgb(disk.read(photo)), Frame(face.matrix).of_size(size))

    small = np.array([face.small for _, face in faces], np.uint8).reshape(-1, SMALL, SMALL, 3)
    return Gallery(small, frame, tuple(unreadable), tuple(faceless))


@dataclass(frozen=True)
class _Face:
    """What a photo shows: `matrix` (2, 3) of its face's Frame and `small`, its frame; None where there is no face."""

    matrix: np.ndarray | None = None
    small: np.ndarray | None = None


@dataclass
class _Memory:
    """What was seen in a folder's photos, by their names, sizes and times."""

    folder: Path
    canonical: np.ndarray
    _seen: dict[str, _Face] = field(default_factory=dict)
    _asked: dict[str, _Face] = field(default_factory=dict)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(bytes(self.folder.resolve()) + self.canonical.tobytes()).hexdigest()
        self._file = paths.galleries() / f"{digest[:32]}.safetensors"
        # a memory that is missing, damaged or from another version is none
        with contextlib.suppress(OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError):
            with safetensors.safe_open(self._file, framework="numpy") as file:
                keys: list[str] = json.loads(file.metadata()["photos"])
                shows, matrices, small = (file.get_tensor(name) for name in ("shows", "matrices", "small"))
            if small.shape[1:] == (SMALL, SMALL, 3):
                found = (_Face(*pair) for pair in zip(matrices, small, strict=True))
                self._seen = {key: next(found) if face else _Face() for key, face in zip(keys, shows, strict=True)}

    def face(self, photo: Path) -> _Face:
        """The largest face of a photo. Raises DFIError where it cannot be read."""
        try:
            status = photo.stat()
        except OSError as error:
            raise DFIError(ErrorCode.BAD_IMAGE, f"{photo} cannot be read ({error.strerror}).") from error
        name = str(photo.relative_to(self.folder)).encode(errors="surrogateescape").hex()
        key = f"{name} {status.st_size} {status.st_mtime_ns}"
        if key not in self._seen:
            self._seen[key] = self._look(photo)
        self._asked[key] = self._seen[key]
        return self._seen[key]

    def _look(self, photo: Path) -> _Face:
        pixels = colour.to_srgb(disk.read(photo))
        found = find_largest(pixels, self.canonical)
        if not found:
            return _Face()
        frame = align(found[0].landmarks, self.canonical)
        return _Face(frame.matrix, to_8bit(seen(pixels, frame.of_size(SMALL))))

    def keep(self, complete: bool) -> None:
        """Write down what the folder's photos show; a full disk only means that they are looked at again.

        `complete`: all of them were asked for, so that the others are no longer there.
        """
        kept = self._asked if complete else self._seen
        faces = [face for face in kept.values() if face.matrix is not None]
        tensors: dict[str, np.ndarray] = {
            "shows": np.array([face.matrix is not None for face in kept.values()], dtype=np.uint8),
            "matrices": np.array([face.matrix for face in faces], np.float64).reshape(-1, 2, 3),
            "small": np.array([face.small for face in faces], np.uint8).reshape(-1, SMALL, SMALL, 3),
        }
        content = safetensors.numpy.save(tensors, metadata={"photos": json.dumps(list(kept))})
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, lambda file: file.write(content))
