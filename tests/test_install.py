"""install.sh, run for real: one full installation into a throw-away home; 2.7 GB are downloaded unless pip has them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp.gimp import REPOSITORY, Gimp, free_endpoint, wait_for
from PIL import Image
from support.home import Home, cache, program

from dfi_server.gimp.files import EDITOR_SIDE
from dfi_server.paths import SAMPLE
from dfi_server.wire.client import Client

pytest_plugins = ["gimp.fixtures"]

SYSTEM_PYTHON = Path("/usr/bin/python3")

# What the filter does in GIMP's Python, in a Python without any package: -S leaves out the system's.
REACH_THE_SERVER = """
import json, pathlib, sys
plugin, endpoint, log = sys.argv[1:]
sys.path[0] = plugin
try:
    import zmq
    sys.exit("this Python has a zmq of its own")
except ImportError:
    sys.path.append(plugin + "/vendor")
from dfi_server.wire import client
command = json.loads(pathlib.Path(plugin, "server.json").read_text())["command"]
info = client.start_server([*command, "--endpoint", endpoint], endpoint, log=pathlib.Path(log))
print(info.version, info.store)
"""


def running(endpoint: str) -> list[int]:
    """Ids of the servers that were started for an endpoint."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if command.read_bytes().endswith(f"\0--endpoint\0{endpoint}\0".encode()):
                found.append(int(command.parent.name))
    return found


@pytest.fixture(scope="module")
def fresh() -> Iterator[Home]:
    """A home with two GIMPs' configuration and a filter of somebody else in it. Not in /tmp, which may be memory."""
    (cache() / "dfi-tests").mkdir(parents=True, exist_ok=True)
    home = Home(Path(tempfile.mkdtemp(prefix="home-", dir=cache() / "dfi-tests")))
    for folder in (".config/GIMP/2.10/plug-ins", ".config/GIMP/3.0", ".var/app/org.gimp.GIMP/config/GIMP/3.0"):
        (home.path / folder).mkdir(parents=True)
    other = home.path / ".config/GIMP/3.2/plug-ins"
    for name in ("other/other.py", "dfi/elsewhere.py"):
        (other / name).parent.mkdir(parents=True)
        (other / name).write_text("# not ours\n")
    yield home
    home.install("--uninstall")  # which stops servers, too
    shutil.rmtree(home.path)


@pytest.fixture(scope="module")
def before(fresh: Home) -> dict[str, str]:
    return fresh.contents()


@pytest.fixture(scope="module")
def first_run(fresh: Home, before: dict[str, str]) -> str:
    """What the first ./install.sh printed."""
    done = fresh.install()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(fresh: Home, first_run: str) -> Home:
    return fresh


@pytest.fixture
def with_store(installed: Home, _tiny_built: Path) -> Iterator[Home]:
    """The installed program has a store."""
    stores = installed.state / "stores"
    stores.mkdir()
    (stores / "lfw").symlink_to(_tiny_built / "stores" / "tiny")
    yield installed
    shutil.rmtree(stores)


@pytest.mark.gimp
def test_first_run_says_what_works_and_what_is_missing(installed: Home, first_run: str) -> None:
    for works in ("Python 3.", "torch 2.", f"Filter in {installed.filter}, pyzmq "):
        assert f"\n  ok  {works}" in first_run
    assert f"Filter in {installed.path}/.var/app/org.gimp.GIMP/config/GIMP/3.0/plug-ins/dfi" in first_run
    assert "\n  ok  Store of 73 attribute vectors" in first_run
    assert "\n  ok  HEIC and JPEG XL" in first_run
    assert f"The edited portrait: {installed.state}/sample.png" in first_run
    assert "bundled starter model" in first_run
    assert "dfi setup (downloads 650 MB, 20 min)" in first_run
    assert f"There is another plug-in in {installed.path}/.config/GIMP/3.2/plug-ins/dfi, which stays" in first_run
    assert f"Command {installed.link}: not on PATH" in first_run


@pytest.mark.gimp
def test_filter_is_complete(installed: Home) -> None:
    flatpak = installed.path / ".var/app/org.gimp.GIMP/config/GIMP/3.0/plug-ins/dfi"
    for folder in (installed.filter, flatpak):
        here = REPOSITORY / "gimp_plugin" / "dfi"
        files = [path for path in here.rglob("*.*") if "__pycache__" not in path.parts and path.is_file()]
        assert {".py", ".html", ".mo"} <= {path.suffix for path in files}
        for source in files:
            assert (folder / source.relative_to(here)).read_bytes() == source.read_bytes()
        assert os.access(folder / "dfi.py", os.X_OK)
        shared = folder / "dfi_server"
        assert {str(path.relative_to(shared)) for path in shared.rglob("*.py")} == set(EDITOR_SIDE)
    assert list((installed.path / ".config/GIMP/2.10/plug-ins").iterdir()) == []
    shared = list((flatpak / "vendor/zmq/backend/cython").glob("*.abi3.so"))
    assert shared, "the Flatpak's Python, 3.12 or newer, has no pyzmq"


@pytest.mark.gimp
def test_gimps_python_starts_and_reaches_the_server(installed: Home, tmp_path: Path) -> None:
    endpoint = free_endpoint()
    try:
        done = subprocess.run(
            [SYSTEM_PYTHON, "-S", "-c", REACH_THE_SERVER, installed.filter, endpoint, tmp_path / "server.log"],
            env=installed.environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        with Client(endpoint, timeout=60) as client:
            assert "smiling" in client.attributes()
            assert client.status().store == "starter"
    finally:
        for process in running(endpoint):
            os.kill(process, signal.SIGTERM)


@pytest.mark.gimp
def test_command(installed: Home, with_store: Home, face: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(face).save(tmp_path / "face.png")
    path = f"{installed.link.parent}:{os.environ['PATH']}"
    for arguments in ("attributes --json", "edit face.png out.png --set smiling=0.4 --iterations 3"):
        done = subprocess.run(
            ["dfi", *arguments.split()], cwd=tmp_path, env=installed.environment(PATH=path), capture_output=True
        )
        assert done.returncode == 0, done.stderr
    assert (np.asarray(Image.open(tmp_path / "out.png")) != face).any()


@pytest.mark.gimp
def test_edit_in_gimp(with_store: Home, gimp_root: Path, face: np.ndarray) -> None:
    """What install.sh made, in a real GIMP: its files, its server.json, its server."""
    gimp = Gimp(gimp_root)
    try:
        shutil.rmtree(gimp.plugin)
        shutil.copytree(with_store.filter, gimp.plugin)
        endpoint = free_endpoint()
        settings = json.loads((with_store.filter / "server.json").read_text())
        gimp.server(endpoint, gimp.outside(f"DFI_HOME={settings['home']}", *settings["command"]))
        Image.fromarray(face).save(gimp.share / "face.png")
        gimp.start()
        try:
            answer = gimp.run(
                f"image = load({gimp.path(gimp.share / 'face.png')!r})\n"
                "said = call(image, image.get_layers(), attribute='smiling', alpha=0.4)\n"
                "answer = [*said, [layer.get_name() for layer in image.get_layers()]]"
            )
        finally:
            for process in running(endpoint):
                os.kill(process, signal.SIGTERM)
    finally:
        gimp.stop()
    assert answer[:2] == ["success", ""]
    assert answer[2][0] == "Smiling 0.4"


@pytest.mark.gimp
def test_later_runs_and_removal(with_store: Home, before: dict[str, str], tmp_path: Path) -> None:
    home = with_store

    # Another run with a store: the sample is edited, and a server with the old program goes.
    endpoint = free_endpoint()
    command = json.loads((home.filter / "server.json").read_text())["command"]
    server = subprocess.Popen([*command, "--endpoint", endpoint], env=home.environment(), stderr=subprocess.DEVNULL)
    with Client(endpoint, timeout=60) as client:
        client.hello()
    changed = home.filter / "layer.py"
    changed.write_text("damaged")
    (home.filter / "left_over.py").touch()
    again = home.install(PATH=f"{home.link.parent}:{os.environ['PATH']}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"Stopped the running server (process {server.pid})." in again.stdout
    assert server.wait(10) is not None
    assert changed.read_bytes() == (REPOSITORY / "gimp_plugin/dfi/layer.py").read_bytes()
    assert not (home.filter / "left_over.py").exists()
    assert f"ok  Command dfi in {home.link}" in again.stdout
    result = home.state / "sample.png"
    assert f"The edited portrait: {result}" in again.stdout
    edited, sample = (np.asarray(Image.open(path).convert("RGB")) for path in (result, SAMPLE))
    assert (edited != sample).any()
    assert (edited[300:] == sample[300:]).all()

    # The same installation for a home without any GIMP folder, and with another dfi.
    bare = Home(tmp_path)
    bare.link.parent.mkdir(parents=True)
    bare.link.write_text("#!/bin/sh\n")
    there = bare.install(DFI_HOME=str(home.state))
    assert there.returncode == 0, there.stdout + there.stderr
    assert f"There is another program in {bare.link}, which stays" in there.stdout
    assert f"keep DFI_HOME={home.state} set" in there.stdout
    made = list((tmp_path / ".config/GIMP").glob("3.*/plug-ins/dfi/dfi.py"))
    assert len(made) == 1

    # Removal: everything that install.sh made, and nothing else.
    (home.path / ".cache/dfi").mkdir(parents=True, exist_ok=True)
    (home.path / ".cache/dfi/server.log").touch()
    (home.path / ".config/GIMP/3.0/plug-ins/mine.py").write_text("# made in between\n")
    (home.state / "own").mkdir()
    (home.state / "own" / "mine.safetensors").write_bytes(b"learnt in between")
    gone = home.install("--uninstall")
    assert gone.returncode == 0, gone.stderr
    assert f"stay in {home.state}/stores" in gone.stdout
    assert f"stay in {home.state}/own" in gone.stdout
    assert (home.state / "stores/lfw").is_symlink()
    assert not home.link.is_symlink()
    assert bare.link.read_text() == "#!/bin/sh\n"
    assert not made[0].exists()
    kept = home.contents()
    after = {path: kept[path] for path in before}
    assert after == before
    others = (".cache/", ".rustup")  # not by us
    rest = {path for path in kept.keys() - before.keys() if path != ".cache" and not path.startswith(others)}
    assert ".cache/dfi" not in kept
    stores = {".local", ".local/share", ".local/share/dfi", ".local/share/dfi/stores", ".local/share/dfi/stores/lfw"}
    own = {".local/share/dfi/own", ".local/share/dfi/own/mine.safetensors"}
    assert rest == {*stores, *own, ".config/GIMP/3.0/plug-ins", ".config/GIMP/3.0/plug-ins/mine.py"}

    (home.state / "stores" / "lfw").unlink()
    assert "Nothing is installed" in home.install("--uninstall", "--purge").stdout
    assert not home.state.exists()
    (home.state / "stores").mkdir(parents=True)  # for the fixture


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH: the system's programs without Python and what installs packages."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for path in [*Path("/usr/bin").iterdir(), *Path("/bin").iterdir()]:
        if not path.name.startswith(("python", "apt", "sudo", "gimp")) and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return folder


def refusal(home: Home, *options: str, **changes: str) -> str:
    """The sentence that install.sh stops with, having left nothing in the home but its own state."""
    done = home.install(*options, **changes)
    assert done.returncode == 1
    assert not home.link.exists()
    assert not (home.path / ".config").exists()
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("install.sh: ")
    return lines[-1]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


def test_python_missing_or_old(home: Home, tools: Path) -> None:
    assert "Python is missing: run 'sudo apt-get install python3'" in refusal(home, PATH=str(tools))
    program(tools / "python3", 'case $1 in --version) echo "Python 3.9.2" ;; *) exit 1 ;; esac')
    assert "Python 3.9.2 is too old: install Python 3.11 or newer" in refusal(home, PATH=str(tools))
    assert home.contents() == {}


def test_venv_module_missing(home: Home, tools: Path) -> None:
    real = shutil.which("python3")
    program(tools / "python3", f'case "$*" in *ensurepip*) exit 1 ;; esac; exec "{real}" "$@"')
    assert "run 'sudo apt-get install python3.1" in refusal(home, PATH=str(tools))


@pytest.mark.slow
def test_package_index_out_of_reach_or_disk_full(home: Home, tools: Path) -> None:
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    offline |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "https_proxy": "http://127.0.0.1:9"}
    said = refusal(home, **offline)
    assert "Check the connection to https://pypi.org, then run ./install.sh again." in said
    assert str(home.state / "install.log") in said

    (tools / "python3").symlink_to(shutil.which("python3") or SYSTEM_PYTHON)
    program(tools / "df", "echo; echo /dev/disk 100000000 99000000 1000000 99% /")
    assert "has 1 GB free, and torch needs 12 GB" in refusal(home, PATH=str(tools), **offline)

    assert home.install("--uninstall").returncode == 0
    assert not {path for path in home.contents() if not path.startswith((".cache", ".rustup"))}


def test_interrupted(home: Home) -> None:
    process = subprocess.Popen(
        [REPOSITORY / "install.sh"],
        env=home.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = home.state / "install.log"
    wait_for("the first step", lambda: log.exists() and "virtual environment" in log.read_text())
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Interrupted: run ./install.sh again to go on." in said
    assert not (home.state / "tmp").exists()
    wait_for("the end of what it ran", lambda: not [p for p in commands() if str(home.state) in p])


def commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(command.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_options(home: Home) -> None:
    shown = home.install("--help")
    assert shown.returncode == 0
    assert "./install.sh --uninstall --purge" in shown.stdout
    assert "There is no option --unistall: see ./install.sh --help." in refusal(home, "--unistall")
    assert "--purge goes with --uninstall" in refusal(home, "--purge")
    assert "Nothing is installed" in home.install("--uninstall").stdout
    assert home.contents() == {}
