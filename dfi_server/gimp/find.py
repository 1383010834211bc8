"""Every GIMP 3 of a machine, and the folder from which each takes its user's plug-ins.

The folders are those of GIMP's own gimp_directory() (libgimpbase/gimpenv.c) and of what packs it: a folder to each
minor version, in XDG_CONFIG_HOME, in Windows' APPDATA or in macOS' Application Support; or the one folder that
GIMP3_DIRECTORY names, absolute or from the user's home.
"""

import configparser
import contextlib
import plistlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dfi_server.gimp.machine import Machine

FLATPAK = "org.gimp.GIMP"
STORE = "GIMP.43237F745459"  # the package's name in the Microsoft Store
DEFAULT_VERSION = "3.0"  # whose folder is made where no GIMP has made any yet

_VERSION = re.compile(r"\b3\.\d+(?:\.\d+)*")
_SERIES = re.compile(r"3\.\d+")
_NUMBERS = re.compile(r"(?<![\d.])\d+(?:\.\d+)+")
_APP_IMAGE = re.compile(r"gimp.*\.appimage", re.IGNORECASE)
_APP_IMAGE_FOLDERS = ("Applications", "AppImages", "Apps", "apps", "Downloads", "Desktop", "bin", ".local/bin")


@dataclass(frozen=True)
class Gimp:
    """A GIMP that is installed.

    packed: by whom, as people say it. version: "3.0.4", or "3.0" where no more is known. config: its folder of the
    user's settings, which may not be there yet. console: the command that runs it without a window, python: its own
    Python; empty where that cannot be done from outside. sandbox: the name of the one it is in, if it is.
    """

    packed: str
    version: str
    config: Path
    console: tuple[str, ...] = ()
    python: tuple[str, ...] = ()
    sandbox: str = ""

    def __str__(self) -> str:
        return f"GIMP {self.version} ({self.packed})"


def gimps(machine: Machine) -> list[Gimp]:
    """All that are installed, each once."""
    found = [*{"win32": _windows, "darwin": _macos}.get(machine.system, _linux)(machine)]
    if folder := chosen(machine):
        found = [gimp if gimp.sandbox == "Snap" else replace(gimp, config=folder) for gimp in found]
    return list(dict.fromkeys(found))


def configurations(machine: Machine) -> list[Path]:
    """The folders of the user's settings that some GIMP 3 has made, whether that one is found or not."""
    parents = {
        "win32": [_app_data(machine)],
        "darwin": [_application_support(machine)],
    }.get(machine.system, [config_home(machine), _flatpak_own(machine), _snap_own(machine)])
    made = [path for parent in parents for path in sorted(parent.glob("3.*")) if _is_series(path)]
    folder = chosen(machine)
    return [folder, *made] if folder and folder.is_dir() else made


def chosen(machine: Machine) -> Path | None:
    """The folder that GIMP3_DIRECTORY names for every GIMP 3 but Snap's, which may not see it; None without."""
    named = machine.environ.get("GIMP3_DIRECTORY")
    return machine.home / named if named else None


def config_home(machine: Machine) -> Path:
    """Where a GIMP on Linux keeps its users' settings, unless what packs it says otherwise."""
    return machine.folder("XDG_CONFIG_HOME", ".config") / "GIMP"


def _is_series(path: Path) -> bool:
    return path.is_dir() and bool(_SERIES.fullmatch(path.name))


def _series(version: str) -> str:
    """The name of the folder that a version uses: "3.0" for "3.0.4"."""
    return ".".join(version.split(".")[:2])


def _newest(parent: Path) -> str:
    """The latest version that has a folder there."""
    made = [path.name for path in parent.glob("3.*") if _is_series(path)]
    return max(made, key=lambda name: int(name.partition(".")[2]), default=DEFAULT_VERSION)


def _stated(text: str) -> str:
    found = _VERSION.search(text)
    return found[0] if found else ""


# --- Linux


def _linux(machine: Machine) -> Iterator[Gimp]:
    yield from _on_path(machine, config_home(machine))
    yield from _flatpak(machine)
    yield from _snap(machine)
    yield from _app_images(machine)


def _on_path(machine: Machine, config: Path) -> Iterator[Gimp]:
    programs: dict[str, str] = {}  # of each version, the one without a window if there is one
    for name in ("gimp-console", "gimp-console-3.2", "gimp-console-3.0", "gimp", "gimp-3.2", "gimp-3.0"):
        program = machine.which(name)
        if not program or Path(program).is_relative_to(machine.root / "snap"):
            continue
        if version := _stated(machine.ask([program, "--version"])):
            programs.setdefault(version, program)
    for version, program in programs.items():
        yield Gimp("the system's", version, config / _series(version), (program,), system_python(machine))


def system_python(machine: Machine) -> tuple[str, ...]:
    """The Python by which a GIMP outside of sandboxes runs plug-ins: not one that this user has beside."""
    usual = machine.root / "usr/bin/python3"
    python = str(usual) if usual.exists() else machine.which("python3")
    return (python,) if python else ()


def _flatpak(machine: Machine) -> Iterator[Gimp]:
    both = {
        "--user": machine.folder("FLATPAK_USER_DIR", ".local/share/flatpak"),
        "--system": machine.root / "var/lib/flatpak",
    }
    active_in = {option: folder / "app" / FLATPAK / "current/active" for option, folder in both.items()}
    there = {option: active for option, active in active_in.items() if (active / "metadata").exists()}
    for option, active in there.items():
        parent = _flatpak_config(machine, active, both[option])
        version = _flatpak_version(active) or _newest(parent)
        if version.startswith("3."):
            which = (option,) if len(there) > 1 else ()  # else Flatpak takes the user's
            run = ("flatpak", "run", *which, "--command={}", FLATPAK)
            console, python = (tuple(word.format(program) for word in run) for program in ("gimp-console", "python3"))
            packed = " ".join(("Flatpak", *which))
            yield Gimp(packed, version, parent / _series(version), console, python, "Flatpak")


def _flatpak_own(machine: Machine) -> Path:
    """XDG_CONFIG_HOME inside, as it is seen from outside."""
    return machine.home / ".var/app" / FLATPAK / "config/GIMP"


def _flatpak_config(machine: Machine, active: Path, installation: Path) -> Path:
    """What is ~/.config/GIMP inside: where the package has the permission xdg-config/GIMP, that of outside.

    Flathub's GIMP has had "xdg-config/GIMP:create" from 3.0 on: the folder outside is used, and made if it is not
    there. Without ":create" (2.10) it was used where it was there already. Users can take the permission away.
    """
    allowed = ""
    users = machine.folder("FLATPAK_USER_DIR", ".local/share/flatpak")
    overrides = [folder / "overrides" / name for folder in (installation, users) for name in ("global", FLATPAK)]
    for path in (active / "metadata", *overrides):
        for entry in _filesystems(path):
            if entry.lstrip("!").partition(":")[0] == "xdg-config/GIMP":
                allowed = entry
    outside = config_home(machine)
    is_outside = allowed.endswith(":create") or bool(allowed and outside.exists())
    return outside if is_outside and not allowed.startswith("!") else _flatpak_own(machine)


def _filesystems(path: Path) -> list[str]:
    """The permissions for folders that one of Flatpak's files gives, "!" before what it takes away."""
    settings = configparser.RawConfigParser(strict=False, allow_no_value=True)
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        settings.read(path, "utf-8")
    return (settings.get("Context", "filesystems", fallback="") or "").split(";")


def _flatpak_version(active: Path) -> str:
    """From the AppStream metadata, whose first release is the one that it came with."""
    for path in (active / "files/share").glob("*/org.gimp.GIMP.*.xml"):
        with contextlib.suppress(OSError):
            if found := re.search(r'<release\b[^>]*\bversion="([\d.]+)', path.read_text("utf-8", "replace")):
                return found[1]
    return ""


def _snap_own(machine: Machine) -> Path:
    return machine.home / "snap/gimp/current/.config/GIMP"


def _snap(machine: Machine) -> Iterator[Gimp]:
    with contextlib.suppress(OSError):
        text = (machine.root / "snap/gimp/current/meta/snap.yaml").read_text("utf-8", "replace")
        if (found := re.search(r"^version: *['\"]?([\d.]+)", text, re.MULTILINE)) and found[1].startswith("3."):
            yield Gimp("Snap", found[1], _snap_own(machine) / _series(found[1]), sandbox="Snap")


def _app_images(machine: Machine) -> Iterator[Gimp]:
    for folder in (*(machine.home / name for name in _APP_IMAGE_FOLDERS), machine.root / "opt"):
        for path in sorted(folder.glob("*")):
            if _APP_IMAGE.fullmatch(path.name) and path.is_file() and (version := _app_image_version(path, machine)):
                yield Gimp("AppImage", version, config_home(machine) / _series(version), (str(path),))


def _app_image_version(path: Path, machine: Machine) -> str:
    """That of its name; else what it says; else, as it may not run, the newest with a folder. "" for no GIMP 3."""
    if named := _NUMBERS.search(path.name):
        return named[0] if named[0].startswith("3.") else ""
    said = machine.ask([str(path), "--version"])
    return _stated(said) if said else _newest(config_home(machine))


# --- macOS


def _application_support(machine: Machine) -> Path:
    return machine.home / "Library/Application Support/GIMP"


def _macos(machine: Machine) -> Iterator[Gimp]:
    for folder in (machine.root / "Applications", machine.home / "Applications"):
        for app in sorted(folder.glob("GIMP*.app")):
            try:
                about = plistlib.loads((app / "Contents/Info.plist").read_bytes())
            except (OSError, ValueError, plistlib.InvalidFileException):
                continue
            version = _stated(str(about.get("CFBundleShortVersionString", "")))
            if version:
                programs = sorted((app / "Contents/MacOS").glob("gimp-console*"))
                console = (str(programs[0]),) if programs else ()
                # Its Python is not run: macOS lets none but GIMP start it (a launch constraint, on Apple's processors).
                yield Gimp(app.name, version, _application_support(machine) / _series(version), console)


# --- Windows


def _app_data(machine: Machine) -> Path:
    return machine.folder("APPDATA", "AppData/Roaming") / "GIMP"


def _windows(machine: Machine) -> Iterator[Gimp]:
    local = machine.folder("LOCALAPPDATA", "AppData/Local")
    everybody = [machine.environ[name] for name in ("ProgramFiles", "ProgramW6432") if machine.environ.get(name)]
    for folder in (*map(Path, everybody), local / "Programs"):
        for installed in sorted(folder.glob("GIMP 3*")):
            yield from _windows_installed(machine, installed / "bin")
    if any((local / "Packages").glob(f"{STORE}_*")):
        said = machine.ask(["powershell", "-NoProfile", "-Command", f"(Get-AppxPackage {STORE}).Version"])
        version = _stated(said) or _newest(_app_data(machine))
        yield Gimp("Microsoft Store", version, _app_data(machine) / _series(version))


def _windows_installed(machine: Machine, folder: Path) -> Iterator[Gimp]:
    """From the names of the programs: gimp-3.0.exe, gimp-console-3.0.exe; gimp-3.exe beside, for whichever is there."""
    named = {path.name: path for path in folder.glob("gimp-*3.*.exe")}
    for name in sorted(named, reverse=True):  # gimp-console-... after gimp-...
        series = _SERIES.search(name)
        if not series or name != f"gimp-{series[0]}.exe":
            continue
        console = named.get(f"gimp-console-{series[0]}.exe")
        version = (_stated(machine.ask([str(console), "--version"])) if console else "") or series[0]
        python = folder / "python.exe"
        yield Gimp(
            "installer",
            version,
            _app_data(machine) / _series(version),
            (str(console),) if console else (),
            (str(python),) if python.exists() else (),
        )
