"""Make the pictures of docs/tutorial.md, with the starter: python docs/tutorial.py FOLDER

FOLDER has beards/ and shaven/, faces of the SFHQ-T2I sheets "Facial Hair" and "Eye Color", and portrait.jpg, a man of
the SFHQ sheet "sample 2x4"; the first face is the one of the tests.
"""

import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

from dfi_server.commands import cli

DOCS = Path(__file__).resolve().parent
FACE = DOCS.parent / "tests" / "support" / "faces" / "closed.jpg"


def run(*words: object) -> None:
    if cli.main([*map(str, words), "--store", "starter"]):
        raise SystemExit(1)


def main() -> None:
    photos = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as home:
        os.environ["DFI_HOME"] = home
        strips = {name: Path(home, f"{name}.png") for name in ("strip", "own")}
        run("strip", FACE, strips["strip"], "--set", "smiling", "--alphas=-0.2,0.1,0.2,0.3,0.4")
        run("learn", "Whiskers", "--with", photos / "beards", "--without", photos / "shaven")
        run("strip", photos / "portrait.jpg", strips["own"], "--set", "whiskers", "--alphas", "0.2,0.3,0.4,0.5")
        for name, strip in strips.items():
            Image.open(strip).save(DOCS / "tutorial" / f"{name}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main()
