"""Bytes that changed on disk are noticed when they are read, and the sentence says how to have them back."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file
from support.checks import refusal, run_dfi
from support.tiny import TINY_ATTRIBUTES

from dfi_server import checksums, paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.face.portraits import load_portraits
from dfi_server.photo import disk
from dfi_server.photo.pixels import Photo
from dfi_server.vectors.store import Store, open_store

PACKAGE = paths.STARTER.parent
SHIPPED = [file for file in sorted(PACKAGE.rglob("*.safetensors")) if file.name != "network.safetensors"]  # has SHA-256
FIRST, OTHER = TINY_ATTRIBUTES[:2]


def damage(file: Path, name: str, count: int = 4096) -> None:
    """Change so many bytes of one tensor in place, as a bad disk does: the rest of the file stays as it is."""
    tensor = load_file(file)[name]
    content = bytearray(file.read_bytes())
    start = content.index(np.ascontiguousarray(tensor).tobytes())
    end = start + min(count, tensor.nbytes)
    content[start:end] = bytes(byte ^ 1 for byte in content[start:end])  # finite numbers stay finite
    file.write_bytes(content)


@pytest.fixture
def home(tiny_home: Path, tmp_path: Path) -> Path:
    """A copy of the tiny store that may be damaged."""
    return Path(shutil.copytree(tiny_home, tmp_path / "home"))


def vectors_of(home: Path) -> Path:
    return home / "stores" / "tiny" / "vectors.safetensors"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_each_file_of_the_package_has_checksums_that_fit(file: Path) -> None:
    assert checksums.beside(file).exists()
    checksums.check(file, load_file(file))


def test_a_damaged_vector_is_named_before_it_is_used_and_the_others_serve(
    home: Path, face: np.ndarray, tmp_path: Path
) -> None:
    file = vectors_of(home)
    damage(file, f"{FIRST}/relu4_1")
    disk.write(tmp_path / "in.png", Photo(face))
    edit = ("edit", tmp_path / "in.png", tmp_path / "out.png", "--store", "tiny", "--iterations", "2", "--set")
    failed = run_dfi(*edit, f"{FIRST}=0.4", home=home)
    assert failed.returncode == 1
    assert "is damaged" in failed.stderr and "'dfi setup'" in failed.stderr
    assert not (tmp_path / "out.png").exists()
    assert run_dfi(*edit, f"{OTHER}=0.4", home=home).returncode == 0


def test_a_store_of_an_older_version_has_no_checksums_and_serves(home: Path) -> None:
    file = vectors_of(home)
    checksums.beside(file).unlink()
    assert len(Store(file.parent).vector(FIRST)) == 3


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"smiling/relu3_1": "x"}', b"\xff"])
def test_damaged_checksums_are_damage(content: bytes, home: Path) -> None:
    file = vectors_of(home)
    checksums.beside(file).write_bytes(content)
    refusal(lambda: Store(file.parent).vector(FIRST), ErrorCode.BAD_STORE)


def test_a_vector_is_checked_once(home: Path) -> None:
    file = vectors_of(home)
    store = Store(file.parent)
    store.vector(FIRST)
    checksums.beside(file).write_text("{}")
    store.vector(FIRST)
    with pytest.raises(DFIError):
        store.vector(OTHER)


def test_of_the_starter_the_sentence_says_to_install_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(paths.STARTER, tmp_path / "starter"))
    damage(copy / "vectors.safetensors", "smiling/relu4_1/places")
    monkeypatch.setattr(paths, "STARTER", copy)
    sentence = refusal(lambda: open_store("starter").vector("smiling"), ErrorCode.BAD_STORE)
    assert "install dfi-server again" in sentence


@pytest.mark.parametrize("name", ["landmarks.safetensors", "pictures.safetensors"])
def test_damaged_portraits_are_left_out_with_a_warning(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(paths.PORTRAITS, tmp_path / "portraits"))
    with safetensors.safe_open(copy / name, framework="numpy") as file:
        largest = max(file.keys(), key=lambda key: file.get_tensor(key).nbytes)
    damage(copy / name, largest, count=64)
    with caplog.at_level(logging.WARNING):
        assert load_portraits(copy) is None
    assert "damaged" in caplog.text
