"""tools/wheels.py, which asks a registry for wheels: here one that has what the package registry had."""

import importlib.util
import sys

import pytest
from gimp.gimp import REPOSITORY
from packaging.utils import canonicalize_name


def test_docs_have_what_the_tool_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of pyvips there is the source alone."""
    spec = importlib.util.spec_from_file_location("wheels", REPOSITORY / "tools/wheels.py")
    assert spec and spec.loader
    wheels = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "wheels", wheels)  # where its dataclasses look for their module
    spec.loader.exec_module(wheels)

    def files(name: str) -> list[str]:
        versions = [str(pin.specifier)[2:] for pin in wheels.locked() if canonicalize_name(pin.name) == name]
        end = ".tar.gz" if name == "pyvips" else "-py3-none-any.whl"
        return [f"{name.replace('-', '_')}-{version}{end}" for version in versions]

    monkeypatch.setattr(wheels, "files", files)
    monkeypatch.setattr(sys, "argv", ["wheels.py", "--extra", "heif"])
    assert wheels.main() == 1
    printed = capsys.readouterr().out.strip()
    assert len(printed.splitlines()) == 7
    assert printed in (REPOSITORY / "docs/install.md").read_text()
