"""What the edit leaves as it is, and what it is learnt from: a line of the dialog, and what is behind it."""

from collections.abc import Callable

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gimp, Gtk  # noqa: E402
from i18n import _  # noqa: E402
from request import KEEPABLE, NEIGHBOURS  # noqa: E402

_TITLES = {"age": _("age"), "sex": _("se_x"), "skin": _("sk_in")}


class Kept(Gtk.Box):
    """The arguments `keep` and `neighbours` of `config`. `changed` is called after a change of `keep`, with nothing."""

    def __init__(self, config: Gimp.ProcedureConfig, changed: Callable[[], object]) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self._config, self._changed = config, changed
        line = Gtk.Box(spacing=12)
        line.pack_start(Gtk.Label(label=_("Keep:")), False, False, 0)
        self._buttons = {word: Gtk.CheckButton(label=_TITLES[word], use_underline=True) for word in KEEPABLE}
        for button in self._buttons.values():
            button.set_tooltip_text(_("Stays as it is, whatever the edit brings along"))
            button.connect("toggled", self._toggled)
            line.pack_start(button, False, False, 0)
        self._neighbours = Gtk.CheckButton(label=_("Learn from the faces most like this one (slower)"))
        self._neighbours.set_tooltip_text(
            _("Not seen in the preview. Needs LFW's photos on this machine, as “dfi setup” leaves them.")
        )
        self._neighbours.connect("toggled", self._neighbours_toggled)
        more = Gtk.Expander(label=_("More"))
        more.add(self._neighbours)
        self.pack_start(line, False, False, 0)
        self.pack_start(more, False, False, 0)
        self._following = False
        for name in ("keep", "neighbours"):  # the dialog's own Reset sets the arguments
            config.connect(f"notify::{name}", lambda *_changed: self._follow())
        self._follow()

    def words(self) -> tuple[str, ...]:
        """What `keep` says."""
        return tuple((self._config.get_property("keep") or "").split())

    def _follow(self) -> None:
        self._following = True
        for word, button in self._buttons.items():
            button.set_active(word in self.words())
        self._neighbours.set_active(self._config.get_property("neighbours") > 0)
        self._following = False

    def _toggled(self, _button: Gtk.CheckButton) -> None:
        if self._following:
            return
        chosen = [word for word, button in self._buttons.items() if button.get_active()]
        others = [word for word in self.words() if word not in KEEPABLE]  # from a script
        self._config.set_property("keep", " ".join([*chosen, *others]))
        self._changed()

    def _neighbours_toggled(self, button: Gtk.CheckButton) -> None:
        if not self._following:
            self._config.set_property("neighbours", NEIGHBOURS if button.get_active() else 0)
