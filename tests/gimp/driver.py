"""Run inside GIMP by tests/gimp/gimp.py: takes lines of JSON (code) on a socket and answers with lines of JSON.

The code sees what is defined here, and leaves its result in `answer`.
"""

import gc
import hashlib
import json
import os
import pathlib
import socket
import traceback

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
gi.require_version("Babl", "0.1")
from gi.repository import Babl, Gegl, Gimp, Gio  # noqa: E402


def call(image, layers, name="plug-in-dfi", **values):
    """Run a procedure of the plug-in as a script would: [status, sentence]."""
    procedure = Gimp.get_pdb().lookup_procedure(name)
    config = procedure.create_config()
    config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
    config.set_property("image", image)
    config.set_core_object_array("drawables", layers)
    for argument, value in values.items():
        config.set_property(argument, value)
    status = procedure.run(config).index(0).value_nick
    return [status, "" if status == "success" else Gimp.get_pdb().get_last_error()]


def load(path):
    """An image from a file, with nothing to undo or to save."""
    image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(path))
    image.clean_all()
    return image


def pixels(drawable, rectangle=None, encoding=None):
    """A drawable's bytes: of x, y, width, height, in a Babl encoding (the drawable's own by default)."""
    buffer = drawable.get_buffer()
    x, y, width, height = rectangle or (0, 0, drawable.get_width(), drawable.get_height())
    area = Gegl.Rectangle.new(x, y, width, height)
    return bytes(buffer.get(area, 1.0, encoding or Babl.format_get_encoding(drawable.get_format()), 0))


def fill(drawable, encoding, data):
    """Set all of a drawable's pixels."""
    buffer = drawable.get_buffer()
    buffer.set(Gegl.Rectangle.new(0, 0, drawable.get_width(), drawable.get_height()), encoding, data)
    buffer.flush()
    drawable.update(0, 0, drawable.get_width(), drawable.get_height())


def keep(name, drawable, encoding):
    """Leave a drawable's pixels for Gimp.kept()."""
    pathlib.Path(os.environ["HOME"], name).write_bytes(pixels(drawable, encoding=encoding))


def visible(image):
    """What the image looks like, as a layer that is not part of it."""
    return Gimp.Layer.new_from_visible(image, image, "visible")


def digest(drawable):
    """What a drawable's pixels are, bit for bit."""
    return hashlib.sha256(pixels(drawable)).hexdigest()


def facts(layer):
    """What tests ask of a layer."""
    return {
        "name": layer.get_name(),
        "offset": list(layer.get_offsets())[1:],
        "size": [layer.get_width(), layer.get_height()],
        "encoding": Babl.format_get_encoding(layer.get_format()),
    }


def outcome(image, source, before):
    """What became of an image and of the layer that a filter ran on, whose digest was `before`."""
    return {
        "source same": digest(source) == before,
        "selected": [layer.get_name() for layer in image.get_selected_layers()],
        "dirty": image.is_dirty(),
        "layers": [facts(layer) for layer in image.get_layers()],
    }


def main():
    with socket.create_connection(("127.0.0.1", int(os.environ["DFI_TEST_DRIVER_PORT"]))) as connection:
        for line in connection.makefile("r"):
            names = dict(globals())
            Gimp.context_push()  # GIMP would keep a selection's feathering for all later code
            try:
                exec(json.loads(line), names)
                reply = {"answer": names.get("answer")}
            except Exception:
                reply = {"error": traceback.format_exc()}
            Gimp.context_pop()
            names.clear()
            gc.collect()  # a buffer still held when its image is deleted would end this process
            connection.sendall(json.dumps(reply).encode() + b"\n")


main()
