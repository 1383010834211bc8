"""The package that pip builds: it has the plug-in, and what imports need."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from gimp.gimp import REPOSITORY

from dfi_server.gimp import files


@pytest.mark.slow
def test_the_wheel_brings_the_plug_in(tmp_path: Path) -> None:
    """So that `pipx install dfi-server` is enough."""
    made = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path,
    ]
    source = tmp_path / "source"  # building leaves files there
    for name in ("dfi_server", "gimp_plugin"):
        shutil.copytree(REPOSITORY / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    subprocess.run([*made, source], check=True)
    (wheel,) = tmp_path.glob("dfi_server-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    for path in files.source().rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            name = f"dfi_server/gimp/plugin/{path.relative_to(files.source())}"
            assert inside[name] == path.read_bytes()
    packages = [path.parent for path in (REPOSITORY / "dfi_server").rglob("*.py")]
    for folder in packages:
        assert f"{folder.relative_to(REPOSITORY)}/__init__.py" in inside
