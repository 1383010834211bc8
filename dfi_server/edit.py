"""The one pipeline: a photo and {attribute: alpha} to edited pixels. Command line, server and tests all call it."""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product

import torch

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import beard, layout, skin
from dfi_server.face.choice import FaceChooser
from dfi_server.face.expression import EXPRESSIONS, SOLVED, Expression, express
from dfi_server.face.find import Face
from dfi_server.face.frame import Frame
from dfi_server.face.paste import paste
from dfi_server.face.portraits import load_portraits
from dfi_server.face.solved import Solve, SolvedFace
from dfi_server.photo.pixels import Box, Layers, Patch, Pixels, check_photo, merge, on_one_box, within
from dfi_server.solver import reconstruct, vgg
from dfi_server.stage import FINE, Asked, Stage
from dfi_server.vectors.store import check_alphas, open_store
from dfi_server.wire.limits import MAX_ITERATIONS, check_neighbours
from dfi_server.wire.messages import FaceChoice

_REFINEMENT = 0.175  # see _refinement
_AFTER_MOTION = 12  # iterations for what an expression leaves to the solver: more add years
_LEAST_SPAN = 240  # photo pixels across the smallest frame with detail that LFW's photos lack
_FROM_THE_PHOTO = ("eyeglasses",)  # on top of a coarse pair, a fine one would be a second pair
_ALIKE = 0.9  # cosine between two settings, above which the solution of one is a start for the other

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a solve has come, after each L-BFGS iteration."""

    iteration: int
    iterations: int
    loss: float


@dataclass(frozen=True)
class Edit:
    """The edited rectangle, and what the solver did for it; `loss` is the mean over its solves, 0 without any.

    `faces`: those that were edited, in the order of their size or as chosen, and how each was.
    """

    patch: Patch
    iterations: int
    evaluations: int
    loss: float
    seconds: float
    faces: Sequence[SolvedFace]


class Editor:
    """One network and one store of attribute vectors, loaded once, on one device.

    stage: what solves with them.
    """

    def __init__(self, store: str | None = None, device: str = "auto") -> None:
        """Load the store by name (None: the default). Raises DFIError(NO_STORE | BAD_STORE | BAD_REQUEST)."""
        self._asked_for = store
        self.store = open_store(store)
        self.device = vgg.choose_device(device)
        self.stage = Stage(self.store, self.device)
        self.network = self.stage.network
        self._chooser = FaceChooser(self.store.canonical_landmarks)

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
        return self.store.attributes

    def edit(
        self,
        photo: Pixels,
        alphas: Mapping[str, float],
        *,
        face: FaceChoice = "largest",
        box: Box | None = None,
        iterations: int | None = None,
        keep: Collection[str] = (),
        neighbours: int | None = None,
        progress: Callable[[Progress], None] = lambda state: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Edit:
        """Give faces in `photo` the attributes `alphas`, each as strong as its alpha.

        `photo`: (H, W, 3) or (H, W, 1), sRGB, uint8, uint16, or float32 in [0, 1]; it is not changed.
        `alphas`: attribute -> alpha in [-2, 2], the shift's length as a fraction of |phi(x)|.
        `face`: "largest", "all", or a number from 1 in the order of `faces`.
        `box`: x, y, width, height, over the border too: only faces in it are edited, and nothing outside it. Where no
        face is found in it, the box itself is taken for one, hairline to throat and ear to ear.
        `iterations`: of L-BFGS for each face, 1 to MAX_ITERATIONS; None: as many as it takes until little more comes,
        the store's own at most.
        `keep`: attributes that stay as they are: their vectors are taken out of the shift.
        `neighbours`: make the vectors from so many faces of LFW with the attribute, and as many without, that are most
        like this one; None: from all, as they are in the store.
        `cancelled` is asked between iterations. Raises DFIError: BAD_IMAGE, TOO_LARGE, BAD_BOX, NO_FACE, BAD_ALPHA,
        UNKNOWN_ATTRIBUTE, BAD_REQUEST, CANCELLED, OUT_OF_MEMORY.
        """
        (edit,) = self.sweep(
            photo,
            [alphas],
            face=face,
            box=box,
            iterations=iterations,
            keep=keep,
            neighbours=neighbours,
            progress=progress,
            cancelled=cancelled,
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
        keep: Collection[str] = (),
        neighbours: int | None = None,
        progress: Callable[[Progress], None] = lambda state: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[Edit]:
        """The same photo edited with each of several `settings`; for the rest as `edit`.

        The strongest is solved first. Each of the others starts from the one before where both ask for the same, more
        or less of it, and then takes a fraction of the iterations. The patches share one rectangle.
        """
        tolerance = reconstruct.TOLERANCE if iterations is None else 0.0
        if iterations is not None and not 1 <= iterations <= MAX_ITERATIONS:
            raise DFIError(ErrorCode.BAD_REQUEST, f"Iterations must be from 1 to {MAX_ITERATIONS}, not {iterations}.")
        if neighbours is not None:
            check_neighbours(neighbours)
            _ = self.stage.neighbours  # whether there are any is said before the work
        for alphas in settings:
            check_alphas(alphas, keep)
            self.store.check_names([*alphas, *keep])
        check_photo(photo)
        frames = self._chooser.frames(photo, face, box)
        order = sorted(range(len(settings)), key=lambda i: -_length(settings[i]))
        alike = [False, *(_alike(settings[before], settings[i]) for before, i in pairwise(order))]

        def limit(stage: Stage, usual: int) -> int:
            return usual if iterations is None or stage is not self.stage else iterations

        def most(stage: Stage, share: Mapping[str, float], refined: bool) -> int:
            full = limit(stage, stage.most_iterations(share))
            return _refinement(full) if refined else full

        steps = product(frames, zip(order, alike, strict=True))
        shares = [(refined, self._shares(frame, settings[i])) for frame, (i, refined) in steps]
        done, total = 0, sum(most(*part, refined) for refined, share in shares for part in share.items())

        def alive(iteration: int = 0, loss: float = math.nan) -> None:
            progress(Progress(min(done + iteration, total), total, loss))
            if cancelled():
                raise DFIError(ErrorCode.CANCELLED, "The edit was cancelled.")

        solved: list[list[SolvedFace]] = [[] for _ in settings]
        try:
            for frame in frames:
                starts: dict[Stage, _Start] = {}  # what each stage ended with at the setting before
                for i, refined in zip(order, alike, strict=True):
                    began = time.perf_counter()
                    layers, solves = Layers(photo), []
                    expression = self._express(layers, frame, settings[i])
                    moved = layers.photo
                    for stage, alphas in self._shares(frame, settings[i], expression is not None).items():
                        start = starts.get(stage) if refined else None
                        finishes = stage is not self.stage and bool(alphas.keys() - _FROM_THE_PHOTO)
                        full = stage.store.info.iterations
                        if expression and not alphas.keys() - EXPRESSIONS.keys():
                            full = min(full, _AFTER_MOTION)
                        full = limit(stage, full // (2 if finishes else 1))
                        nearest = neighbours if stage is self.stage else None
                        part = frame.of_size(stage.store.info.frame_size)
                        state = stage.solve(
                            layers.photo,
                            part,
                            Asked(alphas, keep, nearest, alive),
                            expression,
                            moved if finishes else None,
                            iterations=_refinement(start.iterations) if start else full,
                            tolerance=0.0 if start else tolerance,
                            start=start.solution.times(_length(alphas) / start.length) if start else None,
                            callback=lambda state: alive(state.iteration, state.loss),
                        )
                        taken = start.iterations if start else state.iteration
                        starts[stage] = _Start(state.solution, _length(alphas), taken)
                        change = state.change
                        layers.add(paste(layers.photo, part, state.photo, change))
                        figures = state.iteration, state.evaluations, state.loss, state.losses
                        solves.append(Solve(part, alphas, change, *figures))
                        done += most(stage, alphas, refined)
                    _add_fine(layers, moved, frame, settings[i])
                    seconds = time.perf_counter() - began
                    solved[i].append(SolvedFace(frame, layers.patch, expression, solves, seconds))
            edits = [_together(photo, faces_of_one, box) for faces_of_one in solved]
            patches = on_one_box(photo, [edit.patch for edit in edits])
            return [replace(edit, patch=patch) for edit, patch in zip(edits, patches, strict=True)]
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise DFIError(
                ErrorCode.OUT_OF_MEMORY,
                f"The edit did not fit into the memory of {self.device_name}: close other programs, "
                "or edit less of the photo.",
            ) from error

    def _express(self, layers: Layers, frame: Frame, alphas: Mapping[str, float]) -> Expression | None:
        """Lay the expression that `alphas` asks for over the photo, where the face is large enough to see how.

        None where nothing was moved.
        """
        portraits = load_portraits() if _is_large(frame) and EXPRESSIONS.keys() & alphas.keys() else None
        if not portraits or not (seen := self._chooser.expressive(layers.photo, frame, portraits)):
            return None
        if expression := express(layers.photo, seen, alphas, portraits):
            layers.add(expression.patch)
        return expression

    def _shares(self, frame: Frame, alphas: Mapping[str, float], moved: bool = True) -> dict[Stage, dict[str, float]]:
        """What is left for this solver, and for the one that paints fine things. `moved`: a new expression is there."""
        coarse = dict(alphas)
        if moved and _is_large(frame) and load_portraits():
            coarse |= {name: SOLVED.get(name, 0.0) * coarse[name] for name in EXPRESSIONS if name in coarse}
        fine = {name: gain * coarse[name] for name, gain in FINE.items() if coarse.get(name, 0.0) > 0}
        own = coarse.keys() & set(self.store.own_attributes)
        detailer = self._detailer if (fine or own) and _is_large(frame) else None  # loaded when it is needed
        if detailer:
            fine |= {name: coarse[name] for name in own & set(detailer.store.own_attributes)}
        else:
            fine = {}
        coarse = {name: alpha for name, alpha in coarse.items() if name not in fine or name not in _FROM_THE_PHOTO}
        shares = {self.stage: coarse, detailer: fine}
        return {stage: share for stage, share in shares.items() if stage and any(share.values())}

    @cached_property
    def _detailer(self) -> Stage | None:
        """The solver for the frame in which a sharp portrait's details are seen; a preview does without."""
        if self.store.info.frame_size != layout.FRAME_SIZE:
            return None
        try:
            return Stage(open_store(paths.DETAIL), self.device)
        except DFIError as error:
            log.warning("%s Until then glasses and the like come out coarser.", error)
            return None

    def faces(self, photo: Pixels, box: Box | None = None) -> list[Face]:
        """The faces of a photo, or those in a box of it, as `edit` numbers them. Raises DFIError as `edit` does."""
        check_photo(photo)
        return self._chooser.faces(photo, box)


@dataclass(frozen=True)
class _Start:
    """What a stage found for alphas of a `length`, and how many iterations a solve from nothing took."""

    solution: reconstruct.Solution
    length: float
    iterations: int


def _together(photo: Pixels, faces: Sequence[SolvedFace], box: Box | None) -> Edit:
    patch = merge(photo, [face.patch for face in faces])
    solves = [solve for face in faces for solve in face.solves]
    return Edit(
        patch if box is None else within(patch, box),
        iterations=sum(solve.iterations for solve in solves),
        evaluations=sum(solve.evaluations for solve in solves),
        loss=sum(solve.loss for solve in solves) / max(len(solves), 1),
        seconds=sum(face.seconds for face in faces),
        faces=faces,
    )


def _add_fine(layers: Layers, before: Pixels, frame: Frame, alphas: Mapping[str, float]) -> None:
    """Lay strands over a beard that was painted, and the lines of age over skin; `before`: the photo without either."""
    if not _is_large(frame) or not (portraits := load_portraits()):
        return
    if beard.grows(alphas) and (strands := beard.grow(before, layers.photo, frame, portraits)):
        layers.add(strands)
    if skin.ages(alphas) and (lines := skin.change_lines(before, layers.photo, frame, alphas, portraits)):
        layers.add(lines)


def _is_large(frame: Frame) -> bool:
    return frame.scale * frame.size >= _LEAST_SPAN


def _length(alphas: Mapping[str, float]) -> float:
    return math.hypot(*alphas.values())


def _alike(before: Mapping[str, float], alphas: Mapping[str, float]) -> bool:
    """Whether a setting points the same way as the one before, so that the solution of that is a start for it."""
    dot = sum(alpha * before.get(name, 0.0) for name, alpha in alphas.items())
    return dot > _ALIKE * _length(before) * _length(alphas) > 0


def _refinement(iterations: int) -> int:
    """Iterations of a solve that starts from the solution of one that took `iterations`."""
    return max(1, round(iterations * _REFINEMENT))
