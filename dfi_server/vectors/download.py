"""Fetch large files once: from the first mirror that answers, resumed where it broke off, checked by hash."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dfi_server.errors import NO_ROOM, DFIError, ErrorCode, unwritable

_BLOCK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte


def fetch(urls: Sequence[str], target: Path, md5: str | None) -> Path:
    """Download to `target` unless a good copy lies there already.

    `md5`: the hash that the publisher states, None where there is none to check. What has arrived stays in
    `target` + ".part" and is resumed by the next call. Raises DFIError(UNREACHABLE) when no mirror delivers the file.
    """
    if target.exists() and (md5 is None or _md5(target) == md5):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(target.parent, error, "name another folder in DFI_HOME") from error
    part = target.with_name(target.name + ".part")
    failures = []
    for url in urls:
        try:
            _resume(url, part)
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise DFIError(
                    ErrorCode.NO_SPACE,
                    f"There is no room for {target.name} in {target.parent} ({error}): make some and run the command "
                    "again, it goes on where it stopped.",
                ) from error
            failures.append(f"{url}: {error}")
            continue
        if md5 is None or _md5(part) == md5:
            part.replace(target)
            return target
        part.unlink()  # not the file: do not resume it
        failures.append(f"{url}: not the file that was published (its hash differs)")
    raise DFIError(
        ErrorCode.UNREACHABLE,
        f"{target.name} could not be downloaded ({'; '.join(failures)}). Run the command again to go on where it "
        "stopped, or fetch the file some other way and give it as an option (dfi setup --help).",
    )


def _resume(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") in (None, f"bytes */{have}"):
            return  # it is all here already
        part.unlink()
        raise OSError("what lay here of it was longer than the file") from error
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        length = response.length  # None where the server does not say
        total = None if length is None else length + (have if resumed else 0)
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=have if resumed else 0,
                unit="B",
                unit_scale=True,
                desc=part.stem,
                disable=None,
            ) as bar,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise OSError("the connection broke off")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
