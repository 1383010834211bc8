"""The plug-in put into every GIMP 3 of a machine, looked at there, and taken away."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.gimp import at_login, check, files, find, pyzmq
from dfi_server.gimp.find import Gimp
from dfi_server.gimp.machine import Machine
from dfi_server.gimp.record import Record

NAME = "dfi"  # of the plug-in's folder, and so of its main file
MENU = "Filters > Deep Feature Interpolation..."

Say = Callable[[str], object]


def install(machine: Machine, home: Path, say: Say) -> None:
    """Put the plug-in into every GIMP's folder, or bring it up to date there, and say how it is (see `status`).

    home: the state folder. Another plug-in of that name stays. Raises DFIError where nothing can be installed, or does
    not work.
    """
    record = Record(home)
    record.make_dir(home)
    found = find.gimps(machine)
    folders = _folders(machine, found)
    if not folders and machine.system == "linux":  # for the GIMP that comes later
        folders = [find.chosen(machine) or find.config_home(machine) / find.DEFAULT_VERSION]
    if not folders:
        raise DFIError(ErrorCode.BAD_REQUEST, f"{_NO_GIMP}, start it once, then run 'dfi gimp install' again.")
    wheels = None
    if _loads_wheels(machine):
        say("Preparing the filter for GIMP")
        asked = (check.python_version(gimp, machine) for gimp in [*found, *_without_gimp(machine)])
        wheels = pyzmq.prepare(home, filter(None, asked), record)
    with tempfile.TemporaryDirectory(prefix="gimp-", dir=home) as temporary:
        fresh = Path(temporary) / NAME
        files.make(fresh, machine, home, wheels)
        for config in folders:
            target = config / "plug-ins" / NAME
            if _is_anothers(target, record):
                say(
                    f"There is another plug-in in {target}, which stays: move it away and run 'dfi gimp install' again."
                )
                continue
            record.make_dir(target.parent)
            record.add_tree(target)
            hidden = any(gimp.config == config and gimp.sandbox == "Snap" for gimp in found)
            _put(fresh, target, home if hidden else None)
            if (extension := _extension(config)).exists():
                record.remove([extension])
                say(f"Removed {extension}: the filter in {target} takes its place, so that it is in the menu once.")
    _look_at_all(machine, home, say)


def status(machine: Machine, home: Path, say: Say) -> None:
    """Say for every GIMP whether it has the filter and what it needs.

    A GIMP is started for it, without a window. Raises DFIError where one does not have it, or there is no GIMP.
    """
    if not _look_at_all(machine, home, say):
        raise DFIError(ErrorCode.BAD_REQUEST, "No GIMP has the filter: the line that begins with -- says what to do.")


def _look_at_all(machine: Machine, home: Path, say: Say) -> bool:
    """Say how the filter is in every GIMP; whether there is any. Raises DFIError where one lacks it."""
    found = find.gimps(machine)
    well = True
    for gimp in found:
        say(str(gimp))
        well &= _look(gimp, machine, home, say)
    seen = {gimp.config for gimp in found}
    for config in _folders(machine, []):
        if config not in seen and files.is_ours(config / "plug-ins" / NAME):
            for gimp in _without_gimp(machine):
                well &= _look_into(config / "plug-ins" / NAME, gimp, machine, say)
    if not found:
        say(f"  --  {_NO_GIMP}.")
    if not well:
        raise DFIError(ErrorCode.BAD_REQUEST, "A GIMP lacks the filter: the lines that begin with -- say what to do.")
    return bool(found)


def uninstall(machine: Machine, home: Path, say: Say) -> None:
    """Remove the plug-in from every GIMP, its log, and the keys of its server unless something else needs them.

    What is the user's stays: presets, stores, attributes of their own. Raises DFIError where something is in use.
    """
    record = Record(home)
    recorded = [path for path in record.trees() if path.parent.name == "plug-ins" or path == home / "pyzmq"]
    configs = _folders(machine, [])
    targets = [config / "plug-ins" / NAME for config in configs]
    unrecorded = [path for path in targets if files.is_ours(path) and not path.is_symlink() and path not in recorded]
    filters = [*recorded, *unrecorded, *map(_extension, configs)]
    had = any(path.exists() for path in filters)
    try:
        removed = record.remove([*filters, *at_login.unneeded_keys(machine, home, filters, say)])
    except OSError as error:
        raise _in_use(Path(error.filename or ""), error) from error
    with contextlib.suppress(OSError):  # it is not there, or in Windows a server has it open
        (log := _log(machine)).unlink()
        removed.append(log)
        log.parent.rmdir()
    for path in removed:
        say(f"Removed {path}")
    if not had:
        say("There is no filter of this program in any GIMP.")


_NO_GIMP = "GIMP 3 was not found: install it (https://www.gimp.org/downloads)"


def _folders(machine: Machine, found: list[Gimp]) -> list[Path]:
    """The folders of settings that get the filter: those of the GIMPs found, and all that some GIMP has made."""
    usable = [gimp.config for gimp in found if gimp.sandbox != "Snap" or _snap_has_started(gimp)]
    return list(dict.fromkeys([*usable, *find.configurations(machine)]))


def _log(machine: Machine) -> Path:
    """What the filter has the server write to, in GLib's user cache folder."""
    if machine.system == "win32":
        caches = machine.folder("LOCALAPPDATA", "AppData/Local") / "Microsoft/Windows/INetCache"
    else:
        caches = machine.folder("XDG_CACHE_HOME", ".cache")
    return caches / "dfi/server.log"


def _extension(config: Path) -> Path:
    """Where GIMP puts the extension (.gex) of the same filter."""
    return config / "extensions" / files.EXTENSION


def _snap_has_started(gimp: Gimp) -> bool:
    """Its folder "current" is a link that Snap makes, and nobody else must."""
    return gimp.config.parents[2].exists()


def _without_gimp(machine: Machine) -> list[Gimp]:
    """What reads a folder whose GIMP is not found, as far as that can be known: the system's Python."""
    python = find.system_python(machine) if machine.system == "linux" else ()
    return [Gimp("", "", Path(), python=python)]


def _loads_wheels(machine: Machine) -> bool:
    """Whether GIMP's Python may load extension modules of the registry's: MinGW's, in Windows, cannot."""
    return machine.system != "win32"


def _is_anothers(target: Path, record: Record) -> bool:
    if target.is_symlink():
        return True
    return target.exists() and target not in record.trees() and not files.is_ours(target)


def _put(fresh: Path, target: Path, hidden_home: Path | None) -> None:
    """Replace the plug-in at once, or not at all."""
    try:
        with tempfile.TemporaryDirectory(prefix=".dfi-", dir=target.parents[1], ignore_cleanup_errors=True) as aside:
            new, old = Path(aside) / "new", Path(aside) / "old"
            shutil.copytree(fresh, new)
            if hidden_home:
                files.shut_in(new, hidden_home)
            if target.exists():
                target.rename(old)
            try:
                new.rename(target)
            except OSError:
                with contextlib.suppress(OSError):
                    old.rename(target)
                raise
    except OSError as error:
        raise _in_use(target, error) from error


def _in_use(path: Path, error: OSError) -> DFIError:
    return DFIError(
        ErrorCode.NO_SPACE,
        f"{path} could not be changed ({error.strerror or error}): close GIMP, see that there is room and that you may "
        "write there, then run the same again.",
    )


def _look(gimp: Gimp, machine: Machine, home: Path, say: Say) -> bool:
    """Say how the filter is in a GIMP; whether all is well."""
    target = gimp.config / "plug-ins" / NAME
    if gimp.sandbox == "Snap" and not _snap_has_started(gimp):
        say("  --  It has not been started yet: start it once, close it, then run 'dfi gimp install' again")
        return False
    if not files.is_ours(target) and (extension := _extension(gimp.config)).exists():
        active = files.is_active(gimp.config)
        if active:
            say(f"  ok  Filter in {extension}, an extension")
        else:
            say(f"  --  The filter is an extension in {extension} that GIMP does not run: run 'dfi gimp install'")
        return active
    if not _look_into(target, gimp, machine, say):
        return False
    has = check.has_filter(target, gimp, machine, home)
    if has:
        say(f"  ok  {gimp} has the filter: {MENU} (restart GIMP if it is open)")
    elif has is None:
        say(f"      Not asked, as it cannot be from here: start it, and see {MENU}")
        if gimp.packed == "the system's":
            say("      If Filters > Development > Python-Fu is missing too: sudo apt-get install python3-gi")
    else:
        say(f"  --  {gimp} does not load the filter: run 'dfi gimp install' again, then start GIMP in a terminal")
    if gimp.sandbox:
        say(f"      {gimp.sandbox} lets it start no programs. Before using the filter, run this in a terminal:")
        say("      dfi serve --endpoint own-tcp     (or once: dfi service install)")
    return has is not False


def _look_into(target: Path, gimp: Gimp, machine: Machine, say: Say) -> bool:
    """Say how the plug-in's folder is, and whether GIMP's Python can use it; whether that is well."""
    if not files.is_ours(target):
        there = "Another plug-in is" if target.exists() else "The filter is not"
        say(f"  --  {there} in {target}: {'move it away, then ' if target.exists() else ''}run 'dfi gimp install'")
        return False
    if not files.is_current(target):
        say(f"  --  The filter in {target} is damaged or of another version: run 'dfi gimp install'")
        return False
    if files.is_unpacked(target) and gimp.sandbox:
        say(f"  --  The filter in {target} was unpacked there, which {gimp.sandbox} cannot use: run 'dfi gimp install'")
        return False
    if files.is_unpacked(target):
        say(f"  ok  Filter in {target}, unpacked there: it looks for this program by itself")
        return True
    if not gimp.python or not _loads_wheels(machine):
        say(f"  ok  Filter in {target}")
        return True
    loaded = check.loads(target, gimp, machine)
    if not loaded and check.python_version(gimp, machine) is None:
        say(f"  ok  Filter in {target}; its Python could not be asked")
        return True
    if not loaded:
        say(f"  --  The filter in {target} does not load: run 'dfi gimp uninstall', then 'dfi gimp install'")
        return False
    say(f"  ok  Filter in {target}, {loaded}")
    return True
