"""`dfi setup`: what it builds from files, and one sentence for each that it cannot use."""

from pathlib import Path

import pytest
from safetensors.torch import save_file
from support.checks import Run, full_disk, run_dfi
from support.tiny import TINY_ATTRIBUTES, tiny_weights, write_tiny_lfw

from dfi_server.vectors.store import open_store


@pytest.fixture
def lfw_files(folder: Path) -> tuple[str, ...]:
    """The options of `dfi setup` for a few drawn faces, as files in the working folder."""
    archive, table = write_tiny_lfw(folder, faces=8)
    save_file(tiny_weights(), folder / "vgg19.safetensors")
    return ("--vgg19", "vgg19.safetensors", "--lfw", archive.name, "--attributes", table.name)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_setup_builds_the_default_store(empty_home: Path, lfw_files: tuple[str, ...], succeeds: Run) -> None:
    out = succeeds("setup", *lfw_files)
    assert "6 attribute vectors (ridge" in out
    assert "from 8 photos" in out
    assert tuple(succeeds("attributes").split()) == TINY_ATTRIBUTES
    assert "mean difference" in succeeds("setup", *lfw_files, "--method", "mean", "--limit", "5")
    assert open_store().info.photos == 5
    succeeds("edit", "face.png", "out.png", "--set", "smiling=0.4", "--iterations", "1")


@pytest.mark.parametrize("option", ["--vgg19", "--lfw", "--attributes"])
@pytest.mark.parametrize("content", [None, b"", b"<html>404 not found</html>", "half"])
def test_setup_from_a_missing_or_damaged_file_is_one_sentence(
    option: str,
    content: bytes | str | None,
    empty_home: Path,
    lfw_files: tuple[str, ...],
    fails: Run,
) -> None:
    path = Path(lfw_files[lfw_files.index(option) + 1])
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(
            whole[: 200 if option == "--attributes" else len(whole) // 2] if content == "half" else content
        )
    before = dict(zip(lfw_files[::2], lfw_files[1::2], strict=True))
    assert before[option] in fails("setup", *lfw_files)
    assert not (empty_home / "stores" / "lfw").exists()


def test_setup_on_a_full_disk_is_one_sentence(
    empty_home: Path, lfw_files: tuple[str, ...], fails: Run, succeeds: Run
) -> None:
    with full_disk(100_000):
        assert "is the disk full?" in fails("setup", *lfw_files)
    assert list((empty_home / "stores").iterdir()) == []
    succeeds("setup", *lfw_files)
    with full_disk(100_000):
        assert "is the disk full?" in fails("setup", *lfw_files, "--method", "mean")
    assert {path.name for path in (empty_home / "stores").iterdir()} == {"lfw", "faces.safetensors", "faces.crc32.json"}
    succeeds("edit", "face.png", "out.png", "--set", "smiling=0.4", "--iterations", "1")
    assert open_store().info.method.startswith("ridge")


def test_a_state_folder_that_is_a_file_is_one_sentence(
    empty_home: Path, lfw_files: tuple[str, ...], fails: Run
) -> None:
    empty_home.touch()
    assert str(empty_home) in fails("setup", *lfw_files)


def test_setup_without_a_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    done = run_dfi("setup", home=tmp_path / "home", timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line)
    assert line.startswith("dfi: VGG-19's weights could not be downloaded")
    assert "dfi setup --vgg19 FILE" in line
    assert not list((tmp_path / "home").rglob("*"))
