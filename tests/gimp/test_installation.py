"""`dfi gimp` on machines that are not there (tests/support/machines.py): the filter installed, looked at, removed."""

import json
import os
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from gimp.gimp import REPOSITORY
from support import machines
from support.home import Home, program

from dfi_server.errors import DFIError
from dfi_server.gimp import at_login, files, installation, pyzmq
from dfi_server.gimp.machine import Machine

Contents = dict[str, str]


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Pythons that a wheel was asked for; it is an empty one, as the Pythons of the test have a pyzmq."""
    asked: list[str] = []

    def download(pip: list[str], python: str, target: Path) -> None:
        asked.append(python)
        with zipfile.ZipFile(target / f"pyzmq-{zmq.__version__}-{python}-none-any.whl", "w") as wheel:
            wheel.writestr(f"zmq_of_{python}.txt", "")

    monkeypatch.setattr(pyzmq, "_download", download)
    return asked


class User:
    """Of a machine: what `dfi gimp` says, and what it leaves."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.state = machine.home / ".local/share/dfi"

    def run(self, action: Callable[..., None]) -> str:
        lines: list[str] = []
        action(self.machine, self.state, lines.append)
        return "\n".join(lines)

    def fails(self, action: Callable[..., None]) -> str:
        """What it said, and the sentence that it failed with."""
        lines: list[str] = []
        with pytest.raises(DFIError) as failure:
            action(self.machine, self.state, lines.append)
        return "\n".join([*lines, failure.value.message])

    def contents(self) -> Contents:
        return Home(self.machine.home).contents()

    def plugin(self, config: str) -> Path:
        return self.machine.home / config / "plug-ins" / "dfi"


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(machines.linux(tmp_path))


CASES = {
    "Linux": (lambda at: machines.linux(at), lambda m: machines.add_system_gimp(m, "3.2.6"), ".config/GIMP/3.2"),
    "Flatpak": (lambda at: machines.linux(at), lambda m: machines.add_flatpak(m, "3.2.4"), ".config/GIMP/3.2"),
    "Snap": (
        lambda at: machines.linux(at),
        lambda m: machines.add_snap(m, "3.0.6"),
        "snap/gimp/current/.config/GIMP/3.0",
    ),
    "macOS": (
        lambda at: machines.macos(at, ("Applications/GIMP.app", "3.0.4")),
        lambda m: None,
        "Library/Application Support/GIMP/3.0",
    ),
    "Windows": (lambda at: machines.windows(at, series="3.0"), lambda m: None, "AppData/Roaming/GIMP/3.0"),
}


@pytest.mark.parametrize("case", CASES)
def test_install_update_uninstall(tmp_path: Path, case: str) -> None:
    """On each system: what was there before is there afterwards, and nothing else but what the user made meanwhile."""
    make, add, config = CASES[case]
    user = User(make(tmp_path))
    add(user.machine)
    presets = user.plugin(config).parents[1] / "dfi-presets.json"
    (presets.parent / "plug-ins/other").mkdir(parents=True)
    (presets.parent / "plug-ins/other/other.py").write_text("# not ours\n")
    before = user.contents()

    said = user.run(installation.install)
    plugin = user.plugin(config)
    assert f"  ok  Filter in {plugin}" in said
    assert os.access(plugin / "dfi.py", os.X_OK)
    assert (plugin / "dfi_server/wire/client.py").exists()
    assert Path(json.loads((plugin / "server.json").read_text())["home"]) == user.state
    assert user.run(installation.status) in said
    assert not list(presets.parent.glob(".dfi-*"))

    presets.write_text("{}")
    (user.state / "own").mkdir()
    (user.state / "own/mine.safetensors").write_bytes(b"learnt")
    (plugin / "layer.py").write_text("of an older version")
    (plugin / "left_over.py").touch()
    assert f"--  The filter in {plugin} is damaged or of another version" in user.fails(installation.status)
    user.run(installation.install)
    assert (plugin / "layer.py").read_bytes() == (REPOSITORY / "gimp_plugin/dfi/layer.py").read_bytes()
    assert not (plugin / "left_over.py").exists()

    assert f"Removed {plugin}" in user.run(installation.uninstall)
    after = user.contents()
    assert {path: after[path] for path in before} == before
    assert presets.read_text() == "{}"
    assert (user.state / "own/mine.safetensors").read_bytes() == b"learnt"
    state = {str(path.relative_to(user.machine.home)) for path in (user.state, *user.state.parents[:2])}
    own = {".local/share/dfi/own", ".local/share/dfi/own/mine.safetensors"}
    assert after.keys() - before.keys() <= {
        *state,
        *own,
        str(presets.resolve().relative_to(user.machine.home)),
    }
    assert "There is no filter of this program in any GIMP." in user.run(installation.uninstall)


def test_nothing_stays_where_nothing_was(user: User) -> None:
    machines.add_system_gimp(user.machine, "3.0.4")
    before = user.contents()
    user.run(installation.install)
    user.run(installation.uninstall)
    assert user.contents() == before


CACHES = {"Linux": ".cache", "macOS": ".cache", "Windows": "AppData/Local/Microsoft/Windows/INetCache"}


@pytest.mark.parametrize("case", CACHES)
def test_the_log_of_the_filter_s_server_goes_with_it(tmp_path: Path, case: str) -> None:
    make, add, _ = CASES[case]
    user = User(make(tmp_path))
    add(user.machine)
    caches = user.machine.home / CACHES[case]
    caches.mkdir(parents=True, exist_ok=True)
    before = user.contents()
    user.run(installation.install)
    (caches / "dfi").mkdir()
    (caches / "dfi/server.log").write_text("--- started")
    assert f"Removed {caches}/dfi/server.log" in user.run(installation.uninstall)
    assert user.contents() == before


@pytest.mark.parametrize("service_first", [True, False])
def test_the_last_one_takes_the_keys(user: User, service_first: bool) -> None:
    """A server at login and a sandbox's filter have the same: they stay as long as one of both is there."""
    machines.add_flatpak(user.machine, "3.2.4")
    program(user.machine.root / "usr/bin/systemctl", "exit 0")
    before = user.contents()
    user.run(installation.install)
    user.run(at_login.install)
    first, last = at_login.uninstall, installation.uninstall
    if not service_first:
        first, last = last, first
    user.run(first)
    assert (user.state / "own-keys/client/own.key_secret").exists()
    assert f"Removed {user.state}/own-keys" in user.run(last)
    assert user.contents() == before


def test_what_gimp_says(user: User, downloads: list[str]) -> None:
    """GIMP itself is asked, and its Python: which it is decides on the wheels."""
    machines.add_system_gimp(user.machine, "3.0.4")
    said = user.run(installation.install)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f", pyzmq {zmq.__version__} for Python {python}" in said
    assert "  ok  GIMP 3.0.4 (the system's) has the filter: Filters > Deep Feature Interpolation..." in said
    assert downloads == ["3.12", *([python] if sys.version_info < (3, 12) else [])]
    assert (user.plugin(".config/GIMP/3.0") / "vendor/zmq_of_3.12.txt").exists()
    user.run(installation.install)
    assert len(downloads) <= 2  # the second time they were there

    (user.plugin(".config/GIMP/3.0") / "dfi.py").chmod(0o644)
    assert "--  GIMP 3.0.4 (the system's) does not load the filter" in user.fails(installation.status)


def test_status_before_and_after(user: User) -> None:
    said = user.fails(installation.status)
    assert "  --  GIMP 3 was not found: install it" in said
    assert said.endswith("No GIMP has the filter: the line that begins with -- says what to do.")
    machines.add_system_gimp(user.machine, "3.0.4")
    plugin = user.plugin(".config/GIMP/3.0")
    said = user.fails(installation.status)
    assert f"--  The filter is not in {plugin}: run 'dfi gimp install'" in said
    assert "A GIMP lacks the filter" in said
    user.run(installation.install)
    user.run(installation.status)


def test_status_looks_from_another_state_folder(user: User) -> None:
    """Which need not be there: it leaves none."""
    machines.add_system_gimp(user.machine, "3.0.4")
    user.run(installation.install)
    user.state = user.machine.home / "elsewhere"
    assert "has the filter" in user.run(installation.status)
    assert not user.state.exists()


def test_before_there_is_a_gimp(user: User, tmp_path: Path) -> None:
    """On Linux the filter waits for it; elsewhere a folder that no GIMP may read would help nobody."""
    assert "  --  GIMP 3 was not found: install it" in user.run(installation.install)
    assert (user.plugin(".config/GIMP/3.0") / "dfi.py").exists()
    for machine in (machines.macos(tmp_path / "mac"), machines.windows(tmp_path / "pc")):
        assert "GIMP 3 was not found" in User(machine).fails(installation.install)


def test_the_folder_that_gimp3_directory_names(tmp_path: Path) -> None:
    """Which is in GIMP's environment and in this program's: before that GIMP is there, with it, and when it goes."""
    user = User(machines.linux(tmp_path, GIMP3_DIRECTORY="of-mine"))
    before = user.contents()
    user.run(installation.install)
    machines.add_system_gimp(user.machine, "3.0.4")
    plugin = user.plugin("of-mine")
    assert f"  ok  Filter in {plugin}" in user.run(installation.status)
    user.run(installation.install)
    user.run(installation.uninstall)
    assert user.contents() == before


def test_every_folder_that_a_gimp_made(user: User) -> None:
    machines.add_flatpak(user.machine, "3.2.4")
    folders = (".config/GIMP/3.0", ".var/app/org.gimp.GIMP/config/GIMP/3.0")
    for folder in (*folders, ".config/GIMP/2.10"):
        (user.machine.home / folder).mkdir(parents=True)
    user.run(installation.install)
    for folder in (*folders, ".config/GIMP/3.2"):
        assert (user.plugin(folder) / "dfi.py").exists()
    assert not user.plugin(".config/GIMP/2.10").exists()


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_another_plug_in_of_that_name_stays(user: User, kind: str) -> None:
    machines.add_system_gimp(user.machine, "3.0.4")
    plugin = user.plugin(".config/GIMP/3.0")
    plugin.parent.mkdir(parents=True)
    (real := plugin if kind == "folder" else user.machine.home / "elsewhere").mkdir()
    (real / "elsewhere.py").write_text("# not ours\n")
    if kind == "link":
        plugin.symlink_to(real)
    said = user.fails(installation.install)
    assert f"There is another plug-in in {plugin}, which stays" in said
    user.run(installation.uninstall)
    assert (plugin / "elsewhere.py").read_text() == "# not ours\n"
    assert plugin.is_symlink() == (kind == "link")


def test_a_filter_that_nobody_recorded_is_removed_too(user: User) -> None:
    machines.add_system_gimp(user.machine, "3.0.4")
    user.run(installation.install)
    (user.state / "installed").unlink()
    assert f"Removed {user.plugin('.config/GIMP/3.0')}" in user.run(installation.uninstall)


def test_sandboxes_say_what_must_be_started(user: User) -> None:
    machines.add_flatpak(user.machine, "3.2.4")
    said = user.run(installation.install)
    assert "  ok  GIMP 3.2.4 (Flatpak) has the filter" in said
    assert "Flatpak lets it start no programs" in said
    assert "dfi serve --endpoint own-tcp" in said


def test_snap_sees_no_hidden_folder(user: User) -> None:
    """So the plug-in brings its keys, for its user alone, and they are those that the server will have."""
    machines.add_snap(user.machine, "3.0.6")
    user.run(installation.install)
    plugin = user.plugin("snap/gimp/current/.config/GIMP/3.0")
    assert json.loads((plugin / "server.json").read_text())["endpoint"] == "own-tcp"
    for name in ("own.key_secret", "server.key"):
        assert (plugin / "keys" / name).read_bytes() == (user.state / "own-keys/client" / name).read_bytes()
    assert not stat.S_IMODE((plugin / "keys/own.key_secret").stat().st_mode) & 0o077


def test_snap_that_was_never_started(user: User) -> None:
    """Its folder is a link that Snap makes."""
    machines.add_snap(user.machine, "3.0.6", started=False)
    assert "start it once, close it, then run 'dfi gimp install' again" in user.fails(installation.install)
    assert not (user.machine.home / "snap").exists()


def test_a_folder_that_cannot_be_written(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a file is in use, in Windows: the old filter stays whole."""
    machines.add_system_gimp(user.machine, "3.0.4")
    user.run(installation.install)
    plugin = user.plugin(".config/GIMP/3.0")
    before = Home(plugin).contents()
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    said = user.fails(installation.install)
    assert f"{plugin} could not be changed (Permission denied): close GIMP" in said
    assert Home(plugin).contents() == before


def test_no_network(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "")
    machines.add_system_gimp(user.machine, "3.0.4")
    before = user.contents()
    said = user.fails(installation.install)
    assert "could not be downloaded" in said and "Check the connection to https://pypi.org" in said
    user.run(installation.uninstall)
    assert user.contents() == before


def unpacked(plugin: Path) -> None:
    """The filter as an archive brings it, but for the wheel's size."""
    files.copy(plugin)
    (plugin / files.BUNDLE).mkdir()
    (plugin / files.BUNDLE / "dfi_server-9-py3-none-any.whl").touch()


def add_extension(config: Path, active: str) -> Path:
    extension = config / "extensions" / files.EXTENSION
    unpacked(extension / "dfi")
    (config / "extensionrc").write_text(f'(GimpExtension "{files.EXTENSION}"\n    (active {active}))\n')
    return extension


def test_an_unpacked_filter_is_found_replaced_and_removed(user: User) -> None:
    machines.add_system_gimp(user.machine, "3.2.6")
    plugin = user.plugin(".config/GIMP/3.2")
    unpacked(plugin)
    before = user.run(installation.status)
    assert f"  ok  Filter in {plugin}, unpacked there: it looks for this program by itself" in before
    user.run(installation.install)
    assert not (plugin / files.BUNDLE).exists()
    assert (plugin / files.RECORD).exists()
    user.run(installation.uninstall)
    assert not plugin.exists()

    unpacked(plugin)
    assert f"Removed {plugin}" in user.run(installation.uninstall)
    assert not plugin.exists()


def test_an_unpacked_filter_in_a_sandbox(user: User) -> None:
    """It can look for no program: 'dfi gimp install' puts one there that knows the server."""
    machines.add_flatpak(user.machine, "3.2.4")
    plugin = user.plugin(".config/GIMP/3.2")
    unpacked(plugin)
    assert "which Flatpak cannot use: run 'dfi gimp install'" in user.fails(installation.status)
    assert "has the filter" in user.run(installation.install)


@pytest.mark.parametrize("active", ["yes", "no"])
def test_an_extension_is_found_replaced_and_removed(user: User, active: str) -> None:
    """It would be a second entry in GIMP's menu."""
    machines.add_system_gimp(user.machine, "3.2.6")
    config = user.plugin(".config/GIMP/3.2").parents[1]
    extension = add_extension(config, active)
    if active == "yes":
        assert f"  ok  Filter in {extension}, an extension" in user.run(installation.status)
    else:
        said = user.fails(installation.status)
        assert f"  --  The filter is an extension in {extension} that GIMP does not run" in said
    assert f"Removed {extension}" in user.run(installation.install)
    assert not extension.exists()
    assert (config / "plug-ins/dfi/dfi.py").exists()

    extension = add_extension(config, active)
    assert f"Removed {extension}" in user.run(installation.uninstall)
    assert not extension.exists() and not (config / "plug-ins/dfi").exists()
