"""Change attributes of the face in a layer: the procedure plug-in-dfi, and the dialog before it.

Its arguments, beside run-mode, image and drawables:

    attribute   one of the server's attributes (`dfi attributes` lists them), such as "smiling"; or several separated
                by spaces, each with an alpha of its own where alpha is not to apply:
                "smiling=0.4 mouth_wide_open=0.2"
    alpha       how strong: 0.1 to 0.5 is useful, negative takes the attribute away, beyond -2 to 2 is an error
    face        "largest", "all", or a number from 1, counted from the largest
    layer-mask  True: what hides the rest of the new layer is a layer mask, to be painted on; False: its own alpha
    keep        what stays as it is, whatever the edit brings along: age, sex, skin, or attributes, separated by spaces
    neighbours  make the attributes' vectors from so many faces that are most like this one, 20 to 1000; 0: from all

The result is a new layer above the source, the size of the change, and is selected. Run on such a result, the filter
edits its source again, with the same settings to start from, and hides the earlier result.

A selection says which faces are meant, or where one is that was not found, and limits the change.
"""

from collections.abc import Sequence
from typing import Any

import gi

gi.require_version("Gimp", "3.0")
import program  # noqa: E402
from gi.repository import Gimp, GLib, GObject  # noqa: E402
from i18n import _  # noqa: E402
from layer import Rectangle, Source, made, single_layer  # noqa: E402
from progress import following, show  # noqa: E402
from request import Filling, Request, UserError, format_alphas, parse_alphas, parse_face  # noqa: E402
from server import Server  # noqa: E402


def run(
    procedure: Gimp.Procedure, interactive: bool, image: Gimp.Image, drawables: Sequence[Gimp.Drawable], config: Any
) -> bool:
    """Ask, compute, then touch the image: GIMP's Cancel kills this process, and must find nothing half done.

    False if the user cancelled the dialog. Raises UserError, DFIError.
    """
    chosen = layer = single_layer(drawables)
    server = Server()
    again = made(image, chosen)
    before = again.request if again else None
    if isinstance(before, Filling):
        text = _("“{name}” is only a part of the face: choose Layer > Merge Down, then run the filter again.")
        raise UserError(text.format(name=chosen.get_name()))
    if again:
        layer = again.source
    earlier = chosen if again else None
    if not interactive:
        request, source = settings(config), Source(image, layer)
        Gimp.progress_init(request.name)
        server.connect(lambda status: show(status.text))
        compute(server, source, request, earlier)
        return True

    if not program.is_there():
        from get_dfi import offer  # GTK needs a screen, which scripts do without

        if not offer():
            return False
    from dialog import ask

    # Not last time's face: another photo's number means nothing here.
    config.set_property("face", str(before.face) if before else "largest")
    if before:
        config.set_property("attribute", format_alphas(before.alphas))
        config.set_property("layer-mask", before.layer_mask)
        config.set_property("keep", " ".join(before.keep))
        config.set_property("neighbours", before.neighbours)
    trouble = ""
    while ask(procedure, config, server, layer, lambda: Source(image, layer), trouble):
        try:
            compute(server, Source(image, layer), settings(config), earlier)
        except Exception as error:
            if getattr(error, "code", None) != "unreachable":
                raise
            Gimp.progress_end()
            trouble = str(error)  # the server can be started again, and the settings are still there
        else:
            return True
    return False


def settings(config: Any) -> Request:
    """What the procedure's arguments ask for. Raises UserError."""
    alphas = parse_alphas(config.get_property("attribute"), config.get_property("alpha"))
    return Request(
        alphas,
        parse_face(config.get_property("face")),
        config.get_property("layer-mask"),
        tuple((config.get_property("keep") or "").split()),  # GIMP has None for what a script leaves out
        config.get_property("neighbours"),
    )


def compute(server: Server, source: Source, request: Request, earlier: Gimp.Layer | None) -> None:
    """Have it edited, and put the result into the image. Raises UserError, DFIError."""
    result = server.edit(source, request, following(request.name))
    at = Rectangle(result.x, result.y, result.width, result.height)
    source.add_layer(at, bytes(result.pixels), bytes(result.mask), request, instead_of=earlier)
    Gimp.progress_end()
    Gimp.displays_flush()


def explain(error: Exception, code: str) -> str:
    """The sentence for an error of the server's: its own, but where it speaks of coordinates. GIMP's user selects."""
    if code == "no_face" and "There is no face" not in str(error):
        return _(
            "No face was found: select one from hairline to throat and from ear to ear, then run the filter again."
        )
    if code == "bad_box":
        return _(
            "The selection is too small for a face: select one from hairline to throat and from ear to ear, then run "
            "the filter again."
        )
    return str(error)


def describe(procedure: Gimp.ImageProcedure) -> None:
    """Give GIMP the procedure's place in the menu, its description and its arguments."""
    procedure.set_menu_label(_("_Deep Feature Interpolation..."))
    procedure.set_documentation(
        _("Make a face smile, age, wear glasses, ..."),
        _(
            "Changes attributes of the largest face in a layer, or of the one in the selection, by Deep Feature "
            "Interpolation (arXiv 1611.05507). The result is a new layer above the source. A local server does "
            "the work."
        ),
        None,  # a help id would make GIMP look for it in its own manual
    )
    procedure.add_string_argument(
        "attribute",
        _("_Attribute"),
        _(
            "An attribute of the server, such as smiling, or several, each with or without an alpha of its own: "
            "smiling=0.4 mouth_wide_open=0.2"
        ),
        "smiling",
        GObject.ParamFlags.READWRITE,
    )
    # GIMP silently replaces values outside of a range: any number is let through, and checked by the server.
    procedure.add_double_argument(
        "alpha",
        _("Al_pha"),
        _("Strength, -2 to 2: 0.1 to 0.5 is useful, negative takes the attribute away"),
        -GLib.MAXDOUBLE,
        GLib.MAXDOUBLE,
        0.4,
        GObject.ParamFlags.READWRITE,
    )
    procedure.add_string_argument(
        "face",
        _("_Face"),
        _("Which one, where there are several: largest, all, or a number from 1, counted from the largest"),
        "largest",
        GObject.ParamFlags.READWRITE,
    )
    procedure.add_boolean_argument(
        "layer-mask",
        _("With a layer mas_k"),
        _("What hides the rest of the new layer becomes a layer mask, to be painted on"),
        False,
        GObject.ParamFlags.READWRITE,
    )
    procedure.add_string_argument(
        "keep",
        _("Keep"),
        _("What stays as it is, whatever the edit brings along: age, sex, skin, or attributes"),
        "",
        GObject.ParamFlags.READWRITE,
    )
    procedure.add_int_argument(
        "neighbours",
        _("Neighbours"),
        _("Learn the change from so many faces that are most like this one, 20 to 1000; 0: from all"),
        -GLib.MAXINT,
        GLib.MAXINT,
        0,
        GObject.ParamFlags.READWRITE,
    )
