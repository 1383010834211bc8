"""A real web browser for tests: chromium, in the root that has GIMP, or on PATH."""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gimp.gimp import within
from PIL import Image

_NAME = "chromium"
# A window that looks at a page as it is: what runs here does not have to run in it.
_PROBE = """<!DOCTYPE html><meta charset="utf-8"><pre id="seen"></pre>
<iframe style="border: 0; width: WIDTHpx; height: 900px"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
    const page = frame.contentDocument, root = page.documentElement;
    const pictures = [...page.images].map((image) => {
        const box = image.getBoundingClientRect();
        const size = image.complete ? [image.naturalWidth, image.naturalHeight] : [0, 0];  // or those of a broken one
        return {alt: image.alt, size, box: [box.x, box.y, box.width, box.height]};
    });
    const seen = {
        pictures,
        width: root.scrollWidth,
        height: root.scrollHeight,
        sections: [...page.querySelectorAll("section")].map((section) => section.getBoundingClientRect().y),
        loaded: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    };
    document.getElementById("seen").textContent = JSON.stringify(seen);
};
frame.srcdoc = PAGE;
</script>"""


class Browser:
    """chromium without a window, with a profile of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._share = Path(tempfile.mkdtemp(prefix="dfi-browser-", dir=root / "tmp"))

    @staticmethod
    def is_in(root: Path) -> bool:
        return bool(shutil.which(_NAME) if root == Path("/") else shutil.which(_NAME, path=f"{root}/usr/bin"))

    def looks_at(self, page: str, width: int) -> dict[str, Any]:
        """What of a page is seen in a window of so many pixels: its pictures, its size, what it has loaded."""
        script = json.dumps(page).replace("<", "\\u003c")
        file = self._share / "probe.html"
        file.write_text(_PROBE.replace("WIDTH", str(width)).replace("PAGE", script), encoding="utf-8")
        dom = self._run("--dump-dom", "--virtual-time-budget=20000", f"--window-size={width + 100},1000", page=file)
        found = re.search(r'<pre id="seen">(.+?)</pre>', dom, re.DOTALL)
        assert found, dom[-2000:]
        seen: dict[str, Any] = json.loads(html.unescape(found[1]))
        return seen

    def screenshot(self, page: str, size: tuple[int, int]) -> np.ndarray:
        """What a window of this size shows of a page, (height, width, 3) uint8."""
        file, shot = self._share / "page.html", self._share / "shot.png"
        file.write_text(page, encoding="utf-8")
        self._run(f"--screenshot={self._path(shot)}", f"--window-size={size[0]},{size[1]}", page=file)
        return np.asarray(Image.open(shot).convert("RGB"))

    def close(self) -> None:
        shutil.rmtree(self._share, ignore_errors=True)

    def _path(self, path: Path) -> str:
        return "/" + str(path.relative_to(self.root))

    def _run(self, *options: str, page: Path) -> str:
        profile = self._path(self._share / "profile")
        usual = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}")
        command = within(self.root, _NAME, *usual, *options, f"file://{self._path(page)}")
        kept = {**os.environ, "HOME": self._path(self._share)}
        if self.root != Path("/"):
            kept = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": self._path(self._share)}
        done = subprocess.run(command, capture_output=True, text=True, env=kept, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout
