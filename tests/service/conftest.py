"""A server process that starts at once."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.servers import Slow, client_state, eventually, free_endpoint

from dfi_server.wire.messages import ServerState


@pytest.fixture
def light_server(slow: Slow) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server process without torch, quick to start; its edits last for ever."""
    endpoint = free_endpoint()
    code = f"""
from dfi_server.service.server import serve
from dfi_server.service.worker_process import Command
serve({endpoint!r}, [Command({slow.command.arguments!r}, {{}})])
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        try:
            eventually(lambda: client_state(endpoint) == ServerState.READY, 20)
            yield process, endpoint
        finally:
            process.kill()
