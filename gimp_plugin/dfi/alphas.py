"""What the user asks for: {attribute: alpha}, as the text that GIMP keeps, and in words."""

from collections.abc import Mapping

from layer import UserError


def label(attribute: str) -> str:
    """An attribute's name for people: "mouth_wide_open" is "Mouth wide open"."""
    words = attribute.replace("_", " ").replace(" o clock ", " o'clock ")
    return words[:1].upper() + words[1:]


def parse_alphas(text: str, alpha: float) -> dict[str, float]:
    """The procedure's `attribute` and `alpha` as {name: alpha}. Raises UserError."""
    alphas: dict[str, float] = {}
    for word in text.split():
        name, equals, number = word.partition("=")
        if name in alphas:
            raise UserError(f"“{name}” is named twice in “{text}”: name each attribute once.")
        try:
            alphas[name] = float(number) if equals else alpha
        except ValueError:
            raise UserError(f"“{number}” is not a number: write attributes like “smiling=0.4”.") from None
    if not alphas:
        raise UserError("No attribute was named: name one, such as “smiling”.")
    return alphas


def format_alphas(alphas: Mapping[str, float]) -> str:
    """The text that `parse_alphas` reads; attributes at 0 are left out."""
    return " ".join(f"{name}={alpha:.3g}" for name, alpha in alphas.items() if alpha)
