"""pyzmq for the Python of a GIMP, in the version that the server has: wheels from the package registry, unpacked."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

import zmq

from dfi_server import system
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.gimp.record import Record

_STABLE = (3, 12)  # from here on one wheel, cp312-abi3, serves every Python; an older one has a file of its own


def prepare(home: Path, pythons: Iterable[tuple[int, ...]], record: Record) -> Path:
    """The folder with a pyzmq that every Python from 3.12 on loads, and each older one that is named ((3, 11), ...).

    It lies in the state folder, for the next time, when no network is needed. Raises DFIError(UNREACHABLE).
    """
    folder = home / "pyzmq"
    older = sorted({python for python in pythons if python < _STABLE})
    pythons = (_STABLE, *older)
    holds = folder / f"{zmq.__version__} for {', '.join(map(_name, pythons))}"
    if holds.exists():
        return folder
    record.add_tree(folder)
    with tempfile.TemporaryDirectory(dir=home) as temporary:
        pip = _pip(Path(temporary))
        for python in pythons:
            _download(pip, _name(python), Path(temporary))
        fresh = Path(temporary) / "pyzmq"
        for wheel in sorted(Path(temporary).glob("pyzmq-*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(fresh)
        (fresh / holds.name).touch()
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        fresh.rename(folder)
    return folder


def _name(python: tuple[int, ...]) -> str:
    return ".".join(map(str, python))


def _download(pip: list[str], python: str, target: Path) -> None:
    wheel = ["--no-deps", "--only-binary=:all:", "--python-version", python, "-d", str(target)]
    done = subprocess.run(
        [*pip, "download", "-q", "--disable-pip-version-check", *wheel, f"pyzmq=={zmq.__version__}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PIP_NO_INPUT": "1"},
    )
    if done.returncode:
        errors = re.findall(r"^ERROR: *(.+)", done.stderr, re.MULTILINE)
        raise DFIError(
            ErrorCode.UNREACHABLE,
            f"pyzmq {zmq.__version__} for GIMP's Python {python} could not be downloaded "
            f"({errors[-1] if errors else 'pip failed'}). Check the connection to https://pypi.org, then run "
            "'dfi gimp install' again.",
        )


def _pip(temporary: Path) -> list[str]:
    """A pip: this environment's own, or where it has none (uv's have none) one in an environment made for this."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    venv.create(temporary / "venv", with_pip=True)
    return [str(system.program_of(temporary / "venv", "python")), "-m", "pip"]
