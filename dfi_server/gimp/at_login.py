"""A server that is there from login on: for a GIMP whose sandbox starts none.

In systemd as a socket, which costs nothing until a client comes; in launchd and Windows' task scheduler as a process,
which rests. Each is a file or two of this user's own, and the commands that make the system read them.
"""

import plistlib
import socket
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from dfi_server import system
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.gimp.files import server_command
from dfi_server.gimp.machine import Machine
from dfi_server.gimp.record import Record
from dfi_server.wire import keys, place

NAME = "dfi"
LABEL = "dfi.server"  # launchd's
_SECONDS = 30.0
_END_SECONDS = 5.0  # that a server which was told to end gets for it

Say = Callable[[str], object]


@dataclass(frozen=True)
class Files:
    """What a system needs: texts of files, and the commands after they were written, and before they are removed."""

    texts: dict[Path, bytes]
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]


def files(machine: Machine, home: Path) -> Files:
    """Those of this machine, for the state folder `home`."""
    return {"win32": _task, "darwin": _agent}.get(machine.system, _units)(machine, home)


def install(machine: Machine, home: Path, say: Say) -> None:
    """Write the files, have the system read them, and make the keys that server and clients have.

    Raises DFIError where the system does not take them; then they are removed again.
    """
    here = place.find(place.OWN_TCP, home)
    assert here.server_keys and here.client_keys
    made, record = files(machine, home), Record(home)
    record.make_dir(home)
    keys.ensure(here.server_keys, here.client_keys)
    for path, text in made.texts.items():
        record.make_dir(path.parent)
        record.add_tree(path)
        path.write_bytes(text)
        say(f"Wrote {path}")
    if machine.system == "darwin":
        for command in made.stop:  # launchd takes no agent twice
            _fails(machine, command)
    for command in made.start:
        if failure := _fails(machine, command):
            record.remove([*made.texts, *unneeded_keys(machine, home, made.texts, say)])
            raise DFIError(
                ErrorCode.BAD_REQUEST,
                f"The system does not take it ('{' '.join(command)}': {failure}). Start the server yourself instead: "
                f"dfi serve --endpoint {place.OWN_TCP}",
            )
    say(f"From now on a server is there at login: dfi serve --endpoint {place.OWN_TCP} is not needed.")


def uninstall(machine: Machine, home: Path, say: Say) -> None:
    """Undo it, and end the server. Its keys go too, if no GIMP has the filter."""
    made = files(machine, home)
    if any(path.exists() for path in made.texts):
        for command in made.stop:
            _fails(machine, command)
    for path in Record(home).remove([*made.texts, *unneeded_keys(machine, home, made.texts, say)]):
        say(f"Removed {path}")
    if machine.system == "linux":
        _fails(machine, made.start[0])  # systemd forgets what is not there any more


def unneeded_keys(machine: Machine, home: Path, removed: Collection[Path], say: Say) -> list[Path]:
    """The folder of the own server's keys, if it is there and nobody needs it once `removed` is gone.

    Needed by a filter in a GIMP, by a server at login, and by one that runs: it has read them, and would let nobody in
    by others that are made later.
    """
    folder, ours = home / place.KEYS_FOLDER, files(machine, home).texts
    rest = [path for path in Record(home).trees() if path not in removed and path.exists()]
    if not folder.exists() or any(path in ours or path.parent.name == "plug-ins" for path in rest):
        return []
    endpoint = place.find(place.OWN_TCP, home).endpoint
    deadline = time.monotonic() + _END_SECONDS
    while _is_listening(endpoint):
        if time.monotonic() > deadline:
            say(f"{folder} stays: the server at {endpoint} runs with these keys. End it, then run this again.")
            return []
        time.sleep(0.1)
    return [folder]


def _is_listening(endpoint: str) -> bool:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


def _fails(machine: Machine, command: tuple[str, ...]) -> str:
    """What a command says of why it failed; "" where it did not."""
    try:
        done = machine.run(command, _SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (done.stderr or done.stdout).strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"exit code {done.returncode}")


def _units(machine: Machine, home: Path) -> Files:
    """systemd's, for this user: a socket, and the service behind it."""
    folder = machine.folder("XDG_CONFIG_HOME", ".config") / "systemd/user"
    address = place.find(place.OWN_TCP, home).endpoint.removeprefix("tcp://")
    command = [*server_command(machine), "--endpoint", place.OWN_TCP, "--end-after", "60"]
    listening = f"""[Unit]
Description=Where Deep Feature Interpolation's server is reached

[Socket]
ListenStream={address}

[Install]
WantedBy=sockets.target
"""
    service = f"""[Unit]
Description=Deep Feature Interpolation's server, which ends after an hour without a client

[Service]
Environment={_unit_word(f"DFI_HOME={home}")}
ExecStart={" ".join(map(_unit_word, command))}
"""
    texts = {folder / f"{NAME}.socket": listening.encode(), folder / f"{NAME}.service": service.encode()}
    systemctl = ("systemctl", "--user")
    return Files(
        texts,
        ((*systemctl, "daemon-reload"), (*systemctl, "enable", "--now", f"{NAME}.socket")),
        ((*systemctl, "disable", "--now", f"{NAME}.socket"), (*systemctl, "stop", f"{NAME}.service")),
    )


def _unit_word(text: str) -> str:
    """A word of a systemd unit (systemd.syntax(7)): quoted, its specifiers and variables taken literally."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _agent(machine: Machine, home: Path) -> Files:
    path = machine.home / f"Library/LaunchAgents/{LABEL}.plist"
    agent = {
        "Label": LABEL,
        "ProgramArguments": [*server_command(machine), "--endpoint", place.OWN_TCP],
        "EnvironmentVariables": {"DFI_HOME": str(home)},
        "RunAtLoad": True,
        "ProcessType": "Background",
    }
    domain = f"gui/{system.user_id()}"
    return Files(
        {path: plistlib.dumps(agent)},
        (("launchctl", "bootstrap", domain, str(path)),),
        (("launchctl", "bootout", f"{domain}/{LABEL}"),),
    )


def _task(machine: Machine, home: Path) -> Files:
    """The task scheduler's. A task has its user's environment: a DFI_HOME must be set there, not in one terminal."""
    path = home / f"{NAME}-task.xml"
    user = "\\".join(filter(None, (machine.environ.get("USERDOMAIN"), machine.environ.get("USERNAME"))))
    command = [*server_command(machine), "--endpoint", place.OWN_TCP]
    task = f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <Triggers><LogonTrigger><UserId>{escape(user)}</UserId></LogonTrigger></Triggers>
  <Principals><Principal id="user"><UserId>{escape(user)}</UserId><LogonType>InteractiveToken</LogonType>
    <RunLevel>LeastPrivilege</RunLevel></Principal></Principals>
  <Settings><ExecutionTimeLimit>PT0S</ExecutionTimeLimit><Hidden>true</Hidden>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries></Settings>
  <Actions Context="user"><Exec><Command>{escape(command[0])}</Command>
    <Arguments>{escape(subprocess.list2cmdline(command[1:]))}</Arguments></Exec></Actions>
</Task>
"""
    schtasks = ("schtasks", "/tn", NAME)
    return Files(
        {path: task.encode("utf-16")},
        ((schtasks[0], "/create", *schtasks[1:], "/xml", str(path), "/f"), (schtasks[0], "/run", *schtasks[1:])),
        ((schtasks[0], "/end", *schtasks[1:]), (schtasks[0], "/delete", *schtasks[1:], "/f")),
    )
