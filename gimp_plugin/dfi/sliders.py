"""The sliders: a panel of those that portraits are retouched with, any other attribute by name, and presets."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("GimpUi", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gimp, GimpUi, GLib, Gtk  # noqa: E402
from i18n import _  # noqa: E402

LIMIT = 0.6
"""Of a slider, to either side; edits beyond it look broken on most faces."""


class Choice(NamedTuple):
    """A slider of the panel: to the right it adds `sign` times alpha of the attribute."""

    title: str
    attribute: str
    sign: int = 1


PANEL = (
    Choice(_("S_mile"), "smiling"),
    Choice(_("Mou_th open"), "mouth_wide_open"),
    Choice(_("_Eyes open"), "eyes_open"),
    Choice(_("_Older, or younger"), "senior"),
    Choice(_("_Glasses"), "eyeglasses"),
    Choice(_("Bear_d"), "no_beard", -1),
    Choice(_("M_ustache"), "mustache"),
    Choice(_("Make-up"), "heavy_makeup"),
    Choice(_("Blond hair"), "blond_hair"),
    Choice(_("Brown hair"), "brown_hair"),
    Choice(_("Black hair"), "black_hair"),
    Choice(_("Gray hair"), "gray_hair"),
    Choice(_("Shiny skin"), "shiny_skin"),
    Choice(_("Pale skin"), "pale_skin"),
)


class Sliders(Gtk.Box):
    """`changed` is called after each change, with nothing; `alphas` says what the sliders say."""

    def __init__(self, changed: Callable[[], object]) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self._changed = changed
        self._rows: dict[str, tuple[Choice, GimpUi.ScaleEntry]] = {}
        self._titles: dict[str, str] = {}
        self._grid = Gtk.Grid(column_spacing=6, row_spacing=2)
        self._names = Gtk.SizeGroup(mode=Gtk.SizeGroupMode.HORIZONTAL)
        scroll = Gtk.ScrolledWindow(hscrollbar_policy=Gtk.PolicyType.NEVER, min_content_height=180)
        scroll.set_size_request(450, -1)  # as wide without sliders as with
        scroll.add(self._grid)
        self.pack_start(scroll, True, True, 0)
        self._search = Gtk.SearchEntry(placeholder_text=_("Any other attribute…"), hexpand=True)
        self._search.connect("stop-search", self._left)
        self._search.set_tooltip_text(_("Type a part of its name, and choose: it gets a slider"))
        find = Gtk.Label(label=_("Fi_nd:"), use_underline=True)
        find.set_mnemonic_widget(self._search)
        line = Gtk.Box(spacing=6)
        line.pack_start(find, False, False, 0)
        line.pack_start(self._search, True, True, 0)
        self.pack_start(line, False, False, 0)

    def offer(self, titles: Mapping[str, str]) -> None:
        """Make the panel's sliders for the attributes that there are, {attribute: title}."""
        self._titles = dict(titles)
        for choice in PANEL:
            if choice.attribute in titles:
                self._add(choice)
        names = Gtk.ListStore(str, str)
        for attribute, title in sorted(titles.items(), key=lambda item: item[1]):
            names.append((title, attribute))
        completion = Gtk.EntryCompletion(model=names, minimum_key_length=1)
        completion.set_text_column(0)  # as a property it would show nothing
        completion.set_match_func(lambda _widget, typed, row: self._matches(typed, names[row][1]))
        completion.connect("match-selected", self._chosen)
        self._search.set_completion(completion)
        self._search.connect("activate", self._entered)

    def alphas(self) -> dict[str, float]:
        """What is not at 0."""
        found = {name: choice.sign * scale.get_value() for name, (choice, scale) in self._rows.items()}
        return {name: round(alpha, 3) for name, alpha in found.items() if abs(alpha) > 0.0005}

    def show_alphas(self, alphas: Mapping[str, float]) -> None:
        """Set the sliders; those that are not named go to 0, attributes that there are not are left out."""
        for attribute in alphas:
            if attribute in self._titles and attribute not in self._rows:
                self._add(Choice(self._titles[attribute], attribute))
        for attribute, (choice, scale) in self._rows.items():
            alpha = alphas.get(attribute, 0.0)
            if abs(alpha) > LIMIT:  # from a script, to be edited again
                scale.set_bounds(-abs(alpha), abs(alpha), False)
            scale.set_value(choice.sign * alpha)

    def _add(self, choice: Choice) -> GimpUi.ScaleEntry:
        row = len(self._rows)
        scale = GimpUi.ScaleEntry.new(choice.title, 0.0, -LIMIT, LIMIT, 2)
        scale.get_spin_button().set_width_chars(5)
        scale.set_increments(0.01, 0.1)
        scale.set_hexpand(True)
        scale.get_range().set_size_request(170, -1)
        scale.get_range().add_mark(0, Gtk.PositionType.BOTTOM, None)
        scale.set_tooltip_text(_("Right for more of it, left for less"))
        scale.connect("value-changed", lambda _widget: self._changed())
        self._names.add_widget(scale.get_label())
        reset = Gtk.Button.new_from_icon_name("edit-clear-symbolic", Gtk.IconSize.MENU)
        reset.set_relief(Gtk.ReliefStyle.NONE)
        reset.set_tooltip_text(_("Back to 0"))
        reset.connect("clicked", lambda _widget: scale.set_value(0.0))
        self._grid.attach(scale, 0, row, 1, 1)
        self._grid.attach(reset, 1, row, 1, 1)
        self._grid.show_all()
        self._rows[choice.attribute] = (choice, scale)
        return scale

    def _chosen(self, _completion: Gtk.EntryCompletion, names: Gtk.TreeModel, row: Gtk.TreeIter) -> bool:
        self._bring(names[row][1])
        return True

    def _entered(self, entry: Gtk.SearchEntry) -> None:
        typed = entry.get_text().strip().lower()
        found = [name for name in self._titles if typed and self._matches(typed, name)]
        if found:
            self._bring(min(found, key=len))

    def _left(self, entry: Gtk.SearchEntry) -> None:
        """Escape goes to the sliders, where another one closes the dialog."""
        entry.set_text("")
        _choice, first = next(iter(self._rows.values()))
        first.get_label().get_mnemonic_widget().grab_focus()

    def _matches(self, typed: str, attribute: str) -> bool:
        """Whether the user may mean this one: by its name in the user's language, or as scripts name it."""
        return typed in self._titles[attribute].lower() or typed in attribute

    def _bring(self, attribute: str) -> None:
        """Make a slider for an attribute, unless it has one, and go there."""
        scale = self._rows[attribute][1] if attribute in self._rows else None
        scale = scale or self._add(Choice(self._titles[attribute], attribute))
        self._search.set_text("")
        scale.get_label().get_mnemonic_widget().grab_focus()


class Presets(Gtk.Box):
    """Settings saved by name. `load` is called with the chosen one's alphas, `current` gives those to save."""

    def __init__(self, load: Callable[[Mapping[str, float]], object], current: Callable[[], dict[str, float]]) -> None:
        super().__init__(spacing=6)
        self._load, self._current = load, current
        self._saved = _read_presets()
        self._choice = Gtk.ComboBoxText.new_with_entry()
        self._choice.set_hexpand(True)
        entry = self._choice.get_child()
        entry.set_placeholder_text(_("Choose one, or name a new one"))
        entry.connect("activate", self._picked)
        for name in sorted(self._saved):
            self._choice.append_text(name)
        self._choice.connect("changed", self._picked_from_list)
        title = Gtk.Label(label=_("_Presets:"), use_underline=True)
        title.set_mnemonic_widget(entry)
        save = Gtk.Button(label=_("Sa_ve"), use_underline=True)
        save.set_tooltip_text(_("Save the sliders under this name"))
        save.connect("clicked", self._save)
        forget = Gtk.Button.new_from_icon_name("edit-delete-symbolic", Gtk.IconSize.BUTTON)
        forget.set_tooltip_text(_("Forget the preset of this name"))
        forget.connect("clicked", self._forget)
        reset = Gtk.Button(label=_("_Zero all"), use_underline=True)
        reset.set_tooltip_text(_("All sliders back to 0"))
        reset.connect("clicked", lambda _widget: load({}))
        for widget, grows in ((title, False), (self._choice, True), (save, False), (forget, False), (reset, False)):
            self.pack_start(widget, grows, grows, 0)

    @property
    def _name(self) -> str:
        return str(self._choice.get_active_text()).strip()

    def _picked(self, _widget: Gtk.Widget) -> None:
        if self._name in self._saved:
            self._load(self._saved[self._name])

    def _picked_from_list(self, choice: Gtk.ComboBoxText) -> None:
        if choice.get_active() >= 0:  # not while a name is typed
            self._picked(choice)

    def _save(self, _button: Gtk.Button) -> None:
        if self._name:
            if self._name not in self._saved:
                self._choice.append_text(self._name)
            self._saved[self._name] = self._current()
            _write_presets(self._saved)

    def _forget(self, _button: Gtk.Button) -> None:
        if self._saved.pop(self._name, None) is not None:
            _write_presets(self._saved)
            self._choice.remove_all()
            for name in sorted(self._saved):
                self._choice.append_text(name)
            self._choice.get_child().set_text("")


def _presets_file() -> Path:
    return Path(Gimp.directory()) / "dfi-presets.json"


def _read_presets() -> dict[str, dict[str, float]]:
    """{name: alphas}; nothing where the file is missing or is not one of ours."""
    try:
        saved = json.loads(_presets_file().read_text("utf-8"))
        return {
            str(name): {str(attribute): float(alpha) for attribute, alpha in alphas.items()}
            for name, alphas in saved.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write_presets(saved: Mapping[str, Mapping[str, float]]) -> None:
    try:
        GLib.file_set_contents(str(_presets_file()), json.dumps(saved, indent=1).encode())  # at once, or not at all
    except GLib.Error as error:
        Gimp.message(_("The presets could not be saved: {error}").format(error=error.message))
