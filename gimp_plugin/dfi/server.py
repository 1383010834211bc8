"""The DFI server as the plug-in sees it: found or started, asked, restarted, and its state in words."""

import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import processes
import program
from gi.repository import GLib
from i18n import _
from layer import Hole, Rectangle, Source
from names import label
from request import Request, UserError, attributes_kept

HERE = Path(__file__).resolve().parent
LOADING_SECONDS = 180  # a model that is not there by then will not come
START_SECONDS = 30.0  # and a server, one that the system starts
LOST_SECONDS = 2.0  # without an answer to "how are you?"
STOP_SECONDS = 3.0  # that a server gets to end by itself
_GIMPS_OWN = ("PYTHONHOME", "PYTHONPATH", *(("LD_PRELOAD", "LD_LIBRARY_PATH") if "APPDIR" in os.environ else ()))
"""What GIMP sets for its Python, and an AppImage for its libraries, and programs outside of it must not get."""

KEYS = HERE / "keys"  # a client's, where a sandbox hides those of the state folder


def _has_pyzmq() -> bool:
    """Whether this Python has one that it can load, its own or the one beside this file."""
    for folder in (None, HERE / "vendor"):
        if folder:
            sys.path.append(str(folder))
        try:
            import zmq  # noqa: F401

            return True
        except ImportError:
            for name in [name for name in sys.modules if name.partition(".")[0] == "zmq"]:
                del sys.modules[name]  # half of it
        if folder:
            sys.path.remove(str(folder))
    return False


def _relay() -> list[str]:
    """The command of the process that has pyzmq. Raises ImportError where there is none either."""
    try:
        return list(program.settings()["relay"])
    except (OSError, ValueError, LookupError, TypeError):
        raise ImportError("No module named 'zmq'") from None


class State(Enum):
    """What can be said about the server; the text that goes with each tells what to do about it."""

    NOT_INSTALLED = "not installed"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    FAILED = "failed"
    LOST = "lost"


class Status(NamedTuple):
    """A state and the sentence for the user; seconds: how long it has lasted, of those that should pass."""

    state: State
    text: str
    seconds: float = 0.0


Tell = Callable[[Status], object]


class NotInstalled(UserError):
    """Something of the plug-in's own is missing."""

    def __init__(self, what: str) -> None:
        remedy = _("Run 'dfi gimp install' again.")
        super().__init__(f"{what} {remedy}")


class Server:
    """The server of the installed program. DFI_ENDPOINT overrides its endpoint: another server."""

    def __init__(self) -> None:
        self.log = Path(GLib.get_user_cache_dir()) / "dfi" / "server.log"
        self.store = ""  # known once connected
        self.attributes: Collection[str] = ()  # likewise
        self._links: dict[str, Any] = {}  # one to each purpose, and so to each thread
        for name in _GIMPS_OWN:
            os.environ.pop(name, None)

    @cached_property
    def _client(self) -> ModuleType:
        """dfi_server.wire.client. Not imported at the top: a plug-in that fails there has no menu item to say why."""
        try:
            if not _has_pyzmq():  # then a process that has it is asked
                sys.path.insert(0, str(HERE / "substitute"))
                substitute: Any = importlib.import_module("zmq")
                substitute.relay = _relay()
            from dfi_server.wire import client
        except ImportError as error:
            raise NotInstalled(_("A part of the plug-in is missing ({error}).").format(error=error)) from error
        return client

    @cached_property
    def _settings(self) -> tuple[list[str], Any]:
        """The command that starts a server, and its place: the client's place.Place."""
        try:
            settings = program.settings()
            endpoint = os.environ.get("DFI_ENDPOINT") or str(settings["endpoint"])
            place = self._client.find(endpoint, Path(settings.get("home", "")))
            if place.client_keys and KEYS.exists():
                place = place._replace(client_keys=KEYS)
            if settings.get("home"):
                os.environ["DFI_HOME"] = settings["home"]  # for the server that is started from here
            return list(settings["command"]), place
        except (OSError, ValueError, LookupError, TypeError) as error:
            text = _("The server is not installed: {path} is missing or wrong ({error}).")
            raise NotInstalled(text.format(path=program.RECORD, error=error)) from error

    def connect(self, tell: Tell) -> dict[str, str]:
        """{attribute: label} of a server that is ready to edit; starts it if none answers.

        tell gets the states on the way, a few times a second; an exception from it ends the waiting. Raises UserError,
        DFIError.
        """
        client = self._client
        vars(self).pop("_settings", None)  # 'dfi gimp install' may have been run meanwhile
        command, place = self._settings
        if (shut_in := program.sandbox()) and not self._answers(place):
            text = _("{sandbox} lets GIMP start no programs: run this in a terminal, then try again.")
            raise UserError(f"{text.format(sandbox=shut_in)}\n\ndfi serve --endpoint {place.to_serve}")

        def starting(seconds: float) -> None:
            text = _("Starting the server… {seconds:.0f} s").format(seconds=seconds)
            tell(Status(State.STARTING, text, seconds))

        command = [*command, *client.ENDS_ALONE, "--endpoint", place.to_serve]  # _processes knows it by its end
        client.start_server(command, place.endpoint, keys=place.client_keys, log=self.log, waiting=starting)
        started = time.monotonic()
        with self._new_link() as link:
            while (info := link.status()).state == "loading":
                seconds = time.monotonic() - started
                if seconds > LOADING_SECONDS:
                    text = _("The server has been loading its model for {seconds:.0f} s: see its log, or restart it.")
                    raise UserError(text.format(seconds=seconds))
                text = _("The server is loading its model… {seconds:.0f} s").format(seconds=seconds)
                tell(Status(State.LOADING, text, seconds))
                time.sleep(0.2)
            labels = {name: label(name) for name in link.attributes()}
        self.store, self.attributes = info.store, labels.keys()
        return labels

    def _answers(self, place: Any) -> bool:
        """Whether a server listens there; one that has made its keys, if it is to have any."""
        if place.client_keys and not (place.client_keys / self._client.SERVER_KEY).exists():
            return False
        host, _, port = place.endpoint.removeprefix("tcp://").rpartition(":")
        try:  # a port may be systemd's, which starts the server now
            socket.create_connection((host, int(port)), LOST_SECONDS).close()
            patience = START_SECONDS
        except (OSError, ValueError):
            patience = 0.0
        with self._client.Client(place.endpoint, keys=place.client_keys) as link:
            return bool(link.is_connected(max(patience, LOST_SECONDS)))

    def status(self) -> Status:
        """How a server is that was connected to. Always from the same thread."""
        try:
            info = self._link("status", timeout=LOST_SECONDS).status()
        except self._client.DFIError as error:
            if error.code != "unreachable":
                return failure(error)
            return Status(State.LOST, _("The server does not answer any more: start it again. Your settings stay."))
        device = info.device.partition(" ")[0]
        if info.state == "failed":
            return Status(State.FAILED, info.message)
        if info.state == "loading":
            return Status(State.LOADING, _("The server is loading its model…"))
        if info.state == "busy":
            text = _("The server is at work on {device}; a new edit waits its turn.")
            return Status(State.BUSY, text.format(device=device))
        if info.resting:
            return Status(State.READY, _("The server rests; the next edit wakes it, which takes some seconds."))
        return Status(State.READY, _("The server is ready on {device}.").format(device=device))

    def stop(self) -> None:
        """End what listens or should listen at the endpoint, if this user started it with the endpoint named."""
        for at_once in (False, True):
            for process in self._processes():
                processes.end(process, at_once)
            deadline = time.monotonic() + STOP_SECONDS
            while self._processes() and time.monotonic() < deadline:
                time.sleep(0.05)

    def _processes(self) -> list[int]:
        return processes.ending_with(f"--endpoint {self._settings[1].to_serve}")

    def faces(self, source: Source) -> Sequence[Sequence[int]]:
        """The faces that the user may mean, as x, y, width, height in the layer, largest first. Raises DFIError."""
        request = self._client.PhotoRequest(source.width, source.height, source.channels, source.dtype, box=source.box)
        with self._new_link() as link:
            found: Sequence[Sequence[int]] = link.faces(request, source.pixels)
            return found

    def preview(
        self,
        size: tuple[int, int],
        pixels: bytes,
        box: Rectangle | None,
        alphas: Mapping[str, float],
        keep: Collection[str],
        rough: bool,
        cancelled: Callable[[], bool],
    ) -> Any:
        """An edit of a small RGB picture: the client's EditResult. Always from the same thread. Raises DFIError."""
        request = self._client.EditRequest(
            *size, 3, "uint8", alphas, box=box, preview=rough, keep=self._kept(keep, alphas)
        )
        return self._link("preview").edit(request, pixels, cancelled=cancelled)

    def edit(self, source: Source, request: Request, progress: Callable[[int, int], None]) -> Any:
        """The client's EditResult; progress gets iteration, iterations. Raises DFIError."""
        asked = self._client.EditRequest(
            source.width,
            source.height,
            source.channels,
            source.dtype,
            request.alphas,
            face=request.face,
            box=source.box,
            keep=self._kept(request.keep, request.alphas),
            neighbours=request.neighbours or None,
        )
        with self._new_link() as link:
            return link.edit(asked, source.pixels, progress=lambda step: progress(step.iteration, step.iterations))

    def fill(self, hole: Hole, progress: Callable[[int, int], None]) -> Any:
        """As edit."""
        asked = self._client.FillRequest(hole.width, hole.height, hole.channels, hole.dtype)
        with self._new_link() as link:
            return link.fill(
                asked, hole.pixels, hole.mask, progress=lambda step: progress(step.iteration, step.iterations)
            )

    def _kept(self, keep: Collection[str], alphas: Mapping[str, float]) -> list[str] | None:
        return attributes_kept(keep, alphas, self.attributes) or None  # an older server does not know the field

    def _link(self, purpose: str, **options: float) -> Any:
        if purpose not in self._links:
            self._links[purpose] = self._new_link(**options)
        return self._links[purpose]

    def _new_link(self, **options: float) -> Any:
        place = self._settings[1]
        return self._client.Client(place.endpoint, keys=place.client_keys, **options)


def failure(error: Exception) -> Status:
    """The state that an exception from Server.connect tells of."""
    missing = isinstance(error, NotInstalled | program.Missing)
    return Status(State.NOT_INSTALLED if missing else State.FAILED, str(error))
