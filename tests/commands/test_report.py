"""`dfi report`: a page that shows an edit as it is, that needs nothing else, and that nobody can put tags into."""

import base64
import io
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checks import full_disk

from dfi_server import paths
from dfi_server.commands import cli
from dfi_server.commands.report.findings import STRENGTHS, Findings, find
from dfi_server.commands.report.page import Settings, page
from dfi_server.edit import Editor
from dfi_server.photo.pixels import Photo

OPTIONS = (
    "--iterations",
    "2",
    "--keep",
    "eyeglasses",
    "--box",
    "60,60,150,150",
    "--face",
    "largest",
    "--store",
    "tiny",
    "--device",
    "cpu",
)
USUAL = Settings("face.png", {"smiling": 0.4}, "dfi edit face.png", [("Version", "1")])
HOSTILE = '<img src=x onerror="alert(1)">&amp;\'"'


class Page(HTMLParser):
    """What a browser finds in a page: tags with their attributes, and the text of each kind of tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.text[self._open] = self.text.get(self._open, "") + data

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """By what they are said to show; those of the same name once."""
        found = {}
        for tag, attributes in self.tags:
            if tag == "img":
                kind, _, data = (attributes["src"] or "").partition("base64,")
                assert kind == "data:image/jpeg;"
                picture = Image.open(io.BytesIO(base64.b64decode(data)))
                assert picture.size == (int(attributes["width"] or 0), int(attributes["height"] or 0))
                found[attributes["alt"] or ""] = np.asarray(picture).astype(float)
        return found


@pytest.fixture
def folder(tiny_home: Path, tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a photo `face.png` in it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(face).save("face.png")
    return tmp_path


@pytest.fixture(scope="module")
def findings(_tiny_built: Path, face: np.ndarray) -> Findings:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(_tiny_built))
        return find(Editor("tiny", "cpu"), Photo(face), {"smiling": 0.4, "eyeglasses": -0.2}, iterations=30)


def report(*arguments: str) -> Page:
    assert cli.main(["report", *arguments]) == 0
    return Page(Path("out.html").read_text(encoding="utf-8"))


def test_the_page_shows_the_edit_that_its_command_makes(folder: Path) -> None:
    seen = report("face.png", "out.html", "--set", "smiling=0.4", "--set", "senior=-0.2", *OPTIONS)
    dfi, *command = shlex.split(seen.text["pre"])
    assert (dfi, cli.main(command)) == ("dfi", 0)
    made = np.asarray(Image.open("face-edited.png")).astype(float)
    before, after = (seen.pictures[f"The photo {when}"] for when in ("before", "after"))
    photo = np.asarray(Image.open("face.png")).astype(float)
    changed = np.abs(made - photo).max(axis=2) > 30
    assert changed.any()
    for shown, real in ((before, photo), (after, made)):
        assert np.abs(shown - real).mean() < 6
    assert np.abs(after - made)[changed].mean() < 0.3 * np.abs(photo - made)[changed].mean()
    assert seen.text["h1"] == "smiling +0.4, senior −0.2"


def test_the_page_needs_nothing_else(findings: Findings) -> None:
    html = page(findings, USUAL)
    seen = Page(html)
    assert len(seen.pictures) >= 8
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    html = re.sub(r'"data:image/jpeg;base64,[\w+/=]+"', "", html)
    assert not re.search(r"//|url\(|@import|\son\w+\s*=|(?:src|href)=\S", html)


def test_names_of_files_put_no_tags_into_it(folder: Path, findings: Findings) -> None:
    Path("face.png").rename(f"{HOSTILE}.png")
    hostile = report(f"{HOSTILE}.png", "out.html", "--set", "smiling=0.4", *OPTIONS)
    assert {tag for tag, _ in hostile.tags} == {tag for tag, _ in Page(page(findings, USUAL)).tags}
    assert hostile.text["title"] == f"{HOSTILE}.png: smiling +0.4"
    assert shlex.split(hostile.text["pre"])[2] == f"{HOSTILE}.png"


def test_nor_does_anything_else_that_is_said(findings: Findings) -> None:
    seen = Page(page(findings, Settings(HOSTILE, {HOSTILE: 0.4}, HOSTILE, [(HOSTILE, HOSTILE)])))
    assert seen.text["dd"] == seen.text["pre"] == seen.text["h1"].removesuffix(" +0.4") == HOSTILE
    assert not [attributes for tag, attributes in seen.tags if tag == "img" and "onerror" in attributes]


def test_a_name_that_is_no_text_is_shown_as_bytes(findings: Findings) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    html = page(findings, Settings(name, {"smiling": 0.4}, f"dfi edit {name}", []))
    assert Page(html.encode().decode()).text["pre"] == r"dfi edit \udcff\udcfe.png"


def test_the_last_strength_is_the_edit_itself(findings: Findings, tiny_home: Path, face: np.ndarray) -> None:
    edit = Editor("tiny", "cpu").edit(face, {"smiling": 0.4, "eyeglasses": -0.2}, iterations=30)
    _, _, width, height = edit.patch.box
    assert findings.edit.iterations == edit.iterations
    np.testing.assert_array_equal(findings.edit.patch.pixels[-height:, -width:], edit.patch.pixels)
    distance = [np.abs(step.astype(float) - findings.before).mean() for step in findings.steps]
    assert len(distance) == len(STRENGTHS) and distance == sorted(distance) and distance[0] > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("face.png", "out.png", "--set", "smiling=0.4"), r"'out.png' has no extension of a web page: use .html."),
        (("face.png", "none/out.html", "--set", "smiling=0.4"), "There is no folder none to write out.html to."),
        (("face.png", "out.html", "--set", "smilling=0.4"), "did you mean smiling"),
        (("face.png", "out.html", "--set", "smiling=x"), "not a number"),
        (("face.png", "out.html", "--set", "smiling=0.4", "--store", "none"), "no store"),
        (("none.png", "out.html", "--set", "smiling=0.4"), "none.png"),
    ],
)
def test_wrong_input_gets_a_sentence_and_no_page(
    arguments: tuple[str, ...], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and sentence in err and err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["face.png"]


def test_a_full_disk_leaves_no_part_of_a_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with full_disk(5000):
        assert cli.main(["report", "face.png", "out.html", "--set", "smiling=0.4", *OPTIONS]) == 1
    assert "Make room" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["face.png"]


@pytest.mark.slow
def test_the_starter_reads_a_smile_after_a_smile_was_asked_for(closed: np.ndarray) -> None:
    found = find(Editor(paths.STARTER.name, "cpu"), Photo(closed), {"smiling": 0.4}, iterations=5)
    (readings,) = found.readings
    smiling, *others = readings
    assert smiling.name == "smiling" and smiling.is_set and smiling.area and smiling.area > 0.9
    assert smiling.before < 0.5 < smiling.after - smiling.before
    assert not any(each.is_set for each in others)
    assert np.hypot(*np.moveaxis(found.motion, 2, 0)).max() > 3  # the corners of the mouth rise
