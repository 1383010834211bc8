"""The layer with its faces numbered on a thumbnail, to choose one or all."""

from collections.abc import Callable, Sequence

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gimp", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gdk, Gimp, Gtk  # noqa: E402
from i18n import _  # noqa: E402

THUMBNAIL = (440, 140)  # width and height at most
STYLE = b"""
.dfi-face { background: none; border: 2px solid rgba(255,255,255,0.9); border-radius: 3px; box-shadow: none;
            outline: 1px solid rgba(0,0,0,0.5); padding: 0 3px; color: white; text-shadow: 0 0 3px black;
            font-weight: bold; }
.dfi-face:checked { border-color: #ffb000; background: rgba(255,176,0,0.15); }
.dfi-face:focus { outline: 1px dashed white; }
"""


class Faces(Gtk.Box):
    """Empty until `show_boxes`; `chosen` is called with "largest", "all" or a number as text."""

    def __init__(self, layer: Gimp.Layer, chosen: Callable[[str], object]) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self._layer, self._chosen = layer, chosen

    def show_boxes(self, boxes: Sequence[Sequence[int]], choice: str) -> None:
        """Offer two or more faces, x, y, width, height in the layer's pixels; choice: the one to begin with."""
        width, height = self._layer.get_width(), self._layer.get_height()
        scale = min(1.0, THUMBNAIL[0] / width, THUMBNAIL[1] / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        style = Gtk.CssProvider()
        style.load_from_data(STYLE)
        Gtk.StyleContext.add_provider_for_screen(
            Gdk.Screen.get_default(), style, Gtk.STYLE_PROVIDER_PRIORITY_APPLICATION
        )
        picture = Gtk.Fixed(halign=Gtk.Align.CENTER)
        thumbnail = self._layer.get_thumbnail(*size, Gimp.PixbufTransparency.SMALL_CHECKS)
        picture.put(Gtk.Image.new_from_pixbuf(thumbnail), 0, 0)
        buttons = {}
        group = None
        for number, box in enumerate(boxes, start=1):
            left, top = (max(0, round(value * scale)) for value in box[:2])
            right, bottom = (min(n, round((a + b) * scale)) for a, b, n in zip(box[:2], box[2:], size, strict=True))
            face = "largest" if number == 1 else str(number)
            group = buttons[face] = self._button(group, str(number), face)
            group.set_size_request(right - left, bottom - top)
            group.set_mode(False)  # a frame around the face, not a round button
            group.get_style_context().add_class("dfi-face")
            group.set_tooltip_text(_("Face {number}").format(number=number))
            picture.put(group, left, top)
        self.pack_start(picture, False, False, 0)
        buttons["all"] = everybody = self._button(group, _("All {count} faces").format(count=len(boxes)), "all")
        everybody.set_halign(Gtk.Align.CENTER)
        self.pack_start(everybody, False, False, 0)
        self.show_all()
        buttons.get(choice, buttons["largest"]).set_active(True)

    def _button(self, group: Gtk.RadioButton | None, label: str, face: str) -> Gtk.RadioButton:
        button = Gtk.RadioButton(group=group, label=label, use_underline=True)
        button.connect("toggled", lambda button: button.get_active() and self._chosen(face))
        return button
