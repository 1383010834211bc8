"""A real GIMP 3 for tests: started with the plug-in installed, remote-controlled, with or without a window.

GIMP comes from DFI_TEST_GIMP_ROOT (Debian roots made by make_root.sh, entered by chroot; needs root) or else
from PATH. It runs with a configuration folder of its own. Its Python console executes driver.py, which takes
code over a socket; so one start of GIMP (2-8 s) serves many tests.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dfi_server.gimp.files import EDITOR_SIDE

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
SHORTCUT = "ctrl+alt+d"
FILL_SHORTCUT = "ctrl+alt+f"
T = TypeVar("T")


def find_gimps() -> list[Path]:
    """The root folders that hold a GIMP >= 3 each ("/" for one on PATH)."""
    if named := os.environ.get("DFI_TEST_GIMP_ROOT"):
        roots = [Path(root).resolve() for root in named.split(":")]
        for root in roots:
            if not shutil.which("gimp-console", path=f"{root}/usr/bin"):
                raise FileNotFoundError(f"DFI_TEST_GIMP_ROOT names {root}, but there is no usr/bin/gimp-console in it.")
        return roots
    if console := shutil.which("gimp-console"):
        version = subprocess.run([console, "--version"], capture_output=True, text=True, check=True).stdout
        if (found := re.search(r"(\d+)\.\d+\.\d+", version)) and int(found[1]) >= 3:
            return [Path("/")]
    return []


def within(root: Path, *command: str, mnt: Path | None = None) -> list[str]:
    """A command line that runs inside a root folder. mnt: what it has as /mnt."""
    if root == Path("/"):
        return list(command)
    # Mounts in a namespace of their own: nothing is left to unmount.
    bind = f'mount --rbind {shlex.quote(str(mnt))} "$r/mnt" || exit; ' if mnt else ""
    mounts = f'r=$1; shift; for d in proc dev; do mount --rbind /$d "$r/$d" || exit; done; {bind}exec chroot "$r" "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh", str(root), *command]


def wait_for(what: str, probe: Callable[[], T | None], seconds: float = 90, every: float = 0.05) -> T:
    """The first true answer of probe. Raises TimeoutError naming what was waited for."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(every)
    return answer


def free_endpoint() -> str:
    """An endpoint on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


class GimpError(AssertionError):
    """The code sent to GIMP raised; the text is GIMP's traceback."""


class Gimp:
    """One configuration folder with the plug-in in it, and at most one running GIMP.

    share: a folder that GIMP sees too, as path(share).
    """

    def __init__(self, root: Path, with_zmq: bool = True) -> None:
        self.root = root
        self.share = Path(tempfile.mkdtemp(prefix="dfi-gimp-", dir=root / "tmp"))
        self.log = self.share / "gimp.log"
        self._config = self.share / "config"
        self._server_ids = self.share / "servers"
        self._mnt = self.share / "mnt"
        self._mnt.mkdir()
        self.plugin = self._config / "plug-ins" / "dfi"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._driver: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._install()

    # --- installation

    def _install(self) -> None:
        shutil.copytree(
            REPOSITORY / "gimp_plugin" / "dfi", self.plugin, ignore=shutil.ignore_patterns("__pycache__", "vendor")
        )
        (self.plugin / "dfi_server" / "wire").mkdir(parents=True)
        for name in EDITOR_SIDE:
            shutil.copy(REPOSITORY / "dfi_server" / name, self.plugin / "dfi_server" / name)
        # One key that GIMP does not know would reset the whole file.
        (self._config / "gimprc").write_text(
            f'(check-updates no)\n(show-welcome-dialog no)\n(config-version "{self.version()}")\n'
            "(color-profile-policy keep)\n"
        )
        (self._config / "shortcutsrc").write_text(
            '(file-version 1)\n(action "plug-in-dfi" "<Primary><Alt>d")\n'
            '(action "plug-in-dfi-fill" "<Primary><Alt>f")\n'
        )

    def server(self, endpoint: str, command: Sequence[str] | None = None, home: Path | None = None) -> None:
        """Write server.json. command: None is `dfi serve` of this repository; it runs outside GIMP's root."""
        if command is None:
            environment = [f"DFI_HOME={home}"] if home else []
            # The plug-in's server is nobody's child, and outlives GIMP: its id is kept to end it in stop().
            note = ["sh", "-c", 'echo $$ >>"$0"; exec "$@"', str(self._server_ids)]
            command = self.outside(*environment, *note, sys.executable, "-m", "dfi_server", "serve")
        (self.plugin / "server.json").write_text(json.dumps({"command": list(command), "endpoint": endpoint}))

    def outside(self, *command: str) -> list[str]:
        """A command line that, run by the plug-in, leaves GIMP's root and runs in the one of the tests."""
        # env -C: in this folder `python -m dfi_server.commands.cli` finds this repository, installed or not.
        escaped = [] if self.root == Path("/") else ["chroot", f"/proc/{os.getpid()}/root"]
        return [*escaped, "env", "-C", str(REPOSITORY), *command]

    def path(self, host: Path) -> str:
        """How GIMP spells a path below share."""
        return "/" + str(host.resolve().relative_to(self.root))

    def version(self) -> str:
        """Such as "3.0.4"."""
        done = subprocess.run(
            self._enter("gimp-console", "--version"), capture_output=True, text=True, check=True, env=self._env()
        )
        found = re.search(r"\d+\.\d+\.\d+", done.stdout)
        assert found, done.stdout
        return found[0]

    # --- processes

    def _enter(self, *command: str) -> list[str]:
        return within(self.root, *command, mnt=self._mnt)

    @contextlib.contextmanager
    def sandboxed(self) -> Iterator[None]:
        """Meanwhile a file in / makes a Flatpak's sandbox of this GIMP, and of no other in the same root."""
        mark = self.root / ".flatpak-info"
        with contextlib.suppress(FileExistsError):
            mark.symlink_to("mnt/flatpak-info")
        (self._mnt / "flatpak-info").write_text("[Application]\nname=org.gimp.GIMP\n")
        try:
            yield
        finally:
            (self._mnt / "flatpak-info").unlink()

    def _env(self) -> dict[str, str]:
        kept = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        if self.root == Path("/"):
            kept = {**os.environ, **kept, "PATH": os.environ["PATH"]}
            kept.pop("DFI_ENDPOINT", None)
        folders = {"HOME": self.path(self.share), "GIMP3_DIRECTORY": self.path(self._config)}
        return {**kept, **folders, "NO_AT_BRIDGE": "1", **self._environment}

    def _spawn(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self._enter(*command),
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=self._env(),
                start_new_session=True,
                **{"stdout": log, **options},
            )
        self._processes.append(process)
        return process

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the folder `share`, where this GIMP and its configuration are the user's."""
        script = f"cd {self.path(self.share)} && {script}"
        return subprocess.run(
            self._enter("sh", "-c", script), capture_output=True, text=True, env=self._env(), timeout=120
        )

    def start(self, **environment: str) -> None:
        """Start without a window and wait until GIMP takes code."""
        self._environment.update(environment)
        self._start("gimp-console", "-i", "-d", "-f")

    def _start(self, *command: str) -> None:
        shutil.copy(HERE / "driver.py", self.share)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._environment["DFI_TEST_DRIVER_PORT"] = str(listener.getsockname()[1])
            script = self.path(self.share / "driver.py")
            gimp = self._spawn(*command, "--batch-interpreter=python-fu-eval", "-b", f"exec(open('{script}').read())")
            listener.settimeout(1)
            deadline = time.monotonic() + 90
            while self._driver is None:
                with contextlib.suppress(TimeoutError):
                    self._driver = listener.accept()[0]
                if gimp.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"GIMP did not start:\n{self.log.read_text(errors='replace')}")

    def run(self, code: str, timeout: float = 120) -> Any:
        """Run code in GIMP's Python; the JSON value that it assigned to `answer`. Names live until the next run.

        Raises GimpError with GIMP's traceback where the code raised.
        """
        assert self._driver, "start() first"
        self._driver.settimeout(timeout)
        self._driver.sendall(json.dumps(code).encode() + b"\n")
        received = b""
        while not received.endswith(b"\n"):
            part = self._driver.recv(1 << 20)
            if not part:
                raise GimpError(f"GIMP is gone:\n{self.log.read_text(errors='replace')[-4000:]}")
            received += part
        reply = json.loads(received)
        if reply.get("error"):
            raise GimpError(reply["error"])
        return reply["answer"]

    def kept(self, name: str, dtype: str, size: Sequence[int]) -> np.ndarray:
        """What driver.py's keep() left, of a drawable of size (width, height), as (height, width, channels)."""
        width, height = size
        return np.fromfile(self.share / name, dtype).reshape(height, width, -1)

    def started_servers(self) -> list[int]:
        """Process ids of the servers that the plug-in has started."""
        return list(map(int, self._server_ids.read_text().split())) if self._server_ids.exists() else []

    def plugin_processes(self) -> list[int]:
        """Process ids of this GIMP's plug-in, while it runs."""
        script = self.path(self.plugin / "dfi.py").encode()
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # ended meanwhile
                if script in process.read_bytes().split(b"\0"):
                    found.append(int(process.parent.name))
        return found

    def stop(self) -> None:
        """End GIMP, its window and its folder."""
        if self._driver:
            self._driver.close()
            self._driver = None
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        self._processes.clear()
        for server in self.started_servers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, signal.SIGTERM)
        shutil.rmtree(self.share, ignore_errors=True)


class Window(Gimp):
    """GIMP with its window on a virtual screen."""

    def start(self, **environment: str) -> None:
        read, write = os.pipe()
        self._spawn("Xvfb", "-displayfd", str(write), "-screen", "0", "1280x960x24", "-nolisten", "tcp",
                    pass_fds=[write])  # fmt: skip
        os.close(write)
        with os.fdopen(read) as display:
            self._environment["DISPLAY"] = f":{display.readline().strip()}"
        self._spawn("openbox")
        self._environment.update(environment)
        self._start("gimp", "-f")
        self.fill_screen()

    def fill_screen(self) -> None:
        """Make GIMP's window as large as the screen, and take the pointer out of the picture."""
        main = self.window("GIMP|GNU Image")
        self.tool("xdotool", "windowmove", main, "0", "0", "windowsize", main, "1270", "930")
        self.tool("xdotool", "mousemove", "1279", "959")

    def tool(self, *command: str) -> str:
        """Output of xdotool, import, ... on this screen; "" where it fails."""
        done = subprocess.run(self._enter(*command), capture_output=True, text=True, env=self._env(), timeout=60)
        return done.stdout.strip() if done.returncode == 0 else ""

    def window(self, title: str, seconds: float = 30) -> str:
        """Id of the visible window whose title matches, once there is one."""
        return wait_for(
            f"a window titled {title}",
            lambda: self.tool("xdotool", "search", "--onlyvisible", "--name", title).partition("\n")[0],
            seconds,
        )

    def windows(self, title: str) -> list[str]:
        """Ids of the visible windows whose title matches."""
        search = ("xdotool", "search", "--onlyvisible", "--name", title)

        def found() -> list[list[str]]:
            done = subprocess.run(self._enter(*search), capture_output=True, text=True, env=self._env(), timeout=60)
            # A window that goes while it looks ends it with an X error: that says nothing about the others.
            return [done.stdout.split()] if done.returncode == 0 or not done.stderr else []

        return wait_for("an answer of xdotool", found)[0]

    def state(self) -> str:
        """The titles of the visible windows and the end of the server's log, for whoever reads of a failed test."""
        titles = [self.tool("xdotool", "getwindowname", found) for found in self.windows(".")]
        log = self.share / ".cache" / "dfi" / "server.log"
        return f"windows: {titles}\n{log.read_text(errors='replace')[-2000:] if log.exists() else ''}"

    def key(self, *keys: str) -> None:
        self.tool("xdotool", "key", "--clearmodifiers", *keys)

    def focus(self, window: str) -> None:
        self.tool("xdotool", "windowactivate", "--sync", window)

    def geometry(self, window: str) -> tuple[int, int, int, int]:
        """x, y, width, height on the screen."""
        told = dict(line.split("=") for line in self.tool("xdotool", "getwindowgeometry", "--shell", window).split())
        return int(told["X"]), int(told["Y"]), int(told["WIDTH"]), int(told["HEIGHT"])

    def screenshot(self, target: Path, window: str = "root") -> Path:
        """Take the picture of a window (or of the whole screen) to target, a .png."""
        shot = self.share / target.name
        self.tool("import", "-window", window, self.path(shot))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shot, target)
        return target


G = TypeVar("G", bound=Gimp)


@contextlib.contextmanager
def running(gimp: G) -> Iterator[G]:
    """A GIMP that is started, in whose log there is no traceback in the end, and that is stopped whatever happens."""
    try:
        gimp.start()
        yield gimp
        log = gimp.log.read_text(errors="replace")
        assert "Traceback" not in log, log
    finally:
        gimp.stop()
