"""The dialog: a preview of the face, faces to choose from, and the sliders. It opens at once and fills in when the
server answers."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gimp", "3.0")
gi.require_version("GimpUi", "3.0")
gi.require_version("Gtk", "3.0")
from alphas import format_alphas, parse_alphas  # noqa: E402
from gi.repository import Gdk, Gimp, GimpUi, GLib, Gtk  # noqa: E402
from layer import Source, UserError  # noqa: E402
from preview import SIDE, Preview, Previewer  # noqa: E402
from sliders import Presets, Sliders  # noqa: E402

THUMBNAIL = (320, 140)  # width and height at most
PAUSE = 120  # milliseconds that the sliders rest before a preview is asked for
STYLE = b"""
.dfi-face { background: none; border: 2px solid rgba(255,255,255,0.9); border-radius: 3px; box-shadow: none;
            outline: 1px solid rgba(0,0,0,0.5); padding: 0 3px; color: white; text-shadow: 0 0 3px black;
            font-weight: bold; }
.dfi-face:checked { border-color: #ffb000; background: rgba(255,176,0,0.15); }
.dfi-face:focus { outline: 1px dashed white; }
"""
STARTER = "This is the starter model. For better results, run “dfi setup” once in a terminal."

Say = Callable[[str], object]


class Server(Previewer, Protocol):
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
    face: str,
) -> bool:
    """Let the user set `attribute` and `face` in config, the latter from `face` on. False if the user cancelled.

    The server is asked in a thread, and what it says is shown meanwhile; `read` reads the layer, which GIMP allows in
    this thread only. An exception from either closes the dialog and is raised here.
    """
    GimpUi.init(procedure.get_name())
    dialog = _Dialog(procedure, config, server, layer, face)
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

    def __init__(
        self,
        procedure: Gimp.Procedure,
        config: Gimp.ProcedureConfig,
        server: Server,
        layer: Gimp.Layer,
        face: str,
    ) -> None:
        self._config = config
        self._layer = layer
        self._boxes: Sequence[Sequence[int]] = ()
        self._timer = 0
        self._following = False  # the sliders are being set from config
        config.set_property("face", face)  # not last time's: another photo's number means nothing here
        self._window = GimpUi.ProcedureDialog.new(procedure, config, "Deep Feature Interpolation")
        self._window.set_ok_label("_Apply")

        self._status = Gtk.Label(label="Looking for the server…", xalign=0, wrap=True, max_width_chars=44)
        self._hint = Gtk.Label(label=STARTER, xalign=0, wrap=True, max_width_chars=44)
        self._hint.get_style_context().add_class("dim-label")
        self._about_preview = Gtk.Label(xalign=0, wrap=True, max_width_chars=44)
        self._preview = Preview(server, layer, self._about_preview.set_text)
        self._faces = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self._sliders = Sliders(self._moved)
        presets = Presets(self._sliders.show_alphas, self._sliders.alphas)

        left = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        left.set_size_request(SIDE, -1)
        for widget in (self._preview, self._about_preview, self._faces):
            left.pack_start(widget, False, False, 0)
        for widget in (self._hint, self._status):
            left.pack_end(widget, False, False, 0)
        self._controls = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self._controls.pack_start(self._sliders, True, True, 0)
        self._controls.pack_start(presets, False, False, 0)
        content = Gtk.Box(spacing=12, margin=12)
        content.pack_start(left, False, False, 0)
        content.pack_start(self._controls, True, True, 0)
        content.show_all()
        self._hint.hide()
        self._window.get_content_area().pack_start(content, True, True, 0)
        self._allow(False)

    def _allow(self, ready: bool) -> None:
        self._controls.set_sensitive(ready)
        self._window.set_response_sensitive(Gtk.ResponseType.OK, ready and bool(self._sliders.alphas()))

    def say(self, text: str) -> None:
        self._status.set_text(text)

    def offer(self, labels: Mapping[str, str], store: str) -> None:
        """Make the sliders, as they were last time, and let the user go on."""
        self._hint.set_visible(store == "starter")
        self._sliders.offer(labels)
        self._follow_config()
        self._config.connect("notify::attribute", lambda *_: self._follow_config())  # the dialog's own Reset
        self._ready = f"Ready, with {len(labels)} attributes."
        self._status.set_text(f"{self._ready} Looking for faces…")
        self._allow(True)

    def _follow_config(self) -> None:
        if self._following:
            return
        self._following = True
        try:
            alphas = parse_alphas(self._config.get_property("attribute"), self._config.get_property("alpha"))
        except UserError:  # none, or a script's mistake
            alphas = {}
        self._sliders.show_alphas(alphas)
        self._following = False
        self._moved()

    def _moved(self) -> None:
        """A slider was moved: keep what it says, and ask for a preview once it rests."""
        if self._following:
            return
        self._following = True
        self._config.set_property("attribute", format_alphas(self._sliders.alphas()))
        self._following = False
        self._allow(True)
        if self._timer:
            GLib.source_remove(self._timer)
        self._timer = GLib.timeout_add(PAUSE, self._ask_for_preview)

    def _ask_for_preview(self) -> bool:
        self._timer = 0
        self._preview.follow(self._sliders.alphas())
        return GLib.SOURCE_REMOVE

    def _look_at(self, box: Sequence[int], is_face: bool = True) -> None:
        self._preview.look_at(box, is_face)
        self._preview.follow(self._sliders.alphas())

    def show_faces(self, source: Source, boxes: Sequence[Sequence[int]]) -> None:
        """Show the layer with its faces numbered, to choose from; `boxes` are in its pixels."""
        self._boxes = boxes
        if not boxes:
            where = "in the selection, which is taken for one" if source.box else "here: select it from brow to chin"
            self._status.set_text(f"No face was found {where}.")
            if source.box:
                self._look_at(source.box, is_face=False)
            return
        self._look_at(boxes[0])
        chosen = self._config.get_property("face")
        if chosen.isdigit() and int(chosen) > len(boxes):
            chosen = "largest"
            self._config.set_property("face", chosen)
        if len(boxes) == 1:
            self._status.set_text(f"{self._ready} One face.")
            return
        scale = min(1.0, THUMBNAIL[0] / source.width, THUMBNAIL[1] / source.height)
        size = (max(1, round(source.width * scale)), max(1, round(source.height * scale)))
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
            group = buttons[face] = self._choice(group, str(number), face)
            group.set_size_request(right - left, bottom - top)
            group.set_mode(False)  # a frame around the face, not a round button
            group.get_style_context().add_class("dfi-face")
            group.set_tooltip_text(f"Face {number}")
            picture.put(group, left, top)
        self._faces.pack_start(picture, False, False, 0)
        buttons["all"] = everybody = self._choice(group, f"All {len(boxes)} faces", "all")
        everybody.set_halign(Gtk.Align.CENTER)
        self._faces.pack_start(everybody, False, False, 0)
        self._status.set_text(f"{self._ready} {len(boxes)} faces: choose one, or all.")
        self._faces.show_all()
        buttons.get(chosen, buttons["largest"]).set_active(True)

    def _choice(self, group: Gtk.RadioButton | None, label: str, face: str) -> Gtk.RadioButton:
        button = Gtk.RadioButton(group=group, label=label, use_underline=True)
        button.connect("toggled", self._face_chosen, face)
        return button

    def _face_chosen(self, button: Gtk.RadioButton, face: str) -> None:
        if button.get_active():
            self._config.set_property("face", face)
            self._look_at(self._boxes[int(face) - 1 if face.isdigit() else 0])

    def close(self) -> None:
        self._window.response(Gtk.ResponseType.CANCEL)

    def run(self) -> bool:
        accepted: bool = self._window.run()
        self._preview.close()
        self._window.destroy()
        return accepted
