"""Take docs/report.jpg, with the chromium beside the first GIMP of DFI_TEST_GIMP_ROOT, or the one on PATH:

    PYTHONPATH=.:tests python -m gimp.make_report_picture

The person does not exist (tests/support/faces/README.md).
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from gimp.browser import Browser
from gimp.gimp import REPOSITORY, find_gimps
from PIL import Image

from dfi_server.commands import cli

WIDTH = 1080
SHOWN = 660  # pixels of each half
GAP = 12
ABOVE = 36  # pixels over the second half


def made_page() -> str:
    """The page for a smile and glasses, by the starter."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(REPOSITORY / "tests" / "support" / "faces" / "closed.jpg", f"{folder}/portrait.jpg")
        os.chdir(folder)
        options = ("--set", "smiling=0.4", "--set", "eyeglasses=0.4", "--store", "starter")
        if cli.main(["report", "portrait.jpg", "report.html", *options]):
            raise SystemExit(1)
        return Path("report.html").read_text(encoding="utf-8")


def picture(page: str, browser: Browser) -> Image.Image:
    """The page as a browser shows it, its lower half, from a section on, beside the upper one."""
    seen = browser.looks_at(page, WIDTH)
    height = seen["height"]
    shot = Image.fromarray(browser.screenshot(page, (WIDTH, height)))
    half = round(min(seen["sections"], key=lambda y: abs(y - height / 2)))
    pair = Image.new("RGB", (2 * WIDTH + GAP, max(half, height - half + ABOVE)), "white")
    pair.paste(shot.crop((0, 0, WIDTH, half)), (0, 0))
    pair.paste(shot.crop((0, half, WIDTH, height)), (WIDTH + GAP, ABOVE))
    scale = SHOWN / WIDTH
    return pair.resize((round(pair.width * scale), round(pair.height * scale)), Image.Resampling.LANCZOS)


def main() -> None:
    browser = Browser(find_gimps()[0])
    try:
        page = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else made_page()
        picture(page, browser).save(REPOSITORY / "docs" / "report.jpg", quality=82, optimize=True)
    finally:
        browser.close()


if __name__ == "__main__":
    main()
