"""The dialog: which attribute, and how much of it. It opens at once and fills in when the server answers."""

import threading
from collections.abc import Callable, Mapping

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("GimpUi", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gimp, GimpUi, GLib, Gtk  # noqa: E402

SLIDER_LIMIT = 1.0
HELP = "Alpha is the strength: 0.1 to 0.5 is the useful range, and negative values take the attribute away."

Say = Callable[[str], object]


def ask(procedure: Gimp.Procedure, config: Gimp.ProcedureConfig, connect: Callable[[Say], Mapping[str, str]]) -> bool:
    """Let the user set `attribute` and `alpha` in config. False if the user cancelled.

    connect(say) returns {attribute: label}; it runs in a thread, and what it says is shown meanwhile. An exception
    from it closes the dialog and is raised here.
    """
    GimpUi.init(procedure.get_name())
    dialog = _Dialog(procedure, config)
    failures: list[Exception] = []

    def work() -> None:
        try:
            labels = connect(lambda text: GLib.idle_add(dialog.say, text))
            GLib.idle_add(dialog.offer, labels)
        except Exception as error:  # whatever it is: raised where the user gets to see it
            failures.append(error)
            GLib.idle_add(dialog.close)

    threading.Thread(target=work, daemon=True).start()
    accepted = dialog.run()
    if failures:
        raise failures[0]
    return accepted


class _Dialog:
    """Everything here runs in GTK's thread."""

    def __init__(self, procedure: Gimp.Procedure, config: Gimp.ProcedureConfig) -> None:
        self._config = config
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
        content.pack_start(self._controls, True, True, 0)
        content.pack_start(self._status, False, False, 0)
        content.show_all()
        self._window.get_content_area().pack_start(content, True, True, 0)
        self._allow(False)

    def _allow(self, ready: bool) -> None:
        self._controls.set_sensitive(ready)
        self._window.set_response_sensitive(Gtk.ResponseType.OK, ready)

    def say(self, text: str) -> None:
        self._status.set_text(text)

    def offer(self, labels: Mapping[str, str]) -> None:
        """Fill the list and let the user go on."""
        chosen = self._config.get_property("attribute")
        for name, label in sorted(labels.items(), key=lambda item: item[1]):
            self._labels.append((name, label))
        # An attribute from last time that this server lacks must not be applied unseen.
        self._config.set_property("attribute", chosen if chosen in labels else next(iter(labels), ""))
        self._status.set_text(f"Ready, with {len(labels)} attributes.")
        self._allow(bool(labels))

    def close(self) -> None:
        self._window.response(Gtk.ResponseType.CANCEL)

    def run(self) -> bool:
        accepted: bool = self._window.run()
        self._window.destroy()
        return accepted
