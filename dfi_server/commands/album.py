"""What lies in a folder tree of photos: those that can be edited, and what is left alone, counted by its kind."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dfi_server.photo import extras, formats

_FILMS = {
    ".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv",
}  # fmt: skip
_RAW = {
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
_SIDECARS = {".aae", ".dop", ".on1", ".pp3", ".thm", ".xmp"}
_SYSTEMS_FILES = {"desktop.ini", "ehthumbs.db", "thumbs.db"}
_SYSTEMS_FOLDERS = {"$recycle.bin", "@eadir", "__macosx", "lost+found", "system volume information"}

_PLURALS = {  # where it is not the kind's name with an s
    "broken link or device": "broken links or devices",
    "folder that may not be read": "folders that may not be read",
    "link to a folder": "links to folders",
}

_DEVELOP = "develop them first (darktable or RawTherapee, for example) and have the results edited"


@dataclass(frozen=True)
class Album:
    """`photos`: paths below the folder, in order. `left`: kind, such as "film" -> how many were left alone.

    `unread`: kind of photo that cannot be read here -> one of them; `remedies`: the same kind -> what to do about it.
    """

    photos: list[Path] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    unread: dict[str, Path] = field(default_factory=dict)
    remedies: dict[str, str] = field(default_factory=dict)

    def said(self) -> Iterator[str]:
        """Sentences on what was left alone: one for each kind of photo that cannot be read, one for all the rest."""
        for kind, example in self.unread.items():
            count = self.left[kind]
            others = f" and {count - 1} more" if count > 1 else ""
            yield f"Left alone: {_counted(kind, count)} ({example}{others}): {self.remedies[kind]}."
        rest = [_counted(kind, count) for kind, count in sorted(self.left.items()) if kind not in self.unread]
        if rest:
            yield f"Left alone: {', '.join(rest)}."


def look(source: Path, apart: Path | None = None) -> Album:
    """All that is in a folder and the folders in it, but for the folder `apart`.

    Hidden folders and the system's own (@eaDir, $RECYCLE.BIN) are not entered, nor are links to folders: what they show
    may be there a second time, or lie above.
    """
    album = Album()

    def unreadable(error: OSError) -> None:
        album.left["folder that may not be read"] += 1

    for name, folders, files in os.walk(source, onerror=unreadable):
        folder = Path(name)
        entered = []
        for each in sorted(folders):
            if (folder / each).is_symlink():
                album.left["link to a folder"] += 1
            elif each.lower() in _SYSTEMS_FOLDERS or each.startswith("."):
                album.left["hidden folder"] += 1
            elif apart is None or folder / each != apart:
                entered.append(each)
        folders[:] = entered
        for each in files:
            _sort_in(album, (folder / each).relative_to(source), (folder / each).is_file())
    album.photos.sort()
    return album


def _sort_in(album: Album, file: Path, is_file: bool) -> None:
    ending, name = file.suffix.lower(), formats.of_path(file)
    if file.name.startswith("._"):
        album.left["macOS's ._ file"] += 1
    elif file.name.startswith(".") or file.name.lower() in _SYSTEMS_FILES:
        album.left["hidden file"] += 1
    elif not is_file:
        album.left["broken link or device"] += 1
    elif ending in _RAW:
        _leave(album, "camera's raw file", file, _DEVELOP)
    elif name in extras.FORMATS and (missing := extras.missing(name)):
        _leave(album, f"{formats.WRITTEN[name].name} photo", file, missing)
    elif name:
        album.photos.append(file)
    else:
        album.left[_kind(ending)] += 1


def _leave(album: Album, kind: str, file: Path, remedy: str) -> None:
    album.left[kind] += 1
    album.unread.setdefault(kind, file)
    album.remedies[kind] = remedy


def _kind(ending: str) -> str:
    if ending in _FILMS:
        return "film"
    if ending in _SIDECARS:
        return "sidecar file"
    if ending == ".pdf":
        return "PDF"
    if ending in formats.EXTENSIONS:  # read, but not written: the result would need another name
        return f"{ending[1:].upper()} picture"
    return "other file"


def _counted(kind: str, count: int) -> str:
    return f"1 {kind}" if count == 1 else f"{count} {_PLURALS.get(kind, f'{kind}s')}"
