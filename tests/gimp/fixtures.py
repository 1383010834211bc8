"""A pytest plug-in for the tests that run GIMP: where it is, servers for it, and a face to edit."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gimp.gimp import find_gimp
from gimp.server import serving


@pytest.fixture(scope="session")
def gimp_root() -> Path:
    root = find_gimp()
    if root is None:
        pytest.skip("no GIMP >= 3: set DFI_TEST_GIMP_ROOT to a root made by tests/gimp/make_root.sh")
    return root


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
