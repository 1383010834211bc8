"""A VGG-19 is led by the starter: as good in fewer steps. Without the starter it goes alone, and says so."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dfi_server import paths, stage
from dfi_server.edit import Editor
from dfi_server.solver import reconstruct
from dfi_server.solver.vgg import VGGFeatures

UNSEEN = "Rupert_Grint_0002"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """The starter's network, without a predictor and in VGG-19's place: a full store takes too long to build here."""
    monkeypatch.setattr(VGGFeatures, "is_vgg19", True)
    with monkeypatch.context() as patch:
        patch.setattr(paths, "PREDICTORS", tmp_path)
        return Editor("starter", "cpu")


@pytest.mark.parametrize("name", ["smiling", "eyeglasses", "senior"])
def test_the_starter_leads(name: str, large: Editor, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LED_GAIN", 1.0)  # so that both are asked for the same
    led = large.edit(portrait, {name: 0.4})
    monkeypatch.setattr(large.stage, "led", False)
    alone = large.edit(portrait, {name: 0.4})
    assert led.evaluations < 0.7 * alone.evaluations
    assert led.loss < 1.02 * alone.loss


def test_what_the_starter_does_not_know_is_solved_alone(large: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct, "LED_ITERATIONS", 7)  # the starter's own is 20 as well
    assert large.stage.most_iterations({"smiling": 0.4, "my_own": 0.2}) == 7
    assert large.stage.most_iterations({"my_own": 0.4}) == large.store.info.iterations != 7


def test_a_network_that_is_no_vgg19_is_not_led(tiny_home: Path) -> None:
    tiny = Editor("tiny").stage
    assert tiny.most_iterations({"smiling": 0.4}) == tiny.store.info.iterations


@pytest.mark.data
def test_without_the_starter_vgg19_goes_alone_and_says_so_once(
    lfw_home: Path,
    lfw_photo: Callable[[str], np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("DFI_HOME", str(lfw_home))
    monkeypatch.setattr(paths, "STARTER", tmp_path / "starter")
    editor, face = Editor(), lfw_photo(UNSEEN)
    with caplog.at_level(logging.WARNING):
        edits = [editor.edit(face, {name: 0.4}, iterations=2) for name in ("smiling", "senior")]
    assert [edit.iterations for edit in edits] == [2, 2]
    assert caplog.text.count("Until then edits take longer.") == 1
