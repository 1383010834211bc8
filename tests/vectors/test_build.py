"""Building a store: the vectors against a direct computation, and what is left behind when a build goes wrong."""

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.checks import full_disk, refusal
from support.tiny import TINY_ATTRIBUTES, tiny_weights, write_tiny_lfw

from dfi_server import paths
from dfi_server.errors import ErrorCode
from dfi_server.face import layout
from dfi_server.solver import vgg
from dfi_server.vectors import build, lfw
from dfi_server.vectors.store import Store, open_store

FACES = 20


@dataclass
class FaceSet:
    """A few drawn faces: the files that a build reads, and what it should see in them."""

    archive: Path
    table: Path
    weights: Path
    design: np.ndarray  # (FACES, K) attribute values
    features: list[np.ndarray]  # per layer (FACES, C, H, W)

    def rows(self) -> Iterator[build.FaceRow]:
        """The faces as a build gets them."""
        for (key, jpeg), values in zip(lfw.read_photos(self.archive), self.design, strict=True):
            yield build.FaceRow(key, layout.to_frame(lfw.decode(jpeg)), values)


@pytest.fixture(scope="module")
def face_set(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    folder = tmp_path_factory.mktemp("faces")
    archive, table = write_tiny_lfw(folder, faces=FACES)
    weights = tiny_weights()
    save_file(weights, folder / "weights.safetensors")
    photos = list(lfw.read_photos(archive))
    values = lfw.read_attributes(table).rows
    network = vgg.load(weights, torch.device("cpu"))  # in the precision that a build uses on this machine
    with torch.inference_mode():
        frames = torch.from_numpy(np.stack([layout.to_frame(lfw.decode(jpeg)) for _, jpeg in photos]))
        features = [layer.float().numpy() for layer in network(frames.permute(0, 3, 1, 2) / 255)]
    design = np.stack([values[key] for key, _ in photos])
    return FaceSet(archive, table, folder / "weights.safetensors", design, features)


def vectors(rows: Iterator[build.FaceRow], method: build.Method = "ridge") -> dict[str, vgg.Features]:
    return build.accumulate(rows, TINY_ATTRIBUTES, tiny_weights(), method=method, device="cpu").vectors()


def cosine(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return float(a @ b / np.sqrt(a @ a * (b @ b)))


def assert_same_direction(a: dict[str, vgg.Features], b: dict[str, vgg.Features]) -> None:
    assert a.keys() == b.keys()
    for name, layers in a.items():
        for one, other in zip(layers, b[name], strict=True):
            assert cosine(one, other) > 0.9999, name


def test_ridge_vectors_are_those_of_a_ridge_regression(face_set: FaceSet) -> None:
    """Against numpy on the stacked features of all photos: centred, in standard units, k = build.RIDGE."""
    design = (face_set.design - face_set.design.mean(axis=0)) / face_set.design.std(axis=0)
    solution = np.linalg.inv(design.T @ design + build.RIDGE * np.eye(len(TINY_ATTRIBUTES))) @ design.T
    found = vectors(face_set.rows())
    assert tuple(found) == TINY_ATTRIBUTES
    for position, name in enumerate(TINY_ATTRIBUTES):
        for layer, features in zip(found[name], face_set.features, strict=True):
            expected = np.tensordot(solution[position], features - features.mean(axis=0), axes=1)
            assert layer.shape == expected.shape
            np.testing.assert_allclose(layer, expected, atol=2e-3 * np.abs(expected).max())


def test_mean_vectors_are_differences_of_means(face_set: FaceSet) -> None:
    """The paper's: with the attribute minus without, on values' signs."""
    found = vectors(face_set.rows(), "mean")
    for position, name in enumerate(TINY_ATTRIBUTES):
        has = face_set.design[:, position] > 0
        for layer, features in zip(found[name], face_set.features, strict=True):
            expected = features[has].mean(axis=0) - features[~has].mean(axis=0)
            np.testing.assert_allclose(layer, expected, atol=2e-3 * np.abs(expected).max())


def test_ridge_holds_correlated_attributes_still() -> None:
    """Features that follow attribute 0 alone: the mean difference of a correlated attribute 1 shows them, ridge not."""
    rng = np.random.default_rng(0)
    cause = rng.normal(size=2000)
    values = np.stack([cause, cause + 0.5 * rng.normal(size=2000)], axis=1).astype(np.float32)
    features = torch.from_numpy(values[:, :1] * np.array([1, -2, 3], np.float32)).reshape(2000, 3, 1, 1)
    lengths = {}
    for method in ("ridge", "mean"):
        sums = build.Sums(("cause", "follower"), method, torch.device("cpu"))
        for part in range(0, 2000, 500):
            sums.add(torch.from_numpy(values[part : part + 500]), [features[part : part + 500]] * 3)
        found = sums.vectors()
        lengths[method] = (found["follower"][0].norm() / found["cause"][0].norm()).item()
    assert lengths["ridge"] < 0.05
    assert lengths["mean"] > 0.7


@pytest.mark.parametrize(("other", "comes_along"), [("high_cheekbones", True), ("male", False)])
def test_what_belongs_to_an_attribute_comes_along(other: str, comes_along: bool) -> None:
    """Cheeks rise with a smile: its vector has both. Whoever smiles is not for that reason a woman."""
    rng = np.random.default_rng(0)
    smile = rng.normal(size=2000)
    values = np.stack([smile, smile + 0.3 * rng.normal(size=2000)], axis=1).astype(np.float32)
    features = torch.from_numpy(np.stack([values[:, 0], values[:, 1], 0 * smile], axis=1).astype(np.float32))
    sums = build.Sums(("smiling", other), "ridge", torch.device("cpu"))
    sums.add(torch.from_numpy(values), [features.reshape(2000, 3, 1, 1)] * 3)
    mouth, elsewhere, _ = sums.vectors()["smiling"][0].flatten().tolist()
    assert (elsewhere > 0.5 * mouth) == comes_along
    assert elsewhere < 0.2 * mouth or comes_along


@settings(max_examples=30, deadline=None)
@given(scale=st.sampled_from([10, 1e-3, 1e4, 1e-9]), offset=st.floats(-3, 3), column=st.integers(0, 5))
def test_the_unit_and_zero_of_an_attribute_do_not_matter(
    scale: float, offset: float, column: int, face_set: FaceSet
) -> None:
    """LFW's real-valued scores have no unit: a column scaled and shifted gives the same vectors."""
    found = []
    for factor, shift in ((1, 0), (scale, offset * scale)):
        values = torch.from_numpy(face_set.design).clone()
        values[:, column] = values[:, column] * factor + shift
        sums = build.Sums(TINY_ATTRIBUTES, "ridge", torch.device("cpu"))
        sums.add(values, [torch.from_numpy(layer) for layer in face_set.features])
        found.append(sums.vectors())
    assert_same_direction(*found)


@settings(max_examples=40, deadline=None)
@given(constant=st.floats(-1e5, 1e5, width=32), method=st.sampled_from(["ridge", "mean"]), seed=st.integers(0, 99))
def test_an_attribute_that_never_varies_is_left_out(constant: float, method: build.Method, seed: int) -> None:
    """At any value: what rounding leaves of its variance must not pass for a signal."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(200, 3)).astype(np.float32)
    values[:, 1] = constant
    sums = build.Sums(("a", "constant", "c"), method, torch.device("cpu"))
    sums.add(torch.from_numpy(values), [torch.from_numpy(rng.random((200, 2, 1, 1), np.float32))] * 3)
    assert list(sums.vectors()) == ["a", "c"]


def test_features_come_in_one_pass_however_they_are_batched(face_set: FaceSet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vectors(face_set.rows())
    monkeypatch.setattr(build, "BATCH", 7)  # the last batch has 6, the last forward pass of a batch 1
    done: list[int] = []
    sums = build.accumulate(
        face_set.rows(), TINY_ATTRIBUTES, tiny_weights(), device="cpu", progress=lambda count: done.append(count)
    )
    assert_same_direction(whole, sums.vectors())
    assert sums.photos == done[-1] == FACES


def test_gaps_between_photos_and_rows_are_counted_and_not_fatal(
    face_set: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFI_HOME", str(tmp_path))
    lines = face_set.table.read_text().splitlines()
    lines[2:5] = ["Face Number0\t1\tbroken", *(line.replace("Number", "Elsewhere") for line in lines[3:5])]
    table = tmp_path / "gaps.txt"
    table.write_text("\n".join(lines))
    archive = tmp_path / "gaps.tgz"
    with tarfile.open(face_set.archive) as source, tarfile.open(archive, "w:gz") as target:
        for member in source:
            content = source.extractfile(member).read()
            if "Number7" in member.name or "Number9/" in member.name:
                content = content[: len(content) // 2]
                member.size = len(content)
            target.addfile(member, io.BytesIO(content))

    store, report = build.build_lfw(paths.stores() / "gaps", tiny_weights(), archive, table, device="cpu")
    # without a row: photos 0, 1, 2; unreadable: the broken line, photos 7 and 9; rows without a photo: two elsewhere
    assert report == build.BuildReport(FACES - 5, 3, 2, 3)
    assert store.info.photos == FACES - 5

    _, limited = build.build_lfw(paths.stores() / "gaps", tiny_weights(), archive, table, device="cpu", limit=8)
    assert (limited.photos, limited.rows_without_photo) == (8, 2)

    held_out = {"Face_Number15_0001", "Face_Number16_0001"}
    _, kept = build.build_lfw(
        paths.stores() / "gaps", tiny_weights(), archive, table, device="cpu", keep=lambda key: key not in held_out
    )
    assert (kept.photos, kept.rows_without_photo) == (FACES - 7, 2)


@pytest.fixture
def build_new(face_set: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """`build_new()` builds the store "new" in an empty DFI_HOME."""
    monkeypatch.setenv("DFI_HOME", str(tmp_path))

    def run(**options: Any) -> Store:
        files = {"weights": tiny_weights(), "archive": face_set.archive, "attribute_file": face_set.table}
        return build.build_lfw(paths.stores() / "new", **(files | {"device": "cpu"} | options))[0]

    return run


def test_a_build_that_cannot_learn_anything_is_refused(
    build_new: Callable[..., Store], face_set: FaceSet, tmp_path: Path
) -> None:
    lines = face_set.table.read_text().splitlines()
    strangers, uniform = tmp_path / "strangers.txt", tmp_path / "uniform.txt"
    strangers.write_text("\n".join(line.replace("Face", "Stranger") for line in lines))
    uniform.write_text("\n".join(lines[:2] + [f"Face Number{i}\t1" + "\t1" * 6 for i in range(FACES)]))
    message = refusal(lambda: build_new(attribute_file=strangers), ErrorCode.BAD_DATA)
    assert str(strangers) in message
    assert "deep-funneled" in message
    refusal(lambda: build_new(attribute_file=uniform), ErrorCode.BAD_DATA)
    refusal(lambda: build_new(limit=1), ErrorCode.BAD_DATA)
    refusal(lambda: open_store("new"), ErrorCode.NO_STORE)


def test_a_build_from_damaged_files_keeps_the_previous_store(
    build_new: Callable[..., Store], face_set: FaceSet, tmp_path: Path
) -> None:
    before = build_new().info
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(face_set.archive.read_bytes()[:-50])
    assert str(cut) in refusal(lambda: build_new(archive=cut), ErrorCode.BAD_DATA)
    refusal(lambda: build_new(archive=tmp_path / "absent.tgz"), ErrorCode.BAD_DATA)
    refusal(lambda: build_new(attribute_file=tmp_path / "absent.txt"), ErrorCode.BAD_DATA)
    assert open_store("new").info == before
    assert build_new(method="mean").info.method == "mean difference"


@pytest.mark.parametrize("room", [1000, 100_000, 400_000])  # the network has 270 kB, the vectors 1 MB
def test_a_full_disk_is_a_sentence_and_keeps_the_previous_store(room: int, build_new: Callable[..., Store]) -> None:
    store = build_new().path
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    with full_disk(room):
        message = refusal(lambda: build_new(method="mean"), ErrorCode.NO_SPACE)
    assert str(store.parent) in message
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    assert [path.name for path in store.parent.iterdir()] == ["new"]
    assert build_new(method="mean").info.method == "mean difference"


KILLED = """
import dataclasses, os, random, signal, sys, time
from pathlib import Path
import torch
from dfi_server import paths
from dfi_server.solver import vgg
from dfi_server.vectors import build
from dfi_server.vectors.store import Store, open_store, write_store

weights, archive, table = map(Path, sys.argv[1:])
torch.set_num_threads(1)
store = open_store("new")
vectors = {name: store.vector(name) for name in store.info.attributes}
networks = [vgg.read_weights(weights)]
networks.append({key: 2 * value for key, value in networks[0].items()})
infos = [dataclasses.replace(store.info, network_sha256=vgg.fingerprint(network)) for network in networks]

for attempt in range(20):  # killed while it writes a store, at many moments
    written, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        while True:
            for network, info in zip(networks, infos):
                write_store(paths.stores() / "new", info, network, vectors)
                os.write(tell, b".")
    os.read(written, 1)  # it does write by now, however busy the machine is
    time.sleep(0.05 * random.random())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    folder = store.path if store.path.exists() else store.path.with_name(".old-new")  # between its two renames
    left = Store(folder)
    left.weights()
    assert all(len(left.vector(name)) == 3 for name in left.info.attributes)
    print("left", infos.index(left.info), flush=True)

build.build_lfw(  # and while it reads faces
    store.path, networks[0], archive, table, device="cpu", progress=lambda done, _: print("faces", done, flush=True)
)
"""


@pytest.mark.slow
def test_a_killed_build_leaves_a_whole_store_and_can_be_run_again(
    build_new: Callable[..., Store], face_set: FaceSet, tmp_path: Path
) -> None:
    """What is left opens, and its vectors belong to its network, whenever SIGKILL comes."""
    first = build_new().info
    archive = tmp_path / "long.tgz"
    jpegs = [jpeg for _, jpeg in lfw.read_photos(face_set.archive)]
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for i in range(1500):
            member = tarfile.TarInfo(f"A/A_{i:04d}.jpg")
            member.size = len(jpegs[i % FACES])
            tar.addfile(member, io.BytesIO(jpegs[i % FACES]))
    table = tmp_path / "long.txt"
    rows = (f"A\t{i}\t{1 if i % 2 else -1}" for i in range(1500))
    table.write_text("\n".join(["#\tperson\timagenum\tSmiling", *rows]))

    arguments = [sys.executable, "-c", KILLED, *map(str, (face_set.weights, archive, table))]
    left, faces = [], 0
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            kind, number = line.split()
            if kind == "left":
                left.append(int(number))
            elif (faces := int(number)) > 70:
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    assert len(left) == 20
    assert 70 < faces < 1500

    store = open_store("new")
    assert store.info.attributes == first.attributes
    store.weights()
    assert build_new(method="mean").info.method == "mean difference"
    assert [path.name for path in store.path.parent.iterdir()] == ["new"]


@pytest.mark.data
def test_the_real_network_and_real_scores_take_less_than_4_gb(data_dir: Path, tmp_path: Path) -> None:
    code = """
import resource, sys
from dfi_server.commands.cli import main
code = main(sys.argv[1:])
unit = 1024**3 if sys.platform == "darwin" else 1024**2
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)  # GiB
sys.exit(code)
"""
    files = {"--vgg19": "vgg19-conv5_1.pth", "--lfw": "lfw-deepfunneled.tgz"}
    files |= {"--attributes": "lfw_attributes_real2999.txt"}
    # Linux counts from the memory of the process that started another: a shell's is small, that of tests is not
    shell = ["sh", "-c", '"$@" & wait $!', "sh"]
    done = subprocess.run(
        [*shell, sys.executable, "-c", code, "setup", "--limit", "130", "--device", "cpu"]
        + [str(text) for option, name in files.items() for text in (option, data_dir / name)],
        env={**os.environ, "DFI_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary, _, peak = done.stdout.splitlines()
    assert "73 attribute vectors" in summary
    assert "from 130 photos" in summary
    assert float(peak) < 4
