"""What PyTorch refuses on Apple's GPU, and does not hand on to the CPU either, is not asked for where solves run.

There is no such GPU here: a mode of PyTorch's dispatcher refuses the same (pytorch/pytorch issue 96056 for pooling).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dfi_server import fill
from dfi_server.edit import Editor
from dfi_server.fill import Filler
from dfi_server.solver import reconstruct, vgg


class AppleGPU(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._adaptive_avg_pool2d.default:
            image, size = args
            assert all(side % part == 0 for side, part in zip(image.shape[-2:], size, strict=True)), "sizes"
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, f"{func}: float64"
        return result


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done under its rules."""
    done = []

    def under(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def there(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            with AppleGPU():
                return function(*args, **kwargs)

        return there

    monkeypatch.setattr(reconstruct, "reconstruct", under("solve", reconstruct.reconstruct))
    monkeypatch.setattr(vgg.VGGFeatures, "forward", under("features", vgg.VGGFeatures.forward))
    monkeypatch.setattr(fill, "_distance", under("distance", fill._distance))
    return done


def test_the_rules_are_kept_by_something() -> None:
    with pytest.raises(AssertionError, match="sizes"), AppleGPU():
        torch.nn.functional.interpolate(torch.zeros(1, 1, 25, 25), size=12, mode="area")
    with pytest.raises(AssertionError, match="float64"), AppleGPU():
        torch.zeros(2, dtype=torch.float64) + 1


@pytest.mark.parametrize("store", ["starter", "preview"])
def test_an_edit(store: str, portrait: np.ndarray, apple: list[str]) -> None:
    result = Editor(store, "cpu").edit(portrait, {"smiling": 0.4, "eyeglasses": 0.4, "senior": 0.2}, iterations=12)
    assert result.iterations >= 12
    assert "solve" in apple


def test_a_filling(portrait: np.ndarray, apple: list[str]) -> None:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    mask[100:140, 190:260] = 255
    editor = Editor("starter", "cpu")
    Filler(editor.store, editor.network, editor.device).fill(portrait, mask, iterations=2)
    assert {"solve", "distance"} <= set(apple)
