"""A layer of GIMP <-> the pixels that the server edits, and the result as a new layer.

The server sees sRGB-encoded pixels, 8 bits deep where the layer is exactly that, else 16. It returns edited pixels;
only their *change* is added to the layer's own pixels, in linear light and floating point. So wide-gamut, high dynamic
range and deep images keep what 16-bit sRGB cannot hold.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
gi.require_version("Babl", "0.1")
from gi.repository import Babl, Gegl, Gimp  # noqa: E402

_PARASITE = "dfi-edit"
_EIGHT_BIT_SRGB = ("R'G'B' u8", "R'G'B'A u8", "Y' u8", "Y'A u8")


class UserError(Exception):
    """The text is a sentence for the user: what is wrong, and what to do about it."""


class Rectangle(NamedTuple):
    """In pixels of the layer."""

    x: int
    y: int
    width: int
    height: int


def single_layer(drawables: Sequence[Gimp.Drawable]) -> Gimp.Layer:
    """The one layer among the selected drawables. Raises UserError where there is none that can be edited."""
    if len(drawables) != 1:
        found = f"{len(drawables)} layers are selected" if drawables else "No layer is selected"
        raise UserError(f"{found}: select one layer that shows a face.")
    (layer,) = drawables
    if not isinstance(layer, Gimp.Layer):
        raise UserError("A mask or a channel is selected: select the layer itself.")
    if layer.is_floating_sel():
        raise UserError("The selection floats: anchor it, or make it a layer of its own, then run the filter again.")
    if layer.is_group_layer():
        raise UserError(f"“{layer.get_name()}” is a layer group: select one layer inside it.")
    if layer.is_indexed():
        raise UserError("The image is indexed: convert it with Image > Mode > RGB, then run the filter again.")
    return layer


class Made(NamedTuple):
    """What a result of the filter remembers: the layer that it was made of, and how."""

    source: Gimp.Layer
    attribute: str
    face: str


def made(image: Gimp.Image, layer: Gimp.Layer) -> Made | None:
    """How `layer` was made, if it is a result of the filter whose source is still there."""
    kept = layer.get_parasite(_PARASITE)
    if not kept:
        return None
    try:
        told = json.loads(bytes(kept.get_data()))
        source = image.get_layer_by_tattoo(told["source"])
        return Made(source, str(told["attribute"]), str(told["face"])) if source else None
    except (ValueError, LookupError, TypeError):  # not written by this filter
        return None


class Source:
    """The layer to edit, and the selection, as they are now.

    width, height: of the layer, in pixels. channels: 1 (gray) or 3. dtype: "uint8" or "uint16".
    pixels: row-major, interleaved, sRGB-encoded. box: the selection's bounds in the layer, or None without selection.
    Raises UserError for an empty layer, and for a selection outside of it.
    """

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
            raise UserError(f"“{layer.get_name()}” is empty: select a layer that shows a face.")
        self.box: Rectangle | None = None
        if not Gimp.Selection.is_empty(image):
            self.box = self._selected_box()
            _, left, top = layer.get_offsets()
            selected = self.box._replace(x=self.box.x + left, y=self.box.y + top)
            self._selection = _read(image.get_selection(), selected, "Y u16")
        self.pixels = _read(layer, self._everything, self._encoding)

    @property
    def _everything(self) -> Rectangle:
        return Rectangle(0, 0, self.width, self.height)

    def _selected_box(self) -> Rectangle:
        overlaps, *box = self._layer.mask_intersect()
        if not overlaps:
            raise UserError(f"The selection lies outside of “{self._layer.get_name()}”: select the face, or nothing.")
        return Rectangle(*box)

    def add_layer(
        self,
        at: Rectangle,
        pixels: bytes,
        mask: bytes,
        name: str,
        attribute: str,
        face: str,
        instead_of: Gimp.Layer | None = None,
    ) -> Gimp.Layer:
        """Put an edited rectangle above the source as a layer of its own, in one undo step.

        `attribute` and `face` are kept with the layer: see `made`. `instead_of`: an earlier result, which is hidden.

        pixels: like Source.pixels. mask: one byte a pixel, 0 keeps the source, 255 is all edited. The layer's alpha is
        the product of the mask, the selection, the source's alpha and the source's layer mask. The source stays the
        selected layer: a second run starts from it, and not from the result of the first.
        """
        size = (self._layer.get_width(), self._layer.get_height()) if self._layer.is_valid() else None
        if size != (self.width, self.height):
            raise UserError("The layer was removed or resized while it was edited: run the filter again.")
        kind = Gimp.ImageType.GRAYA_IMAGE if self._layer.is_gray() else Gimp.ImageType.RGBA_IMAGE
        new = Gimp.Layer.new(self._image, name, at.width, at.height, kind, 100.0, Gimp.LayerMode.NORMAL)
        # The mask was made for blending encoded values, as `dfi edit` does; GIMP's default is linear light.
        new.set_blend_space(Gimp.LayerColorSpace.RGB_PERCEPTUAL)
        self._paint(new, at, pixels, mask)
        _, left, top = self._layer.get_offsets()
        new.set_offsets(left + at.x, top + at.y)
        how = {"source": self._layer.get_tattoo(), "attribute": attribute, "face": face}
        # Before it is in the image, and undoable: any other persistent parasite empties GIMP's undo history.
        flags = Gimp.PARASITE_PERSISTENT | Gimp.PARASITE_UNDOABLE
        new.attach_parasite(Gimp.Parasite.new(_PARASITE, flags, json.dumps(how).encode()))

        self._image.undo_group_start()
        try:
            position = self._image.get_item_position(self._layer)
            if not self._image.insert_layer(new, self._layer.get_parent(), position):
                raise UserError(f"GIMP accepts no new layer here: {Gimp.get_pdb().get_last_error()}")
            if instead_of and instead_of.is_valid():
                instead_of.set_visible(False)
            self._image.set_selected_layers([self._layer])
        finally:
            self._image.undo_group_end()
        return new

    def _paint(self, new: Gimp.Layer, at: Rectangle, pixels: bytes, mask: bytes) -> None:
        """new = source + (pixels - the pixels sent), times all masks; GEGL computes only the rectangle."""
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

        edited = constant(self._encoding, at, pixels)
        change = node("gegl:subtract", edited, constant(self._encoding, self._everything, self.pixels))
        result = node("gegl:add", drawn(self._layer), change)
        result = node("gegl:opacity", result, constant("Y u8", at, mask))
        if self.box:
            result = node("gegl:opacity", result, constant("Y u16", self.box, self._selection))
        own_mask = self._layer.get_mask()
        if own_mask and self._layer.get_apply_mask():
            result = node("gegl:opacity", result, drawn(own_mask))
        result = node("gegl:crop", result, **at._asdict())
        result = node("gegl:translate", result, x=-at.x, y=-at.y)
        target = new.get_buffer()
        node("gegl:write-buffer", result, buffer=target).process()
        target.flush()
        new.update(0, 0, at.width, at.height)


def _read(drawable: Gimp.Drawable, area: Rectangle, encoding: str) -> bytes:
    rectangle = Gegl.Rectangle.new(*area)
    return bytes(drawable.get_buffer().get(rectangle, 1.0, encoding, Gegl.AbyssPolicy.NONE))
