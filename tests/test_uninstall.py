"""`install.sh --uninstall` where servers run or are there at login, for real but for the system's own manager."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from gimp.gimp import REPOSITORY
from support.home import Home, program

# What runs the program of this repository as on another system.
DFI = """import sys, urllib.request  # the latter has parts in C that macOS alone has
sys.platform = {platform!r}
sys.path.insert(0, {repository!r})
from dfi_server.__main__ import main
sys.exit(main())
"""

# Notes what it is asked, and has the link that systemd makes of an enabled socket.
SYSTEMCTL = """echo "systemctl $*" >>"$0.told"
link=$HOME/.config/systemd/user/sockets.target.wants/dfi.socket
case "$*" in
*enable*) mkdir -p "${link%/*}" && ln -sf ../dfi.socket "$link" ;;
*disable*) rm "$link" && rmdir "${link%/*}" ;;
esac"""

AT_LOGIN = {
    "linux": ("Linux", ".local/share/dfi", "systemctl", SYSTEMCTL, "systemctl --user disable --now dfi.socket"),
    "darwin": (
        "Darwin",
        "Library/Application Support/dfi",
        "launchctl",
        'echo "launchctl $*" >>"$0.told"',
        f"launchctl bootout gui/{os.getuid()}/dfi.server",
    ),
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


@pytest.mark.parametrize("platform", AT_LOGIN)
def test_removal_ends_the_server_at_login(home: Home, tmp_path: Path, platform: str) -> None:
    """While the program is still there to do it; what the system was told, and the log, do not stay either."""
    system, folder, manager, script, undone = AT_LOGIN[platform]
    bin, state = tmp_path / "bin", home.path / folder
    command = state / "venv/bin/dfi"
    for path in (bin, command.parent, home.path / ".cache/dfi"):
        path.mkdir(parents=True)
    program(bin / "uname", f"echo {system}")
    program(bin / manager, script)
    code = DFI.format(platform=platform, repository=str(REPOSITORY))
    program(command, f'exec {shlex.join([sys.executable, "-c", code])} "$@"')
    made = [path for path in reversed((state, *state.parents)) if path.is_relative_to(home.path) and path != home.path]
    (state / "installed").write_text("".join(f"dir {path}\n" for path in made) + f"tree {state / 'venv'}\n")
    (home.path / ".cache/dfi/server.log").write_text("--- started")
    environment = {"PATH": f"{bin}:{os.environ['PATH']}"}
    subprocess.run(
        [command, "service", "install"], env=home.environment(DFI_HOME=str(state), **environment), check=True
    )
    told = bin / f"{manager}.told"
    installing = told.read_text().splitlines()
    assert installing[-1] != undone

    gone = home.install("--uninstall", **environment)
    assert gone.returncode == 0, gone.stderr
    assert undone in told.read_text().splitlines()[len(installing) :]
    assert home.contents().keys() == {".cache"}


def test_removal_leaves_a_server_at_login_of_another_program(home: Home, tmp_path: Path) -> None:
    told = tmp_path / "told"
    (home.state / "venv/bin").mkdir(parents=True)
    program(home.state / "venv/bin/dfi", f'echo "$*" >>"{told}"')
    (home.state / "installed").write_text(f"tree {home.state / 'venv'}\n")
    assert home.install("--uninstall").returncode == 0
    assert told.read_text() == "gimp uninstall\n"


@pytest.mark.parametrize("words", ["dfi serve", "python3 -P -m dfi_server serve"], ids=["by hand", "by dfi batch"])
def test_removal_ends_a_server_that_runs(home: Home, words: str) -> None:
    name, *rest = words.split()
    (home.state / "venv/bin").mkdir(parents=True)
    program(home.state / "venv/bin" / name, "read -r never")
    (home.state / "installed").write_text(f"tree {home.state / 'venv'}\n")
    server = subprocess.Popen([home.state / "venv/bin" / name, *rest, "--end-after", "60"], stdin=subprocess.PIPE)
    try:
        assert "Stopped the running server" in home.install("--uninstall").stdout
        assert server.wait(10) < 0
    finally:
        server.kill()
