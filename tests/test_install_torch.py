"""Which torch install.sh takes: its own index is played by a folder on this machine."""

import functools
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from gimp.gimp import REPOSITORY
from support.home import Home, cache, program

PINS = dict(re.findall(r"^(torch|torchvision)==(\S+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
HERE = Path(torch.__file__).parent.parent
NOT_THERE = f"does not give torch {PINS['torch']} for the CPU here"
OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
OFFLINE |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}

# The wheel for the CPU is played by the torch of these tests.
LEAD_ON = """import importlib.util, sys
spec = importlib.util.spec_from_file_location({0!r}, {1!r} + "/__init__.py", submodule_search_locations=[{1!r}])
sys.modules[{0!r}] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[{0!r}])
"""
MODULES = {"torch": ("torch", "torchgen"), "torchvision": ()}
NEEDS = {
    "torch": ("filelock", "typing-extensions>=4.10", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2", "fsspec"),
    "torchvision": ("numpy", f"torch=={PINS['torch']}", "pillow"),
}


def detect(**variables: Path) -> bool:
    """What install.sh thinks of this machine, or of one that lies in folders of the test."""
    told = "; ".join(f"{name}={path}" for name, path in variables.items())
    script = f"constraints={REPOSITORY}/constraints.txt; . {REPOSITORY}/torch.bash; {told or ':'}; has_nvidia_gpu"
    return subprocess.run(["bash", "-c", script], check=False).returncode == 0


@pytest.fixture
def no_gpu() -> None:
    if detect():
        pytest.skip("this machine has an NVIDIA GPU")


@pytest.fixture
def home() -> Iterator[Home]:
    """Not in /tmp, which may be memory."""
    (cache() / "dfi-tests").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="home-", dir=cache() / "dfi-tests") as folder:
        yield Home(Path(folder))


class Index:
    """A package index: put() wheels there; asked: the paths that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, form: str, *words: object) -> None:
                asked.append(self.path)

        self._folder = folder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, name: str, version: str) -> None:
        (self._folder / name).mkdir(parents=True)
        path = self._folder / name / f"{name}-{version}-py3-none-any.whl"
        about = f"{name}-{version}.dist-info"
        files = {
            **{f"{module}/__init__.py": LEAD_ON.format(module, str(HERE / module)) for module in MODULES[name]},
            f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + "".join(f"Requires-Dist: {need}\n" for need in NEEDS[name]),
            f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(path, "w") as wheel:
            for inside, text in files.items():
                wheel.writestr(inside, text)
            wheel.writestr(f"{about}/RECORD", "".join(f"{inside},,\n" for inside in [*files, f"{about}/RECORD"]))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "index")
    thread = threading.Thread(target=index.server.serve_forever)
    thread.start()
    yield index
    index.server.shutdown()
    thread.join()
    index.server.server_close()


@pytest.mark.slow
def test_without_a_gpu_no_cuda_is_downloaded(no_gpu: None, home: Home, index: Index) -> None:
    """A whole installation, which works; an update needs no index of PyTorch's."""
    index.put("torch", f"{PINS['torch']}+cpu")
    index.put("torchvision", f"{PINS['torchvision']}+cpu")
    done = home.install(DFI_TORCH_CPU_INDEX=index.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Installing torch for the CPU from {index.url} (200 MB) ... done" in done.stdout
    assert "2.7 GB" not in done.stdout and NOT_THERE not in done.stdout
    assert "The edited portrait" in done.stdout

    listed = [home.state / "venv/bin/python", "-m", "pip", "list", "--format=json"]
    packages = json.loads(subprocess.run(listed, capture_output=True, check=True).stdout)
    versions = {package["name"]: package["version"] for package in packages}
    assert versions["torch"] == f"{PINS['torch']}+cpu"
    assert versions["torchvision"] == f"{PINS['torchvision']}+cpu"
    assert not [name for name in versions if name.startswith(("nvidia", "cuda", "triton"))]

    again = home.install(DFI_TORCH_CPU_INDEX="http://127.0.0.1:9")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "torch for the CPU" not in again.stdout and "2.7 GB" not in again.stdout


def falls_back(home: Home, index: str) -> str:
    """What is said where the registry cannot be reached either, which ends it."""
    done = home.install(DFI_TORCH_CPU_INDEX=index, **OFFLINE)
    assert "Check the connection to https://pypi.org" in done.stderr
    assert f"but {index} {NOT_THERE}" in done.stdout
    assert "registry's is taken, with CUDA" in done.stdout
    assert "(2.7 GB with torch)" in done.stdout.partition(NOT_THERE)[2]
    return done.stdout


@pytest.mark.slow
def test_an_index_out_of_reach_is_given_up_soon(no_gpu: None, home: Home) -> None:
    """One that refuses, and one that takes the call and says nothing."""
    falls_back(home, "http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        falls_back(home, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 60  # most of it the virtual environment and pip


@pytest.mark.slow
def test_an_index_without_this_version(no_gpu: None, home: Home, index: Index) -> None:
    index.put("torch", "2.1.0+cpu")
    said = falls_back(home, index.url)
    assert f"Installing torch for the CPU from {index.url} (200 MB) ... failed" in said


@pytest.mark.slow
def test_with_a_gpu_pytorch_s_index_is_not_asked(home: Home, index: Index, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin/nvidia-smi", "echo GPU 0: of this test")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    done = home.install(DFI_TORCH_CPU_INDEX=index.url, PATH=path, **OFFLINE)
    assert "Installing the program and what it needs (2.7 GB with torch)" in done.stdout
    assert NOT_THERE not in done.stdout
    assert index.asked == []


@pytest.mark.parametrize(
    ("vendor", "kind", "expected"),
    [
        pytest.param("0x10de", "0x030000", True, id="graphics card"),
        pytest.param("0x10de", "0x030200", True, id="computing card"),
        pytest.param("0x10de", "0x040300", False, id="NVIDIA's sound"),
        pytest.param("0x8086", "0x030000", False, id="Intel's graphics"),
        pytest.param("0x1002", "0x030000", False, id="AMD's graphics"),
    ],
)
def test_a_card_is_found_without_its_driver(
    no_gpu: None, tmp_path: Path, vendor: str, kind: str, expected: bool
) -> None:
    device = tmp_path / "pci" / "0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    assert detect(pci_devices=tmp_path / "pci", nvidia_driver=tmp_path / "none") == expected


def test_a_driver_is_enough(no_gpu: None, tmp_path: Path) -> None:
    """In a container the bus may be hidden."""
    (tmp_path / "driver" / "0000:01:00.0").mkdir(parents=True)
    assert detect(pci_devices=tmp_path / "none", nvidia_driver=tmp_path / "driver")
    (tmp_path / "driver" / "0000:01:00.0").rmdir()
    assert not detect(pci_devices=tmp_path / "none", nvidia_driver=tmp_path / "driver")
