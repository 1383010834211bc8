"""What users download (tools/make_extension.py): what is in it, the same from each machine, and what GIMP reads."""

import os
import stat
import struct
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gimp import archive
from gimp.gimp import REPOSITORY

from dfi_server import __version__
from dfi_server.gimp import files

pytest_plugins = ["gimp.fixtures"]
pytestmark = pytest.mark.slow  # building a wheel


def test_what_is_in_it(archives: tuple[Path, Path], tmp_path: Path) -> None:
    archive.unpack(archives[0], tmp_path)
    plugin = tmp_path / "dfi"
    assert [path.name for path in tmp_path.iterdir()] == ["dfi"]
    assert files.is_ours(plugin) and files.is_current(plugin) and files.is_unpacked(plugin)
    assert os.access(plugin / "dfi.py", os.X_OK)
    assert not (plugin / files.RECORD).exists()  # it says where the program is on the machine that made it
    assert (plugin / "bundle/constraints.txt").read_bytes() == (REPOSITORY / "constraints.txt").read_bytes()
    with zipfile.ZipFile(plugin / f"bundle/dfi_server-{__version__}-py3-none-any.whl") as wheel:
        assert {"dfi_server/starter/network.safetensors", "dfi_server/gimp/plugin/dfi.py"} <= set(wheel.namelist())
    inside = [path for path in plugin.rglob("*") if path.is_file()]
    for path in inside:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.name == "dfi.py" else 0o644)
        assert path.suffix in {"", ".html", ".mo", ".py", ".txt", ".whl"}, path


def test_the_same_again(archives: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    mask = os.umask(0o077)
    try:
        again = archive.make_extension().make(tmp_path, archive.SECOND)
    finally:
        os.umask(mask)
    for first, second in zip(archives, again, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"dfi-{__version__}.gex", f"dfi-{__version__}.zip"]


def test_what_gimp_reads_of_the_extension(archives: tuple[Path, Path]) -> None:
    """app/core/gimpextension.c and app/file-data/file-data-gex.c say what that is."""
    with zipfile.ZipFile(archives[1]) as packed:
        names = packed.namelist()
        component = ElementTree.fromstring(packed.read(f"{files.EXTENSION}/{files.EXTENSION}.metainfo.xml"))
        main = packed.getinfo(f"{files.EXTENSION}/{component.findtext('custom/value')}")
    assert all(name.startswith(f"{files.EXTENSION}/") for name in names)
    assert component.tag == "component" and component.get("type") == "addon"
    assert component.findtext("id") == files.EXTENSION
    assert component.findtext("extends") == "org.gimp.GIMP"
    for tag in ("name", "summary", "description/p", "metadata_license", "project_license"):
        assert component.findtext(tag)
    (release,) = component.findall("releases/release")
    assert release.get("version") == __version__ and release.get("date") == "2027-01-15"
    (requires,) = component.findall("requires/*")
    assert (requires.tag, requires.text, requires.get("compare")) == ("id", "org.gimp.GIMP", "ge")
    assert [value.get("key") for value in component.findall("custom/value")] == ["GIMP::plug-in-path"]
    # Its mode, where one who reads a stream looks for it.
    tag, size, bitmap, made_by, internal, external = struct.unpack("<HHBHHI", main.extra)
    assert (tag, size, bitmap, made_by >> 8, internal, external >> 16) == (0x6C78, 9, 7, 3, 0, 0o100755)
