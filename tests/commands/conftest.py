"""A folder with a photo, and a command that must succeed or fail in it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checks import Run

from dfi_server.commands import cli


@pytest.fixture
def folder(tmp_path: Path, face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a photo `face.png` in it."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Image.fromarray(face).save("face.png")
    return tmp_path / "work"


@pytest.fixture
def succeeds(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> str:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command must fail with exactly one line, and leave no file that was not there."""

    def run(*arguments: str) -> str:
        before = {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*")}
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        assert code == 1
        assert out == ""
        assert re.fullmatch(r"dfi: [^\n]+[.:?)]\n", err), err
        assert "Traceback" not in err
        assert {path: path.stat().st_mtime_ns for path in Path.cwd().rglob("*")} == before
        return err

    return run
