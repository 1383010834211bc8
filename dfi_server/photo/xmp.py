"""XMP packets: what is no longer true of a picture that was edited and turned is taken out, the rest stays as it is.

A JPEG's segment holds 64 KB; what is more lies in extensions, which are joined with the packet when they are read, and
made again when it is written (XMP specification, part 3, 1.1.3.1).
"""

import contextlib
import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from lxml import etree

SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_TIFF, _EXIF = "{http://ns.adobe.com/tiff/1.0/}", "{http://ns.adobe.com/exif/1.0/}"
_EXTENDED = "{http://ns.adobe.com/xmp/note/}HasExtendedXMP"
_GOOGLE = "{http://ns.google.com/photos/1.0/"
_OUTDATED = (  # names, or whole namespaces, of what speaks of the file that was read
    _EXTENDED,
    f"{_TIFF}Orientation",
    "{http://ns.adobe.com/xap/1.0/}Thumbnails",  # of the picture before the edit
    *(f"{_GOOGLE}{kind}/}}" for kind in ("image", "depthmap")),  # the picture before a camera's own edit, its depths
    *(f"{_GOOGLE}{kind}/}}" for kind in ("camera", "container")),  # films and gain maps behind the JPEG's end
    "{http://ns.google.com/photos/dd/1.0/device/}",
    "{http://purl.org/dc/terms/}provenance",  # content credentials, which an edit breaks
    "{http://ns.adobe.com/hdr-gain-map/1.0/}",
    "{http://ns.apple.com/HDRGainMap/1.0/}",
)
_OF_PLACES = (  # what fits no longer if the picture was turned
    "{http://www.metadataworkinggroup.com/schemas/regions/}Regions",
    "{http://ns.microsoft.com/photo/1.2/}RegionInfo",
    *(f"{_EXIF}Subject{kind}" for kind in ("Area", "Location")),
)
_OF_SIDES = (  # what fits no longer if it was turned by 90 degrees
    *(f"{_TIFF}{name}" for name in ("ImageWidth", "ImageLength", "XResolution", "YResolution")),
    *(f"{_EXIF}{name}" for name in ("PixelXDimension", "PixelYDimension")),
    *(f"{_EXIF}FocalPlane{side}Resolution" for side in "XY"),
)
_ROOM = 65_000  # for a packet, or a part of an extension, in a segment of 65,533 bytes
_HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'.encode()
_TAIL = b'<?xpacket end="w"?>'


def upright(packet: bytes, orientation: int, extensions: Sequence[bytes] = ()) -> bytes | None:
    """The packet of a picture that had an EXIF orientation, joined with its extensions (contents of a JPEG's segments).

    The same bytes where nothing had to change; None for one that cannot be read.
    """
    outdated = _OUTDATED + (_OF_PLACES if orientation > 1 else ()) + (_OF_SIDES if orientation > 4 else ())
    try:
        root = _parsed(packet)
    except (etree.XMLSyntaxError, ValueError):
        return None
    extension = _extension(root, extensions)
    changed = [_take_out(description, outdated) for description in _descriptions(root)]
    for description in extension:
        _take_out(description, outdated)
        next(_descriptions(root)).getparent().append(description)
    return _packed(root) if extension or any(changed) else packet


def _parsed(packet: bytes) -> Any:
    """The root element. Raises XMLSyntaxError or ValueError, also where entities are declared, which XMP has not."""
    text = packet.strip(b"\0 \t\r\n")
    root = etree.fromstring(text, etree.XMLParser(resolve_entities=False, no_network=True))
    if root.getroottree().docinfo.internalDTD is not None or next(_descriptions(root), None) is None:
        raise ValueError("no XMP packet")
    return root


def _descriptions(root: Any) -> Iterator[Any]:
    for rdf in list(root.iter(f"{_RDF}RDF")):
        yield from list(rdf.iterchildren(f"{_RDF}Description"))


def _take_out(description: Any, outdated: tuple[str, ...]) -> bool:
    """Properties are elements or, the short ones, attributes."""
    attributes = [name for name in description.attrib if name.startswith(outdated)]
    elements = [each for each in description.iterchildren("{*}*") if each.tag.startswith(outdated)]
    for name in attributes:
        del description.attrib[name]
    for element in elements:
        description.remove(element)
    return bool(attributes or elements)


def _extension(root: Any, parts: Sequence[bytes]) -> list[Any]:
    """The descriptions in the extension that a packet names, if all of it is there.

    A part is its MD5 (32 bytes), the length of the whole, its offset in it, and its bytes.
    """
    names = [each.get(_EXTENDED) or each.findtext(_EXTENDED) for each in _descriptions(root)]
    wanted = next((name.strip().encode() for name in names if name), None)
    ours = sorted((struct.unpack_from(">II", part, 32)[::-1], part[40:]) for part in parts if part[:32] == wanted)
    whole = b"".join(content for _, content in ours)
    with contextlib.suppress(etree.XMLSyntaxError, ValueError, struct.error):
        if ours and len(whole) == ours[0][0][1]:
            return list(_descriptions(_parsed(whole)))
    return []


def _packed(root: Any) -> bytes:
    etree.cleanup_namespaces(root)  # of what was taken out
    return _HEAD + bytes(etree.tostring(root, encoding="utf-8")) + _TAIL


def segments(packet: bytes) -> Iterator[bytes]:
    """The packet as contents of a JPEG's segments.

    Where it is too long for one, its longest properties are moved to an extension. Raises ValueError or XMLSyntaxError.
    """
    if len(packet) <= _ROOM:
        yield SEGMENT + packet
        return
    root = _parsed(packet)
    extended = etree.Element("{adobe:ns:meta/}xmpmeta", nsmap={"x": "adobe:ns:meta/"})
    rdf = etree.SubElement(extended, f"{_RDF}RDF", nsmap={"rdf": _RDF[1:-1]})
    properties = [
        (len(value), description, name)
        for description in _descriptions(root)
        for name, value in (*description.attrib.items(), *((e, etree.tostring(e)) for e in description.iterchildren()))
    ]
    properties.sort(key=lambda each: each[0], reverse=True)
    for _, description, which in properties:
        if len(_packed(root)) <= _ROOM - 200:
            break
        target = etree.SubElement(rdf, f"{_RDF}Description", {f"{_RDF}about": ""}, nsmap=description.nsmap)
        if isinstance(which, str):
            target.set(which, description.attrib.pop(which))
        else:
            target.append(which)
    content = bytes(etree.tostring(extended, encoding="utf-8"))
    name = hashlib.md5(content, usedforsecurity=False).hexdigest().upper()
    next(_descriptions(root)).set(_EXTENDED, name)
    yield SEGMENT + _packed(root)
    for start in range(0, len(content), _ROOM):
        header = EXTENSION + struct.pack(">32sII", name.encode(), len(content), start)
        yield header + content[start : start + _ROOM]
