"""The learnt step: it takes the place of iterations where it helps, and is no harm where it does not."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support.tiny import tiny_weights
from torch import Tensor, nn

from dfi_server.face.frame import Frame, cut
from dfi_server.solver import reconstruct, vgg
from dfi_server.solver.predictor import Predictor, load

CHANNELS = (24, 32, 32)  # of tiny_weights


@pytest.fixture
def network() -> vgg.VGGFeatures:
    return vgg.load(tiny_weights(), torch.device("cpu"), torch.float32)


@pytest.fixture
def photo(face: np.ndarray) -> Tensor:
    return cut(face, Frame.of_box((0, 0, face.shape[1], face.shape[0]), (face.shape[1], face.shape[0])).of_size(64))


def shift(phi: vgg.Features) -> vgg.Features:
    """Of the features' own length by half, in the middle of the frame."""
    middle = [torch.zeros_like(layer) for layer in phi]
    for layer, features in zip(middle, phi, strict=True):
        cells = slice(layer.shape[-1] // 4, -(layer.shape[-1] // 4))
        layer[..., cells, cells] = 0.5 * features.flip(1)[..., cells, cells]
    relu3_1, relu4_1, relu5_1 = middle
    return relu3_1, relu4_1, relu5_1


def untaught(scale: float) -> Predictor:
    torch.manual_seed(0)
    predictor = Predictor(CHANNELS, passes=2, worth=3)
    nn.init.normal_(predictor.last.weight, std=scale)
    return predictor.requires_grad_(False)


class Knowing(Predictor):
    """It has seen the answer."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__(CHANNELS, passes=1, worth=6)
        self.answer = answer

    def forward(self, image: Tensor, place: Tensor, gradient: Tensor, features: object, missing: object) -> Tensor:
        return self.answer


def losses(states: Sequence[reconstruct.Iteration]) -> list[float]:
    return [state.loss for state in states]


@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_a_step_that_brings_nothing_is_not_taken(network: vgg.VGGFeatures, photo: Tensor, scale: float) -> None:
    alone: list[reconstruct.Iteration] = []
    led: list[reconstruct.Iteration] = []
    reconstruct.reconstruct(network, photo, shift, iterations=7, callback=alone.append)
    last = reconstruct.reconstruct(network, photo, shift, iterations=7, predictor=untaught(scale), callback=led.append)
    assert losses(led) == losses(alone)
    assert last.iteration == 7
    assert torch.equal(last.image, alone[-1].image)


def test_a_step_that_helps_stands_for_several_iterations(network: vgg.VGGFeatures, photo: Tensor) -> None:
    whole = reconstruct.reconstruct(network, photo, shift, iterations=10)
    answer = whole.solution.window.in_image(whole.solution.point)
    led: list[reconstruct.Iteration] = []
    last = reconstruct.reconstruct(network, photo, shift, iterations=10, predictor=Knowing(answer), callback=led.append)
    assert [state.iteration for state in led] == [6, 7, 8, 9, 10]
    assert led[0].loss == pytest.approx(whole.loss, rel=1e-5)
    assert losses(led) == sorted(losses(led), reverse=True)
    assert last.loss < whole.loss
    assert last.evaluations < whole.evaluations
    assert len(last.losses) == 1 + last.iteration


def test_a_given_start_counts_more(network: vgg.VGGFeatures, photo: Tensor) -> None:
    start = reconstruct.reconstruct(network, photo, shift, iterations=3).solution
    alone = reconstruct.reconstruct(network, photo, shift, iterations=3, start=start)
    led = reconstruct.reconstruct(network, photo, shift, iterations=3, start=start, predictor=untaught(1.0))
    assert led.loss == alone.loss


def test_where_nothing_is_missing_nothing_changes(network: vgg.VGGFeatures, photo: Tensor) -> None:
    features = network(photo)
    nothing = [torch.zeros_like(layer) for layer in features]
    gradient, place = torch.zeros(1, 5, 64, 64), torch.ones(1, 1, 64, 64)
    assert untaught(1.0)(photo, place, gradient, features, nothing).abs().max() < 1e-3


def test_each_of_a_batch_is_seen_by_itself_and_a_file_keeps_all(network: vgg.VGGFeatures, photo: Tensor) -> None:
    predictor = untaught(1.0)
    images = torch.cat([photo, photo.flip(3)])
    features = network(images)
    missing = [layer.flip(1) for layer in features]
    gradient, place = torch.randn(2, 5, 64, 64), torch.ones(2, 1, 64, 64)
    both = predictor(images, place, gradient, features, missing)
    assert both.shape == (2, 5, 64, 64)
    again = load(predictor.state_dict(), torch.device("cpu"))
    for i in range(2):
        one = slice(i, i + 1)
        parts = ([layer[one] for layer in layers] for layers in (features, missing))
        torch.testing.assert_close(
            again(images[one], place[one], gradient[one], *parts), both[one], rtol=1e-3, atol=1e-3
        )


def test_another_solution_leads_where_it_is_a_gain(network: vgg.VGGFeatures, photo: Tensor) -> None:
    alone = reconstruct.reconstruct(network, photo, shift, iterations=30)
    led = reconstruct.reconstruct(network, photo, shift, tolerance=1e-9, lead=alone.solution)
    assert led.loss <= alone.loss
    assert led.iteration <= reconstruct.LED_ITERATIONS
    assert led.evaluations < alone.evaluations


def test_a_lead_that_is_no_gain_is_left(network: vgg.VGGFeatures, photo: Tensor) -> None:
    alone = reconstruct.reconstruct(network, photo, shift, iterations=30)
    led = reconstruct.reconstruct(network, photo, shift, iterations=30, lead=alone.solution.times(-5))
    assert led.loss == alone.loss
    assert led.evaluations == alone.evaluations + 1
