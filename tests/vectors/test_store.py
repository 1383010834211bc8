"""The store of attribute vectors: what it refuses, and the shift that it gives."""

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checks import full_disk, refusal
from support.tiny import TINY_ATTRIBUTES, tiny_weights
from torch import Tensor

from dfi_server import paths
from dfi_server.errors import DFIError, ErrorCode
from dfi_server.solver import vgg
from dfi_server.vectors.store import Store, check_alphas, open_store, write_store

VECTORS = "vectors.safetensors"
NETWORK = "network.safetensors"
SHAPES = [(24, 50, 50), (32, 25, 25), (32, 12, 12)]  # of the tiny network's layers


@pytest.fixture
def copy(tiny_home: Path, tmp_path: Path) -> Path:
    """A copy of the tiny store, to be damaged."""
    folder = tmp_path / "stores" / "copy"
    shutil.copytree(tiny_home / "stores" / "tiny", folder)
    return folder


@pytest.fixture
def phi() -> vgg.Features:
    image = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return vgg.load(tiny_weights(), torch.device("cpu"), torch.float32)(image)


def test_the_store_says_what_it_was_built_from(tiny_home: Path) -> None:
    store = open_store("tiny")
    assert store.info.attributes == TINY_ATTRIBUTES
    assert store.info.photos == 48
    assert store.info.network_sha256 == vgg.fingerprint(tiny_weights())
    assert store.info.method == "ridge k=20"
    assert open_store().info == store.info  # the default store


@pytest.mark.parametrize("name", ["../tiny", "..", ".", ".building-tiny", "a/b", "/etc", "tiny/", "\0"])
def test_a_store_is_opened_by_a_plain_name_only(name: str, tiny_home: Path) -> None:
    refusal(lambda: open_store(name), ErrorCode.NO_STORE)


def test_without_a_store_the_way_to_one_is_named(tiny_home: Path) -> None:
    message = refusal(lambda: open_store("absent"), ErrorCode.NO_STORE)
    assert "'absent'" in message
    assert "dfi setup" in message


@pytest.mark.parametrize("file", [VECTORS, NETWORK])
def test_a_store_without_one_of_its_files_is_refused(file: str, copy: Path) -> None:
    (copy / file).unlink()
    message = refusal(lambda: Store(copy).weights(), ErrorCode.BAD_STORE)
    assert str(copy) in message
    assert "run 'dfi setup' again" in message


@pytest.mark.parametrize("file", [VECTORS, NETWORK])
@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_truncated_store_is_refused(file: str, kept: float, copy: Path) -> None:
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: int(kept * len(content)) if kept == 0.5 else int(kept)])
    message = refusal(lambda: Store(copy).weights(), ErrorCode.BAD_STORE)
    assert str(copy) in message
    assert "run 'dfi setup' again" in message


def test_a_store_with_weights_of_another_network_is_refused(copy: Path) -> None:
    safetensors.torch.save_file(tiny_weights(seed=1), copy / NETWORK)
    message = refusal(Store(copy).weights, ErrorCode.BAD_STORE)
    assert "other network weights" in message
    assert "dfi setup" in message


def test_a_store_with_one_altered_weight_is_refused(copy: Path) -> None:
    content = bytearray((copy / NETWORK).read_bytes())
    content[-3] ^= 1
    (copy / NETWORK).write_bytes(content)
    refusal(Store(copy).weights, ErrorCode.BAD_STORE)


def rewrite(store: Path, metadata: object = None, tensors: dict[str, Tensor] | None = None) -> None:
    """Write the vectors' file anew with other metadata or tensors."""
    with safetensors.safe_open(store / VECTORS, framework="pt") as file:
        metadata = json.loads(file.metadata()["dfi"]) if metadata is None else metadata
    tensors = safetensors.torch.load_file(store / VECTORS) if tensors is None else tensors
    safetensors.torch.save_file(tensors, store / VECTORS, metadata={"dfi": json.dumps(metadata)})


def fields(store: Path) -> dict[str, object]:
    return dataclasses.asdict(Store(store).info)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"layers": ["relu3_1", "relu4_1"]},
        {"frame_size": 256},
        {"frame_box": [40, 20, 170, 170]},
        {"attributes": [*TINY_ATTRIBUTES, "never_built"]},
        {"attributes": 5},
        {"landmarks": [[1.0, 2.0]] * 4},
        {"landmarks": [[1.0, float("nan")]] * 5},
        {"landmarks": [[1.0], 2.0]},
        {"added_by_a_later_version": True},
    ],
)
def test_a_store_of_another_make_is_refused(change: dict[str, object], copy: Path) -> None:
    rewrite(copy, metadata=fields(copy) | change)
    assert "dfi setup" in refusal(lambda: Store(copy), ErrorCode.BAD_STORE)


@pytest.mark.parametrize("metadata", [[], "text", {}, None])
def test_a_store_without_its_description_is_refused(metadata: object, copy: Path) -> None:
    tensors = safetensors.torch.load_file(copy / VECTORS)
    described = None if metadata is None else {"dfi": json.dumps(metadata)}
    safetensors.torch.save_file(tensors, copy / VECTORS, metadata=described)
    refusal(lambda: Store(copy), ErrorCode.BAD_STORE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_with_values_that_are_no_numbers_is_refused(value: float, copy: Path) -> None:
    """It would otherwise end the solve before its first step, and give back the photo as if nothing was wrong."""
    tensors = safetensors.torch.load_file(copy / VECTORS)
    tensors["smiling/relu4_1"][0, 0, 0] = value
    rewrite(copy, tensors=tensors)
    assert Store(copy).vector("senior")
    assert str(copy) in refusal(lambda: Store(copy).vector("smiling"), ErrorCode.BAD_STORE)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_store_with_a_damaged_header_opens_or_is_refused(data: st.DataObject, copy: Path) -> None:
    original = copy.with_name("original")
    if not original.exists():
        shutil.copy(copy / VECTORS, original)
    content = bytearray(original.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    for position, byte in data.draw(st.lists(st.tuples(st.integers(0, length + 8), st.integers(0, 255)), max_size=6)):
        content[position] = byte
    (copy / VECTORS).write_bytes(content)
    try:
        store = Store(copy)
        store.weights()
        for name in store.info.attributes:
            assert len(store.vector(name)) == 3
    except DFIError as error:
        assert error.code is ErrorCode.BAD_STORE


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("smilling", "smiling"),
        ("Eyeglasses", "eyeglasses"),
        ("moustache", "mustache"),
        ("5_oclock", "5_o_clock_shadow"),
    ],
)
def test_an_unknown_attribute_gets_the_nearest_names(wrong: str, near: str, tiny_home: Path) -> None:
    message = refusal(lambda: open_store().check_names(["smiling", wrong]), ErrorCode.UNKNOWN_ATTRIBUTE)
    assert f"'{wrong}'" in message
    assert f"did you mean {near}" in message


@pytest.mark.parametrize("wrong", ["", "xyzzy", "smiling/relu3_1", "../../etc/passwd"])
def test_an_attribute_like_no_other_gets_the_way_to_the_list(wrong: str, tiny_home: Path) -> None:
    message = refusal(lambda: open_store().vector(wrong), ErrorCode.UNKNOWN_ATTRIBUTE)
    assert "dfi attributes" in message or "did you mean" in message


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -float("inf"), 3, -2.5, 2.0000001])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    message = refusal(lambda: check_alphas({"senior": 0.1, "smiling": alpha}), ErrorCode.BAD_ALPHA)
    assert "'smiling'" in message
    assert "from -2 to 2" in message


@pytest.mark.parametrize("alpha", [-2, 2, 2.0, 0, 0.4, -1e-9])
def test_an_alpha_in_range_is_accepted(alpha: float) -> None:
    check_alphas({"smiling": alpha})


def test_an_edit_of_nothing_is_refused() -> None:
    assert "smiling=0.4" in refusal(lambda: check_alphas({}), ErrorCode.BAD_REQUEST)


@pytest.mark.parametrize("alpha", [0.3, -1.5, 2])
def test_alpha_is_the_length_of_the_shift_in_units_of_the_features(
    alpha: float, phi: vgg.Features, tiny_home: Path
) -> None:
    store = open_store()
    for change, features, vector in zip(
        store.shift({"smiling": alpha}, phi), phi, store.vector("smiling"), strict=True
    ):
        assert change.shape == features.shape
        assert change.dtype == torch.float32
        assert change.norm().item() == pytest.approx(abs(alpha) * features.norm().item(), rel=1e-4)
        direction = torch.cosine_similarity(change.flatten(), vector.float().flatten(), dim=0).item()
        assert direction == pytest.approx(1 if alpha > 0 else -1, abs=1e-4)


def test_the_shifts_of_several_attributes_add_up(phi: vgg.Features, tiny_home: Path) -> None:
    store = open_store()
    both = store.shift({"smiling": 0.4, "senior": -0.7}, phi)
    smiling = store.shift({"smiling": 0.4}, phi)
    senior = store.shift({"senior": -0.7}, phi)
    for total, one, other in zip(both, smiling, senior, strict=True):
        torch.testing.assert_close(total, one + other)
    for change in store.shift({"smiling": 0}, phi):
        assert not change.any()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.lists(st.sampled_from(TINY_ATTRIBUTES[1:]), min_size=1))
def test_nothing_of_what_is_kept_is_in_the_shift(keep: list[str], phi: vgg.Features, tiny_home: Path) -> None:
    store = open_store("tiny")
    whole, rest = (store.shift({"smiling": 0.4}, phi, names) for names in ([], keep))
    for i, (layer, before) in enumerate(zip(rest, whole, strict=True)):
        for name in keep:
            assert abs(torch.cosine_similarity(layer.flatten(), store.vector(name)[i].float().flatten(), dim=0)) < 1e-3
        removed = before - layer
        assert torch.dot(removed.flatten(), layer.flatten()).abs() < 1e-3 * before.square().sum()  # only its part
        assert layer.norm() > 0.5 * before.norm()


def test_a_shift_checks_names_and_alphas(phi: vgg.Features, tiny_home: Path) -> None:
    store = open_store()
    refusal(lambda: store.shift({"smiling": 9}, phi), ErrorCode.BAD_ALPHA)
    refusal(lambda: store.shift({"smile": 0.1}, phi), ErrorCode.UNKNOWN_ATTRIBUTE)
    refusal(lambda: store.shift({}, phi), ErrorCode.BAD_REQUEST)


Writer = Callable[..., Store]


@pytest.fixture
def small_store(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """`small_store(seed, scale)` writes a store "new" with two random attributes into an empty DFI_HOME."""
    info = open_store("tiny").info
    monkeypatch.setenv("DFI_HOME", str(tmp_path))

    def write(seed: int = 0, scale: float = 1.0) -> Store:
        generator = torch.Generator().manual_seed(seed)
        vectors = {
            attribute: tuple(scale * torch.randn(shape, generator=generator) for shape in SHAPES)
            for attribute in ("smiling", "senior")
        }
        weights = tiny_weights(seed)
        made = dataclasses.replace(info, network_sha256=vgg.fingerprint(weights), attributes=tuple(vectors))
        return write_store(paths.stores() / "new", made, weights, vectors)

    return write


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1e9])
def test_what_is_written_is_what_is_read(scale: float, small_store: Writer) -> None:
    """At any scale of the network's features, although float16 ends at 65504."""
    store = small_store(scale=scale)
    assert open_store("new").info == store.info
    assert vgg.fingerprint(store.weights()) == vgg.fingerprint(tiny_weights())
    generator = torch.Generator().manual_seed(0)
    for layer, shape in zip(store.vector("smiling"), SHAPES, strict=True):
        written = torch.randn(shape, generator=generator)
        torch.testing.assert_close(layer.float(), written / written.square().mean().sqrt(), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("linked", [False, True])
def test_a_store_is_replaced_again_and_again(linked: bool, small_store: Writer, tmp_path: Path) -> None:
    """Also where its owner keeps it on another disk, behind a link; that copy is not deleted."""
    first = small_store()
    if linked:
        first.path.rename(tmp_path / "elsewhere")
        first.path.symlink_to(tmp_path / "elsewhere")
    for seed in (1, 2, 3):
        small_store(seed)
        store = open_store("new")
        assert vgg.fingerprint(store.weights()) == vgg.fingerprint(tiny_weights(seed))
        assert [path.name for path in paths.stores().iterdir()] == ["new"]
    if linked:
        assert Store(tmp_path / "elsewhere").info == first.info


def test_leftovers_of_a_killed_build_do_not_stand_in_the_way(small_store: Writer) -> None:
    for name in (".building-new", ".old-new"):
        (paths.stores() / name).mkdir(parents=True)
        (paths.stores() / name / VECTORS).write_bytes(b"half")
    small_store()
    assert [path.name for path in paths.stores().iterdir()] == ["new"]


def test_a_store_set_aside_by_a_killed_build_comes_back_when_the_next_one_fails(small_store: Writer) -> None:
    """SIGKILL between the two renames that replace a store leaves the previous one under another name."""
    before = small_store()
    before.path.rename(before.path.with_name(".old-new"))
    with full_disk(1000):
        refusal(small_store, ErrorCode.NO_SPACE)
    assert open_store("new").info == before.info


def test_a_state_folder_that_cannot_be_written_is_a_sentence(small_store: Writer, tmp_path: Path) -> None:
    (tmp_path / "stores").write_bytes(b"a file where the folder should be")
    assert str(tmp_path / "stores") in refusal(small_store, ErrorCode.NO_SPACE)
