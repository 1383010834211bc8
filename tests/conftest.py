"""What the tests run on: a tiny real store for any machine, and the real one where the data is.

DFI_TEST_DATA names a folder with lfw-deepfunneled.tgz, lfw_attributes.txt, lfw_attributes_real2999.txt,
vgg19-conv5_1.pth and portraits/. Without it, tests that need it are skipped; with CI set, a skip is a failure.
"""

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

# As dfi_server.commands.cli does, and as early: spinning threads make tests many times slower on busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import numpy as np
import pytest
from PIL import Image
from support.checks import run_dfi
from support.servers import Slow, serving
from support.tiny import TINY_ATTRIBUTES, drawn_face, tiny_weights, write_tiny_lfw

from dfi_server import paths
from dfi_server.photo import disk
from dfi_server.service.server import Server
from dfi_server.service.worker_process import Command, commands
from dfi_server.vectors import build, faces, lfw

hypothesis.settings.register_profile("dfi", deadline=None)  # what takes how long is no test's business
hypothesis.settings.load_profile("dfi")

pytest.register_assert_rewrite("gimp.applying")  # its assertions tell what they saw, as tests' do

LFW_LIMIT = 300
FACES = Path(__file__).parent / "support" / "faces"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: a broken basis shows before the minutes that real weights take.

    Where files are spread over processes (pytest-xdist), those with GIMP, the longest, begin: they mostly wait for it.
    """
    late = ("reliability", "data", "gimp")
    items.sort(key=lambda item: sum(2**n for n, name in enumerate(late) if item.get_closest_marker(name)))
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=lambda item: not item.get_closest_marker("gimp"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a skip in CI is a failure: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def data_dir() -> Path:
    folder = os.environ.get("DFI_TEST_DATA")
    if not folder:
        pytest.skip("DFI_TEST_DATA is not set: no LFW and no VGG-19 to test with")
    return Path(folder)


@pytest.fixture(scope="session")
def _tiny_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tiny_home")
    archive, table = write_tiny_lfw(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(home))
        build.build_lfw(paths.stores() / "tiny", tiny_weights(), archive, table, device="cpu")
        faces.write(archive, table)
        (paths.stores() / "lfw").symlink_to(paths.stores() / "tiny")  # so that it is the default store as well
    return home


@pytest.fixture
def tiny_home(_tiny_built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DFI_HOME with a small real network and the store "tiny", also the default; edits take well under a second."""
    monkeypatch.setenv("DFI_HOME", str(_tiny_built))
    return _tiny_built


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """A drawn face that no store was built from: (250, 250, 3) uint8."""
    return np.asarray(drawn_face(np.full(len(TINY_ATTRIBUTES), -1.0), np.random.default_rng(99)))


@pytest.fixture
def dfi(tiny_home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`dfi(...)` on the tiny store."""
    return lambda *arguments, **options: run_dfi(*arguments, home=tiny_home, **options)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """The bundled sample, (512, 512, 3): one face, some 110 pixels tall."""
    return disk.read(paths.SAMPLE).pixels


@pytest.fixture(scope="session")
def closed() -> np.ndarray:
    """A sharp face, 600 pixels tall, with its mouth closed."""
    return disk.read(FACES / "closed.jpg").pixels


@pytest.fixture(scope="session")
def toothy() -> np.ndarray:
    """Another one, showing teeth."""
    return disk.read(FACES / "smiling.jpg").pixels


@pytest.fixture(scope="session")
def two_faces(portrait: np.ndarray) -> np.ndarray:
    """The sample twice, (512, 840, 3): a small one left of x = 320, a larger one right of 325."""
    both = np.full((512, 840, 3), 128, dtype=np.uint8)
    both[100:420, :320] = Image.fromarray(portrait).resize((320, 320), Image.Resampling.BICUBIC)
    both[:, 325:837] = portrait
    return both


@pytest.fixture(scope="session")
def lfw_home(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A DFI_HOME with the real VGG-19 and vectors of LFW's first 300 photos, built by `dfi setup`."""
    home = tmp_path_factory.mktemp("lfw_home")
    done = run_dfi(
        "setup",
        *("--vgg19", data_dir / "vgg19-conv5_1.pth"),
        *("--lfw", data_dir / "lfw-deepfunneled.tgz"),
        *("--attributes", data_dir / "lfw_attributes.txt"),
        *("--limit", str(LFW_LIMIT)),
        home=home,
    )
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="session")
def lfw_photo(data_dir: Path) -> Callable[[str], np.ndarray]:
    """`lfw_photo(key)`: a photo of the archive, (250, 250, 3) uint8."""
    return lambda key: next(
        np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        for name, jpeg in lfw.read_photos(data_dir / "lfw-deepfunneled.tgz")
        if name == key
    )


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(tmp_path)


@pytest.fixture
def slow_server(slow: Slow) -> Iterator[Server]:
    with serving(slow.command) as server:
        yield server


@pytest.fixture
def silence_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests with Raw clients that are about something else, however slow the machine."""
    monkeypatch.setattr("dfi_server.service.server.CLIENT_SILENCE_SECONDS", 60.0)


@pytest.fixture(scope="module")
def _real_server(_tiny_built: Path) -> Iterator[Server]:
    (command,) = commands()
    with serving(Command(command.arguments, {"DFI_HOME": str(_tiny_built)})) as server:
        yield server


@pytest.fixture
def real_server(_real_server: Server, tiny_home: Path) -> Server:
    """A server with the tiny store, which the test's own process uses as well."""
    return _real_server
