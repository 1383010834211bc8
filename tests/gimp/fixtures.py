"""A pytest plug-in for the tests that run GIMP: where it is, servers for it, and a face to edit."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp import archive
from gimp.dialog import DIALOG, LOG, MESSAGE
from gimp.gimp import Gimp, Window, find_gimps, running
from gimp.server import serving


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run in the first GIMP; those marked every_gimp in each."""
    if "gimp_root" in metafunc.fixturenames:
        roots = find_gimps()
        if not metafunc.definition.get_closest_marker("every_gimp"):
            roots = roots[:1]
        names = [root.name or "path" for root in roots]
        metafunc.parametrize("gimp_root", roots or [None], ids=names or ["none"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def gimp_root(request: pytest.FixtureRequest) -> Path:
    root: Path | None = request.param
    if root is None:
        pytest.skip("no GIMP >= 3: set DFI_TEST_GIMP_ROOT to a root made by tests/gimp/make_root.sh")
    return root


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The .zip and the .gex that users download."""
    made: tuple[Path, Path] = archive.make_extension().make(tmp_path_factory.mktemp("dist"), archive.SECOND)
    return made


@pytest.fixture
def screenshots(gimp_root: Path, tmp_path: Path) -> Path:
    """Where to put pictures: a folder for each GIMP in DFI_TEST_SCREENSHOTS, if that is set."""
    return Path(os.environ.get("DFI_TEST_SCREENSHOTS", tmp_path)) / gimp_root.name


@pytest.fixture(scope="module")
def gimp(gimp_root: Path) -> Iterator[Gimp]:
    with running(Gimp(gimp_root)) as gimp:
        yield gimp


@pytest.fixture(scope="module")
def window(gimp_root: Path) -> Iterator[Window]:
    with running(Window(gimp_root)) as window:
        yield window


@pytest.fixture
def no_dialog_stays(window: Window) -> Iterator[None]:
    """Or one failure would bring down the tests after it."""
    yield
    print(window.state())
    for title in (LOG, MESSAGE, DIALOG):
        for left in window.windows(title):
            window.focus(left)
            window.key("Escape")


@pytest.fixture(scope="session")
def tiny(_tiny_built: Path) -> Iterator[str]:
    """Endpoint of a server with the tiny store."""
    with serving(_tiny_built) as (endpoint, _):
        yield endpoint


@pytest.fixture(scope="session")
def real(lfw_home: Path) -> Iterator[str]:
    """Endpoint of a server with VGG-19 and vectors of LFW."""
    with serving(lfw_home) as (endpoint, _):
        yield endpoint


@pytest.fixture(scope="session")
def unseen(lfw_photo: Callable[[str], np.ndarray]) -> np.ndarray:
    """A photo of LFW that is not among those of the store lfw_home: (250, 250, 3) uint8."""
    return lfw_photo("Amer_al-Saadi_0002")
