"""Downloads, against a real HTTP server that can break off, lie, or know nothing of ranges."""

import contextlib
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from support.checks import full_disk

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.vectors import download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Resource:
    """How a mirror serves the file."""

    content: bytes = CONTENT
    ranges: bool = True  # understands Range
    breaks_after: int | None = None  # bytes of a response after which the connection closes
    says_length: bool = True
    status: int = 200


@dataclass
class Mirrors:
    """A server on this machine, and what was asked of it."""

    port: int = 0
    resources: dict[str, Resource] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range

    def add(self, name: str, resource: Resource) -> str:
        self.resources[f"/{name}"] = resource
        return f"http://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirrors]:
    served = Mirrors()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.asked.append((self.path, asked))
            resource = served.resources[self.path]
            if resource.status != 200:
                return self.send_error(resource.status)
            start, size = 0, len(resource.content)
            if asked and resource.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{size}")
                    return self.end_headers()
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            else:
                self.send_response(200)
            if resource.says_length:
                self.send_header("Content-Length", str(size - start))
            self.end_headers()
            end = size if resource.breaks_after is None else start + resource.breaks_after
            with contextlib.suppress(ConnectionError):
                self.wfile.write(resource.content[start:end])

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "faces.tgz"


def part(target: Path, content: bytes) -> Path:
    """What an earlier call left of a download."""
    path = target.with_name(target.name + ".part")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def assert_complete(target: Path) -> None:
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("resource", [Resource(), Resource(ranges=False), Resource(says_length=False)])
def test_a_file_is_fetched_whole(resource: Resource, mirrors: Mirrors, target: Path) -> None:
    assert download.fetch([mirrors.add("a", resource)], target, MD5) == target
    assert_complete(target)


def test_a_good_copy_is_not_fetched_again(mirrors: Mirrors, target: Path) -> None:
    url = mirrors.add("a", Resource())
    download.fetch([url], target, MD5)
    download.fetch([url], target, MD5)
    download.fetch([url], target, None)
    assert mirrors.asked == [("/a", None)]


def test_a_damaged_copy_is_fetched_again(mirrors: Mirrors, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1] + b"x")
    download.fetch([mirrors.add("a", Resource())], target, MD5)
    assert_complete(target)


def test_a_download_goes_on_where_it_stopped(mirrors: Mirrors, target: Path) -> None:
    part(target, CONTENT[:1_000_000])
    download.fetch([mirrors.add("a", Resource())], target, MD5)
    assert_complete(target)
    assert mirrors.asked == [("/a", "bytes=1000000-")]


def test_a_server_without_ranges_sends_all_of_it_again(mirrors: Mirrors, target: Path) -> None:
    part(target, CONTENT[:1_000_000])
    download.fetch([mirrors.add("a", Resource(ranges=False))], target, MD5)
    assert_complete(target)


def test_a_connection_that_breaks_is_resumed_at_the_next_mirror(mirrors: Mirrors, target: Path) -> None:
    urls = [mirrors.add("a", Resource(breaks_after=1_200_000)), mirrors.add("b", Resource())]
    download.fetch(urls, target, MD5)
    assert_complete(target)
    assert mirrors.asked == [("/a", None), ("/b", "bytes=1200000-")]


def test_a_connection_that_keeps_breaking_is_resumed_by_calling_again(mirrors: Mirrors, target: Path) -> None:
    url = mirrors.add("a", Resource(breaks_after=1_200_000))
    for _ in range(2):
        with pytest.raises(DFIError, match="Run the command again") as caught:
            download.fetch([url], target, MD5)
        assert caught.value.code is ErrorCode.UNREACHABLE
        assert not target.exists()
    download.fetch([url], target, MD5)
    assert_complete(target)


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_part_that_is_already_whole_is_not_fetched_again(md5: str | None, mirrors: Mirrors, target: Path) -> None:
    part(target, CONTENT)
    download.fetch([mirrors.add("a", Resource())], target, md5)
    assert_complete(target)


@pytest.mark.parametrize("md5", [MD5, None])
def test_a_part_that_is_longer_than_the_file_is_not_taken_for_it(
    md5: str | None, mirrors: Mirrors, target: Path
) -> None:
    part(target, CONTENT + b"of something else")
    urls = [mirrors.add("a", Resource()), mirrors.add("b", Resource())]
    download.fetch(urls, target, md5)
    assert_complete(target)


def test_a_part_of_another_file_is_not_kept(mirrors: Mirrors, target: Path) -> None:
    left = part(target, b"x" * 1000)
    url = mirrors.add("a", Resource())
    with pytest.raises(DFIError, match="its hash differs"):
        download.fetch([url], target, MD5)
    assert not left.exists()
    assert not target.exists()
    download.fetch([url], target, MD5)
    assert_complete(target)


@pytest.mark.parametrize(
    "broken", [Resource(status=404), Resource(status=503), Resource(b"<html>sign in</html>"), Resource(b"")]
)
def test_the_next_mirror_is_asked_where_one_has_no_such_file(broken: Resource, mirrors: Mirrors, target: Path) -> None:
    urls = [mirrors.add("a", broken), mirrors.add("b", Resource())]
    download.fetch(urls, target, MD5)
    assert_complete(target)


def test_a_wrong_file_is_refused_and_not_kept(mirrors: Mirrors, target: Path) -> None:
    url = mirrors.add("a", Resource(CONTENT[::-1]))
    with pytest.raises(DFIError, match="its hash differs") as caught:
        download.fetch([url], target, MD5)
    assert caught.value.code is ErrorCode.UNREACHABLE
    assert url in caught.value.message
    assert list(target.parent.iterdir()) == []


def test_when_all_mirrors_are_dead_each_is_named(mirrors: Mirrors, target: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/faces.tgz"
        urls = [mirrors.add("a", Resource(status=404)), dead]
        with pytest.raises(DFIError, match=r"faces\.tgz could not be downloaded") as caught:
            download.fetch(urls, target, MD5)
    assert caught.value.code is ErrorCode.UNREACHABLE
    assert all(url in caught.value.message for url in urls)
    assert "dfi setup" in caught.value.message
    assert not target.exists()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DFIError, match=str(tmp_path / "file")) as caught:
        download.fetch(["http://127.0.0.1:9/x"], tmp_path / "file" / "downloads" / "x", MD5)
    assert caught.value.code is ErrorCode.NO_SPACE


def test_a_full_disk_is_a_sentence_and_the_rest_comes_when_there_is_room(mirrors: Mirrors, target: Path) -> None:
    urls = [mirrors.add("a", Resource()), mirrors.add("b", Resource())]
    with full_disk(1_500_000), pytest.raises(DFIError, match="no room") as caught:
        download.fetch(urls, target, MD5)
    assert caught.value.code is ErrorCode.NO_SPACE
    assert str(target.parent) in caught.value.message
    assert not target.exists()
    download.fetch(urls, target, MD5)
    assert_complete(target)
    assert mirrors.asked == [("/a", None), ("/a", "bytes=1500000-")]
