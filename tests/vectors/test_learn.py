"""Attributes of one's own: learnt from photos, listed, used and forgotten as any other."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checks import refusal
from support.servers import eventually, serving

from dfi_server import paths
from dfi_server.commands import cli
from dfi_server.edit import Editor
from dfi_server.errors import ErrorCode
from dfi_server.face import layout
from dfi_server.photo.pixels import composite
from dfi_server.service.worker_process import Command, commands
from dfi_server.vectors import examples, own
from dfi_server.vectors.store import open_store
from dfi_server.wire.client import Client

FACES = Path(__file__).parents[1] / "support" / "faces"
EACH = 21
NAME = "ruddy_face"


def faces() -> Iterator[np.ndarray]:
    """Three people in seven lights, (250, 250, 3) uint8 each."""
    for path in (paths.SAMPLE, FACES / "closed.jpg", FACES / "smiling.jpg"):
        with Image.open(path) as picture:
            face = np.asarray(picture.convert("RGB").resize((250, 250))).astype(float)
        for number in range(EACH // 3):
            rng = np.random.default_rng(number)
            yield np.clip(face * (0.7 + 0.08 * number) + rng.normal(0, 3, face.shape), 0, 255).astype(np.uint8)


def reddened(face: np.ndarray) -> np.ndarray:
    return np.clip(face * np.array([1.25, 0.8, 0.8]), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "with" and "without": the same faces, red and as they are."""
    folder = tmp_path_factory.mktemp("photos")
    for side, change in (("with", reddened), ("without", np.asarray)):
        (folder / side).mkdir()
        for number, face in enumerate(faces()):
            Image.fromarray(change(face)).save(folder / side / f"{number}.png")
    return folder


def sides(photos: Path) -> list[str]:
    return ["--with", str(photos / "with"), "--without", str(photos / "without")]


@pytest.fixture(scope="module")
def _learnt(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(home))
        (photos / "with" / "damaged.jpg").write_bytes(b"no photo")
        Image.new("RGB", (250, 250), "gray").save(photos / "without" / "wall.png")
        assert cli.main(["learn", "Ruddy Face", *sides(photos)]) == 0
    return home


@pytest.fixture
def home(_learnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder in which "ruddy_face" was learnt for the starter."""
    shutil.copytree(_learnt, tmp_path / "home")
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The sentence with which a command ends."""

    def run(*words: str | Path) -> str:
        assert cli.main([str(word) for word in words]) == 1
        return capsys.readouterr().err.splitlines()[-1]

    return run


@pytest.mark.slow
def test_it_is_listed_and_does_what_the_photos_show(
    home: Path, closed: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["attributes"]) == 0
    assert f"{NAME} (own)" in capsys.readouterr().out.splitlines()
    assert cli.main(["attributes", "--json"]) == 0
    assert NAME in json.loads(capsys.readouterr().out)
    editor = Editor("starter")
    (face, *_) = editor.faces(closed)
    x, y, width, height = face.box
    cheeks = np.s_[y + height // 2 : y + 2 * height // 3, x + width // 4 : x + 3 * width // 4]

    def red(alpha: float) -> float:
        edited = composite(closed, editor.edit(closed, {NAME: alpha}).patch)[cheeks].astype(float)
        return float((edited[..., 0] - edited[..., 1:].mean(axis=2)).mean())

    assert red(-0.3) < red(0.0001) - 3 < red(0.3) - 6


def lined(face: np.ndarray) -> np.ndarray:
    """With lines that are finer than LFW's photos could show."""
    lines = 14 * np.sign(np.sin(2 * np.pi * np.arange(len(face)) / 6))
    return np.clip(face + lines[:, None, None], 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_what_is_fine_is_learnt_from_sharp_photos(empty: Path, tmp_path: Path, closed: np.ndarray) -> None:
    for side, change in (("with", lined), ("without", np.asarray)):
        (tmp_path / side).mkdir()
        for number in range(20):
            path = FACES / ("closed.jpg" if number % 2 else "smiling.jpg")
            with Image.open(path) as picture:
                face = np.asarray(picture.convert("RGB").resize((450, 450)))
            Image.fromarray(change(np.clip(face * (0.7 + 0.03 * number), 0, 255).astype(np.uint8))).save(
                tmp_path / side / f"{number}.png"
            )
    assert cli.main(["learn", "Lined", *sides(tmp_path)]) == 0
    assert open_store(paths.DETAIL).own_attributes == ("lined",)
    editor = Editor("starter")
    photo = np.asarray(Image.fromarray(closed).resize((450, 450)))
    (face,) = editor.edit(photo, {"lined": 0.3}).faces
    assert [solve.frame.size for solve in face.solves] == [layout.FRAME_SIZE, layout.DETAIL_FRAME_SIZE]
    x, y, width, height = editor.faces(photo)[0].box
    cheeks = np.s_[y + height // 2 : y + 2 * height // 3, x + width // 4 : x + 3 * width // 4]

    def fine(alpha: float) -> float:
        edited = composite(photo, editor.edit(photo, {"lined": alpha}).patch)[cheeks].astype(float)
        return float(np.abs(edited[6:-6] - (edited[3:-9] + edited[9:-3]) / 2).mean())  # half a period away

    assert fine(0.3) > 1.3 * fine(0.0001)


@pytest.mark.slow
def test_photos_of_few_pixels_teach_nothing_fine(home: Path) -> None:
    assert NAME in open_store().own_attributes
    assert open_store(paths.DETAIL).own_attributes == ()


@pytest.mark.slow
def test_a_server_knows_of_it_and_of_its_end_without_a_restart(home: Path, photos: Path) -> None:
    (command,) = commands("starter")
    own.forget(NAME)
    with serving(Command(command.arguments, {"DFI_HOME": str(home)})) as server, Client(server.endpoint) as client:
        assert NAME not in client.attributes()
        assert cli.main(["learn", NAME, *sides(photos)]) == 0
        eventually(lambda: client.hello() and NAME in client.attributes())
        assert cli.main(["forget", "Ruddy Face"]) == 0
        eventually(lambda: client.hello() and NAME not in client.attributes())


@pytest.mark.slow
def test_what_else_differs_is_said_with_figures_and_held_still(
    empty: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["learn", NAME, *sides(photos), "--method", "mean"]) == 0
    told = capsys.readouterr()
    assert f"{NAME}: learnt from {EACH} faces with it and {EACH} without" in told.out
    with own.path_of(NAME).open("rb"):
        made = open_store()._own.usable[NAME][0]
    assert (made.method, made.held) == ("mean difference", ())


def test_photos_that_cannot_be_used_are_named_and_the_rest_is_learnt_from(_learnt: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(_learnt))
        made = open_store()._own.usable[NAME][0]
    assert (made.photos_with, made.photos_without) == (EACH, EACH)


def test_it_survives_a_rebuilt_store_and_is_not_for_another_network(home: Path, tiny_home: Path) -> None:
    shutil.copytree(tiny_home / "stores", home / "stores", symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(home))
        assert NAME in open_store("starter").attributes
        sentence = refusal(lambda: open_store("tiny").vector(NAME), ErrorCode.UNKNOWN_ATTRIBUTE)
    assert "another network" in sentence and "dfi learn" in sentence


def test_forgetting(home: Path, said: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert NAME in said("forget", "nothing")
    assert cli.main(["forget", NAME]) == 0
    assert "forgotten" in capsys.readouterr().out
    assert "there is none" in said("forget", NAME)
    assert NAME not in open_store("starter").attributes


def test_a_damaged_file_is_said_and_the_others_serve(home: Path, said: Callable[..., str]) -> None:
    own.path_of(NAME).write_bytes(b"no tensors")
    store = open_store("starter")
    assert NAME not in store.attributes
    assert "damaged" in refusal(lambda: store.vector(NAME), ErrorCode.UNKNOWN_ATTRIBUTE)
    store.vector("smiling")


def test_names_that_are_taken_or_are_none(home: Path, photos: Path, said: Callable[..., str]) -> None:
    assert "come with the program" in said("learn", "Smiling", *sides(photos))
    assert "--replace" in said("learn", "ruddy face", *sides(photos))
    assert "is no name" in said("learn", "!!!", *sides(photos))


def test_folders_that_do_not_do(empty: Path, photos: Path, tmp_path: Path, said: Callable[..., str]) -> None:
    same = str(photos / "with")
    assert "are one folder" in said("learn", "x", "--with", same, "--without", same)
    assert "lies in the other" in said("learn", "x", "--with", str(photos), "--without", same)
    assert "There is no folder" in said("learn", "x", "--with", same, "--without", str(tmp_path / "absent"))
    (tmp_path / "none").mkdir()
    assert "No photos" in said("learn", "x", "--with", same, "--without", str(tmp_path / "none"))
    (tmp_path / "few").mkdir()
    shutil.copy(photos / "without" / "1.png", tmp_path / "few")
    assert "20 of each" in said("learn", "x", "--with", same, "--without", str(tmp_path / "few"))
    shutil.copy(photos / "with" / "1.png", tmp_path / "few" / "copy.png")
    assert "as well" in said("learn", "x", "--with", same, "--without", str(tmp_path / "few"))
    assert "two folders" in said("learn", "x", "--with", same)
    assert not list((empty / "own").glob("[!.]*"))


def test_a_table_of_celeba_and_a_csv(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list_attr_celeba.txt").write_text("3\nBald Bangs\na.jpg -1 1\nb.jpg  1 -1\nc.jpg 1 1\ngone.jpg 1 1\n")
    (tmp_path / "table.csv").write_text("path;Hair, long;constant\na.jpg;0.5;1\nb.jpg;-1;1\nc.jpg;x;1\n")
    found = examples.of_table(tmp_path / "list_attr_celeba.txt", tmp_path)
    assert ([photo.name for photo in found.photos], found.columns) == (["a.jpg", "b.jpg", "c.jpg"], ("bald", "bangs"))
    np.testing.assert_array_equal(found.values, [[-1, 1], [1, -1], [1, 1]])
    assert "1 of its rows name a photo that is not in" in " ".join(found.notes)
    table = examples.of_table(tmp_path / "table.csv", tmp_path)
    assert ([photo.name for photo in table.photos], table.columns) == (["a.jpg", "b.jpg"], ("hair_long",))
    assert "1 of its rows cannot be read" in " ".join(table.notes)
    assert "teaches nothing: constant" in " ".join(table.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no table"),
        ("path,smile\n", "no rows"),
        ("path,other\na.jpg,b\n", "columns of numbers"),
        ("path,x,x\na.jpg,1,2\n", "a name twice"),
        ("path,x\ngone.jpg,1\n", "None of the photos"),
    ],
)
def test_tables_that_do_not_do(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "table.csv").write_text(text)
    assert words in refusal(lambda: examples.of_table(tmp_path / "table.csv", tmp_path), ErrorCode.BAD_DATA)


def test_two_at_once_do_not_mix(empty: Path) -> None:
    with own.alone():
        assert "at work" in refusal(lambda: own.forget("x"), ErrorCode.BUSY)
