"""The dialog that comes where the program is not on this computer: how to get it, and a button that does it."""

import threading
from collections import deque

import gi

gi.require_version("GimpUi", "3.0")
gi.require_version("Gtk", "3.0")
import installer  # noqa: E402
import program  # noqa: E402
from gi.repository import GimpUi, GLib, Gtk, Pango  # noqa: E402
from i18n import _  # noqa: E402

from dfi_server import system  # noqa: E402

_LINES = 8  # of the tool's output that tell what went wrong
_PULSE = 100  # milliseconds
_INSTALL, _AGAIN, _DONE = 1, 2, 3  # responses
_GET_A_TOOL = {
    "win32": "winget install --id=astral-sh.uv -e",
    "darwin": "brew install uv",
    "linux": "sudo apt install pipx",
}


def offer() -> bool:
    """Let the user get the program. True once it is there, False if they would rather not."""
    GimpUi.init("plug-in-dfi")
    return _Dialog().run()


class _Dialog:
    """Everything here runs in GTK's thread, except for _follow."""

    def __init__(self) -> None:
        self._installation: installer.Installation | None = None
        self._stopped = False
        self._last: deque[str] = deque(maxlen=_LINES)
        self._timer = 0
        self._window = Gtk.Dialog(title=_("Get Deep Feature Interpolation"), resizable=False)
        self._window.add_button(_("_Cancel"), Gtk.ResponseType.CANCEL)
        self._window.add_button(_("_Look again"), _AGAIN)
        self._window.add_button(_("_Install"), _INSTALL).get_style_context().add_class("suggested-action")
        self._text = Gtk.Label(xalign=0, wrap=True, max_width_chars=64)
        self._commands = Gtk.Label(xalign=0, wrap=True, max_width_chars=64, selectable=True)
        self._commands.set_line_wrap_mode(Pango.WrapMode.CHAR)
        self._bar = Gtk.ProgressBar(no_show_all=True)
        self._said = Gtk.Label(xalign=0, max_width_chars=64, no_show_all=True, selectable=True)
        verbatim = Pango.AttrList()
        verbatim.insert(Pango.attr_family_new("monospace"))
        verbatim.insert(Pango.attr_insert_hyphens_new(False))
        self._commands.set_attributes(verbatim)
        content = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=12, margin=12)
        for widget in (self._text, self._commands, self._bar, self._said):
            content.pack_start(widget, False, False, 0)
        self._window.get_content_area().pack_start(content, True, True, 0)
        self._explain()
        content.show_all()

    def run(self) -> bool:
        """True once the program is there."""
        while True:
            response = self._window.run()
            if response == _INSTALL:
                self._install()
            elif response == _AGAIN:
                if program.is_there():
                    break
                self._explain(_("The program was not found yet."))
            elif response == _DONE:
                break
            elif self._installation:
                self._stop()
            else:
                break
        self._window.destroy()
        return response in (_AGAIN, _DONE)

    def _explain(self, news: str = "") -> None:
        """Say how it can be got here, after a sentence on what has happened."""
        command = [] if program.sandbox() else installer.command()
        news = news or _("The filter's work is done by a program, dfi, which is not on this computer.")
        if not program.wheel():
            how = _("Install it again as you did before, then run this in a terminal and restart GIMP:")
            commands = ["dfi gimp install"]
        elif shut_in := program.sandbox():
            text = _(
                "{sandbox} lets GIMP start no programs: run these in a terminal (“pipx install” does as well as “uv "
                "tool install”), then restart GIMP."
            )
            how, commands = text.format(sandbox=shut_in), [installer.in_a_terminal(), "dfi gimp install"]
        elif command:
            how = _("“Install” gets it for you alone. It brings PyTorch along, which takes some minutes. It runs:")
            commands = [" ".join(command)]
        else:
            how = _("Get uv or pipx, for instance so, then press “Look again”:")
            commands = [_GET_A_TOOL.get(system.NAME, _GET_A_TOOL["linux"])]
        self._text.set_text(f"{news}\n\n{how}")
        self._commands.set_text("\n".join(commands))
        self._window.get_widget_for_response(_INSTALL).set_visible(bool(command))
        self._window.set_default_response(_INSTALL if command else _AGAIN)
        self._busy(False)

    def _busy(self, busy: bool) -> None:
        for response in (_INSTALL, _AGAIN):
            self._window.set_response_sensitive(response, not busy)
        self._bar.set_visible(busy)
        if busy and not self._timer:
            self._timer = GLib.timeout_add(_PULSE, self._pulse)
        elif not busy and self._timer:
            GLib.source_remove(self._timer)
            self._timer = 0

    def _pulse(self) -> bool:
        self._bar.pulse()
        return GLib.SOURCE_CONTINUE

    # --- the installation

    def _install(self) -> None:
        self._installation = installer.Installation(installer.command())
        self._stopped = False
        self._last.clear()
        self._said.set_ellipsize(Pango.EllipsizeMode.END)
        self._said.set_text("")
        self._said.show()
        self._text.set_text(_("Installing…"))
        self._busy(True)
        threading.Thread(target=self._follow, args=(self._installation,), daemon=True).start()

    def _follow(self, installation: installer.Installation) -> None:
        for line in installation.lines():
            GLib.idle_add(self._show, line)
        there = installation.succeeded and program.is_there()
        GLib.idle_add(self._ended, installation.succeeded, there)

    def _show(self, line: str) -> None:
        self._last.append(line)
        self._said.set_text(line)

    def _ended(self, succeeded: bool, there: bool) -> None:
        self._installation = None
        if there:
            self._window.response(_DONE)
            return
        self._said.set_ellipsize(Pango.EllipsizeMode.NONE)
        self._said.set_line_wrap(True)
        self._said.set_text("" if self._stopped else "\n".join(self._last))
        if self._stopped:
            self._explain(_("The installation was stopped."))
        elif succeeded:
            self._explain(_("It was installed, but does not answer to “dfi gimp settings”. The last it said:"))
        else:
            self._explain(_("It could not be installed: see the lines below."))

    def _stop(self) -> None:
        if self._stopped or not self._installation:
            return
        self._stopped = True
        self._text.set_text(_("Stopping…"))
        threading.Thread(target=self._installation.stop, daemon=True).start()
