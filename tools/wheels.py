"""Has the package registry a wheel of everything that the program needs, for a system and a version of Python?

    .venv-test/bin/python tools/wheels.py [--extra heif]

Asks the index that pip is configured for, for the versions of constraints.txt, and prints the table of docs/install.md
and the lines below it, which say what is there of the packages without a wheel.
What a package needs in its turn is taken from the environment that this runs in. The exit code is 1 where a wheel is
missing: what is there as source only is built when it is installed, which may need a compiler.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging import tags
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))
OLDEST_GLIBC, NEWEST_GLIBC = 17, 39  # 2.17 is that of manylinux2014, 2.36 and 2.39 those of Debian 12 and Ubuntu 24.04


@dataclass(frozen=True)
class System:
    """name: for people. The rest is what packaging's markers and tags call it."""

    name: str
    sys_platform: str
    platform_system: str
    machine: str
    os_name: str
    platforms: tuple[str, ...]

    def environment(self, python: tuple[int, int]) -> dict[str, str]:
        version = ".".join(map(str, python))
        return {
            "sys_platform": self.sys_platform,
            "platform_system": self.platform_system,
            "platform_machine": self.machine,
            "os_name": self.os_name,
            "python_version": version,
            "python_full_version": f"{version}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": "",
        }

    def tags(self, python: tuple[int, int]) -> set[tags.Tag]:
        platforms = list(self.platforms)
        interpreter = f"cp{python[0]}{python[1]}"
        own = tags.cpython_tags(python, [f"{interpreter}", "abi3", "none"], platforms)
        return {*own, *tags.compatible_tags(python, interpreter, platforms)}


GLIBC = tuple(f"manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC, NEWEST_GLIBC + 1))
SYSTEMS = (
    System("Windows x64", "win32", "Windows", "AMD64", "nt", ("win_amd64",)),
    System("macOS 14 or newer, arm64", "darwin", "Darwin", "arm64", "posix", (*tags.mac_platforms((14, 0), "arm64"),)),
    System("Linux arm64", "linux", "Linux", "aarch64", "posix", (*GLIBC, "manylinux2014_aarch64")),
)


@cache
def index() -> str:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "https://pypi.org/simple"


@cache
def files(name: str) -> list[str]:
    """The names of all files that the registry has of a package (PEP 691)."""
    request = urllib.request.Request(f"{index()}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return [file["filename"] for file in json.loads(reply.read())["files"]]


@cache
def locked() -> list[Requirement]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def needed(extras: tuple[str, ...], environment: dict[str, str]) -> set[str]:
    """The program's dependencies in that environment, and theirs."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    names: set[str] = set()
    queue = [Requirement(text) for text in asked]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        with_extras = [environment | {"extra": extra} for extra in requirement.extras] or [environment]
        if name in names and not requirement.extras:
            continue
        names.add(name)
        for text in requires(name):
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate(each) for each in with_extras):
                inner.marker = None
                queue.append(inner)
    return names


def requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # it is not needed on this system
        return []


def missing(extras: tuple[str, ...], system: System, python: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """The packages without a wheel that could be installed there, each with what there is instead."""
    environment = system.environment(python)
    usable = system.tags(python)
    for name in sorted(needed(extras, environment)):
        pins = [each for each in locked() if canonicalize_name(each.name) == name]
        pin = next((each for each in pins if not each.marker or each.marker.evaluate(environment)), None)
        if pin is None:
            yield name, "is not in constraints.txt"
            continue
        version = re.sub(r"^==", "", str(pin.specifier))
        wheels = [file for file in files(name) if file.endswith(".whl")]
        if not any(str(parsed[1]) == version and parsed[3] & usable for parsed in map(parse_wheel_filename, wheels)):
            source = f"{name}-{version}.tar.gz" in files(name)
            yield name, f"{version} is {'there as source only' if source else 'not there'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--extra", action="append", default=[], metavar="NAME", help="of pyproject.toml, such as heif")
    options = parser.parse_args()
    rows = []
    instead: dict[str, None] = {}  # a set that keeps its order
    with tqdm(total=len(SYSTEMS) * len(PYTHONS), disable=None, leave=False) as bar:
        for system in SYSTEMS:
            cells = []
            for python in PYTHONS:
                lacks = [*missing(tuple(options.extra), system, python)]
                instead |= dict.fromkeys(f"{name} {what}." for name, what in lacks)
                cells.append(f"all but {', '.join(name for name, _ in lacks)}" if lacks else "all")
                bar.update()
            rows.append((system.name, *cells))
    print("| | " + " | ".join(f"Python {major}.{minor}" for major, minor in PYTHONS) + " |")
    print("|---" * (len(PYTHONS) + 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if instead:
        print("", *instead, sep="\n")
    return 1 if instead else 0


if __name__ == "__main__":
    sys.exit(main())
