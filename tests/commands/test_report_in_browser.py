"""The page of `dfi report` as a real browser shows it."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp.browser import Browser
from PIL import Image

from dfi_server.commands import cli

pytestmark = pytest.mark.gimp
pytest_plugins = ["gimp.fixtures"]


@pytest.fixture
def browser(gimp_root: Path) -> Iterator[Browser]:
    if not Browser.is_in(gimp_root):
        pytest.skip("no chromium beside GIMP: install it, or let tests/run make the root anew")
    browser = Browser(gimp_root)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(_tiny_built: Path, tmp_path_factory: pytest.TempPathFactory, face: np.ndarray) -> str:
    folder = tmp_path_factory.mktemp("page")
    Image.fromarray(face).save(folder / "face.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(_tiny_built))
        files = [str(folder / name) for name in ("face.png", "out.html")]
        assert cli.main(["report", *files, "--set", "smiling=0.4", "--set", "eyeglasses=0.3", "--iterations", "5"]) == 0
    return (folder / "out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1200, 390], ids=["desk", "phone"])
def test_every_picture_is_there_and_nothing_is_cut_off(width: int, page: str, browser: Browser) -> None:
    seen = browser.looks_at(page, width)
    assert len(seen["pictures"]) == page.count("<img ") >= 8
    assert all(min(picture["size"]) > 100 for picture in seen["pictures"]), seen["pictures"]
    assert all(picture["box"][2] > 0.3 * min(width, 400) for picture in seen["pictures"] if picture["box"][2])
    assert seen["width"] == width  # nobody has to scroll sideways
    assert not [name for name in seen["loaded"] if not name.startswith("data:")]


def test_the_edited_face_is_what_is_seen(page: str, browser: Browser) -> None:
    seen = browser.looks_at(page, 1200)
    shot = browser.screenshot(page, (1200, seen["height"]))
    faces = {picture["alt"]: picture["box"] for picture in seen["pictures"]}
    for name in ("The face after", "Where the vectors act in relu3_1"):
        x, y, width, height = (round(side) for side in faces[name])
        (data,) = set(re.findall(rf'base64,([^"]+)"[^>]+alt="{name}"', page))
        wanted = Image.open(io.BytesIO(base64.b64decode(data))).resize((width, height))
        shown = shot[y : y + height, x : x + width].astype(float)
        assert shown.std() > 20
        assert np.abs(shown - np.asarray(wanted)).mean() < 8
