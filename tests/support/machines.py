"""Machines that are not there: folders and programs as GIMP's packages leave them on a user's computer."""

import plistlib
import sys
from pathlib import Path

from dfi_server.gimp.machine import Machine
from support.home import program

# What a GIMP does about plug-ins: those whose main file may be run, in a folder of the same name, in its own folder.
CONSOLE = 'test -x "$GIMP3_DIRECTORY/plug-ins/dfi/dfi.py" && echo "dfi: True" || echo "dfi: False"'


def flatpak_run(inside: str) -> str:
    """A `flatpak` that does `inside`, where $run is the program and "$@" what it gets.

    It is called `flatpak run [--env=NAME=VALUE] --command=PROGRAM org.gimp.GIMP ARGUMENTS`.
    """
    return f"""while [ "${{1#org.}}" = "$1" ]; do
case $1 in --env=*) export "${{1#--env=}}" ;; --command=*) run=${{1#*=}} ;; esac; shift
done; shift
{inside}"""


FLATPAK_RUN = flatpak_run(
    f'case $run in python3) exec "{sys.executable}" "$@" ;; gimp-console) {CONSOLE} ;; *) exit 1 ;; esac'
)


def linux(folder: Path, **environ: str) -> Machine:
    """A user's machine without any GIMP; its programs lie in folder/usr/bin."""
    (folder / "home").mkdir(parents=True)
    (folder / "usr/bin").mkdir(parents=True)
    program(folder / "usr/bin/python3", f'exec "{sys.executable}" "$@"')
    paths = f"{folder}/usr/bin:/usr/bin:/bin"
    return Machine("linux", folder / "home", {"HOME": str(folder / "home"), "PATH": paths, **environ}, folder)


def add_system_gimp(machine: Machine, version: str) -> None:
    said = f"GNU Image Manipulation Program version {version}"
    for name in ("gimp", "gimp-console"):
        program(machine.root / "usr/bin" / name, f'[ "$1" != --version ] || {{ echo "{said}"; exit; }}\n{CONSOLE}')


def add_flatpak(
    machine: Machine, version: str, permission: str = "xdg-config/GIMP:create;", users: bool = True
) -> None:
    """GIMP as Flatpak deploys it, for one user or for all, and a `flatpak` that runs what is named for it."""
    installation = machine.home / ".local/share/flatpak" if users else machine.root / "var/lib/flatpak"
    active = installation / "app/org.gimp.GIMP/current/active"
    (active / "files/share/metainfo").mkdir(parents=True)
    (active / "metadata").write_text(
        "[Application]\nname=org.gimp.GIMP\nruntime=org.gnome.Platform/x86_64/50\n\n"
        f"[Context]\nshared=network;ipc;\nfilesystems=host;{permission}xdg-config/gtk-3.0;/tmp;\n\n"
        "[Extension org.gimp.GIMP.Plugin]\nversion=3\n"
    )
    (active / "files/share/metainfo/org.gimp.GIMP.appdata.xml").write_text(
        f'<?xml version="1.0"?>\n<component><releases><release date="2026-07-01" version="{version}"/>'
        '<release version="2.10.38"/></releases></component>'
    )
    program(machine.root / "usr/bin/flatpak", FLATPAK_RUN)


def add_snap(machine: Machine, version: str, started: bool = True) -> None:
    (machine.root / "snap/gimp/500/meta").mkdir(parents=True)
    (machine.root / "snap/gimp/500/meta/snap.yaml").write_text(f"name: gimp\nversion: {version}\nbase: core24\n")
    (machine.root / "snap/gimp/current").symlink_to("500")
    if started:
        (machine.home / "snap/gimp/500").mkdir(parents=True)
        (machine.home / "snap/gimp/current").symlink_to("500")


def macos(folder: Path, *apps: tuple[str, str]) -> Machine:
    """A Mac with applications (path, version), such as ("Applications/GIMP.app", "3.0.4")."""
    home = folder / "Users/ann"
    home.mkdir(parents=True)
    for path, version in apps:
        (folder / path / "Contents/MacOS").mkdir(parents=True)
        about = {"CFBundleShortVersionString": version, "CFBundleIdentifier": "org.gimp.gimp"}
        (folder / path / "Contents/Info.plist").write_bytes(plistlib.dumps(about))
        program(folder / path / "Contents/MacOS/gimp-console", CONSOLE)
    return Machine("darwin", home, {"HOME": str(home), "PATH": "/usr/bin:/bin"}, folder)


def windows(folder: Path, series: str = "", users: str = "", store: bool = False) -> Machine:
    """A PC with GIMP installed for all (its series, "3.0"), for one user, or from the Microsoft Store."""
    home = folder / "Users/ann"
    environ = {
        "ProgramFiles": str(folder / "Program Files"),
        "ProgramW6432": str(folder / "Program Files"),
        "APPDATA": str(home / "AppData/Roaming"),
        "LOCALAPPDATA": str(home / "AppData/Local"),
        "PATH": str(folder / "Windows"),
    }
    for path in (*environ.values(), home):
        Path(path).mkdir(parents=True, exist_ok=True)
    for path, found in (
        (folder / "Program Files/GIMP 3/bin", series),
        (home / "AppData/Local/Programs/GIMP 3/bin", users),
    ):
        if found:
            path.mkdir(parents=True)
            for name in (
                f"gimp-{found}.exe",
                "gimp-3.exe",
                "gimp.exe",
                "python.exe",
                f"gimp-script-fu-interpreter-{found}.exe",
            ):
                (path / name).touch()
            said = f"GNU Image Manipulation Program version {found}.4"
            program(
                path / f"gimp-console-{found}.exe", f'[ "$1" != --version ] || {{ echo "{said}"; exit; }}\n{CONSOLE}'
            )
    if store:
        (home / "AppData/Local/Packages/GIMP.43237F745459_nq49gba4h4mx8").mkdir(parents=True)
        program(folder / "Windows/powershell", "echo 3.2.44.0")
    return Machine("win32", home, environ, folder)
