"""A layer of GIMP <-> the pixels that the server edits or fills, and the result as a new layer.

The server sees sRGB-encoded pixels, 8 bits deep where the layer is exactly that, else 16. It returns edited pixels;
only their *change* is added to the layer's own pixels, in linear light and floating point. So wide-gamut, high dynamic
range and deep images keep what 16-bit sRGB cannot hold. What is filled has nothing to keep: there they replace the
layer's own.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
gi.require_version("Babl", "0.1")
from gi.repository import Babl, Gegl, Gimp  # noqa: E402
from i18n import _  # noqa: E402
from request import Filling, Request, UserError, request_of  # noqa: E402

_PARASITE = "dfi-edit"
_EIGHT_BIT_SRGB = ("R'G'B' u8", "R'G'B'A u8", "Y' u8", "Y'A u8")


class Rectangle(NamedTuple):
    """In pixels of the layer."""

    x: int
    y: int
    width: int
    height: int


def single_layer(drawables: Sequence[Gimp.Drawable]) -> Gimp.Layer:
    """The one layer among the selected drawables. Raises UserError where there is none that can be edited."""
    if len(drawables) != 1:
        if not drawables:
            raise UserError(_("No layer is selected: select one layer that shows a face."))
        text = _("{count} layers are selected: select one layer that shows a face.")
        raise UserError(text.format(count=len(drawables)))
    (layer,) = drawables
    if isinstance(layer, Gimp.LayerMask):  # a result's mask is what is selected after Apply
        layer = Gimp.Layer.from_mask(layer)
    if not isinstance(layer, Gimp.Layer):
        raise UserError(_("A channel is selected: select a layer that shows a face."))
    if layer.is_floating_sel():
        text = _("The selection floats: anchor it, or make it a layer of its own, then run the filter again.")
        raise UserError(text)
    if layer.is_group_layer():
        raise UserError(_("“{name}” is a layer group: select one layer inside it.").format(name=layer.get_name()))
    if layer.is_indexed():
        raise UserError(_("The image is indexed: convert it with Image > Mode > RGB, then run the filter again."))
    return layer


class Made(NamedTuple):
    """What a result of the filter remembers: the layer that it was made of, and how."""

    source: Gimp.Layer
    request: Request | Filling


def made(image: Gimp.Image, layer: Gimp.Layer) -> Made | None:
    """How `layer` was made, if it is a result of one of the filters whose source is still there."""
    kept = layer.get_parasite(_PARASITE)
    if not kept:
        return None
    try:
        told = json.loads(bytes(kept.get_data()))
        source = image.get_layer_by_tattoo(told["source"])
        request = request_of(told)
    except (ValueError, LookupError, TypeError, UserError):  # not written by this filter
        return None
    return Made(source, request) if source else None


class Source:
    """The layer to edit, and the selection, as they are now.

    width, height: of the layer, in pixels. channels: 1 (gray) or 3. dtype: "uint8" or "uint16".
    pixels: row-major, interleaved, sRGB-encoded. box: the selection's bounds in the layer, or None without selection.
    Raises UserError for an empty layer, and for a selection outside of it.
    """

    _replaces = False  # whether pixels are shown as they come, or their change is added to the layer's own

    def __init__(self, image: Gimp.Image, layer: Gimp.Layer) -> None:
        self._image = image
        self._layer = layer
        self.width: int = layer.get_width()
        self.height: int = layer.get_height()
        self.channels = 1 if layer.is_gray() else 3
        exact = Babl.get_name(layer.get_format()) in _EIGHT_BIT_SRGB
        self.dtype = "uint8" if exact else "uint16"
        self._encoding = ("Y' " if layer.is_gray() else "R'G'B' ") + ("u8" if exact else "u16")
        if layer.has_alpha() and not any(_read(layer, self._everything, "A u8")):
            raise UserError(_("“{name}” is empty: select a layer that shows a face.").format(name=layer.get_name()))
        self.box: Rectangle | None = None
        if not Gimp.Selection.is_empty(image):
            self.box = self._selected_box()
            _exists, left, top = layer.get_offsets()
            selected = self.box._replace(x=self.box.x + left, y=self.box.y + top)
            self._selection = _read(image.get_selection(), selected, "Y u16")
        self.pixels = _read(layer, self._everything, self._encoding)

    @property
    def _everything(self) -> Rectangle:
        return Rectangle(0, 0, self.width, self.height)

    def _selected_box(self) -> Rectangle:
        overlaps, *box = self._layer.mask_intersect()
        if not overlaps:
            text = _("The selection lies outside of “{name}”: select the face, or nothing.")
            raise UserError(text.format(name=self._layer.get_name()))
        return Rectangle(*box)

    def add_layer(
        self,
        at: Rectangle,
        pixels: bytes,
        mask: bytes,
        request: Request | Filling,
        *,
        above: Gimp.Layer | None = None,
        instead_of: Gimp.Layer | None = None,
    ) -> Gimp.Layer:
        """Put an edited rectangle above the source as a layer of its own, in one undo step.

        pixels: like Source.pixels. mask: one byte a pixel, 0 keeps the source, 255 is all edited. `request` names the
        layer and is kept with it: see `made`. `above`: an earlier result that the new one goes above. `instead_of`: one
        that is hidden.

        What is seen of the layer is the product of the mask, the selection, the source's layer mask and the source's
        alpha. All of it is the layer's alpha; or, where a layer mask was asked for, only the last, and the product of
        the others is the layer mask. The new layer is selected, its mask if it has one: what is painted next goes
        there and not onto the photo, and the filter run again edits it again. GIMP's undo of the insertion selects
        what was selected before.
        """
        size = (self._layer.get_width(), self._layer.get_height()) if self._layer.is_valid() else None
        if size != (self.width, self.height):
            raise UserError(_("The layer was removed or resized while it was edited: run the filter again."))
        kind = Gimp.ImageType.GRAYA_IMAGE if self._layer.is_gray() else Gimp.ImageType.RGBA_IMAGE
        new = Gimp.Layer.new(self._image, request.name, at.width, at.height, kind, 100.0, Gimp.LayerMode.NORMAL)
        # The mask was made for blending encoded values, as `dfi edit` does; GIMP's default is linear light.
        new.set_blend_space(Gimp.LayerColorSpace.RGB_PERCEPTUAL)
        shown = self._paint(new, at, pixels, mask, request.layer_mask)
        _exists, left, top = self._layer.get_offsets()
        new.set_offsets(left + at.x, top + at.y)
        how = {"source": self._layer.get_tattoo(), **request.told()}
        # Before it is in the image, and undoable: any other persistent parasite empties GIMP's undo history.
        flags = Gimp.PARASITE_PERSISTENT | Gimp.PARASITE_UNDOABLE
        new.attach_parasite(Gimp.Parasite.new(_PARASITE, flags, json.dumps(how).encode()))

        self._image.undo_group_start()
        try:
            below = above if above and above.is_valid() else self._layer
            position = self._image.get_item_position(below)
            if not self._image.insert_layer(new, below.get_parent(), position):
                text = _("GIMP accepts no new layer here: {error}")
                raise UserError(text.format(error=Gimp.get_pdb().get_last_error()))
            if request.layer_mask:
                layer_mask = new.create_mask(Gimp.AddMaskType.WHITE)
                new.add_mask(layer_mask)
                _write(layer_mask, "Y u16", shown)
                new.set_edit_mask(True)
            if instead_of and instead_of.is_valid():
                instead_of.set_visible(False)
            self._image.set_selected_layers([new])
        finally:
            self._image.undo_group_end()
        return new

    def _paint(self, new: Gimp.Layer, at: Rectangle, pixels: bytes, mask: bytes, apart: bool) -> bytes:
        """new = source + (pixels - the pixels sent), times all masks, or with these apart as "Y u16".

        Where pixels replace: new = pixels where the source is opaque. GEGL computes only the rectangle.
        """
        Gegl.init(None)
        graph = Gegl.Node()

        def node(operation: str, *inputs: Gegl.Node, **properties: object) -> Gegl.Node:
            made = graph.create_child(operation)
            for name, value in properties.items():
                made.set_property(name, value)
            for pad, feeder in zip(("input", "aux"), inputs, strict=False):
                feeder.connect_to("output", made, pad)
            return made

        def constant(encoding: str, area: Rectangle, data: bytes) -> Gegl.Node:
            buffer = Gegl.Buffer.new(encoding, *area)
            buffer.set(Gegl.Rectangle.new(*area), encoding, data)
            return node("gegl:buffer-source", buffer=buffer)

        def drawn(drawable: Gimp.Drawable) -> Gegl.Node:
            return node("gegl:buffer-source", buffer=drawable.get_buffer())

        def masked(result: Gegl.Node) -> Gegl.Node:
            result = node("gegl:opacity", result, constant("Y u8", at, mask))
            if self.box:
                result = node("gegl:opacity", result, constant("Y u16", self.box, self._selection))
            own_mask = self._layer.get_mask()
            if own_mask and self._layer.get_apply_mask():
                result = node("gegl:opacity", result, drawn(own_mask))
            return result

        def write(result: Gegl.Node, target: Gegl.Buffer) -> None:
            result = node("gegl:crop", result, **at._asdict())
            result = node("gegl:translate", result, x=-at.x, y=-at.y)
            node("gegl:write-buffer", result, buffer=target).process()
            target.flush()

        edited = constant(self._encoding, at, pixels)
        if self._replaces:
            result = node("gegl:src-in", drawn(self._layer), edited)
        else:
            change = node("gegl:subtract", edited, constant(self._encoding, self._everything, self.pixels))
            result = node("gegl:add", drawn(self._layer), change)
        write(result if apart else masked(result), new.get_buffer())
        new.update(0, 0, at.width, at.height)
        if not apart:
            return b""
        shown = Gegl.Buffer.new("A u16", 0, 0, at.width, at.height)
        write(masked(node("gegl:color", value=Gegl.Color.new("white"))), shown)
        return bytes(shown.get(Gegl.Rectangle.new(0, 0, at.width, at.height), 1.0, "A u16", Gegl.AbyssPolicy.NONE))


class Hole(Source):
    """The layer to fill, and the selection, which is what is filled.

    mask: height x width bytes, how far each pixel of the layer is selected. Raises UserError as Source does, and where
    nothing or everything is selected.
    """

    _replaces = True

    def __init__(self, image: Gimp.Image, layer: Gimp.Layer) -> None:
        text = _("Nothing of “{name}” is selected: select what hides a part of the face, then run the filter again.")
        nothing = UserError(text.format(name=layer.get_name()))
        if Gimp.Selection.is_empty(image) or not layer.mask_intersect()[0]:
            raise nothing
        super().__init__(image, layer)
        _exists, left, top = layer.get_offsets()
        everything = self._everything._replace(x=left, y=top)
        self.mask = _read(image.get_selection(), everything, "Y u8")
        kept = self.mask.count(0)
        if kept == len(self.mask):  # so faint that it is none
            raise nothing
        if not kept:
            text = _("All of “{name}” is selected: select only what hides a part of the face.")
            raise UserError(text.format(name=layer.get_name()))
        self.box = None  # the mask is the selection, which would limit the result once more


def _read(drawable: Gimp.Drawable, area: Rectangle, encoding: str) -> bytes:
    rectangle = Gegl.Rectangle.new(*area)
    return bytes(drawable.get_buffer().get(rectangle, 1.0, encoding, Gegl.AbyssPolicy.NONE))


def _write(drawable: Gimp.Drawable, encoding: str, data: bytes) -> None:
    width, height = drawable.get_width(), drawable.get_height()
    buffer = drawable.get_buffer()
    buffer.set(Gegl.Rectangle.new(0, 0, width, height), encoding, data)
    buffer.flush()
    drawable.update(0, 0, width, height)
