"""Make the pictures of docs/tutorial.md, with the starter: python docs/tutorial.py faces-hd.tar

The archive has the faces of SFHQ and SFHQ-T2I by name of sheet, row and column: with whiskers are those of the sheet
"Facial Hair", without them the shaven men and boys of "Eye Color". The first strip's face is the one of the tests.
"""

import os
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

from dfi_server.commands import cli

DOCS = Path(__file__).resolve().parent
FACE = DOCS.parent / "tests" / "support" / "faces" / "closed.jpg"
PORTRAIT = "sfhq/sample_2x4_1020_926.jpg"
WITH = tuple(f"sfhq-t2i/Facial-Hair_{row}_" for row in (0, 1, 2, 4))
WITHOUT = "sfhq-t2i/Eye-Color_"
_WOMEN = ("1_2", "1_3", "2_1", "2_6", "3_4", "5_2", "5_7", "5_8")
_BEARDED = ("1_4", "2_2", "2_9", "4_5", "4_7", "5_3", "5_5", "5_9")


def run(*words: object) -> None:
    if cli.main([*map(str, words), "--store", "starter"]):
        raise SystemExit(1)


def unpack(archive: Path, folder: Path) -> None:
    """portrait.jpg, beards/ and shaven/."""
    left_out = tuple(f"{WITHOUT}{place}.jpg" for place in (*_WOMEN, *_BEARDED))
    with tarfile.open(archive) as members:
        for member in members:
            name = member.name.removeprefix("./")
            if name == PORTRAIT:
                target = folder / "portrait.jpg"
            elif name.startswith((*WITH, WITHOUT)) and name not in left_out:
                target = folder / ("beards" if name.startswith(WITH) else "shaven") / Path(name).name
            else:
                continue
            content = members.extractfile(member)
            assert content
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content.read())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DFI_HOME"] = str(folder / "home")
        unpack(Path(sys.argv[1]), folder)
        strips = {name: folder / f"{name}.png" for name in ("strip", "own")}
        run("strip", FACE, strips["strip"], "--set", "smiling", "--alphas=-0.2,0.1,0.2,0.3,0.4")
        run("learn", "Whiskers", "--with", folder / "beards", "--without", folder / "shaven")
        run("strip", folder / "portrait.jpg", strips["own"], "--set", "whiskers", "--alphas", "0.2,0.3,0.4,0.5")
        for name, strip in strips.items():
            Image.open(strip).save(DOCS / "tutorial" / f"{name}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main()
