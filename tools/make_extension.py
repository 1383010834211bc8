"""Make the one file that brings the filter to GIMP 3, and the program with it: dist/dfi-VERSION.zip and .gex.

    .venv-test/bin/python tools/make_extension.py [--to FOLDER]

The .zip is unpacked into GIMP's folder of plug-ins, the .gex is opened by GIMP, which unpacks it into its folder of
extensions (docs/install.md). Both hold the plug-in without a record of where the program is, and the program's wheel,
which the plug-in offers to install. The same commit gives the same bytes, whoever makes them: all times are the
commit's, or SOURCE_DATE_EPOCH's.
"""

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from dfi_server import __version__  # noqa: E402
from dfi_server.gimp import files, installation  # noqa: E402

SOURCES = ("dfi_server", "gimp_plugin", "pyproject.toml", "README.md", "LICENSE")
_FILE_MODE, _PROGRAM_MODE = 0o100644, 0o100755
_MADE_BY = 3 << 8 | 20  # Unix, and version 2.0 of the format
_XL = 0x6C78
"""libarchive's extra field "xl" (archive_read_support_format_zip.c). GIMP reads a .gex as a stream, where a mode stands
nowhere else: without it the plug-in cannot be run, and GIMP passes it over in silence."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", type=Path, default=REPOSITORY / "dist", metavar="FOLDER", help="where they go")
    options = parser.parse_args()
    for path in make(options.to, made_at()):
        print(path)
    return 0


def made_at() -> int:
    """The second that everything in the archives is dated to."""
    if stated := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(stated)
    asked = ("git", "log", "-1", "--format=%ct")
    done = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit("make_extension.py: this is no git repository: set SOURCE_DATE_EPOCH to the seconds of the release.")
    return int(done.stdout)


def make(folder: Path, second: int) -> tuple[Path, Path]:
    """The .zip and the .gex in `folder`, and their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dfi-extension-") as temporary:
        extension = Path(temporary) / files.EXTENSION
        plugin = extension / installation.NAME
        extension.mkdir()
        files.copy(plugin)
        build_wheel(plugin / files.BUNDLE, second)
        shutil.copy(REPOSITORY / "constraints.txt", plugin / files.BUNDLE)
        shutil.copy(REPOSITORY / "LICENSE", plugin)
        archive, gex = (folder / f"dfi-{__version__}{suffix}" for suffix in (".zip", ".gex"))
        pack(archive, plugin, second)
        (extension / f"{files.EXTENSION}.metainfo.xml").write_bytes(metainfo(second))
        pack(gex, extension, second)
    return archive, gex


def build_wheel(folder: Path, second: int) -> None:
    """The program's wheel; from a copy, as building leaves files in its source, and keeps the modes that it finds."""
    with tempfile.TemporaryDirectory(prefix="dfi-wheel-") as temporary:
        for name in SOURCES:
            if (REPOSITORY / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
                shutil.copytree(REPOSITORY / name, Path(temporary) / name, ignore=ignored)
            else:
                shutil.copy(REPOSITORY / name, temporary)
        for path in Path(temporary).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(second)}
        subprocess.run([*command, "-w", folder, temporary], check=True, env=environment, umask=0o022)


def metainfo(second: int) -> bytes:
    """The AppStream metadata, with what GIMP asks of an extension (app/core/gimpextension.c).

    Of kind addon, with the id that its folder has, extending and requiring org.gimp.GIMP, with a release.
    """
    component = ElementTree.Element("component", type="addon")

    def add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
        made = ElementTree.SubElement(parent, tag, attributes)
        made.text = text or None
        return made

    add(component, "id", files.EXTENSION)
    add(component, "extends", "org.gimp.GIMP")
    add(component, "name", "Deep Feature Interpolation")
    add(component, "summary", "Make a face smile, age or wear glasses")
    described = add(component, "description")
    add(
        described,
        "p",
        "Gives a portrait an attribute, such as a smile, glasses or ten more years, and leaves the rest of the "
        "photograph alone. The result is a new layer. A program on your own machine does the work; the filter offers "
        "to install it.",
    )
    add(component, "metadata_license", "CC0-1.0")
    add(component, "project_license", "MIT")
    add(add(component, "developer", id="dfi-server"), "name", "The authors of dfi-server")
    add(component, "url", "https://arxiv.org/abs/1611.05507", type="homepage")
    dated = time.strftime("%Y-%m-%d", time.gmtime(second))
    add(add(component, "releases"), "release", version=__version__, date=dated)
    add(add(component, "requires"), "id", "org.gimp.GIMP", version="3.0.0", compare="ge")
    main = f"{installation.NAME}/{files.MAIN}"
    add(add(component, "custom"), "value", main, key="GIMP::plug-in-path")
    ElementTree.indent(component)
    written: bytes = ElementTree.tostring(component, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def pack(archive: Path, folder: Path, second: int) -> None:
    """Zip a folder with its name, complete or not at all: sorted, dated to that second, with the modes of a package."""
    fresh = archive.with_name(f".{archive.name}.new")
    try:
        with zipfile.ZipFile(fresh, "w") as packed:
            for path in contents(folder):
                info = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), time.gmtime(second)[:6])
                mode = _PROGRAM_MODE if path.name == files.MAIN else _FILE_MODE
                info.create_system, info.external_attr = _MADE_BY >> 8, mode << 16
                info.extra = struct.pack("<HHBHHI", _XL, 9, 0b111, _MADE_BY, 0, info.external_attr)
                stored = zipfile.ZIP_STORED if path.suffix == ".whl" else zipfile.ZIP_DEFLATED
                packed.writestr(info, path.read_bytes(), stored)
        fresh.replace(archive)
    finally:
        fresh.unlink(missing_ok=True)


def contents(folder: Path) -> Iterator[Path]:
    """Its files in an order that no file system decides."""
    yield from sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.as_posix())


if __name__ == "__main__":
    sys.exit(main())
