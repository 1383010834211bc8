"""Fill what the selection covers of a face: the procedure plug-in-dfi-fill (run-mode, image, drawables).

Sunglasses, a hand on a cheek, a scratch: what is selected is not looked at, and filled in from faces that are most
like the rest of it. The result is a new layer above the source with a layer mask, and is selected. Run on a result of
either filter it fills that one's source.
"""

from collections.abc import Sequence

import gi

gi.require_version("Gimp", "3.0")
import program  # noqa: E402
from gi.repository import Gimp  # noqa: E402
from i18n import _  # noqa: E402
from layer import Hole, Rectangle, made, single_layer  # noqa: E402
from progress import following, show  # noqa: E402
from request import Filling  # noqa: E402
from server import Server  # noqa: E402


def run(
    procedure: Gimp.Procedure, interactive: bool, image: Gimp.Image, drawables: Sequence[Gimp.Drawable], config: object
) -> bool:
    """Compute, then touch the image: there is nothing to ask, where the program is there.

    False if it is not, and the user would rather not get it. Raises UserError, DFIError.
    """
    chosen = single_layer(drawables)
    again = made(image, chosen)
    hole, filling = Hole(image, again.source if again else chosen), Filling()
    server = Server()
    if interactive and not program.is_there():
        from get_dfi import offer  # GTK needs a screen, which scripts do without

        if not offer():
            return False
    Gimp.progress_init(_("Filling"))
    server.connect(lambda status: show(status.text))
    result = server.fill(hole, following(_("Filling")))
    at = Rectangle(result.x, result.y, result.width, result.height)
    hole.add_layer(at, bytes(result.pixels), bytes(result.mask), filling, above=chosen)
    Gimp.progress_end()
    Gimp.displays_flush()
    return True


def explain(error: Exception, code: str) -> str:
    """The sentence for an error of the server's: its own, but where it speaks of a mask. GIMP's user selects."""
    if code == "no_face":
        return _(
            "No face was found where the selection is: select only what hides it, so that more of it is seen, then run "
            "the filter again."
        )
    if code == "bad_mask":
        return _(
            "The selection covers nothing of a face, or too much of it: select what hides a part of one, then run the "
            "filter again."
        )
    return str(error)


def describe(procedure: Gimp.ImageProcedure) -> None:
    """Give GIMP the procedure's place in the menu and its description."""
    procedure.set_menu_label(_("DFI: _fill the selection"))
    procedure.set_documentation(
        _("Take away what hides a part of a face: sunglasses, a hand, a scratch"),
        _(
            "Fills what is selected of a face in a layer from the faces that are most like the rest of it, by Deep "
            "Feature Interpolation (arXiv 1611.05507). The result is a new layer above the source, with a layer mask. "
            "A local server does the work."
        ),
        None,  # as for plug-in-dfi
    )
