#!/usr/bin/env python3
"""GIMP 3 plug-in: change attributes of the face in a layer, by the local DFI server.

Filters > Deep Feature Interpolation..., and for scripts the procedure plug-in-dfi (run-mode, image, drawables,
attribute, alpha, face):

    attribute   one of the server's attributes (`dfi attributes` lists them), such as "smiling"; or several separated
                by spaces, each with an alpha of its own where alpha is not to apply:
                "smiling=0.4 mouth_wide_open=0.2"
    alpha       how strong: 0.1 to 0.5 is useful, negative takes the attribute away, beyond -2 to 2 is an error
    face        "largest", "all", or a number from 1, counted from the largest

The result is a new layer above the source, the size of the change. Run on such a result, the filter edits its source
again, with the same settings to start from, and hides the earlier result.

A selection says which faces are meant, or where one is that was not found, and limits the change.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gi

gi.require_version("Gimp", "3.0")
from alphas import format_alphas, label, parse_alphas  # noqa: E402
from gi.repository import Gimp, GLib, GObject  # noqa: E402
from layer import Rectangle, Source, UserError, made, single_layer  # noqa: E402

PROCEDURE = "plug-in-dfi"
HERE = Path(__file__).resolve().parent
AGAIN = "Run install.sh of Deep Feature Interpolation again."

Say = Callable[[str], object]


def parse_face(face: str) -> str | int:
    """The argument as the server takes it. Raises UserError."""
    if face in ("largest", "all"):
        return face
    if face.isascii() and face.isdigit() and int(face) > 0:
        return int(face)
    raise UserError(f"“{face}” is not a face: write “largest”, “all”, or a number from 1.")


class Server:
    """The DFI server, as server.json beside this file describes it. DFI_ENDPOINT overrides the endpoint."""

    def __init__(self) -> None:
        self.store = ""  # known once connected
        self._preview_link: Any = None
        self._client = _import_client()
        path = HERE / "server.json"
        try:
            settings = json.loads(path.read_text("utf-8"))
            self._command: list[str] = settings["command"]
            self._endpoint: str = os.environ.get("DFI_ENDPOINT") or settings["endpoint"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"The server is not installed: {path} is missing or wrong ({error}). {AGAIN}") from error

    def connect(self, say: Say) -> dict[str, str]:
        """{attribute: label} of a server that is ready to edit; starts it if none answers. Raises DFIError."""
        self._client.start_server(
            [*self._command, "--endpoint", self._endpoint],
            self._endpoint,
            log=Path(GLib.get_user_cache_dir()) / "dfi" / "server.log",
            waiting=lambda seconds: say(f"Starting the server… {seconds:.0f} s"),
        )
        with self._client.Client(self._endpoint) as link:
            while (status := link.status()).state == "loading":
                say("The server is loading its model…")
                time.sleep(0.2)
            self.store = status.store
            return {name: label(name) for name in link.attributes()}

    def faces(self, source: Source) -> Sequence[Sequence[int]]:
        """The faces that the user may mean, as x, y, width, height in the layer, largest first. Raises DFIError."""
        request = self._client.PhotoRequest(source.width, source.height, source.channels, source.dtype, box=source.box)
        with self._client.Client(self._endpoint) as link:
            found: Sequence[Sequence[int]] = link.faces(request, source.pixels)
            return found

    def preview(
        self,
        size: tuple[int, int],
        pixels: bytes,
        box: Rectangle | None,
        alphas: Mapping[str, float],
        rough: bool,
        cancelled: Callable[[], bool],
    ) -> Any:
        """An edit of a small RGB picture: the client's EditResult. Always from the same thread. Raises DFIError."""
        self._preview_link = self._preview_link or self._client.Client(self._endpoint)
        request = self._client.EditRequest(*size, 3, "uint8", alphas, box=box, preview=rough)
        return self._preview_link.edit(request, pixels, cancelled=cancelled)

    def edit(
        self, source: Source, alphas: Mapping[str, float], face: str | int, progress: Callable[[int, int], None]
    ) -> Any:
        """The client's EditResult; progress gets iteration, iterations. Raises DFIError."""
        request = self._client.EditRequest(
            source.width, source.height, source.channels, source.dtype, alphas, face=face, box=source.box
        )
        with self._client.Client(self._endpoint) as link:
            return link.edit(request, source.pixels, progress=lambda step: progress(step.iteration, step.iterations))


def _import_client() -> ModuleType:
    """dfi_server.client. Not imported at the top: a plug-in that fails there has no menu item to say why."""
    try:
        try:
            import zmq
        except ImportError:
            sys.path.append(str(HERE / "vendor"))
            import zmq  # noqa: F401
        from dfi_server import client
    except ImportError as error:
        raise UserError(f"A part of the plug-in is missing ({error}). {AGAIN}") from error
    return client


def edit(
    procedure: Gimp.Procedure, interactive: bool, image: Gimp.Image, drawables: Sequence[Gimp.Drawable], config: Any
) -> bool:
    """Ask, compute, then touch the image: GIMP's Cancel kills this process, and must find nothing half done.

    False if the user cancelled the dialog. Raises UserError, DFIError.
    """
    chosen = layer = single_layer(drawables)
    server = Server()
    again = made(image, chosen)
    if again:
        layer = again.source
    if interactive:
        from dialog import ask  # GTK needs a screen, which scripts do without

        if again:
            config.set_property("attribute", again.attribute)
        if not ask(procedure, config, server, layer, lambda: Source(image, layer), again.face if again else "largest"):
            return False
    alphas = parse_alphas(config.get_property("attribute"), config.get_property("alpha"))
    face = parse_face(config.get_property("face"))
    name = ", ".join(f"{label(attribute)} {alpha:.3g}" for attribute, alpha in alphas.items())
    if face != "largest":
        name += ", all faces" if face == "all" else f", face {face}"
    source = Source(image, layer)

    Gimp.progress_init(name)

    def say(text: str) -> None:
        Gimp.progress_set_text(text)
        Gimp.progress_pulse()

    def progress(iteration: int, iterations: int) -> None:
        Gimp.progress_set_text(f"{name}: iteration {iteration} of {iterations}")
        Gimp.progress_update(iteration / iterations)

    if not interactive:
        server.connect(say)
    result = server.edit(source, alphas, face, progress)
    at = Rectangle(result.x, result.y, result.width, result.height)
    text = format_alphas(alphas)
    source.add_layer(at, bytes(result.pixels), bytes(result.mask), name, text, str(face), chosen if again else None)
    Gimp.progress_end()
    Gimp.displays_flush()
    return True


def sentence(error: Exception) -> str:
    """What the user gets to read about an error."""
    code = getattr(error, "code", None)  # a DFIError; its module may be what is missing
    if code == "no_face" and "There is no face" in str(error):
        return str(error)
    if code in ("no_face", "bad_box"):  # the server's sentence speaks of coordinates, GIMP's user selects
        found = "No face was found" if code == "no_face" else "The selection is too small for a face"
        return f"{found}: select one from brow to chin and from ear to ear, then run the filter again."
    if code or isinstance(error, UserError):
        return str(error)
    traceback.print_exception(error)
    return f"Deep Feature Interpolation has a bug, please report it: {type(error).__name__}: {error}"


def run(
    procedure: Gimp.Procedure,
    run_mode: Gimp.RunMode,
    image: Gimp.Image,
    drawables: Sequence[Gimp.Drawable],
    config: Gimp.ProcedureConfig,
    data: object,
) -> Gimp.ValueArray:
    """GIMP's call. Nothing may be raised here: GIMP would only say "execution error"."""
    try:
        done = edit(procedure, run_mode == Gimp.RunMode.INTERACTIVE, image, drawables, config)
    except Exception as error:
        failure = GLib.Error.new_literal(Gimp.PlugIn.error_quark(), sentence(error), 0)
        return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, failure)
    status = Gimp.PDBStatusType.SUCCESS if done else Gimp.PDBStatusType.CANCEL
    return procedure.new_return_values(status, GLib.Error())


class DeepFeatureInterpolation(Gimp.PlugIn):
    def do_set_i18n(self, name: str) -> bool:
        return False

    def do_query_procedures(self) -> list[str]:
        return [PROCEDURE]

    def do_create_procedure(self, name: str) -> Gimp.Procedure:
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run, None)
        procedure.set_image_types("RGB*, GRAY*")
        # Active for any number of layers: a sentence says more than a gray menu item.
        mask = Gimp.ProcedureSensitivityMask
        procedure.set_sensitivity_mask(mask.DRAWABLE | mask.DRAWABLES | mask.NO_DRAWABLES)
        procedure.set_menu_label("_Deep Feature Interpolation...")
        procedure.add_menu_path("<Image>/Filters")
        procedure.set_documentation(
            "Make a face smile, age, wear glasses, ...",
            "Changes attributes of the largest face in a layer, or of the one in the selection, by Deep Feature "
            "Interpolation (arXiv 1611.05507). The result is a new layer above the source. A local server does "
            "the work.",
            name,
        )
        procedure.set_attribution("The authors of dfi-server", "MIT License", "2026")
        procedure.add_string_argument(
            "attribute",
            "_Attribute",
            "An attribute of the server, such as smiling, or several, each with or without an alpha of its own: "
            "smiling=0.4 mouth_wide_open=0.2",
            "smiling",
            GObject.ParamFlags.READWRITE,
        )
        # GIMP silently replaces values outside of the range: any number is let through, and checked by the server.
        procedure.add_double_argument(
            "alpha",
            "Al_pha",
            "Strength, -2 to 2: 0.1 to 0.5 is useful, negative takes the attribute away",
            -GLib.MAXDOUBLE,
            GLib.MAXDOUBLE,
            0.4,
            GObject.ParamFlags.READWRITE,
        )
        procedure.add_string_argument(
            "face",
            "_Face",
            "Which one, where there are several: largest, all, or a number from 1, counted from the largest",
            "largest",
            GObject.ParamFlags.READWRITE,
        )
        return procedure


Gimp.main(DeepFeatureInterpolation.__gtype__, sys.argv)
