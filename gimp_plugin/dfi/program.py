"""The program `dfi`, whose server does the work: what `dfi gimp install` wrote of it, or what it says where it is.

An unpacked archive (tools/make_extension.py) has no record of where the program is. It is looked for then, asked, and
what it says is written down, as `dfi gimp install` does.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gi.repository import GLib
from i18n import _
from processes import said
from request import UserError

HERE = Path(__file__).resolve().parent
RECORD = HERE / "server.json"
_BUNDLE = HERE / "bundle"
"""What an archive brings to install the program from: a wheel, and the versions of what it needs."""

_ASK = ("gimp", "settings")
_ASK_SECONDS = 60.0  # the first start after an installation reads everything from the disk


class Missing(UserError):
    """The program is not on this computer."""

    def __init__(self) -> None:
        text = _(
            "The program dfi, which edits, was not found on this computer: run the filter from GIMP's menu, it says "
            "how to get it."
        )
        super().__init__(text)


def sandbox() -> str:
    """The name of the sandbox that GIMP is in; "" where it may start any program."""
    from dfi_server import system  # not at the top: see processes.py

    return system.sandbox()


def settings() -> dict[str, Any]:
    """How the server is reached and started, as server.json has it.

    Raises Missing; OSError, ValueError, LookupError and TypeError where server.json is damaged, ImportError where the
    plug-in is.
    """
    recorded = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else None
    if recorded is not None and _runs(recorded):
        return dict(recorded)
    told = recorded if sandbox() else _found() or recorded
    if told is None:
        raise Missing
    return dict(told)


def is_there() -> bool:
    """Whether there is anything to reach or to start. A damaged plug-in is something: what is wrong with it is said."""
    try:
        return _runs(settings())
    except Missing:
        return False
    except (OSError, ValueError, LookupError, TypeError, ImportError):
        return True


def wheel() -> Path | None:
    """The wheel that an archive brings; one of an earlier archive may lie beside it."""
    from dfi_server import __version__

    return next(_BUNDLE.glob(f"dfi_server-{__version__}-*.whl"), None)


def constraints() -> Path:
    """The file of versions beside it."""
    return _BUNDLE / "constraints.txt"


def find(name: str) -> Iterator[str]:
    """The paths of a user's programs of that name. A GIMP started from a menu has little of the user's PATH."""
    home = Path.home()
    named = (os.environ.get(variable) for variable in ("PIPX_BIN_DIR", "UV_TOOL_BIN_DIR", "XDG_BIN_HOME"))
    usual = (home / ".local/bin", home / ".cargo/bin", "/opt/homebrew/bin", "/usr/local/bin")
    for folder in (*os.get_exec_path(), *filter(None, named), *map(str, usual)):
        if path := shutil.which(name, path=folder):
            yield path


def _runs(recorded: dict[str, Any]) -> bool:
    """Whether the recorded program is there, or need not be: another server is named, or the sandbox hides it."""
    return bool(sandbox() or os.environ.get("DFI_ENDPOINT") or shutil.which(recorded["command"][0]))


def _found() -> dict[str, Any] | None:
    for program in dict.fromkeys((*find("dfi"), *_of_tools())):
        try:
            told = dict(json.loads(said((program, *_ASK), _ASK_SECONDS)))
            told["command"][0]
        except (ValueError, LookupError, TypeError):  # another program of that name, or one too old to know
            continue
        with contextlib.suppress(OSError):  # the plug-in may lie where its user may not write: it is asked again then
            fresh = RECORD.with_suffix(".new")
            fresh.write_text(json.dumps(told, indent=1), "utf-8")
            fresh.replace(RECORD)
        return told
    return None


def _of_tools() -> Iterator[str]:
    """In the environments of install.sh, pipx and uv, where their links are gone."""
    from dfi_server import system

    home = Path.home()
    data = (GLib.get_user_data_dir(), home / ".local/share", home / ".local", home / "Library/Application Support")
    environments = [Path(folder, name) for folder in data for name in _ENVIRONMENTS]
    if chosen := os.environ.get("DFI_HOME"):
        environments.insert(0, Path(chosen, "venv"))
    for environment in environments:
        if path := shutil.which(str(system.program_of(environment, "dfi"))):
            yield path


_ENVIRONMENTS = ("dfi/venv", "pipx/venvs/dfi-server", "uv/tools/dfi-server")
