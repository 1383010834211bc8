"""The dialog: which attribute, and how much of it. It opens at once and fills in when the server answers."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("GimpUi", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gdk, Gimp, GimpUi, GLib, Gtk  # noqa: E402
from layer import Source  # noqa: E402

SLIDER_LIMIT = 1.0
THUMBNAIL = 360  # pixels of its longer side
STYLE = b"""
.dfi-face { background: none; border: 2px solid rgba(255,255,255,0.9); border-radius: 3px; box-shadow: none;
            outline: 1px solid rgba(0,0,0,0.5); padding: 0 3px; color: white; text-shadow: 0 0 3px black;
            font-weight: bold; }
.dfi-face:checked { border-color: #ffb000; background: rgba(255,176,0,0.15); }
.dfi-face:focus { outline: 1px dashed white; }
"""
STARTER = "This is the starter model. For better results, run “dfi setup” once in a terminal."
HELP = "Alpha is the strength: 0.1 to 0.5 is the useful range, and negative values take the attribute away."

Say = Callable[[str], object]


class Server(Protocol):
    """What the dialog wants of dfi.Server."""

    store: str

    def connect(self, say: Say) -> Mapping[str, str]: ...
    def faces(self, source: Source) -> Sequence[Sequence[int]]: ...


def ask(
    procedure: Gimp.Procedure,
    config: Gimp.ProcedureConfig,
    server: Server,
    layer: Gimp.Layer,
    read: Callable[[], Source],
) -> bool:
    """Let the user set `attribute`, `alpha` and `face` in config. False if the user cancelled.

    The server is asked in a thread, and what it says is shown meanwhile; `read` reads the layer, which GIMP allows in
    this thread only. An exception from either closes the dialog and is raised here.
    """
    GimpUi.init(procedure.get_name())
    dialog = _Dialog(procedure, config, layer)
    failures: list[Exception] = []

    def fail(error: Exception) -> None:
        failures.append(error)
        dialog.close()

    def connect() -> None:
        try:
            GLib.idle_add(offer, server.connect(lambda text: GLib.idle_add(dialog.say, text)))
        except Exception as error:  # whatever it is: raised where the user gets to see it
            GLib.idle_add(fail, error)

    def offer(labels: Mapping[str, str]) -> None:
        dialog.offer(labels, server.store)
        try:
            threading.Thread(target=find, args=(read(),), daemon=True).start()
        except Exception as error:
            fail(error)

    def find(source: Source) -> None:
        try:
            GLib.idle_add(dialog.show_faces, source, server.faces(source))
        except Exception as error:
            GLib.idle_add(fail, error)

    threading.Thread(target=connect, daemon=True).start()
    accepted = dialog.run()
    if failures:
        raise failures[0]
    return accepted


class _Dialog:
    """Everything here runs in GTK's thread."""

    def __init__(self, procedure: Gimp.Procedure, config: Gimp.ProcedureConfig, layer: Gimp.Layer) -> None:
        self._config = config
        self._layer = layer
        config.set_property("face", "largest")  # another photo's number means nothing here
        self._window = GimpUi.ProcedureDialog.new(procedure, config, "Deep Feature Interpolation")
        self._window.set_ok_label("_Apply")
        self._window.set_resizable(False)

        self._labels = Gtk.ListStore(str, str)
        choice = GimpUi.prop_string_combo_box_new(config, "attribute", self._labels, 0, 1)
        choice.set_hexpand(True)
        choice.set_wrap_width(3)  # in a single column, 73 names would be taller than the screen
        choice_label = Gtk.Label(label="A_ttribute:", use_underline=True, xalign=0)
        choice_label.set_mnemonic_widget(choice)
        alpha = GimpUi.prop_scale_entry_new(config, "alpha", "Al_pha:", 1, True, -SLIDER_LIMIT, SLIDER_LIMIT)
        alpha.set_digits(2)
        alpha.set_increments(0.01, 0.1)
        alpha.get_range().add_mark(0, Gtk.PositionType.BOTTOM, None)
        help_text = Gtk.Label(label=HELP, xalign=0, wrap=True, max_width_chars=56)
        help_text.get_style_context().add_class("dim-label")

        self._status = Gtk.Label(label="Looking for the server…", xalign=0)
        self._hint = Gtk.Label(label=STARTER, xalign=0, wrap=True, max_width_chars=56)
        labels = Gtk.SizeGroup(mode=Gtk.SizeGroupMode.HORIZONTAL)
        labels.add_widget(choice_label)
        labels.add_widget(alpha.get_label())
        row = Gtk.Box(spacing=6)
        row.pack_start(choice_label, False, False, 0)
        row.pack_start(choice, True, True, 0)
        self._controls = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=12)
        for widget in (row, alpha, help_text):
            self._controls.pack_start(widget, False, False, 0)
        content = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=12, margin=12)
        self._faces = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        content.pack_start(self._faces, False, False, 0)
        content.pack_start(self._controls, True, True, 0)
        content.pack_start(self._status, False, False, 0)
        content.pack_start(self._hint, False, False, 0)
        content.show_all()
        self._hint.hide()
        self._window.get_content_area().pack_start(content, True, True, 0)
        self._allow(False)

    def _allow(self, ready: bool) -> None:
        self._controls.set_sensitive(ready)
        self._window.set_response_sensitive(Gtk.ResponseType.OK, ready)

    def say(self, text: str) -> None:
        self._status.set_text(text)

    def offer(self, labels: Mapping[str, str], store: str) -> None:
        """Fill the list and let the user go on."""
        self._hint.set_visible(store == "starter")
        chosen = self._config.get_property("attribute")
        for name, label in sorted(labels.items(), key=lambda item: item[1]):
            self._labels.append((name, label))
        # An attribute from last time that this server lacks must not be applied unseen.
        self._config.set_property("attribute", chosen if chosen in labels else next(iter(labels), ""))
        self._ready = f"Ready, with {len(labels)} attributes."
        self._status.set_text(f"{self._ready} Looking for faces…")
        self._allow(bool(labels))

    def show_faces(self, source: Source, boxes: Sequence[Sequence[int]]) -> None:
        """Show the layer with its faces numbered, to choose from; `boxes` are in its pixels."""
        if not boxes:
            where = "in the selection, which is taken for one" if source.box else "here: select it from brow to chin"
            self._status.set_text(f"No face was found {where}.")
            return
        scale = min(1.0, THUMBNAIL / max(source.width, source.height))
        size = (max(1, round(source.width * scale)), max(1, round(source.height * scale)))
        style = Gtk.CssProvider()
        style.load_from_data(STYLE)
        Gtk.StyleContext.add_provider_for_screen(
            Gdk.Screen.get_default(), style, Gtk.STYLE_PROVIDER_PRIORITY_APPLICATION
        )
        picture = Gtk.Fixed(halign=Gtk.Align.CENTER)
        thumbnail = self._layer.get_thumbnail(*size, Gimp.PixbufTransparency.SMALL_CHECKS)
        picture.put(Gtk.Image.new_from_pixbuf(thumbnail), 0, 0)
        group = None
        for number, box in enumerate(boxes, start=1):
            left, top = (max(0, round(value * scale)) for value in box[:2])
            right, bottom = (min(n, round((a + b) * scale)) for a, b, n in zip(box[:2], box[2:], size, strict=True))
            group = self._choice(group, str(number), "largest" if number == 1 else str(number))
            group.set_size_request(right - left, bottom - top)
            group.set_mode(False)  # a frame around the face, not a round button
            group.get_style_context().add_class("dfi-face")
            group.set_tooltip_text(f"Face {number}")
            picture.put(group, left, top)
        self._faces.pack_start(picture, False, False, 0)
        if len(boxes) > 1:
            everybody = self._choice(group, f"A_ll {len(boxes)} faces", "all")
            everybody.set_halign(Gtk.Align.CENTER)
            self._faces.pack_start(everybody, False, False, 0)
            self._status.set_text(f"{self._ready} {len(boxes)} faces: choose one, or all.")
        else:
            self._status.set_text(f"{self._ready} One face.")
        self._faces.show_all()

    def _choice(self, group: Gtk.RadioButton | None, label: str, face: str) -> Gtk.RadioButton:
        button = Gtk.RadioButton(group=group, label=label, use_underline=True)
        button.connect("toggled", lambda b: b.get_active() and self._config.set_property("face", face))
        return button

    def close(self) -> None:
        self._window.response(Gtk.ResponseType.CANCEL)

    def run(self) -> bool:
        accepted: bool = self._window.run()
        self._window.destroy()
        return accepted
