"""The one exception that reaches users: a code for programs and a sentence for people."""

import errno
from enum import StrEnum
from pathlib import Path

NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""What an OSError's number is where a disk, a user's share of it, or a file is full."""

SEE_LOG = "the server's log says more (server.log, or what 'dfi serve' prints)"


class ErrorCode(StrEnum):
    """What went wrong, as it travels on the socket and as programs may test it."""

    BAD_REQUEST = "bad_request"
    BAD_IMAGE = "bad_image"
    BAD_BOX = "bad_box"
    BAD_MASK = "bad_mask"
    BAD_ALPHA = "bad_alpha"
    UNKNOWN_ATTRIBUTE = "unknown_attribute"
    NO_FACE = "no_face"
    TOO_LARGE = "too_large"
    NO_STORE = "no_store"
    BAD_STORE = "bad_store"
    BAD_WEIGHTS = "bad_weights"
    BAD_DATA = "bad_data"
    VERSION = "version"
    BUSY = "busy"
    CANCELLED = "cancelled"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    NO_SPACE = "no_space"
    INTERNAL = "internal"


class DFIError(Exception):
    """An error whose text is one sentence that says what to do about it."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = ErrorCode(code)
        self.message = message


def unwritable(path: Path, error: Exception, elsewhere: str = "name another folder") -> DFIError:
    """NO_SPACE: that `path` cannot be written, why, and what helps: room, or `elsewhere` where room would not."""
    number = error.errno if isinstance(error, OSError) else None
    reason = (isinstance(error, OSError) and error.strerror) or next(iter(str(error).strip().splitlines()), "")
    if number in NO_ROOM:
        advice = "Make room, and run the same again."
    elif number in (errno.EACCES, errno.EPERM):
        advice = f"Get permission to write there, or {elsewhere}."
    elif number is None:  # no file's fault: the format's
        advice = "Choose another format, such as .png or .tif."
    else:
        advice = f"{elsewhere[0].upper()}{elsewhere[1:]}."
    return DFIError(ErrorCode.NO_SPACE, f"{path} could not be written ({reason or type(error).__name__}). {advice}")
