"""Which GIMPs are found on a machine, and the folder of each; the machines are folders of the test."""

from pathlib import Path

import pytest
from support.home import program
from support.machines import add_flatpak, add_snap, add_system_gimp, linux, macos, windows

from dfi_server.gimp import find
from dfi_server.gimp.machine import Machine


def found(machine: Machine) -> list[tuple[str, str, str]]:
    """Who packed each, its version and its folder from the user's home."""
    return [(gimp.packed, gimp.version, str(gimp.config.relative_to(machine.home))) for gimp in find.gimps(machine)]


def test_nothing(tmp_path: Path) -> None:
    for name, machine in (("l", linux(tmp_path / "l")), ("m", macos(tmp_path / "m")), ("w", windows(tmp_path / "w"))):
        assert found(machine) == [], name
        assert find.configurations(machine) == [], name


def test_the_system_s(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_system_gimp(machine, "3.2.6")
    assert found(machine) == [("the system's", "3.2.6", ".config/GIMP/3.2")]
    elsewhere = Machine("linux", machine.home, {**machine.environ, "XDG_CONFIG_HOME": f"{machine.home}/c"}, tmp_path)
    assert found(elsewhere) == [("the system's", "3.2.6", "c/GIMP/3.2")]


def test_an_old_one_is_none(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_system_gimp(machine, "2.10.38")
    assert found(machine) == []


def test_two_of_the_system(tmp_path: Path) -> None:
    """Such as a distribution's, and one that the user has built; each is asked by a program of its own."""
    machine = linux(tmp_path)
    add_system_gimp(machine, "3.0.6")
    program(tmp_path / "usr/bin/gimp-3.2", "echo GNU Image Manipulation Program version 3.2.4")
    assert found(machine) == [
        ("the system's", "3.0.6", ".config/GIMP/3.0"),
        ("the system's", "3.2.4", ".config/GIMP/3.2"),
    ]
    assert [Path(gimp.console[0]).name for gimp in find.gimps(machine)] == ["gimp-console", "gimp-3.2"]


@pytest.mark.parametrize("named", ["of-mine", "{home}/of-mine"])
def test_the_folder_that_gimp3_directory_names(tmp_path: Path, named: str) -> None:
    machine = linux(tmp_path, GIMP3_DIRECTORY=named.format(home=tmp_path / "home"))
    add_system_gimp(machine, "3.2.6")
    add_snap(machine, "3.0.6")
    assert found(machine) == [
        ("the system's", "3.2.6", "of-mine"),
        ("Snap", "3.0.6", "snap/gimp/current/.config/GIMP/3.0"),
    ]
    for folder in ("of-mine", ".config/GIMP/3.0"):
        (machine.home / folder).mkdir(parents=True)
    assert find.configurations(machine) == [machine.home / "of-mine", machine.home / ".config/GIMP/3.0"]


@pytest.mark.parametrize("users", [True, False])
def test_flatpak_reads_the_folder_outside(tmp_path: Path, users: bool) -> None:
    """Flathub's GIMP 3 may create ~/.config/GIMP, and uses it whether it was there or not."""
    machine = linux(tmp_path)
    add_flatpak(machine, "3.2.4", users=users)
    assert found(machine) == [("Flatpak", "3.2.4", ".config/GIMP/3.2")]
    (machine.home / ".config/GIMP/3.0").mkdir(parents=True)
    assert found(machine) == [("Flatpak", "3.2.4", ".config/GIMP/3.2")]


def test_flatpak_without_create(tmp_path: Path) -> None:
    """The permission without ":create" shows a folder that is there, and makes none."""
    machine = linux(tmp_path)
    add_flatpak(machine, "3.0.4", permission="xdg-config/GIMP;")
    assert found(machine) == [("Flatpak", "3.0.4", ".var/app/org.gimp.GIMP/config/GIMP/3.0")]
    (machine.home / ".config/GIMP").mkdir(parents=True)
    assert found(machine) == [("Flatpak", "3.0.4", ".config/GIMP/3.0")]


def test_flatpak_whose_user_took_the_permission_away(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_flatpak(machine, "3.0.4")
    overrides = machine.home / ".local/share/flatpak/overrides/org.gimp.GIMP"
    overrides.parent.mkdir()
    overrides.write_text("[Context]\nfilesystems=!xdg-config/GIMP;\n")
    assert found(machine) == [("Flatpak", "3.0.4", ".var/app/org.gimp.GIMP/config/GIMP/3.0")]


def test_flatpak_for_the_user_and_for_all(tmp_path: Path) -> None:
    """Without an option `flatpak run` would take the user's twice."""
    machine = linux(tmp_path)
    add_flatpak(machine, "3.2.4", users=True)
    add_flatpak(machine, "3.0.6", users=False)
    assert found(machine) == [
        ("Flatpak --user", "3.2.4", ".config/GIMP/3.2"),
        ("Flatpak --system", "3.0.6", ".config/GIMP/3.0"),
    ]
    users, systems = find.gimps(machine)
    assert users.console[:3] == users.python[:3] == ("flatpak", "run", "--user")
    assert systems.console[:3] == systems.python[:3] == ("flatpak", "run", "--system")


def test_flatpak_of_2_10_is_none(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    add_flatpak(machine, "2.10.38")
    assert found(machine) == []


def test_snap(tmp_path: Path) -> None:
    machine = linux(tmp_path, PATH=f"{tmp_path}/snap/bin:/bin")
    add_snap(machine, "3.0.6")
    program((tmp_path / "snap/bin").mkdir() or tmp_path / "snap/bin/gimp", "echo version 3.0.6")  # it is no other GIMP
    assert found(machine) == [("Snap", "3.0.6", "snap/gimp/current/.config/GIMP/3.0")]


def test_app_image(tmp_path: Path) -> None:
    machine = linux(tmp_path)
    (machine.home / "Applications").mkdir()
    for name in ("GIMP-3.0.4-x86_64.AppImage", "GIMP-2.10.36-x86_64.AppImage", "Krita-5.2.AppImage"):
        (machine.home / "Applications" / name).touch()
    assert found(machine) == [("AppImage", "3.0.4", ".config/GIMP/3.0")]


@pytest.mark.parametrize("folder", ["Applications", "AppImages", "Apps", "apps", "Downloads"])
def test_app_image_without_a_version_in_its_name(tmp_path: Path, folder: str) -> None:
    """It says which it is; where it does not run, it is taken for the newest that was started."""
    machine = linux(tmp_path)
    (machine.home / folder).mkdir()
    image = machine.home / folder / "gimp.appimage"
    program(image, "echo GNU Image Manipulation Program version 3.0.6")
    assert found(machine) == [("AppImage", "3.0.6", ".config/GIMP/3.0")]
    program(image, "echo GNU Image Manipulation Program version 2.10.38")
    assert found(machine) == []
    image.chmod(0o644)
    (machine.home / ".config/GIMP/3.2").mkdir(parents=True)
    assert found(machine) == [("AppImage", "3.2", ".config/GIMP/3.2")]


def test_macos_both_folders_of_applications(tmp_path: Path) -> None:
    machine = macos(
        tmp_path,
        ("Applications/GIMP.app", "3.0.4"),
        ("Users/ann/Applications/GIMP 3.2.app", "3.2.6"),
        ("Applications/GIMP-2.10.app", "2.10.38"),
    )
    assert found(machine) == [
        ("GIMP.app", "3.0.4", "Library/Application Support/GIMP/3.0"),
        ("GIMP 3.2.app", "3.2.6", "Library/Application Support/GIMP/3.2"),
    ]


def test_windows_installer_and_store(tmp_path: Path) -> None:
    machine = windows(tmp_path, series="3.0", users="3.2", store=True)
    assert found(machine) == [
        ("installer", "3.0.4", "AppData/Roaming/GIMP/3.0"),
        ("installer", "3.2.4", "AppData/Roaming/GIMP/3.2"),
        ("Microsoft Store", "3.2.44.0", "AppData/Roaming/GIMP/3.2"),
    ]


def test_store_without_powershell_goes_by_the_newest_folder(tmp_path: Path) -> None:
    machine = windows(tmp_path, store=True)
    (tmp_path / "Windows/powershell").unlink()
    for series in ("3.0", "3.2", "3.10", "2.10"):
        (machine.home / "AppData/Roaming/GIMP" / series).mkdir(parents=True)
    assert found(machine) == [("Microsoft Store", "3.10", "AppData/Roaming/GIMP/3.10")]
    assert [path.name for path in find.configurations(machine)] == ["3.0", "3.10", "3.2"]
