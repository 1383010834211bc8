"""Of pyzmq's zmq.auth.certs: reading certificates."""

import os
import re
from pathlib import Path


def load_certificate(path: str | os.PathLike[str]) -> tuple[bytes, bytes | None]:
    """The public and the secret key of a file (ZPL, RFC 4 of ZeroMQ), in Z85. Raises OSError, ValueError."""
    text = Path(path).read_text("utf-8")
    keys = dict(re.findall(r'^\s*(public|secret)-key\s*=\s*"([^"]*)"', text, re.MULTILINE))
    if "public" not in keys:
        raise ValueError(f"No public key found in {path}")
    return keys["public"].encode(), keys["secret"].encode() if "secret" in keys else None
