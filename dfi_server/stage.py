"""A network with its vectors, on one device: what it makes of a face's frame. Edits take a second for fine things.

A solve begins with what is quick to know. The network's predictor says it; for VGG-19 the starter does, which has
learnt to see as VGG-19 does with a quarter of the arithmetic, and has a predictor.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfi_server import paths
from dfi_server.errors import DFIError
from dfi_server.face import layout
from dfi_server.face.expression import Expression
from dfi_server.face.frame import Frame, cut, soften
from dfi_server.photo.pixels import Pixels
from dfi_server.solver import reconstruct, vgg
from dfi_server.vectors.neighbours import Neighbours
from dfi_server.vectors.store import Store, open_store

LED_GAIN = 1.08
"""What alpha is multiplied by where the starter leads: so few iterations come less far on the way.

It is so in the rare solve, too, that does not take the lead: the objective that judges the lead has it already.
"""

FINE = {
    "eyeglasses": 1.15,
    "sunglasses": 1.5,
    "bushy_eyebrows": 1.0,
}
"""What portraits' vectors are good at, in a frame of DETAIL_FRAME_SIZE: times alpha."""

_EYES = (90, 250), (84, 316)  # rows and columns of the large frame that FINE is about; beyond the temples it has ears
_FACE = (10, 350), (30, 370)  # the same without neck and background, in which a few portraits agree in nothing
_FADE = 20  # its pixels over which these end

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What a stage is to change: see Editor.edit. `alive` is called now and then, and may raise."""

    alphas: Mapping[str, float]
    keep: Collection[str] = ()
    neighbours: int | None = None
    alive: Callable[[], None] = lambda: None


class Stage:
    """`led`: whether solves begin with a predictor's steps, or the starter's; where not, L-BFGS does it alone."""

    def __init__(self, store: Store, device: torch.device) -> None:
        """Load a store's network. Raises DFIError(BAD_STORE)."""
        self.store, self.device, self.led = store, device, True
        self.network = vgg.load(store.weights(), device)
        self._predictor = store.predictor(device)

    def most_iterations(self, alphas: Mapping[str, float]) -> int:
        """Of a solve, at most, as things usually go; those that its first steps stand for are among them."""
        return reconstruct.LED_ITERATIONS if self._led_by(alphas) else self.store.info.iterations

    def shift(self, asked: Asked, phi: vgg.Features) -> vgg.Features:
        """What an edit adds to a face's features, see Store.shift."""
        instead = {}
        if asked.neighbours:
            instead = self.neighbours.vectors(list(asked.alphas), phi, asked.neighbours, asked.alive)
        return self.store.shift(asked.alphas, phi, asked.keep, instead)

    @cached_property
    def neighbours(self) -> Neighbours:
        """Raises DFIError where LFW's faces are not there."""
        return Neighbours(self.store, self.network, self.device)

    def solve(
        self,
        photo: Pixels,
        frame: Frame,
        asked: Asked,
        expression: Expression | None,
        towards: Pixels | None,
        *,
        iterations: int,
        tolerance: float,
        start: reconstruct.Solution | None,
        callback: Callable[[reconstruct.Iteration], None],
    ) -> reconstruct.Iteration:
        """Change the face in a photo's frame, which is of the store's size. For the rest see reconstruct.

        `expression`: what has been moved in `photo` already, and stays. `towards`: the photo that is meant, where
        `photo` has been changed already.
        """
        image = self._image(photo, frame)
        kept = self._kept(expression, asked.alphas)
        leader = self._led_by(asked.alphas)
        if leader:
            asked = replace(asked, alphas={name: LED_GAIN * alpha for name, alpha in asked.alphas.items()})
        return reconstruct.reconstruct(
            self.network,
            image,
            lambda phi: self.shift(asked, phi),
            predictor=self._predictor if self.led else None,
            lead=leader._first_steps(image, asked, kept) if leader and not start else None,
            kept=kept,
            towards=None if towards is None else self._image(towards, frame),
            iterations=iterations,
            tolerance=tolerance,
            start=start,
            callback=callback,
        )

    def _image(self, photo: Pixels, frame: Frame) -> Tensor:
        sharp = cut(photo, frame)
        return (sharp if frame.size == layout.DETAIL_FRAME_SIZE else soften(sharp)).to(self.device)

    def _first_steps(self, image: Tensor, asked: Asked, kept: Tensor | None) -> reconstruct.Solution:
        """Where this network's predictor leads, for what it knows of what is asked."""
        assert self._predictor
        known = Asked({name: asked.alphas[name] for name in self._known(asked.alphas)}, asked.keep)
        return reconstruct.reconstruct(
            self.network,
            image,
            lambda phi: self.shift(known, phi),
            predictor=self._predictor,
            kept=kept,
            iterations=self._predictor.passes * self._predictor.worth,
            callback=lambda state: asked.alive(),
        ).solution

    def _known(self, alphas: Mapping[str, float]) -> list[str]:
        return [name for name in alphas if name in self.store.attributes]

    def _led_by(self, alphas: Mapping[str, float]) -> "Stage | None":
        """The starter, where this network is a VGG-19, and the starter knows some of what is asked."""
        leader = self._starter if self.led and self.network.is_vgg19 else None
        return leader if leader and leader._known(alphas) else None

    @cached_property
    def _starter(self) -> "Stage | None":
        if self.store.info.frame_size != layout.FRAME_SIZE:
            return None
        try:
            return Stage(open_store(paths.STARTER.name), self.device)
        except DFIError as error:
            log.warning("%s Until then edits take longer.", error)
            return None

    def _kept(self, expression: Expression | None, alphas: Mapping[str, float]) -> Tensor | None:
        """What of the frame must stay: what an expression moved; of a large frame all but eyes or face."""
        size = self.store.info.frame_size
        kept = None
        if expression:
            moved = torch.from_numpy(expression.kept)[None, None]
            kept = F.interpolate(moved, (size, size), mode="area").to(self.device)
        if size != layout.DETAIL_FRAME_SIZE:
            return kept
        pixels = np.arange(size)
        down, across = (
            np.clip(np.minimum(pixels - low, high - pixels) / _FADE, 0, 1).astype(np.float32)
            for low, high in (_FACE if alphas.keys() - FINE.keys() else _EYES)
        )
        free = torch.from_numpy(np.outer(down, across))[None, None].to(self.device)
        return 1 - free if kept is None else 1 - free * (1 - kept)
