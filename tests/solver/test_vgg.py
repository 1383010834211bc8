"""The feature map: equal to torchvision's own network, and closed to every file that is no such network."""

import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.tiny import tiny_weights
from torch import Tensor
from torchvision.transforms.functional import normalize, to_tensor

from dfi_server.errors import DFIError, ErrorCode
from dfi_server.solver import vgg


def whole_network() -> dict[str, Tensor]:
    """The tiny network as a whole VGG-19: later convolutions and a classifier come after conv5_1."""
    state = OrderedDict(tiny_weights())
    for i in (30, 32, 34):
        state[f"features.{i}.weight"] = torch.ones(32, 32, 3, 3)
        state[f"features.{i}.bias"] = torch.ones(32)
    state["classifier.0.weight"] = torch.ones(16, 32)
    state["classifier.0.bias"] = torch.ones(16)
    return state


def save_safetensors(weights: dict[str, Tensor], path: Path) -> None:
    safetensors.torch.save_file(weights, path)


def refusal(path: Path) -> str:
    """The sentence with which a weights file is refused; it must name the file."""
    with warnings.catch_warnings(record=True) as said, pytest.raises(DFIError) as caught:
        vgg.read_weights(path)
    assert not said
    assert caught.value.code is ErrorCode.BAD_WEIGHTS
    assert str(path) in caught.value.message
    return caught.value.message


def test_features_are_those_of_torchvisions_vgg19() -> None:
    """At real width, against torchvision's model run module by module, with its own normalisation."""
    with torch.device("meta"):  # no time spent on initialising a classifier that is not used
        features = torchvision.models.vgg19().features
    features.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in features.parameters():
        deviation = (2 / parameter[0].numel()) ** 0.5 if parameter.dim() == 4 else 0.05
        parameter.data.normal_(std=deviation, generator=generator)
    image = torch.rand(1, 3, 48, 64, generator=generator)

    expected = []
    with torch.inference_mode():
        x = normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        for i, module in enumerate(features[:30]):
            x = module(x)
            if i in (11, 20, 29):
                expected.append(x.clone())
        weights = {f"features.{name}": value for name, value in features[:29].state_dict().items()}
        ours = vgg.load(weights, torch.device("cpu"), torch.float32)(image)

    assert [tuple(layer.shape[1:]) for layer in ours] == [(256, 12, 16), (512, 6, 8), (512, 3, 4)]
    for layer, reference in zip(ours, expected, strict=True):
        assert reference.std() > 0.01
        torch.testing.assert_close(layer, reference, rtol=1e-4, atol=1e-4)


def test_features_do_not_change_the_image() -> None:
    image = torch.rand(1, 3, 32, 32)
    before = image.clone()
    vgg.load(tiny_weights(), torch.device("cpu"))(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("whole.pth", lambda _, path: torch.save(whole_network(), path)),
        ("truncated.pth", torch.save),
        ("old.pth", lambda weights, path: torch.save(weights, path, _use_new_zipfile_serialization=False)),
        ("parameters.pth", lambda w, path: torch.save({k: torch.nn.Parameter(v) for k, v in w.items()}, path)),
        ("double.pth", lambda weights, path: torch.save({k: v.double() for k, v in weights.items()}, path)),
        ("truncated.safetensors", save_safetensors),
        ("whole.safetensors", lambda _, path: save_safetensors(whole_network(), path)),
    ],
)
def test_every_file_format_gives_the_same_network(
    name: str, save: Callable[[dict[str, Tensor], Path], None], tmp_path: Path
) -> None:
    weights = tiny_weights()
    save(weights, tmp_path / name)
    loaded = vgg.read_weights(tmp_path / name)
    assert vgg.fingerprint(loaded) == vgg.fingerprint(weights)
    assert loaded.keys() == weights.keys()
    assert all(loaded[key].dtype == torch.float32 and torch.equal(loaded[key], weights[key]) for key in weights)


def test_the_fingerprint_notices_one_changed_weight() -> None:
    weights, changed = tiny_weights(), tiny_weights()
    changed["features.28.bias"][0] += 1e-6
    assert vgg.fingerprint(weights) != vgg.fingerprint(changed)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    assert "no weights file" in refusal(tmp_path / "absent.pth")
    assert "no weights file" in refusal(tmp_path)  # a folder


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256)) * 64, b"PK\x03\x04" + bytes(500)])
def test_a_file_that_holds_something_else_is_a_sentence(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "fetch it again" in refusal(path)


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "executed"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(trap),)

    pickled, saved = tmp_path / "pickled.pth", tmp_path / "saved.pth"
    pickled.write_bytes(pickle.dumps(Malicious()))
    torch.save({**tiny_weights(), "features.0.weight": Malicious()}, saved)
    for path in (pickled, saved):
        refusal(path)
        assert not trap.exists()
    torch.load(saved, weights_only=False)
    assert trap.exists()  # so the trap does work


def without(key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tiny_weights().items() if name != key}


def with_value(value: float) -> dict[str, Tensor]:
    weights = tiny_weights()
    weights["features.12.weight"][3, 2, 1, 0] = value
    return weights


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ([torch.ones(3)], "lacks features.0.weight"),
        ({}, "lacks features.0.weight"),
        ({"state_dict": tiny_weights()}, "lacks features.0.weight"),
        (without("features.28.bias"), "lacks features.28.bias"),
        ({**tiny_weights(), "features.2.weight": "tensor"}, "lacks features.2.weight"),
        ({key: tensor.int() for key, tensor in tiny_weights().items()}, "lacks features.0.weight"),
        ({**tiny_weights(), "features.0.weight": torch.ones(8, 3, 11, 11)}, "wrong shape"),  # AlexNet's beginning
        ({**tiny_weights(), "features.5.bias": torch.ones(1)}, "wrong shape"),
        ({**tiny_weights(), "features.19.weight": torch.tensor(1.0)}, "wrong shape"),
        (with_value(float("nan")), "not finite"),
        (with_value(float("inf")), "not finite"),
    ],
)
def test_a_state_dict_of_another_network_is_a_sentence(state: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(state, path)
    assert reason in refusal(path)


@pytest.mark.parametrize("model", ["vgg16", "vgg19_bn", "resnet18"])
def test_torchvisions_other_networks_are_a_sentence(model: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        keys = {name: value.shape for name, value in torchvision.models.get_model(model).state_dict().items()}
    path = tmp_path / f"{model}.pth"
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in keys.items()}, path)
    refusal(path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["new.pth", "old.pth", "tensors.safetensors"]))
def test_a_damaged_file_loads_or_is_a_sentence(data: st.DataObject, name: str, tmp_path: Path) -> None:
    whole = tmp_path / name
    if not whole.exists():
        if whole.suffix == ".pth":
            torch.save(tiny_weights(), whole, _use_new_zipfile_serialization=name == "new.pth")
        else:
            save_safetensors(tiny_weights(), whole)
    content = bytearray(whole.read_bytes())
    ends = st.one_of(st.integers(0, 5000), st.integers(len(content) - 9000, len(content) - 1))
    for position, byte in data.draw(st.lists(st.tuples(ends, st.integers(0, 255)), max_size=8)):
        content[position] = byte
    damaged = whole.with_stem("damaged")
    damaged.write_bytes(content[: data.draw(st.one_of(st.none(), st.integers(0, len(content))))])
    try:
        weights = vgg.read_weights(damaged)
    except DFIError as error:
        assert error.code is ErrorCode.BAD_WEIGHTS
    else:
        vgg.load(weights, torch.device("cpu"))(torch.rand(1, 3, 16, 16))


def test_a_damaged_download_is_named_and_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half a downl")
    with pytest.raises(DFIError, match="delete that file") as caught:
        vgg.download_weights()
    assert caught.value.code is ErrorCode.BAD_WEIGHTS
    assert str(cached) in caught.value.message

    torch.save(whole_network(), cached)
    assert vgg.fingerprint(vgg.download_weights()) == vgg.fingerprint(tiny_weights())


@pytest.mark.parametrize("name", ["tpu", "", "CPU", "cuda:99"])
def test_an_unknown_device_is_a_sentence_with_the_usable_ones(name: str) -> None:
    with pytest.raises(DFIError, match=r"use one of: auto.*cpu") as caught:
        vgg.choose_device(name)
    assert caught.value.code is ErrorCode.BAD_REQUEST


@pytest.mark.data
def test_the_real_vgg19_responds_as_documented(data_dir: Path) -> None:
    """Over a photograph: no layer dead, none blown up, in the precision chosen for this machine as in float32."""
    weights = vgg.read_weights(data_dir / "vgg19-conv5_1.pth")
    image = to_tensor(Image.open(data_dir / "portraits" / "nasa_astronaut.png").convert("RGB"))[None, :, :256, 100:356]
    device = torch.device("cpu")
    with torch.inference_mode():
        exact = vgg.load(weights, device, torch.float32)(image)
        chosen = vgg.load(weights, device)(image)
    assert [layer.shape[1] for layer in exact] == [256, 512, 512]
    for ours, reference in zip(chosen, exact, strict=True):
        assert 0.01 < (reference > 0).float().mean() < 0.9
        assert (ours.float() - reference).norm() < 0.02 * reference.norm()
