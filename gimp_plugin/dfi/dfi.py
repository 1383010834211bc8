#!/usr/bin/env python3
"""GIMP 3 plug-in: faces in a layer, changed or filled in by the local DFI server.

Filters > Deep Feature Interpolation...   plug-in-dfi        attributes of a face: editing.py
Filters > DFI: fill the selection         plug-in-dfi-fill   what hides a part of a face is taken away: filling.py
"""

import sys
import traceback
from collections.abc import Sequence

import editing
import filling
import gi

gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, GLib  # noqa: E402
from i18n import _  # noqa: E402
from request import UserError  # noqa: E402

PROCEDURES = {"plug-in-dfi": editing, "plug-in-dfi-fill": filling}


def sentence(name: str, error: Exception) -> str:
    """What the user gets to read about an error in a procedure."""
    if code := getattr(error, "code", None):  # a DFIError; its module may be what is missing
        return PROCEDURES[name].explain(error, code)
    if isinstance(error, UserError):
        return str(error)
    traceback.print_exception(error)
    text = _("Deep Feature Interpolation has a bug, please report it: {error}")
    return text.format(error=f"{type(error).__name__}: {error}")


def run(
    procedure: Gimp.Procedure,
    run_mode: Gimp.RunMode,
    image: Gimp.Image,
    drawables: Sequence[Gimp.Drawable],
    config: Gimp.ProcedureConfig,
    data: object,
) -> Gimp.ValueArray:
    """GIMP's call. Nothing may be raised here: GIMP would only say "execution error"."""
    name = procedure.get_name()
    try:
        done = PROCEDURES[name].run(procedure, run_mode == Gimp.RunMode.INTERACTIVE, image, drawables, config)
    except Exception as error:
        failure = GLib.Error.new_literal(Gimp.PlugIn.error_quark(), sentence(name, error), 0)
        return procedure.new_return_values(Gimp.PDBStatusType.EXECUTION_ERROR, failure)
    status = Gimp.PDBStatusType.SUCCESS if done else Gimp.PDBStatusType.CANCEL
    return procedure.new_return_values(status, GLib.Error())


class DeepFeatureInterpolation(Gimp.PlugIn):
    def do_query_procedures(self) -> list[str]:
        return list(PROCEDURES)

    def do_create_procedure(self, name: str) -> Gimp.Procedure:
        procedure = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run, None)
        procedure.set_image_types("RGB*, GRAY*")
        # Active for any number of layers: a sentence says more than a gray menu item.
        mask = Gimp.ProcedureSensitivityMask
        procedure.set_sensitivity_mask(mask.DRAWABLE | mask.DRAWABLES | mask.NO_DRAWABLES)
        procedure.set_attribution("The authors of dfi-server", "MIT License", "2026")
        PROCEDURES[name].describe(procedure)
        procedure.add_menu_path("<Image>/Filters")  # once it has a label: without, GIMP leaves it out of the menu
        return procedure


Gimp.main(DeepFeatureInterpolation.__gtype__, sys.argv)
