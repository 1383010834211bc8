"""Whether GIMP's Python can use the plug-in, and whether GIMP itself has it."""

import shutil
import tempfile
from pathlib import Path

from dfi_server.gimp.find import Gimp
from dfi_server.gimp.machine import Machine

PROCEDURE = "plug-in-dfi"
START_SECONDS = 120.0  # the first start of a GIMP asks every plug-in what it is

_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"

# What the plug-in does first; without the packages of this user, who is not GIMP.
_LOAD = """import sys
sys.path[0] = sys.argv[1]
try:
    import zmq
except ImportError:
    sys.path.append(sys.argv[1] + "/vendor")
    import zmq
from dfi_server.wire import client
print("pyzmq", zmq.__version__, "for Python %d.%d" % sys.version_info[:2])
"""

_ASK = f'found = Gimp.get_pdb().lookup_procedure("{PROCEDURE}"); print("dfi:", bool(found), flush=True)'


def python_version(gimp: Gimp, machine: Machine) -> tuple[int, ...] | None:
    """That of GIMP's Python, (3, 13); None where it cannot be asked."""
    try:
        major, minor = machine.ask([*gimp.python, "-c", _VERSION]).split(".") if gimp.python else ("", "")
        return int(major), int(minor)
    except ValueError:
        return None


def loads(folder: Path, gimp: Gimp, machine: Machine) -> str:
    """What GIMP's Python says of the plug-in's folder: "pyzmq 27.3.0 for Python 3.13"; "" where it does not load it."""
    return machine.ask([*gimp.python, "-c", _LOAD, str(folder)]).strip()


def has_filter(folder: Path, gimp: Gimp, machine: Machine, home: Path) -> bool | None:
    """Whether GIMP, started without a window and with settings of its own, finds the plug-in of `folder`.

    None where GIMP cannot be started from here. home: the state folder, which Flatpak's GIMP sees, unlike /tmp.
    """
    if not gimp.console:
        return None
    with tempfile.TemporaryDirectory(prefix="gimp-", dir=home if home.exists() else machine.home) as temporary:
        shutil.copytree(folder, Path(temporary) / "plug-ins" / folder.name)
        own = {"GIMP3_DIRECTORY": temporary}
        options = [f"--env={name}={value}" for name, value in own.items()] if gimp.sandbox == "Flatpak" else []
        command = [*gimp.console[:2], *options, *gimp.console[2:]]
        alone = Machine(machine.system, machine.home, {**machine.environ, **own, **_elsewhere(gimp, temporary)})
        said = alone.ask([*command, "-i", "-d", "-f", "--batch-interpreter=python-fu-eval", "-b", _ASK, "--quit"],
                         START_SECONDS)  # fmt: skip
    if "dfi: True" in said:
        return True
    return False if "dfi: False" in said else None


def _elsewhere(gimp: Gimp, folder: str) -> dict[str, str]:
    """Where a GIMP that is in no sandbox keeps what it makes meanwhile."""
    return {} if gimp.sandbox else dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"), folder)
