"""Which faces of a photo are to be edited; what was seen of the last photo is remembered.

An editor asks for edit after edit of the same photo. Only the first of them looks for faces, landmarks and lips.
"""

from collections.abc import Callable

import numpy as np
import xxhash

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face import layout
from dfi_server.face.expression import Expressive, look
from dfi_server.face.find import Face, align, find_faces, find_largest, overlap
from dfi_server.face.frame import Frame
from dfi_server.face.portraits import Portraits
from dfi_server.photo.pixels import Box, Pixels
from dfi_server.wire.messages import FaceChoice


class FaceChooser:
    """`canonical`: the landmarks (5, 2) that faces are aligned to."""

    def __init__(self, canonical: np.ndarray) -> None:
        self._canonical = canonical
        self._seen: object = None  # the last photo
        self._faces: dict[Callable[[Pixels, np.ndarray], list[Face]], list[Face]] = {}
        self._expressive: dict[bytes, Expressive | None] = {}

    def faces(self, photo: Pixels, box: Box | None = None) -> list[Face]:
        """All of a photo, or those in a box of it, the largest first."""
        return self._found(photo, box, find_faces)

    def frames(self, photo: Pixels, face: FaceChoice, box: Box | None) -> list[Frame]:
        """Where the chosen faces are. Raises DFIError(NO_FACE | BAD_BOX)."""
        size = (photo.shape[1], photo.shape[0])
        in_box = Frame.of_box(box, size) if box is not None else None
        found = self._found(photo, box, find_largest if face == "largest" and box is None else find_faces)
        if not found and in_box:
            return [in_box]
        if not found and size == (layout.PHOTO_SIZE, layout.PHOTO_SIZE):  # LFW's own size: its own layout
            return [Frame.of_box(layout.FRAME_BOX, size)]
        if not found:
            raise DFIError(
                ErrorCode.NO_FACE,
                "No face was found in the photo: say where it is with a box around it, from hairline to throat and "
                "ear to ear (--box X,Y,W,H on the command line, a selection in GIMP).",
            )
        if face == "largest":
            found = found[:1]
        elif face != "all":
            if not 1 <= face <= len(found):
                there = "one face" if len(found) == 1 else f"{len(found)} faces"
                raise DFIError(ErrorCode.NO_FACE, f"There is no face {face}: the photo has {there}, numbered from 1.")
            found = [found[face - 1]]
        return [align(each.landmarks, self._canonical) for each in found]

    def expressive(self, photo: Pixels, frame: Frame, portraits: Portraits) -> Expressive | None:
        """What `look` sees of one of the frames of the photo that `frames` was asked about last."""
        key = frame.matrix.tobytes()
        if key not in self._expressive:
            self._expressive[key] = look(photo, frame, portraits)
        return self._expressive[key]

    def _found(self, photo: Pixels, box: Box | None, find: Callable[[Pixels, np.ndarray], list[Face]]) -> list[Face]:
        seen = (xxhash.xxh3_128_digest(np.ascontiguousarray(photo).data), photo.shape, photo.dtype)
        if self._seen != seen:
            self._seen, self._faces, self._expressive = seen, {}, {}
        if find not in self._faces:
            self._faces[find] = find(photo, self._canonical)
        found = self._faces[find]
        return found if box is None else [each for each in found if overlap(each.box, box) > 0.5]
