"""The one exception that reaches users: a code for programs and a sentence for people."""

from enum import StrEnum


class ErrorCode(StrEnum):
    """What went wrong, as it travels on the socket and as programs may test it."""

    BAD_REQUEST = "bad_request"
    BAD_IMAGE = "bad_image"
    BAD_BOX = "bad_box"
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
