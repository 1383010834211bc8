"""The server's state in words, with what can be done about it: start or restart it, and read its log."""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import gi

gi.require_version("Gtk", "3.0")
from gi.repository import GLib, Gtk, Pango  # noqa: E402
from i18n import _  # noqa: E402
from server import Server, State, Status, failure  # noqa: E402

EVERY_SECONDS = 1.0  # a connected server is asked how it is
PATIENCE_SECONDS = 10.0  # with a server that starts or loads, before a restart is offered
LOG_BYTES = 100_000  # of the log's end that are shown
_TROUBLE = (State.NOT_INSTALLED, State.FAILED, State.LOST)


class _Interrupted(Exception):
    """The user would rather have the server started anew."""


class ServerBar(Gtk.Box):
    """Looks after the server until it is closed, and never gives up for good: there is always a button.

    connected(labels) is called whenever a server has become ready to edit, with {attribute: label}; changed(ready) with
    whether an edit can be asked for. Everything here runs in GTK's thread, except for _look_after.
    """

    def __init__(
        self,
        server: Server,
        connected: Callable[[Mapping[str, str]], object],
        changed: Callable[[bool], object],
    ) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self._server, self._connected, self._changed = server, connected, changed
        self._pressed = threading.Event()
        self._closed = False
        self._text = Gtk.Label(label=_("Looking for the server…"), xalign=0, wrap=True, max_width_chars=44)
        self._restart = Gtk.Button(use_underline=True, no_show_all=True)
        self._restart.connect("clicked", self._restart_clicked)
        self._log = Gtk.Button(label=_("Show _its log"), use_underline=True, no_show_all=True)
        self._log.set_tooltip_text(str(server.log))
        self._log.connect("clicked", lambda button: _show_log(button.get_toplevel(), server))
        buttons = Gtk.Box(spacing=6)
        buttons.pack_start(self._restart, False, False, 0)
        buttons.pack_start(self._log, False, False, 0)
        self.pack_start(self._text, False, False, 0)
        self.pack_start(buttons, False, False, 0)

    def start(self) -> None:
        threading.Thread(target=self._look_after, daemon=True).start()

    def close(self) -> None:
        """Say nothing more, and leave the server alone."""
        self._closed = True
        self._pressed.set()

    def _look_after(self) -> None:
        def in_gtk(do: Callable[[Any], object], argument: object) -> None:
            def once() -> bool:
                if not self._closed:
                    do(argument)
                return GLib.SOURCE_REMOVE

            GLib.idle_add(once)

        def tell(status: Status) -> None:
            in_gtk(self._show, status)

        def wait(status: Status) -> None:
            tell(status)
            if self._pressed.is_set():
                raise _Interrupted

        while True:
            try:
                in_gtk(self._connected, self._server.connect(wait))
                while not self._pressed.is_set():
                    tell(self._server.status())
                    self._pressed.wait(EVERY_SECONDS)
            except _Interrupted:
                pass
            except Exception as error:  # whatever it is, the user gets to see it, and a button
                tell(failure(error))
                self._pressed.wait()
            if self._closed:
                return
            self._pressed.clear()
            try:
                self._server.stop()
            except Exception as error:
                tell(failure(error))

    def _show(self, status: Status) -> None:
        self._text.set_text(status.text)
        trouble = status.state in _TROUBLE
        slow = status.seconds > PATIENCE_SECONDS
        again = {State.NOT_INSTALLED: _("Try again no_w"), State.LOST: _("Start it no_w")}
        self._restart.set_label(again.get(status.state, _("Restart it no_w")))
        self._restart.set_visible(trouble or slow)
        self._restart.set_sensitive(True)
        self._log.set_visible((trouble or slow) and self._server.log.exists())
        self._changed(status.state in (State.READY, State.BUSY))

    def _restart_clicked(self, button: Gtk.Button) -> None:
        button.set_sensitive(False)
        self._text.set_text(_("Looking for the server…"))
        self._pressed.set()


def _show_log(parent: Gtk.Window, server: Server) -> None:
    """The end of the log in a window of its own, which follows it until it is closed."""
    window = Gtk.Dialog(title=_("Log of the DFI server"), transient_for=parent, modal=True)
    window.add_button(_("_Close"), Gtk.ResponseType.CLOSE)
    window.set_default_size(720, 420)
    text = Gtk.TextView(editable=False, monospace=True, left_margin=6, right_margin=6, wrap_mode=Gtk.WrapMode.WORD_CHAR)
    scroll = Gtk.ScrolledWindow(margin=12, shadow_type=Gtk.ShadowType.IN)
    scroll.add(text)
    where = Gtk.Label(label=str(server.log), selectable=True, xalign=0, margin_start=12)
    where.set_ellipsize(Pango.EllipsizeMode.START)
    window.get_content_area().pack_start(scroll, True, True, 0)
    window.get_content_area().pack_start(where, False, False, 0)
    shown = ""

    def follow() -> bool:
        nonlocal shown
        if (log := _read_end(server)) != shown:
            shown = log
            text.get_buffer().set_text(log)
            text.scroll_to_mark(text.get_buffer().get_insert(), 0, False, 0, 0)
        return GLib.SOURCE_CONTINUE

    follow()
    timer = GLib.timeout_add(1000, follow)
    window.show_all()
    window.run()
    GLib.source_remove(timer)
    window.destroy()


def _read_end(server: Server) -> str:
    try:
        with server.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        return str(error)
