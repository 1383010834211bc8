"""The bundled starter: there from the first minute, small, made here, and good enough for an edit that can be seen."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.checks import refusal, run_dfi

from dfi_server import paths
from dfi_server.edit import Editor
from dfi_server.errors import ErrorCode
from dfi_server.photo.pixels import composite
from dfi_server.vectors.store import Store, open_store

PANEL = ("smiling", "mouth_wide_open", "eyes_open", "senior", "eyeglasses", "no_beard", "mustache", "heavy_makeup")


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """What a new user has: nothing but the package."""
    monkeypatch.setenv("DFI_HOME", str(tmp_path / "home"))
    return Editor(device="cpu")


def test_it_is_the_default_until_there_is_a_full_store(
    starter: Editor, tiny_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert starter.store.is_starter
    assert starter.store_name == "starter"
    monkeypatch.setenv("DFI_HOME", str(tiny_home))
    assert open_store().name == "lfw"
    assert not open_store().is_starter
    assert open_store("starter").is_starter


def test_it_is_small_and_has_all_attributes(starter: Editor) -> None:
    assert sum(file.stat().st_size for file in paths.STARTER.glob("*.safetensors")) < 31e6
    assert len(starter.attributes) == 73
    assert set(PANEL) <= set(starter.attributes)
    for name in starter.attributes:
        for layer in starter.store.vector(name):
            assert layer.isfinite().all()
            assert layer.square().mean().sqrt() == pytest.approx(1, abs=0.2)  # what compression lost


def test_its_card_says_where_it_comes_from(starter: Editor) -> None:
    training = json.loads((paths.STARTER / "training.json").read_text())
    card = (paths.STARTER / "README.md").read_text()
    assert f"| {training['photos']} photos of LFW" in card
    assert f"| {training['steps']}, of 4 photos" in card
    assert f"seed {training['seed']}" in card
    assert training["curve"][-1][0] == training["steps"]
    assert sum(training["curve"][-1][1:4]) < 0.5 * sum(training["curve"][0][1:4])
    assert starter.store.info.photos <= training["photos"]


@pytest.mark.parametrize("name", [paths.PREVIEW, paths.STARTER.name])
def test_a_solve_begins_with_a_learnt_step_and_takes_fewer(name: str, portrait: np.ndarray) -> None:
    editor = Editor(name, device="cpu")
    led = editor.edit(portrait, {"senior": 0.4})
    editor.stage.led = False
    alone = editor.edit(portrait, {"senior": 0.4})
    assert led.evaluations < alone.evaluations
    assert led.loss < 1.02 * alone.loss


def test_a_damaged_learnt_step_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PREDICTORS", Path(shutil.copytree(paths.PREDICTORS, tmp_path / "predictors")))
    store = Store(paths.STARTER)
    file = store.predictor_file
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    sentence = refusal(lambda: store.predictor(torch.device("cpu")), ErrorCode.BAD_STORE)
    assert f"{file} is damaged" in sentence and "install dfi-server again" in sentence
    file.unlink()
    assert store.predictor(torch.device("cpu")) is None


@pytest.mark.parametrize("damage", ["other", "cut", "gone"])
def test_a_damaged_network_is_mended_by_installing_it_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dfi setup` does not touch the starter."""
    monkeypatch.setattr(paths, "STARTER", Path(shutil.copytree(paths.STARTER, tmp_path / "starter")))
    file = paths.STARTER / "network.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: None if damage == "other" else -9])
    sentence = refusal(open_store("starter").weights, ErrorCode.BAD_STORE)
    assert "install dfi-server again" in sentence
    assert "dfi setup" not in sentence


@pytest.mark.parametrize(("name", "rows"), [("eyeglasses", slice(95, 150)), ("smiling", slice(130, 185))])
def test_an_edit_shows_where_it_should(name: str, rows: slice, starter: Editor, portrait: np.ndarray) -> None:
    edit = starter.edit(portrait, {name: -0.4 if name == "smiling" else 0.4})
    change = np.abs(composite(portrait, edit.patch).astype(int) - portrait).max(axis=2)
    assert change[rows, 170:280].max() > 60
    assert change[rows, 170:280].sum() > 0.6 * change.sum()
    assert not change[:, :100].any()
    assert not change[300:].any()


def test_a_mouth_that_opens_takes_the_chin_down(starter: Editor, portrait: np.ndarray) -> None:
    edit = starter.edit(portrait, {"mouth_wide_open": 0.4})
    change = np.abs(composite(portrait, edit.patch).astype(int) - portrait).mean(axis=2)
    chin = (slice(178, 188), slice(206, 236))
    assert change[chin].mean() > 15


@pytest.mark.slow
def test_the_command_line_says_that_it_is_used_and_how_to_get_more(tmp_path: Path, portrait: np.ndarray) -> None:
    Image.fromarray(portrait).save(tmp_path / "portrait.png")
    edit: Callable[..., subprocess.CompletedProcess[str]] = lambda *more: run_dfi(  # noqa: E731
        *(
            "edit",
            tmp_path / "portrait.png",
            tmp_path / "out.png",
            "--set",
            "eyeglasses=0.4",
            "--iterations",
            "2",
            *more,
        ),
        home=tmp_path / "empty",
    )
    for done in (edit(), edit("--store", "starter")):
        assert done.returncode == 0, done.stderr
        assert "store starter" in done.stdout
        assert "dfi setup" in done.stdout
    assert not (tmp_path / "empty").exists()  # nothing was downloaded or built
