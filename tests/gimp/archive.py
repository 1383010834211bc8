"""The archives of tools/make_extension.py, and a program for the filter that they bring."""

import importlib.util
import json
import shlex
import shutil
import sys
import zipfile
from pathlib import Path
from types import ModuleType

from gimp.gimp import REPOSITORY, Gimp

SECOND = 1_800_000_000


def make_extension() -> ModuleType:
    """The tool, as a module."""
    spec = importlib.util.spec_from_file_location("make_extension", REPOSITORY / "tools" / "make_extension.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpack(archive: Path, folder: Path) -> None:
    """As a user's tool for archives does, which sets the modes."""
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            Path(packed.extract(info, folder)).chmod(info.external_attr >> 16 & 0o777)


def install(gimp: Gimp, archive: Path) -> None:
    """Have the plug-in of an archive in GIMP, instead of the usual one."""
    shutil.rmtree(gimp.plugin)
    unpack(archive, gimp.plugin.parent)


def dfi(gimp: Gimp, endpoint: str, home: Path) -> str:
    """The script of a `dfi` of this repository as GIMP would find it: it runs outside of GIMP's root."""
    gimp.server(endpoint, home=home)
    record = gimp.plugin / "server.json"
    relay = gimp.outside(sys.executable, "-P", "-m", "dfi_server.wire.relay")
    told = json.loads(record.read_text()) | {"home": str(home), "relay": relay}
    record.unlink()
    return f'[ "$*" = "gimp settings" ] && echo {shlex.quote(json.dumps(told))}'


def own_program(gimp: Gimp, name: str) -> Path:
    """Where pipx and uv put programs for GIMP's user."""
    path = gimp.share / ".local/bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
