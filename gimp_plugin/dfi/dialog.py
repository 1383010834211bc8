"""The dialog: a preview of the face, faces to choose from, and the sliders. It opens at once and fills in when the
server answers."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gimp", "3.0")
gi.require_version("GimpUi", "3.0")
gi.require_version("Gtk", "3.0")
from faces import Faces  # noqa: E402
from gi.repository import Gdk, Gimp, GimpUi, GLib, Gtk  # noqa: E402
from i18n import _  # noqa: E402
from kept import Kept  # noqa: E402
from layer import Source  # noqa: E402
from preview import SIDE, Preview  # noqa: E402
from request import UserError, format_alphas, parse_alphas  # noqa: E402
from server import Server  # noqa: E402
from server_bar import ServerBar  # noqa: E402
from sliders import Presets, Sliders  # noqa: E402

PAUSE = 60  # milliseconds at least from one preview asked for to the next
HELP = Path(__file__).resolve().parent / "help.html"
_BEFORE_KEYS = (Gdk.KEY_b, Gdk.KEY_B)


def ask(
    procedure: Gimp.Procedure,
    config: Gimp.ProcedureConfig,
    server: Server,
    layer: Gimp.Layer,
    read: Callable[[], Source],
    trouble: str = "",
) -> bool:
    """Let the user set the arguments in config. False if the user cancelled.

    The server is looked after meanwhile, in threads. `read` reads the layer, which GIMP allows in this thread only; an
    exception from it closes the dialog and is raised here, as there is nothing to be set then. trouble: a sentence on
    why the last edit failed.
    """
    GimpUi.init(procedure.get_name())
    return _Dialog(procedure, config, server, layer, read, trouble).run()


class _Dialog:
    """Everything here runs in GTK's thread, except for _find."""

    def __init__(
        self,
        procedure: Gimp.Procedure,
        config: Gimp.ProcedureConfig,
        server: Server,
        layer: Gimp.Layer,
        read: Callable[[], Source],
        trouble: str,
    ) -> None:
        self._config, self._server, self._layer, self._read = config, server, layer, read
        self._failure: Exception | None = None
        self._source: Source | None = None
        self._boxes: Sequence[Sequence[int]] | None = None
        self._timer = 0
        self._ready = False
        self._closed = False
        self._following = False  # the sliders are being set from config
        self._window = GimpUi.ProcedureDialog.new(procedure, config, _("Deep Feature Interpolation"))
        self._window.set_ok_label(_("_Apply"))
        help_button = Gtk.Button(label=_("_Help"), use_underline=True)
        help_button.set_tooltip_text(str(HELP))
        help_button.connect("clicked", self._help)
        help_button.show()
        self._window.get_action_area().add(help_button)
        self._window.get_action_area().set_child_secondary(help_button, True)
        self._window.connect("key-press-event", self._key, True)
        self._window.connect("key-release-event", self._key, False)

        self._about_preview = _label()
        self._preview = Preview(server, layer, self._about_preview.set_text)
        self._faces = Faces(layer, self._face_chosen)
        self._about_faces = _label()
        about_trouble = _label(trouble)
        about_trouble.get_style_context().add_class("error")
        self._hint = _label(_("This is the starter model. For better results, run “dfi setup” once in a terminal."))
        self._hint.get_style_context().add_class("dim-label")
        self._server_bar = ServerBar(server, self._connected, self._set_ready)
        self._sliders = Sliders(self._moved)
        presets = Presets(self._sliders.show_alphas, self._sliders.alphas)
        mask = GimpUi.prop_check_button_new(config, "layer-mask", _("With a layer mas_k"))
        mask.set_tooltip_text(_("What hides the rest of the new layer becomes a layer mask, to be painted on"))

        self._kept = Kept(config, self._moved)
        left = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        left.set_size_request(SIDE, -1)
        for widget in (self._preview, self._about_preview):
            left.pack_start(widget, False, False, 0)
        for widget in (self._server_bar, about_trouble, self._hint):
            left.pack_end(widget, False, False, 0)
        right = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        right.pack_start(self._about_faces, False, False, 0)
        right.pack_start(self._faces, False, False, 0)
        self._controls = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self._controls.pack_start(self._sliders, True, True, 0)
        self._controls.pack_start(presets, False, False, 0)
        self._controls.pack_start(mask, False, False, 0)
        self._controls.pack_start(self._kept, False, False, 0)
        content = Gtk.Box(spacing=12, margin=12)
        content.pack_start(left, False, False, 0)
        right.pack_start(self._controls, True, True, 0)
        content.pack_start(right, True, True, 0)
        content.show_all()
        self._hint.hide()
        about_trouble.set_visible(bool(trouble))
        self._window.get_content_area().pack_start(content, True, True, 0)
        self._controls.set_sensitive(False)
        self._allow()
        # The dialog's own Reset sets the arguments.
        self._handler = config.connect("notify::attribute", lambda *_changed: self._follow_config())

    def run(self) -> bool:
        """True if the user applied. Raises what reading the layer raised."""
        self._server_bar.start()
        accepted: bool = self._window.run()
        self._closed = True
        self._config.disconnect(self._handler)
        if self._timer:
            GLib.source_remove(self._timer)
        self._server_bar.close()
        self._preview.close()
        self._window.destroy()
        if self._failure:
            raise self._failure
        return accepted

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._window.response(Gtk.ResponseType.CANCEL)

    # --- the server

    def _set_ready(self, ready: bool) -> None:
        self._ready = ready
        self._allow()

    def _allow(self) -> None:
        self._window.set_response_sensitive(Gtk.ResponseType.OK, self._ready and bool(self._sliders.alphas()))

    def _connected(self, labels: Mapping[str, str]) -> None:
        """A server is there, perhaps not the first: offer what it can, and go on."""
        self._hint.set_visible(self._server.store == "starter")
        if not self._controls.get_sensitive():
            self._sliders.offer(labels)
            self._controls.set_sensitive(True)
            self._follow_config()
            self._sliders.child_focus(Gtk.DirectionType.TAB_FORWARD)
        if self._boxes is not None:
            self._moved()
            return
        try:
            self._source = self._source or self._read()
        except Exception as error:
            self._fail(error)
            return
        self._about_faces.set_text(_("Looking for faces…"))
        threading.Thread(target=self._find, args=(self._source,), daemon=True).start()

    def _find(self, source: Source) -> None:
        try:
            GLib.idle_add(self._found, source, self._server.faces(source))
        except Exception as error:
            GLib.idle_add(self._found, source, error)

    def _found(self, source: Source, found: Sequence[Sequence[int]] | Exception) -> None:
        if self._closed or self._boxes is not None:  # or a server that was restarted has been quicker
            return
        if not isinstance(found, Exception):
            self._show_faces(source, found)
        elif getattr(found, "code", None) == "unreachable":
            self._about_faces.set_text("")  # the server bar says so
        else:
            self._fail(found)

    # --- the sliders

    def _follow_config(self) -> None:
        if self._following or not self._controls.get_sensitive():
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
        """A slider was moved: keep what it says, and ask for a preview."""
        if self._following:
            return
        self._following = True
        self._config.set_property("attribute", format_alphas(self._sliders.alphas()))
        self._following = False
        self._allow()
        self._timer = self._timer or GLib.timeout_add(PAUSE, self._ask_for_preview)

    def _ask_for_preview(self) -> bool:
        self._timer = 0
        self._preview.follow(self._sliders.alphas(), self._kept.words())
        return GLib.SOURCE_REMOVE

    # --- the faces

    def _show_faces(self, source: Source, boxes: Sequence[Sequence[int]]) -> None:
        self._boxes = boxes
        if not boxes:
            if source.box:
                self._about_faces.set_text(_("No face was found in the selection, which is taken for one."))
                self._look_at(source.box, is_face=False)
            else:
                self._about_faces.set_text(_("No face was found here: select it from hairline to throat."))
            return
        self._look_at(boxes[0])
        chosen = self._config.get_property("face")
        if chosen.isdigit() and int(chosen) > len(boxes):
            chosen = "largest"
            self._config.set_property("face", chosen)
        self._about_faces.set_text("")
        if len(boxes) > 1:
            self._about_faces.set_text(_("{count} faces: choose one, or all.").format(count=len(boxes)))
            self._faces.show_boxes(boxes, chosen)

    def _look_at(self, box: Sequence[int], is_face: bool = True) -> None:
        self._preview.look_at(box, is_face)
        self._preview.follow(self._sliders.alphas(), self._kept.words())

    def _face_chosen(self, face: str) -> None:
        self._config.set_property("face", face)
        assert self._boxes
        self._look_at(self._boxes[int(face) - 1 if face.isdigit() else 0])

    # --- keys and help

    def _key(self, window: Gtk.Window, event: Gdk.EventKey, down: bool) -> bool:
        """The photo as it was, as long as B is held; in a text field, B is a letter. F1 is Help."""
        if down and event.keyval == Gdk.KEY_F1:
            self._help()
            return True
        focus = window.get_focus()
        writing = isinstance(focus, Gtk.Entry) and not isinstance(focus, Gtk.SpinButton)
        chord = event.state & (Gdk.ModifierType.CONTROL_MASK | Gdk.ModifierType.MOD1_MASK)
        if event.keyval not in _BEFORE_KEYS or (down and (writing or chord)):
            return False
        self._preview.show_before(down)
        return not writing

    def _help(self, _button: Gtk.Button | None = None) -> None:
        """Not GIMP's way, which looks for pages of GIMP's own manual."""
        try:
            Gtk.show_uri_on_window(self._window, HELP.as_uri(), Gdk.CURRENT_TIME)
        except GLib.Error as error:
            text = _("The documentation did not open ({error}): it is {path}")
            self._about_faces.set_text(text.format(error=error.message, path=HELP))


def _label(text: str = "") -> Gtk.Label:
    return Gtk.Label(label=text, xalign=0, wrap=True, max_width_chars=44)
