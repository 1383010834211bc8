"""What the user asks for, as the texts that GIMP keeps, and in words."""

from collections.abc import Mapping
from typing import NamedTuple

from i18n import _
from names import label


class UserError(Exception):
    """The text is a sentence for the user: what is wrong, and what to do about it."""


class Request(NamedTuple):
    """An edit of a layer. face: "largest", "all" or a number from 1. layer_mask: what hides is a mask of its own."""

    alphas: Mapping[str, float]
    face: str | int
    layer_mask: bool

    @property
    def name(self) -> str:
        """Such as "Smiling 0.4, face 2"."""
        name = ", ".join(f"{label(attribute)} {alpha:.3g}" for attribute, alpha in self.alphas.items())
        if self.face == "all":
            return _("{edit}, all faces").format(edit=name)
        return name if self.face == "largest" else _("{edit}, face {number}").format(edit=name, number=self.face)


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
