"""Region filling: what a mask covers of a face is filled from the faces that are most like the rest of it.

Upchurch et al. (arXiv 1611.05507) take the neighbours whose features are nearest where the photo is known, the mean of
their features for a target where it is not, and let L-BFGS find the image. This does the same with three departures:
- light, colours and coarse shapes come from a regression (vectors/alike.py), since a plain mean of neighbours
  is as light as they are, and from a membrane that makes them meet the photo at the seam (photo/membrane.py);
- neighbours are moved onto that before their features are averaged, so that eyes meet eyes (face/exemplar.py);
- what is finer than the frame comes from the nearest of them: a mean has no pores.
The photo's own other half is one of the neighbours where it shows what is missing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import exemplar, layout
from dfi_server.face.find import align, find_covered, find_faces
from dfi_server.face.frame import Frame, sample, seen, warp
from dfi_server.photo.membrane import membrane
from dfi_server.photo.pixels import Box, Patch, Pixels, brightness, check_photo, composite, crop, from_unit, to_unit
from dfi_server.photo.tone import tone_of
from dfi_server.solver import reconstruct, vgg
from dfi_server.solver.place import Window
from dfi_server.vectors.alike import find_alike
from dfi_server.vectors.gallery import SMALL, Gallery, of_package
from dfi_server.vectors.store import Store, open_store

ITERATIONS = 30
"""L-BFGS iterations of a filling, at most."""

_LOOKED_AT = 12  # neighbours whose features are compared
_AVERAGED = 6  # of these
_SHARPNESS = 0.3  # of the least distance: by how much more a neighbour counts e times less
_AROUND = 60  # frame pixels around the hole that features are compared in
_REACH = 40.0  # frame pixels over which they count less and less
_UNTOUCHED = 5  # frame pixels from the hole: nearer features see what was put there
_HIDDEN = 0.4  # of a hole, on the other side of the face: up to there that counts as a neighbour
_OWN = 0.6  # times its distance: nobody else has this skin, and these eyes
_RING = 10  # frame pixels around what that does not show
_STRIP = 2.0  # frame pixels over which it goes over into another face
_FINE = 1.3  # photo pixels to a pixel of the frame from which a photo has detail that the frame lacks
_LARGEST = 800  # pixels to a side of a frame for detail
_COVERED = 0.05  # of a pixel of the frame: then it is part of the hole
_TOO_MUCH = 0.8  # of the frame: what is left would be background
_EDGE = 12  # frame pixels over which a filling ends at the frame's sides
_SCRATCH = (2.0, 4.0)  # frame pixels from a hole's middle to its side: up to there it is painted over
_EVENED = 0.6  # how far: the rest is what faces are like, with their pores
_RADIUS = 3  # photo pixels beside a scratch that it is painted over with
_SEAM = 16  # photo pixels, at least, around the hole that the seam is looked at in
_IN_IT = 0.5  # times the largest part of a hole that is in a face: with as much it may be meant


@dataclass(frozen=True)
class Filling:
    """The filled rectangle. `outside`: the part of the mask that lies beyond the face, and is filled smoothly."""

    patch: Patch
    outside: float
    iterations: int
    seconds: float


@dataclass(frozen=True)
class Filler:
    """A store's network for features, on a device; an Editor's will do."""

    store: Store
    network: vgg.VGGFeatures
    device: torch.device

    @classmethod
    def load(cls, store: str | None = None, device: str = "auto") -> "Filler":
        """The network of a store by name (None: the default). Raises DFIError(NO_STORE | BAD_STORE)."""
        opened, chosen = open_store(store), vgg.choose_device(device)
        return cls(opened, vgg.load(opened.weights(), chosen), chosen)

    @cached_property
    def package_faces(self) -> Gallery:
        """Those that are part of the package. Raises DFIError(BAD_STORE)."""
        return of_package()

    def fill(
        self,
        photo: Pixels,
        mask: np.ndarray,
        gallery: Gallery | None = None,
        *,
        box: Box | None = None,
        iterations: int | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Filling:
        """Fill what `mask` covers.

        `photo`: (H, W, 3) or (H, W, 1), sRGB, as in Editor.edit; what is under the mask is not looked at. `mask`:
        (H, W) uint8, how far each pixel is replaced; where it is 0 the photo stays as it is. `gallery`: the faces to
        fill from; None: the package's. `box`: where the face is, hairline to throat and ear to ear, if it cannot be
        found. `iterations`: of L-BFGS, at most; None: ITERATIONS. `progress`: iterations done, and at most, told
        before and after these as well; whatever it raises ends the work. Raises DFIError(BAD_IMAGE | TOO_LARGE |
        BAD_MASK | NO_FACE | BAD_BOX | BAD_STORE | OUT_OF_MEMORY).
        """
        began = time.perf_counter()
        check_photo(photo)
        check_mask(mask, photo)
        gallery = gallery or self.package_faces
        iterations = iterations or ITERATIONS
        progress(0, iterations)
        hole = _Hole(photo, mask)
        rough = hole.filled(None, None)
        size = (photo.shape[1], photo.shape[0])
        frame = Frame.of_box(box, size) if box else self._find(rough, hole)
        view, covered = hole.seen(rough, frame)
        if not covered.any():
            raise DFIError(
                ErrorCode.BAD_MASK,
                "The mask covers nothing of the face: mask what hides it, or say where it is (--box X,Y,W,H).",
            )
        if covered.mean() > _TOO_MUCH:
            raise DFIError(
                ErrorCode.BAD_MASK,
                "The mask leaves too little of the face to say what belongs there: leave more of it black, or say "
                "where the face is (--box X,Y,W,H).",
            )
        progress(0, iterations)
        guide, nearest = _expect(view, covered, gallery)
        neighbours = [_frame_of(gallery, each, frame.size) for each in nearest]
        try:
            solved, best, donor = self._solve(guide, covered, neighbours, iterations, progress)
        except torch.OutOfMemoryError as error:
            raise DFIError(
                ErrorCode.OUT_OF_MEMORY,
                f"The filling did not fit into the memory of {self.device.type}: close other programs, or use "
                "--device cpu.",
            ) from error
        picture = np.where(covered[..., None], solved.image[0].permute(1, 2, 0).cpu().numpy(), view)
        if frame.scale > _FINE:
            progress(solved.iteration, iterations)
            fine = frame.of_size(min(_LARGEST, round(frame.size * frame.scale)))
            view, covered = hole.seen(hole.filled(picture, frame), fine)

            def detail(which: int) -> np.ndarray:
                """A neighbour as fine as the photo, fitted."""
                own = which == len(nearest)
                coarse = guide[:, ::-1] if own else neighbours[which]
                neighbour = view[:, ::-1] if own else _frame_of(gallery, nearest[which], fine.size)
                return exemplar.moved(np.ascontiguousarray(neighbour), exemplar.motion_to(picture, coarse))

            neighbour = detail(best)
            if best == len(nearest):
                neighbour = _where_unseen(neighbour, detail(donor), covered)
            picture, frame = exemplar.detailed(view, neighbour, view, covered), fine
        patch = hole.patch(picture, frame)
        return Filling(patch, hole.outside(frame), solved.iteration, time.perf_counter() - began)

    def _find(self, photo: Pixels, hole: "_Hole") -> Frame:
        """The frame of the surest face that the hole is in."""
        canonical = self.store.canonical_landmarks
        found = find_covered(photo, canonical, hole.mask > 0) or find_faces(photo, canonical)
        frames = [align(face.landmarks, canonical) for face in found]
        inside = [1 - hole.outside(frame) for frame in frames]
        for frame, share in zip(frames, inside, strict=True):
            if share > 0 and share > _IN_IT * max(inside):
                return frame
        raise DFIError(
            ErrorCode.NO_FACE,
            "No face was found where the mask is: say where it is with a box around it, from hairline to throat and "
            "ear to ear (--box X,Y,W,H).",
        )

    def _solve(
        self,
        guide: np.ndarray,
        covered: np.ndarray,
        neighbours: Sequence[np.ndarray],
        iterations: int,
        progress: Callable[[int, int], None],
    ) -> tuple[reconstruct.Iteration, int, int]:
        """DFI: the picture with the nearest neighbours' mean features in the hole; and which of them is the nearest.

        The number after the last neighbour's is the guide's own other half; the last result is who stands in where that
        has the hole as well.
        """
        inside = self._tensor(covered[..., None])
        window = Window.around(self._tensor(_grown(covered, _AROUND)[..., None]))
        fitted = []
        for each in neighbours:
            progress(0, iterations)
            fitted.append(_fitted(guide, each))
        distance = cv2.distanceTransform((~covered).astype(np.uint8), cv2.DIST_L2, 5)
        weight = self._tensor(np.where(distance > _UNTOUCHED, np.exp(-distance / _REACH), 0)[..., None])
        donor = 0
        phi = self._features(guide, window)
        features = []
        for each in fitted:
            progress(0, iterations)
            features.append(self._features(each, window))
        distances = [_distance(each, phi, window.of_image(weight)) for each in features]
        if _unseen(covered)[covered].mean() < _HIDDEN:
            own = _fitted(guide, np.ascontiguousarray(guide[:, ::-1]))
            donor = _donor(np.where(covered[..., None], own, guide), fitted, covered)
            fitted.append(_where_unseen(own, fitted[donor], covered))
            features.append(self._features(fitted[-1], window))
            distances.append(_OWN * _distance(features[-1], phi, window.of_image(weight)))
        order = np.argsort(distances)[:_AVERAGED]
        nearest = min(distances)
        shares = np.exp((nearest - np.array(distances)[order]) / (_SHARPNESS * nearest + 1e-6))
        shares /= shares.sum()
        chosen = list(zip(shares.tolist(), order.tolist(), strict=True))
        target = [sum(share * features[i][layer].float() for share, i in chosen) for layer in range(len(phi))]
        mean = np.asarray(sum(share * fitted[i] for share, i in chosen))
        start = np.where(covered[..., None], mean + membrane(guide - mean, ~covered), guide)

        def shift(whole: vgg.Features) -> vgg.Features:
            relu3_1, relu4_1, relu5_1 = (
                window.in_features(wanted - own, layer) * F.avg_pool2d(inside, scale)
                for wanted, own, layer, scale in zip(target, window.of_features(whole), whole, vgg.SCALES, strict=True)
            )
            return relu3_1, relu4_1, relu5_1

        state = reconstruct.reconstruct(
            self.network,
            self._tensor(start),
            shift,
            iterations=iterations,
            tolerance=reconstruct.TOLERANCE,
            everywhere=True,
            kept=1 - inside,
            callback=lambda state: progress(state.iteration, iterations),
        )
        return state, int(order[0]), donor

    @torch.no_grad()
    def _features(self, frame: np.ndarray, window: Window) -> vgg.Features:
        features: vgg.Features = self.network(window.of_image(self._tensor(frame)))
        return features

    def _tensor(self, frame: np.ndarray) -> Tensor:
        """(S, S, C) to (1, C, S, S) float32."""
        return torch.from_numpy(np.ascontiguousarray(frame, np.float32)).permute(2, 0, 1)[None].to(self.device)


def check_mask(mask: np.ndarray, photo: Pixels) -> None:
    """Raise DFIError(BAD_MASK) for a mask of another size than the photo, or one that covers nothing, or all."""
    if mask.shape != photo.shape[:2]:
        raise DFIError(
            ErrorCode.BAD_MASK,
            f"The mask has {mask.shape[1]} x {mask.shape[0]} pixels and the photo {photo.shape[1]} x {photo.shape[0]}: "
            "it needs as many, with white where the photo is to be filled and black elsewhere.",
        )
    if not mask.any():
        raise DFIError(
            ErrorCode.BAD_MASK, "The mask is black all over: paint it white where the photo is to be filled."
        )
    if mask.all():
        raise DFIError(
            ErrorCode.BAD_MASK,
            "The mask covers the whole photo, so that nothing says what belongs there: leave black what is to stay.",
        )


class _Hole:
    """What a mask covers of a photo, and the region around it that is looked at where the two meet."""

    def __init__(self, photo: Pixels, mask: np.ndarray) -> None:
        self._photo, self.mask = photo, mask
        left, top, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
        margin = max(_SEAM, max(width, height) // 8)
        x, y = max(0, left - margin), max(0, top - margin)
        right, bottom = min(left + width + margin, mask.shape[1]), min(top + height + margin, mask.shape[0])
        self._region = x, y, right - x, bottom - y
        self._known = crop(mask, self._region) == 0

    def patch(self, picture: np.ndarray | None, frame: Frame | None) -> Patch:
        """The hole filled with a frame's picture as far as that reaches, and smoothly where it does not."""
        part = to_unit(crop(self._photo, self._region))
        result = membrane(part, self._known)
        if frame and picture is not None:
            inside = self._inside(frame)
            sampled = _sampled(picture, frame, self._region)
            sampled = sampled if part.shape[2] == 3 else brightness(sampled)
            result += inside * (sampled + membrane(part - sampled, self._known) - result)
            result += _EVENED * self._thin(frame) * (self._smoothed(result, frame) - result)
        if tone := tone_of(self._photo):
            result = tone.of(result)
        return Patch(*self._region[:2], from_unit(result, self._photo.dtype), crop(self.mask, self._region).copy())

    def filled(self, picture: np.ndarray | None, frame: Frame | None) -> Pixels:
        """The photo with that, without a trace of what is under the mask."""
        patch = self.patch(picture, frame)
        return composite(self._photo, replace(patch, mask=np.where(patch.mask > 0, 255, 0).astype(np.uint8)))

    def seen(self, photo: Pixels, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """The frame of the photo as filled so far, (S, S, 3), and where in it the hole is, (S, S) bool."""
        mask = np.where(self.mask > 0, 255, 0).astype(np.uint8)[..., None]
        return seen(photo, frame), warp(mask, frame.matrix, (frame.size, frame.size))[..., 0] > _COVERED

    def outside(self, frame: Frame) -> float:
        """The part of the hole that lies beyond a frame."""
        return float((1 - self._inside(frame)[..., 0])[~self._known].mean())

    def _thin(self, frame: Frame) -> np.ndarray:
        """How far each pixel of the region belongs to a part of the hole that is a mere scratch, (h, w, 1)."""
        depth = cv2.distanceTransform((~self._known).astype(np.uint8), cv2.DIST_L2, 5)
        low, high = (limit * frame.scale * frame.size / layout.FRAME_SIZE for limit in _SCRATCH)
        around = 2 * round(1.5 * high) + 1
        thickness = cv2.dilate(depth, np.ones((around, around), np.uint8))
        return np.where(self._known, 0, np.clip((high - thickness) / (high - low), 0, 1))[..., None]

    def _smoothed(self, picture: np.ndarray, frame: Frame) -> np.ndarray:
        """The region with its scratches painted over (Telea, J. Graphics Tools 9(1), 2004)."""
        mask = (self._thin(frame)[..., 0] > 0).astype(np.uint8)
        if not mask.any():
            return picture
        levels = from_unit(picture, np.dtype(np.uint16))  # of floats cv2.inpaint makes noise
        channels = [
            cv2.inpaint(np.ascontiguousarray(levels[..., i]), mask, _RADIUS, cv2.INPAINT_TELEA)
            for i in range(picture.shape[2])
        ]
        return to_unit(np.stack(channels, axis=-1))

    def _inside(self, frame: Frame) -> np.ndarray:
        """How far each pixel of the region belongs to the frame, (h, w, 1)."""
        steps = (np.arange(frame.size, dtype=np.float32) + 0.5) * layout.FRAME_SIZE / frame.size
        edge = np.clip(np.minimum(steps, layout.FRAME_SIZE - steps) / _EDGE, 0, 1)
        sampled = _sampled(np.outer(edge, edge)[..., None], frame, self._region, cv2.BORDER_CONSTANT)
        return np.asarray(np.clip(sampled, 0, 1))


def _expect(view: np.ndarray, covered: np.ndarray, gallery: Gallery) -> tuple[np.ndarray, Sequence[tuple[int, bool]]]:
    """A frame with what the gallery lets expect in its hole, and the neighbours that are most like it."""
    side = (SMALL, SMALL)
    small = cv2.resize(view, side, interpolation=cv2.INTER_AREA)
    hole = cv2.resize(covered.astype(np.float32), side, interpolation=cv2.INTER_AREA) > _COVERED
    found = find_alike(gallery.small, small, hole, _LOOKED_AT)
    expected = cv2.resize(found.expected, covered.shape, interpolation=cv2.INTER_CUBIC)
    return np.where(covered[..., None], expected + membrane(view - expected, ~covered), view), found.nearest


def _frame_of(gallery: Gallery, neighbour: tuple[int, bool], size: int) -> np.ndarray:
    number, mirrored = neighbour
    frame = gallery.frame(number, size)
    return np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame


def _fitted(guide: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    return exemplar.relit(exemplar.moved(neighbour, exemplar.motion_to(guide, neighbour)), guide).astype(np.float32)


def _unseen(covered: np.ndarray) -> np.ndarray:
    """The part of a hole that the face's other half does not show either, (S, S) bool."""
    return np.asarray(covered & covered[:, ::-1])


def _donor(face: np.ndarray, fitted: Sequence[np.ndarray], covered: np.ndarray) -> int:
    """The number of the neighbour most like a face around what its other half does not show."""
    unseen = _unseen(covered)
    near = _grown(unseen, _RING) & ~unseen
    if not near.any():
        return 0
    return int(np.argmin([np.square((exemplar.relit(each, face) - face)[near]).mean() for each in fitted]))


def _where_unseen(own: np.ndarray, other: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """A face's own other half, and another face where that is not seen."""
    scale = len(covered) / layout.FRAME_SIZE
    grown = _grown(covered[:, ::-1], round(2 * _STRIP * scale)).astype(np.float32)
    weight = cv2.GaussianBlur(grown, (0, 0), _STRIP * scale)[..., None]
    return np.asarray(own + weight * (exemplar.relit(other, own) - own), np.float32)


def _distance(features: vgg.Features, others: vgg.Features, weight: Tensor) -> float:
    """One minus the cosine between features where `weight` (1, 1, H, W) is, the mean over the layers."""
    cosines = []
    for layer, other, scale in zip(features, others, vgg.SCALES, strict=True):
        root = F.avg_pool2d(weight, scale).sqrt()
        cosines.append(F.cosine_similarity((root * layer.float()).flatten(), (root * other.float()).flatten(), dim=0))
    return 1 - float(torch.stack(cosines).mean())


def _grown(covered: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(cv2.distanceTransform((~covered).astype(np.uint8), cv2.DIST_L2, 5) <= pixels)


def _sampled(picture: np.ndarray, frame: Frame, region: Box, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    """A frame's picture (S, S, C) at the photo's pixels in `region`, (h, w, C)."""
    to_frame = frame.inverse()
    to_frame[:, 2] += to_frame[:, :2] @ region[:2]
    return sample(picture.astype(np.float32), to_frame, region[2:], border=border)
