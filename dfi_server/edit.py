"""The one pipeline: a photo and {attribute: alpha} to edited pixels. Command line, server and tests all call it."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face.find import Face, align, find_faces, find_largest, overlap
from dfi_server.face.frame import Frame, cut, soften
from dfi_server.face.paste import paste
from dfi_server.photo.pixels import Box, Patch, Pixels, merge, within
from dfi_server.solver import reconstruct, vgg
from dfi_server.vectors.store import check_alphas, open_store
from dfi_server.wire.messages import DTYPE_BYTES, MAX_ITERATIONS, MAX_PIXELS, FaceChoice

_REFINEMENT = 0.175  # see _refinement
_ALIKE = 0.9  # cosine between two settings, above which the solution of one is a start for the other


@dataclass(frozen=True)
class Progress:
    """How far a solve has come, after each L-BFGS iteration."""

    iteration: int
    iterations: int
    loss: float


@dataclass(frozen=True)
class Edit:
    """The edited rectangle, and what the solver did for it; `loss` is the mean over faces."""

    patch: Patch
    iterations: int
    evaluations: int
    loss: float
    seconds: float


class Editor:
    """One network and one store of attribute vectors, loaded once, on one device."""

    def __init__(self, store: str | None = None, device: str = "auto") -> None:
        """Load the store by name (None: the default). Raises DFIError(NO_STORE | BAD_STORE | BAD_REQUEST)."""
        self._asked_for = store
        self.store = open_store(store)
        self.device = vgg.choose_device(device)
        self.network = vgg.load(self.store.weights(), self.device)
        self._seen: object = None  # the last photo, and its faces
        self._faces: list[Face] = []

    @property
    def store_name(self) -> str:
        return self.store.name

    def is_outdated(self) -> bool:
        """Whether the store has been replaced or rebuilt since it was loaded, by `dfi setup` say."""
        try:
            return open_store(self._asked_for) != self.store
        except DFIError:
            return False  # gone or damaged: the edit that needs it will say so

    @property
    def device_name(self) -> str:
        """The device and its precision, such as "cpu (bfloat16)"."""
        precision = str(self.network.precision).removeprefix("torch.")
        return f"{self.device.type} ({precision})"

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.store.info.attributes

    def edit(
        self,
        photo: Pixels,
        alphas: Mapping[str, float],
        *,
        face: FaceChoice = "largest",
        box: Box | None = None,
        iterations: int | None = None,
        progress: Callable[[Progress], None] = lambda state: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Edit:
        """Give faces in `photo` the attributes `alphas`, each as strong as its alpha.

        `photo`: (H, W, 3) or (H, W, 1), sRGB, uint8, uint16, or float32 in [0, 1]; it is not changed.
        `alphas`: attribute -> alpha in [-2, 2], the shift's length as a fraction of |phi(x)|.
        `face`: "largest", "all", or a number from 1 in the order of `faces`.
        `box`: x, y, width, height: only faces in it are edited, and nothing outside it. Where no face is found in it,
        the box itself is taken for one, hairline to throat and ear to ear.
        `iterations`: of L-BFGS for each face, 1 to MAX_ITERATIONS; None: as many as it takes until little more comes,
        the store's own at most.
        `cancelled` is asked between iterations. Raises DFIError: BAD_IMAGE, TOO_LARGE, BAD_BOX, NO_FACE, BAD_ALPHA,
        UNKNOWN_ATTRIBUTE, BAD_REQUEST, CANCELLED, OUT_OF_MEMORY.
        """
        (edit,) = self.sweep(
            photo, [alphas], face=face, box=box, iterations=iterations, progress=progress, cancelled=cancelled
        )
        return edit

    def sweep(
        self,
        photo: Pixels,
        settings: Sequence[Mapping[str, float]],
        *,
        face: FaceChoice = "largest",
        box: Box | None = None,
        iterations: int | None = None,
        progress: Callable[[Progress], None] = lambda state: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Edit]:
        """The same photo edited with each of several `settings`; for the rest as `edit`.

        The strongest is solved first. Each of the others starts from the one before where both ask for the same, more
        or less of it, and then takes a fraction of the iterations.
        """
        count = self.store.info.iterations if iterations is None else iterations
        tolerance = reconstruct.TOLERANCE if iterations is None else 0.0
        if not 1 <= count <= MAX_ITERATIONS:
            raise DFIError(ErrorCode.BAD_REQUEST, f"Iterations must be from 1 to {MAX_ITERATIONS}, not {count}.")
        for alphas in settings:
            check_alphas(alphas)
            self.store.check_names(list(alphas))
        _check_photo(photo)
        frames = [place.of_size(self.store.info.frame_size) for place in self._frames(photo, face, box)]
        order = sorted(range(len(settings)), key=lambda i: -_length(settings[i]))
        alike = [False, *(_alike(settings[before], settings[i]) for before, i in pairwise(order))]
        most = [_refinement(count) if refined else count for refined in alike]
        total = len(frames) * sum(most)
        done = 0

        def report(state: reconstruct.Iteration) -> None:
            progress(Progress(min(done + state.iteration, total), total, state.loss))
            if cancelled():
                raise DFIError(ErrorCode.CANCELLED, "The edit was cancelled.")

        solved: list[list[_Solved]] = [[] for _ in settings]
        try:
            for frame in frames:
                image = soften(cut(photo, frame)).to(self.device)
                previous: reconstruct.Solution | None = None
                taken = count  # by the last solve that did not start from another
                for n, i in enumerate(order):
                    start = time.perf_counter()
                    alphas, refined = settings[i], alike[n]
                    if previous and refined:
                        previous = previous.times(_length(alphas) / _length(settings[order[n - 1]]))
                    state = reconstruct.reconstruct(
                        self.network,
                        image,
                        lambda phi, alphas=alphas: self.store.shift(alphas, phi),  # type: ignore[misc]
                        iterations=_refinement(taken) if refined else count,
                        tolerance=0.0 if refined else tolerance,
                        start=previous if refined else None,
                        callback=report,
                    )
                    previous = state.solution
                    taken = taken if refined else state.iteration
                    done += most[n]
                    patch = paste(photo, frame, image, state.change)
                    solved[i].append(_Solved(patch, state, time.perf_counter() - start))
            return [_together(photo, faces_of_one, box) for faces_of_one in solved]
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise DFIError(
                ErrorCode.OUT_OF_MEMORY,
                f"The edit did not fit into the memory of {self.device_name}: close other programs, "
                "or edit less of the photo.",
            ) from error

    def faces(self, photo: Pixels, box: Box | None = None) -> list[Face]:
        """The faces of a photo, or those in a box of it, as `edit` numbers them. Raises DFIError as `edit` does."""
        _check_photo(photo)
        return self._found(photo, box, find_faces)

    def _found(self, photo: Pixels, box: Box | None, find: Callable[[Pixels, np.ndarray], list[Face]]) -> list[Face]:
        """Those of a photo that was seen just before are remembered: an editor asks for edit after edit of the same."""
        digest = hashlib.blake2b(np.ascontiguousarray(photo).data).digest()
        seen = (digest, photo.shape, photo.dtype, find)
        if self._seen != seen:
            self._faces = find(photo, self.store.canonical_landmarks)
            self._seen = seen
        found = self._faces
        return found if box is None else [each for each in found if overlap(each.box, box) > 0.5]

    def _frames(self, photo: Pixels, face: FaceChoice, box: Box | None) -> list[Frame]:
        """Where the chosen faces are. Raises DFIError(NO_FACE | BAD_BOX)."""
        size = (photo.shape[1], photo.shape[0])
        in_box = Frame.of_box(box, size) if box is not None else None
        found = self._found(photo, box, find_largest if face == "largest" and box is None else find_faces)
        if not found and in_box:
            return [in_box]
        if not found and size == (layout.PHOTO_SIZE, layout.PHOTO_SIZE):  # LFW's own size: its own layout
            return [Frame.of_box(layout.FRAME_BOX, size)]
        if not found:
            raise DFIError(
                ErrorCode.NO_FACE,
                "No face was found in the photo: say where it is with a box around it, from hairline to throat and "
                "ear to ear (--box X,Y,W,H on the command line, a selection in GIMP).",
            )
        if face == "largest":
            found = found[:1]
        elif face != "all":
            if not 1 <= face <= len(found):
                there = "one face" if len(found) == 1 else f"{len(found)} faces"
                raise DFIError(ErrorCode.NO_FACE, f"There is no face {face}: the photo has {there}, numbered from 1.")
            found = [found[face - 1]]
        return [align(each.landmarks, self.store.canonical_landmarks) for each in found]


@dataclass(frozen=True)
class _Solved:
    """One face of an edit."""

    patch: Patch
    state: reconstruct.Iteration
    seconds: float


def _together(photo: Pixels, solved: Sequence[_Solved], box: Box | None) -> Edit:
    patch = merge(photo, [each.patch for each in solved])
    return Edit(
        patch if box is None else within(patch, box),
        iterations=sum(each.state.iteration for each in solved),
        evaluations=sum(each.state.evaluations for each in solved),
        loss=sum(each.state.loss for each in solved) / len(solved),
        seconds=sum(each.seconds for each in solved),
    )


def _length(alphas: Mapping[str, float]) -> float:
    return math.hypot(*alphas.values())


def _alike(before: Mapping[str, float], alphas: Mapping[str, float]) -> bool:
    """Whether a setting points the same way as the one before, so that the solution of that is a start for it."""
    dot = sum(alpha * before.get(name, 0.0) for name, alpha in alphas.items())
    return dot > _ALIKE * _length(before) * _length(alphas) > 0


def _refinement(iterations: int) -> int:
    """Iterations of a solve that starts from the solution of one that took `iterations`."""
    return max(1, round(iterations * _REFINEMENT))


def _check_photo(photo: Pixels) -> None:
    if photo.ndim != 3 or photo.shape[2] not in (1, 3) or photo.dtype.name not in DTYPE_BYTES:
        raise DFIError(
            ErrorCode.BAD_IMAGE,
            f"A photo is height x width x 1 or 3 of {', '.join(DTYPE_BYTES)}, not {photo.shape} of {photo.dtype}.",
        )
    if 0 in photo.shape:
        raise DFIError(ErrorCode.BAD_IMAGE, "The photo has no pixels.")
    if photo.shape[0] * photo.shape[1] > MAX_PIXELS:
        raise DFIError(
            ErrorCode.TOO_LARGE,
            f"The photo has {photo.shape[1]} x {photo.shape[0]} pixels, more than {MAX_PIXELS // 10**6} megapixels.",
        )
    if photo.dtype == np.float32 and not np.isfinite(photo).all():
        raise DFIError(ErrorCode.BAD_IMAGE, "The photo has pixels that are not finite numbers.")
