"""What the user asks for, as the texts that GIMP keeps, and in words."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from i18n import _
from names import label

KEEPABLE = {
    "age": ("senior", "middle_aged", "youth", "child"),
    "sex": ("male",),
    "skin": ("pale_skin", "shiny_skin", "rosy_cheeks", "flushed_face"),
}
"""What `keep` can name beside single attributes: the attributes that stay as they are."""

NEIGHBOURS = 100
"""Faces with an attribute, and without, that its vector is made from where neighbours are asked for."""


class UserError(Exception):
    """The text is a sentence for the user: what is wrong, and what to do about it."""


class Request(NamedTuple):
    """An edit of a layer.

    face: "largest", "all" or a number from 1. layer_mask: what hides is a mask of its own. keep: attributes and names
    of KEEPABLE that stay as they are. neighbours: make the vectors from so many faces that are most like this one; 0:
    from all.
    """

    alphas: Mapping[str, float]
    face: str | int
    layer_mask: bool
    keep: tuple[str, ...] = ()
    neighbours: int = 0

    @property
    def name(self) -> str:
        """Such as "Smiling 0.4, face 2"."""
        name = ", ".join(f"{label(attribute)} {alpha:.3g}" for attribute, alpha in self.alphas.items())
        if self.face == "all":
            return _("{edit}, all faces").format(edit=name)
        return name if self.face == "largest" else _("{edit}, face {number}").format(edit=name, number=self.face)

    def told(self) -> dict[str, Any]:
        """What a result remembers of it, for request_of."""
        return {
            "attribute": format_alphas(self.alphas),
            "face": str(self.face),
            "layer_mask": self.layer_mask,
            "keep": self.keep,
            "neighbours": self.neighbours,
        }


class Filling(NamedTuple):
    """That the selection is filled, which takes no choices."""

    layer_mask: bool = True

    @property
    def name(self) -> str:
        return _("Filled")

    def told(self) -> dict[str, Any]:
        """What a result remembers of it, for request_of."""
        return {"filled": True}


def request_of(told: Mapping[str, Any]) -> Request | Filling:
    """What a result was asked for with. Raises LookupError, TypeError, ValueError, UserError for anything else."""
    if told.get("filled"):
        return Filling()
    alphas = parse_alphas(str(told["attribute"]), 0.0)
    more = tuple(map(str, told.get("keep", ()))), int(told.get("neighbours", 0))  # newer than the others
    return Request(alphas, parse_face(str(told["face"])), bool(told["layer_mask"]), *more)


def parse_alphas(text: str, alpha: float) -> dict[str, float]:
    """The procedure's `attribute` and `alpha` as {name: alpha}. Raises UserError."""
    alphas: dict[str, float] = {}
    for word in text.split():
        name, equals, number = word.partition("=")
        if name in alphas:
            sentence = _("“{name}” is named twice in “{text}”: name each attribute once.")
            raise UserError(sentence.format(name=name, text=text))
        try:
            alphas[name] = float(number) if equals else alpha
        except ValueError:
            sentence = _("“{number}” is not a number: write attributes like “smiling=0.4”.")
            raise UserError(sentence.format(number=number)) from None
    if not alphas:
        raise UserError(_("No attribute was named: name one, such as “smiling”."))
    return alphas


def format_alphas(alphas: Mapping[str, float]) -> str:
    """The text that `parse_alphas` reads; attributes at 0 are left out."""
    return " ".join(f"{name}={alpha:.3g}" for name, alpha in alphas.items() if alpha)


def parse_face(face: str) -> str | int:
    """The procedure's `face` as the server takes it. Raises UserError."""
    if face in ("largest", "all"):
        return face
    if face.isascii() and face.isdigit() and int(face) > 0:
        return int(face)
    raise UserError(_("“{face}” is not a face: write “largest”, “all”, or a number from 1.").format(face=face))


def attributes_kept(keep: Collection[str], alphas: Mapping[str, float], known: Collection[str]) -> list[str]:
    """The attributes that `keep` stands for, without what is to be changed. `known`: the server's attributes."""
    kept = set[str]()
    for word in keep:
        attributes = KEEPABLE.get(word, (word,))
        if not any(alphas.get(name) for name in attributes):
            kept.update(name for name in attributes if name in known or name == word)
    return sorted(kept)
