"""What the plug-in's folder in GIMP holds: the plug-in, the wire beside it, how the server is started, and pyzmq."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from dfi_server.gimp.machine import Machine
from dfi_server.wire import keys, place

PACKAGE = Path(__file__).parents[1]

EDITOR_SIDE = (
    "__init__.py",
    "errors.py",
    "system.py",
    *(f"wire/{name}.py" for name in ("__init__", "limits", "messages", "protocol", "place", "client")),
)
"""What GIMP's Python needs of this package."""

VENDOR = "vendor"
"""The folder of pyzmq in that of the plug-in."""

MAIN = "dfi.py"
"""The file that GIMP runs."""

RECORD = "server.json"
"""Where the program is, for the plug-in."""

EXTENSION = "local.dfi.gimp"
"""The plug-in's id as an extension of GIMP (AppStream), and so the name of its folder in GIMP's extensions."""

BUNDLE = "bundle"
"""The folder of the program's wheel in a plug-in that was unpacked from an archive (tools/make_extension.py)."""

KEYS = "keys"
"""The folder of a client's keys in that of the plug-in, for a GIMP that does not see the state folder."""


def source() -> Path:
    """The plug-in's folder as it is distributed: in an installed package, else in the repository."""
    inside = Path(__file__).parent / "plugin"
    return inside if inside.exists() else PACKAGE.parent / "gimp_plugin" / "dfi"


def server_command(machine: Machine) -> list[str]:
    """What starts a server of this installation, in whatever folder."""
    program = Path(sys.executable).with_name("dfi.exe" if machine.system == "win32" else "dfi")
    return [str(program), "serve"] if program.exists() else [sys.executable, "-m", "dfi_server", "serve"]


def settings(machine: Machine, home: Path) -> dict[str, Any]:
    """What the plug-in must know of this installation: the contents of its server.json."""
    return {
        "endpoint": place.OWN,
        "home": str(home),
        "command": server_command(machine),
        "relay": [sys.executable, "-P", "-m", "dfi_server.wire.relay"],
    }


def copy(folder: Path) -> None:
    """The plug-in in `folder`, as it is on every machine: with nothing on where the program is."""
    shutil.copytree(source(), folder, ignore=shutil.ignore_patterns("__pycache__", VENDOR, BUNDLE, RECORD, "*.pyc"))
    (folder / MAIN).chmod(0o755)  # without it GIMP passes it over in silence
    for name in EDITOR_SIDE:
        target = folder / PACKAGE.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, target)


def make(folder: Path, machine: Machine, home: Path, pyzmq: Path | None) -> None:
    """The plug-in in `folder`, complete but for what one GIMP needs and another does not."""
    copy(folder)
    (folder / RECORD).write_text(json.dumps(settings(machine, home), indent=1), "utf-8")
    if pyzmq:
        shutil.copytree(pyzmq, folder / VENDOR)


def shut_in(folder: Path, home: Path) -> None:
    """Make the plug-in in `folder` one for a sandbox that hides the state folder `home`: it brings its keys."""
    here = place.find(place.OWN_TCP, home)
    if here.server_keys and here.client_keys:
        keys.ensure(here.server_keys, here.client_keys)
        shutil.copytree(here.client_keys, folder / KEYS)
    changed = json.loads((folder / RECORD).read_text("utf-8")) | {"endpoint": place.OWN_TCP}
    (folder / RECORD).write_text(json.dumps(changed, indent=1), "utf-8")


def is_ours(folder: Path) -> bool:
    """Whether a plug-in's folder holds this filter, of whatever version, and not somebody else's."""
    try:
        return "plug-in-dfi" in (folder / MAIN).read_text("utf-8", "replace")
    except OSError:
        return False


def is_unpacked(folder: Path) -> bool:
    """Whether it is as an archive brings it: GIMP's Python may have no pyzmq, and the program is looked for."""
    return (folder / BUNDLE).exists()


def is_active(config: Path) -> bool:
    """Whether a GIMP with these settings runs the extension: a user's own are off until they are switched on."""
    try:
        written = (config / "extensionrc").read_text("utf-8", "replace")
    except OSError:
        return False
    return bool(re.search(rf'"{re.escape(EXTENSION)}"\s*\(active\s+yes\)', written))


def is_current(folder: Path) -> bool:
    """Whether the plug-in there is the one of this version, undamaged."""
    ours = [(source() / name, folder / name) for name in _names(source())]
    ours += [(PACKAGE / name, folder / PACKAGE.name / name) for name in EDITOR_SIDE]
    try:
        return all(there.read_bytes() == here.read_bytes() for here, there in ours)
    except OSError:
        return False


def _names(folder: Path) -> list[Path]:
    return [
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and VENDOR not in path.parts
    ]
