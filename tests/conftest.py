"""What the tests run on: a tiny real store for any machine, and the real one where the data is.

DFI_TEST_DATA names a folder with lfw-deepfunneled.tgz, lfw_attributes.txt, lfw_attributes_real2999.txt,
vgg19-conv5_1.pth and portraits/. Without it, tests that need it are skipped; with CI set, a skip is a failure.
"""

import contextlib
import importlib.resources
import io
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

# As dfi_server.cli does, and as early: spinning threads make tests many times slower on busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import torch
from PIL import Image
from servers import Slow, serving

from dfi_server import build, lfw, paths, photo_file, vgg
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.server import Server
from dfi_server.worker_process import Command, commands

TINY_ATTRIBUTES = ("smiling", "eyeglasses", "senior", "mustache", "mouth_wide_open", "5_o_clock_shadow")
LFW_LIMIT = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: a broken basis shows before the minutes that a real GIMP and real weights take."""
    late = ("reliability", "data", "gimp")
    items.sort(key=lambda item: sum(2**n for n, name in enumerate(late) if item.get_closest_marker(name)))


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


def tiny_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A network of VGG-19's shape with 8 to 32 channels and random weights, under torchvision's key names."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    channels = 3
    for i, width in zip(vgg._CONVOLUTIONS, [8, 8, 16, 16, *[24] * 4, *[32] * 4, 32], strict=True):
        weights[f"features.{i}.weight"] = (
            torch.randn(width, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
        )
        weights[f"features.{i}.bias"] = torch.randn(width, generator=generator) * 0.05
        channels = width
    return weights


def drawn_face(values: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """A 250x250 cartoon face in LFW's layout whose parts follow the values of TINY_ATTRIBUTES."""
    shape = np.full((250, 250, 3), rng.uniform(60, 200, 3), dtype=np.float32)
    y, x = np.mgrid[:250, :250]
    shape[((x - 125) / 55) ** 2 + ((y - 125) / 75) ** 2 < 1] = rng.uniform((160, 120, 90), (240, 200, 170))
    for eye in (100, 150):
        shape[(x - eye) ** 2 + (y - 110) ** 2 < 40] = 20
        if values[1] > 0:
            shape[abs((x - eye) ** 2 + (y - 110) ** 2 - 300) < 60] = 10
    curve = (x - 125) ** 2 / (40 if values[0] > 0 else -80)
    shape[(abs(y + curve - 165) < (9 if values[4] > 0 else 3)) & (abs(x - 125) < 22)] = (150, 40, 50)
    if values[3] > 0:
        shape[(abs(y - 150) < 4) & (abs(x - 125) < 20)] = 30
    if values[2] > 0:
        shape[((x - 125) / 60) ** 2 + ((y - 60) / 25) ** 2 < 1] = 210
    if values[5] > 0:
        shape[(y > 165) & (((x - 125) / 52) ** 2 + ((y - 125) / 72) ** 2 < 1) & (rng.random((250, 250)) < 0.3)] -= 60
    return Image.fromarray(np.clip(shape + rng.normal(0, 4, shape.shape), 0, 255).astype(np.uint8))


def write_tiny_lfw(folder: Path, faces: int = 48) -> tuple[Path, Path]:
    """An archive and an attribute table in LFW's formats, of drawn faces with real-valued attributes."""
    rng = np.random.default_rng(7)
    titles = [name.replace("_", " ").title() for name in TINY_ATTRIBUTES]
    lines = ["# drawn", "\t".join(["#", "person", "imagenum", *titles])]
    archive = folder / "faces.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for i in range(faces):
            values = rng.normal(size=len(titles))
            lines.append("\t".join([f"Face Number{i}", "1", *map(str, values)]))
            content = io.BytesIO()
            drawn_face(values, rng).save(content, "JPEG", quality=95)
            member = tarfile.TarInfo(f"lfw-deepfunneled/Face_Number{i}/Face_Number{i}_0001.jpg")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)
    table = folder / "attributes.txt"
    table.write_text("\n".join(lines) + "\n")
    return archive, table


@pytest.fixture(scope="session")
def _tiny_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tiny_home")
    archive, table = write_tiny_lfw(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFI_HOME", str(home))
        build.build_lfw(paths.stores() / "tiny", tiny_weights(), archive, table, device="cpu")
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


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Within it no file can grow beyond `room` bytes: a write fails in its middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # Python ignores the signal that comes with it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refusal(action: Callable[[], object], code: ErrorCode) -> str:
    """The sentence with which `action` is refused, under that code."""
    with pytest.raises(DFIError) as caught:
        action()
    assert caught.value.code is code
    return caught.value.message


def run_dfi(*arguments: str | Path, home: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "dfi_server.cli", *map(str, arguments)],
        env={**os.environ, "DFI_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def dfi(tiny_home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`dfi(...)` on the tiny store."""
    return lambda *arguments, **options: run_dfi(*arguments, home=tiny_home, **options)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """The bundled sample, (512, 512, 3): one face, some 110 pixels tall."""
    with importlib.resources.as_file(importlib.resources.files("dfi_server") / "sample" / "astronaut.jpg") as path:
        return photo_file.read(path).pixels


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


@pytest.fixture(scope="module")
def _real_server(_tiny_built: Path) -> Iterator[Server]:
    (command,) = commands()
    with serving(Command(command.arguments, {"DFI_HOME": str(_tiny_built)})) as server:
        yield server


@pytest.fixture
def real_server(_real_server: Server, tiny_home: Path) -> Server:
    """A server with the tiny store, which the test's own process uses as well."""
    return _real_server
