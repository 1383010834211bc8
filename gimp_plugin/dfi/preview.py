"""The preview: the face, zoomed to, before and after, following the sliders without ever holding them up."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gegl", "0.4")
gi.require_version("Gimp", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gdk, GdkPixbuf, Gegl, Gimp, GLib, Gtk  # noqa: E402
from i18n import _  # noqa: E402
from layer import Rectangle  # noqa: E402
from server import Server  # noqa: E402

SIDE = 340  # pixels: enough to see a face at the size at which it is edited
REST_SECONDS = 0.4  # without a move, before a preview is refined
_ROOM = 2.0  # of the view, in units of the face's box
_LINE = (255, 176, 0)


class _Wish(NamedTuple):
    """A preview that the user waits for: of this picture, RGB, with these alphas."""

    size: tuple[int, int]
    pixels: bytes
    box: Rectangle | None
    alphas: dict[str, float]
    keep: tuple[str, ...]


class Preview(Gtk.Box):
    """`say` gets a sentence about the preview's state. All methods are for GTK's thread."""

    def __init__(self, server: Server, layer: Gimp.Layer, say: Callable[[str], object]) -> None:
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=2)
        self._server, self._layer, self._say = server, layer, say
        self._before: GdkPixbuf.Pixbuf | None = None
        self._after: GdkPixbuf.Pixbuf | None = None
        self._box: Rectangle | None = None
        self._wish: _Wish | None = None  # the latest, and so the only one that counts
        self._is_new = False  # the thread has not seen it yet
        self._all_before = False
        self._changed = threading.Condition()
        self._image = Gtk.Image()
        self._image.set_size_request(SIDE, SIDE)
        touch = Gtk.EventBox(halign=Gtk.Align.CENTER)
        touch.add(self._image)
        touch.add_events(Gdk.EventMask.BUTTON_PRESS_MASK | Gdk.EventMask.BUTTON1_MOTION_MASK)
        touch.set_tooltip_text(_("Drag the line: before to its left, after to its right"))
        for signal in ("button-press-event", "motion-notify-event"):
            touch.connect(signal, self._dragged)
        before = Gtk.Button(label=_("Before (B)"), can_focus=False)
        before.set_tooltip_text(_("Hold this, or the key B, to see all of the picture as it was"))
        before.connect("pressed", lambda _button: self.show_before(True))
        before.connect("released", lambda _button: self.show_before(False))
        self._split = Gtk.Scale.new_with_range(Gtk.Orientation.HORIZONTAL, 0, 100, 1)
        self._split.set_draw_value(False)
        self._split.set_tooltip_text(_("How much of the picture shows it before"))
        self._split.connect("value-changed", lambda _scale: self._show())
        line = Gtk.Box(spacing=6)
        line.pack_start(before, False, False, 0)
        line.pack_start(self._split, True, True, 0)
        self.pack_start(touch, False, False, 0)
        self.pack_start(line, False, False, 0)
        self.look_at((0, 0, layer.get_width(), layer.get_height()))
        threading.Thread(target=self._work, daemon=True).start()

    def look_at(self, box: Sequence[int], is_face: bool = True) -> None:
        """Zoom to x, y, width, height in the layer, which may reach beyond it: a face, or a selection taken for one."""
        view = _view(box, self._layer.get_width(), self._layer.get_height())
        scale = SIDE / max(view.width, view.height)
        size = (max(1, round(view.width * scale)), max(1, round(view.height * scale)))
        self._before = _read(self._layer, view, size)
        self._after = None
        x, y = ((at - start) * scale for at, start in zip(box[:2], view[:2], strict=True))
        self._box = None if is_face else Rectangle(round(x), round(y), int(box[2] * scale), int(box[3] * scale))
        self._show()

    def show_before(self, held: bool) -> None:
        """Show nothing of the edit for as long as it is held."""
        self._all_before = held
        self._show()

    def follow(self, alphas: Mapping[str, float], keep: Sequence[str]) -> None:
        """Show these as soon as can be; what was asked for before and has not been begun is dropped."""
        if not self._before:
            return
        size = (self._before.get_width(), self._before.get_height())
        self._set_wish(_Wish(size, _packed(self._before), self._box, dict(alphas), tuple(keep)) if alphas else None)
        if alphas:
            self._say(_("Preview…"))
        else:
            self._after = None
            self._show()
            self._say("")

    def close(self) -> None:
        """Drop what is under way."""
        self._set_wish(None)

    def _set_wish(self, wish: "_Wish | None") -> None:
        with self._changed:
            self._wish, self._is_new = wish, wish is not None
            self._changed.notify()

    def _work(self) -> None:
        """The thread: always the latest wish, roughly at first, then as it will be."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_new)
                wish, self._is_new = self._wish, False
            if wish:
                self._fulfil(wish)

    def _fulfil(self, wish: "_Wish") -> None:
        for rough in (True, False):
            if not rough and self._is_outdated(wish, REST_SECONDS):
                return

            def cancelled(rough: bool = rough) -> bool:
                # a rough one is let through, so that the picture moves as long as a slider does
                return self._wish is None if rough else self._wish is not wish

            try:
                result = self._server.preview(*wish, rough, cancelled)
            except Exception as error:  # shown, unless it is about a wish of the past
                GLib.idle_add(self._failed, wish, str(error))
                return
            GLib.idle_add(self._arrived, wish, result, rough)

    def _is_outdated(self, wish: "_Wish", seconds: float) -> bool:
        """Whether another wish takes its place within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._wish is not wish, seconds)

    def _arrived(self, wish: "_Wish", result: Any, rough: bool) -> None:
        if not self._before or not self._wish or self._wish.pixels != wish.pixels:  # all at 0 again, or another face
            return
        pixels, mask = bytes(result.pixels), bytes(result.mask)
        rgba = bytearray(4 * len(mask))
        for channel in range(3):
            rgba[channel::4] = pixels[channel::3]
        rgba[3::4] = mask
        patch = _picture(bytes(rgba), result.width, result.height, 4)
        after = self._before.copy()
        at = (result.x, result.y)
        patch.composite(after, *at, result.width, result.height, *at, 1, 1, GdkPixbuf.InterpType.NEAREST, 255)
        self._after = after
        self._show()
        if self._wish is wish:
            self._say(_("Preview, refining…") if rough else _("Preview."))

    def _failed(self, wish: "_Wish", text: str) -> None:
        if self._wish is wish:
            self._say(_("No preview: {error}").format(error=text))

    def _dragged(self, _touch: Gtk.Widget, event: Gdk.EventButton | Gdk.EventMotion) -> None:
        if self._before:
            left = (self._image.get_allocated_width() - self._before.get_width()) / 2
            self._split.set_value(100 * (event.x - left) / self._before.get_width())

    def _show(self) -> None:
        """Before to the left of the line, after to the right of it."""
        if not self._before:
            return
        shown = (self._after or self._before).copy()
        width, height = shown.get_width(), shown.get_height()
        column = width if self._all_before else round(self._split.get_value() / 100 * width)
        if column:
            self._before.copy_area(0, 0, column, height, shown, 0, 0)
            if column < width:
                red, green, blue = _LINE
                shown.new_subpixbuf(column, 0, 1, height).fill(red << 24 | green << 16 | blue << 8 | 255)
        self._image.set_from_pixbuf(shown)


def _view(box: Sequence[int], width: int, height: int) -> Rectangle:
    """A square around a face's box, with room for hair and chin, as far as the layer goes."""
    side = round(_ROOM * max(box[2], box[3]))
    x, y = box[0] + box[2] // 2 - side // 2, box[1] + box[3] // 2 - side // 2
    left, top = max(0, x), max(0, y)
    return Rectangle(left, top, max(1, min(x + side, width) - left), max(1, min(y + side, height) - top))


def _read(layer: Gimp.Layer, view: Rectangle, size: tuple[int, int]) -> GdkPixbuf.Pixbuf:
    """That part of a layer as a picture of that size, without its alpha."""
    scale = min(1.0, size[0] / view.width)
    x, y, width, height = (round(value * scale) for value in view)
    # Gimp.Drawable.get_sub_thumbnail would do, but crashes in 3.0.4.
    pixels = layer.get_buffer().get(Gegl.Rectangle.new(x, y, width, height), scale, "R'G'B' u8", Gegl.AbyssPolicy.CLAMP)
    return _picture(bytes(pixels), width, height, 3).scale_simple(*size, GdkPixbuf.InterpType.BILINEAR)


def _picture(pixels: bytes, width: int, height: int, channels: int) -> GdkPixbuf.Pixbuf:
    """A picture of packed RGB or RGBA."""
    return GdkPixbuf.Pixbuf.new_from_bytes(
        GLib.Bytes.new(pixels), GdkPixbuf.Colorspace.RGB, channels == 4, 8, width, height, channels * width
    )


def _packed(picture: GdkPixbuf.Pixbuf) -> bytes:
    """An RGB picture's pixels without the padding at the ends of rows."""
    stride, length, pixels = picture.get_rowstride(), 3 * picture.get_width(), picture.get_pixels()
    return b"".join(pixels[y * stride :][:length] for y in range(picture.get_height()))
