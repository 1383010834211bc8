"""The solver and its objective: against references, and in what a user of the callback relies on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import tiny_weights
from torch import Tensor

from dfi_server.face import layout
from dfi_server.solver import reconstruct, vgg
from dfi_server.solver.change import Change, Smoothing
from dfi_server.solver.lbfgs import LBFGS
from dfi_server.solver.place import place_of
from dfi_server.solver.reconstruct import Iteration, TVLoss
from dfi_server.vectors.store import open_store

Objective = Callable[[Tensor], Tensor]


def with_gradient(function: Objective) -> Callable[[Tensor], tuple[float, Tensor]]:
    def objective(point: Tensor) -> tuple[float, Tensor]:
        x = point.detach().clone().requires_grad_(True)
        value = function(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.item(), gradient

    return objective


def minimise(function: Objective, start: Tensor, steps: int) -> LBFGS:
    solver = LBFGS(with_gradient(function), start, first_step=0.1)
    for _ in range(steps):
        if not solver.step():
            break
    return solver


def torch_minimum(function: Objective, start: Tensor) -> Tensor:
    """The same by torch.optim.LBFGS with its strong Wolfe line search."""
    x = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS(
        [x], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        value = function(x)
        value.backward()
        return value

    solver.step(closure)
    return x.detach()


def quadratic(condition: float, size: int, seed: int) -> tuple[Objective, Tensor]:
    """x -> (x - m)'A(x - m) / 2 with the given condition number, and its minimum m."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    matrix = basis * torch.logspace(0, np.log10(condition), size, dtype=torch.float64) @ basis.T
    minimum = torch.randn(size, generator=generator, dtype=torch.float64)
    return lambda x: (x - minimum) @ matrix @ (x - minimum) / 2, minimum


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


@settings(max_examples=15, deadline=None)
@given(condition=st.floats(1, 300), size=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_lbfgs_finds_a_quadratics_minimum(condition: float, size: int, seed: int) -> None:
    function, minimum = quadratic(condition, size, seed)
    solver = minimise(function, torch.zeros(size, dtype=torch.float64), 400)
    torch.testing.assert_close(solver.point, minimum, rtol=1e-4, atol=1e-4)
    assert solver.loss == function(solver.point).item()


@pytest.mark.parametrize("start", [[-1.2, 1.0], [-1.2, 1.0, -1.2, 1.0, -1.2], [3.0, -2.0, 0.5]])
def test_lbfgs_finds_rosenbrocks_minimum_as_torchs_does(start: list[float]) -> None:
    begin = torch.tensor(start, dtype=torch.float64)
    solver = minimise(rosenbrock, begin, 300)
    reference = torch_minimum(rosenbrock, begin)
    torch.testing.assert_close(solver.point, reference, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(solver.point, torch.ones_like(begin), rtol=1e-5, atol=1e-5)


def test_lbfgs_needs_about_one_evaluation_an_iteration_and_no_more_than_torchs() -> None:
    """That is why it is here at all."""
    function, _ = quadratic(1e3, 200, 0)
    start = torch.zeros(200, dtype=torch.float64)
    goal = 1e-6 * function(start).item()
    solver = LBFGS(with_gradient(function), start, first_step=0.1)
    iterations = 0
    while solver.loss > goal:
        assert solver.step()
        iterations += 1
    assert solver.evaluations <= 1.15 * iterations

    evaluations = 0

    class Reached(Exception):
        pass

    def until(x: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        value = function(x)
        if value.item() <= goal:
            raise Reached
        return value

    with pytest.raises(Reached):
        torch_minimum(until, start)
    assert solver.evaluations <= 1.15 * evaluations


def test_lbfgs_never_climbs_and_stops_where_no_step_helps() -> None:
    """A loss rounded to steps of 1/64, as bfloat16 rounds, has no smaller value near its minimum."""
    function, _ = quadratic(100, 20, 3)
    smooth = with_gradient(function)

    def rounded(x: Tensor) -> tuple[float, Tensor]:
        loss, gradient = smooth(x)
        return round(loss * 64) / 64, gradient

    solver = LBFGS(rounded, torch.zeros(20, dtype=torch.float64), first_step=0.1)
    losses = [solver.loss]
    while solver.step() and len(losses) < 500:
        losses.append(solver.loss)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] <= 0.05
    before = solver.point.clone()
    while solver.step():
        assert len(losses) < 500
    assert function(solver.point) <= function(before) + 0.02


def test_lbfgs_refuses_a_loss_that_is_not_a_number() -> None:
    start = torch.ones(3)
    solver = LBFGS(lambda x: (float("nan"), torch.ones_like(x)), start, first_step=0.1)
    assert not solver.step()
    assert torch.equal(solver.point, start)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(2, 20), width=st.integers(2, 20), seed=st.integers(0, 2**31))
def test_total_variation_is_the_mean_squared_difference_of_neighbours(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(1, 3, height, width))
    expected = (np.diff(image, axis=2) ** 2).mean() + (np.diff(image, axis=3) ** 2).mean()
    assert TVLoss()(torch.from_numpy(image)).item() == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 24), width=st.integers(1, 24), seed=st.integers(0, 2**31))
def test_smoothing_is_symmetric_and_keeps_the_mean(height: int, width: int, seed: int) -> None:
    """<Pu, v> = <u, Pv> makes P its own transpose, on which the solver's gradient relies."""
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, 1, 3, height, width, generator=generator)
    smoothing = Smoothing(height, width, corner=0.04, power=1.0)
    torch.testing.assert_close((smoothing(u) * v).sum(), (u * smoothing(v)).sum(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(smoothing(u).mean(), u.mean(), rtol=1e-4, atol=1e-5)
    assert smoothing(u).norm() <= u.norm() * 1.0001


def test_smoothing_weakens_fine_detail_more_than_coarse() -> None:
    x = torch.arange(64).expand(64, 64)
    gains = []
    for period in (64, 16, 4, 2):
        wave = torch.cos(2 * torch.pi * x / period)[None, None]
        gains.append((Smoothing(64, 64, corner=0.04, power=1.0)(wave).norm() / wave.norm()).item())
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0.6
    assert gains[-1] < 0.1


CPU = torch.device("cpu")


def crop_of(face: np.ndarray, side: int) -> Tensor:
    """The middle of the drawn face as the network takes it: (1, 3, side, side) in [0, 1]."""
    at = (250 - side) // 2
    return torch.tensor(face[at : at + side, at : at + side]).permute(2, 0, 1)[None] / 255


def towards(target: Tensor, network: vgg.VGGFeatures) -> Callable[[vgg.Features], vgg.Features]:
    """The shift from an image's features to those of `target`."""
    goal = network(target)
    return lambda phi: tuple(there - here for here, there in zip(phi, goal, strict=True))


def towards_its_mirror(
    face: np.ndarray,
) -> tuple[vgg.VGGFeatures, Tensor, Callable[[vgg.Features], vgg.Features]]:
    """A network, a photo, and the shift that asks for the photo's mirror image."""
    network = vgg.load(tiny_weights(), CPU, torch.float32)
    photo = crop_of(face, 64)
    return network, photo, towards(photo.flip(3), network)


def test_a_motion_shows_the_image_from_where_it_points() -> None:
    """Result pixel p is the image at p + motion(p); beyond the edge the border pixels go on."""
    image = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(2))
    motion = torch.zeros(1, 2, 12, 16)
    motion[:, 0], motion[:, 1] = 3, -2
    change = Change(motion, torch.full_like(image, 0.25), torch.ones(1, 1, 12, 16))
    expected = image[:, :, torch.arange(12).sub(2).clamp(0)][:, :, :, torch.arange(16).add(3).clamp(max=15)]
    torch.testing.assert_close(change.moved(image), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(change(image), expected + 0.25, rtol=1e-4, atol=1e-4)
    still = Change(torch.zeros_like(motion), torch.zeros_like(image), change.place)
    torch.testing.assert_close(still(image), image, rtol=1e-5, atol=1e-5)


def features_with_energy(scale: float) -> vgg.Features:
    """A shift in the shape of the tiny network's features for 96 x 96 pixels, all of it around (60, 40)."""
    layers = []
    for channels, cell in ((24, 4), (32, 8), (32, 16)):
        layer = torch.zeros(1, channels, 96 // cell, 96 // cell)
        layer[:, :, 40 // cell, 60 // cell] = scale
        layers.append(layer)
    return layers[0], layers[1], layers[2]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_an_edit_has_its_place_where_its_shift_acts(scale: float) -> None:
    place = place_of(features_with_energy(scale), (96, 96))[0, 0]
    assert place.min() >= 0
    assert place.max() <= 1
    assert place[42, 62] > 0.9
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    assert not place[torch.hypot(x - 62, y - 42) > 40].any()
    torch.testing.assert_close(place, place_of(features_with_energy(1.0), (96, 96))[0, 0])


def test_nothing_changes_where_an_edit_has_no_place(face: np.ndarray) -> None:
    network = vgg.load(tiny_weights(), CPU, torch.float32)
    photo = crop_of(face, 96)
    local = lambda phi: tuple(  # noqa: E731
        20 * x.square().mean().sqrt() * y for x, y in zip(phi, features_with_energy(1.0), strict=True)
    )
    change = reconstruct.reconstruct(network, photo, local, iterations=5).change
    outside = change.place[0, 0] == 0
    assert 0.2 < outside.float().mean() < 0.95
    assert not change.residual[:, :, outside].any()
    assert not change.motion[:, :, outside].any()
    assert change.residual.abs().max() > 0.02


def test_an_image_is_found_again_from_its_features(face: np.ndarray) -> None:
    """With the features of a known image as target and no smoothness asked for, the solve heads for that image."""
    network = vgg.load(tiny_weights(), CPU, torch.float32)
    target = crop_of(face, 64)
    bump = torch.hann_window(64)[:, None] * torch.hann_window(64)  # towards the sides nothing may change
    start = (target + 0.3 * bump**2 * torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1)).clamp(0, 1)
    states: list[Iteration] = []
    reconstruct.reconstruct(
        network, start, towards(target, network), iterations=80, tv_weight=0, callback=states.append
    )
    assert states[-1].loss < 0.02 * states[0].loss
    assert (states[-1].image - target).norm() < 0.8 * (start - target).norm()  # so few channels leave much open


def test_no_shift_leaves_the_photo(face: np.ndarray) -> None:
    network = vgg.load(tiny_weights(), CPU, torch.float32)
    photo = crop_of(face, 64)
    state = reconstruct.reconstruct(network, photo, lambda phi: tuple(torch.zeros_like(x) for x in phi))
    assert (state.image - photo).abs().max() < 2 / 255


def test_every_iteration_is_reported_and_lowers_the_loss(face: np.ndarray) -> None:
    network, photo, shift = towards_its_mirror(face)
    states: list[Iteration] = []
    last = reconstruct.reconstruct(network, photo, shift, iterations=25, callback=states.append)
    losses = [state.loss for state in states]
    assert [state.iteration for state in states] == list(range(1, 26))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert states[-1] is last
    assert all(state.image.shape == photo.shape for state in states)

    goal = [layer + change for layer, change in zip(network(photo), shift(network(photo)), strict=True)]
    loss = sum(
        (layer - target).square().sum() / own.square().sum()
        for layer, target, own in zip(network(last.image), goal, network(photo), strict=True)
    )
    loss += reconstruct.TV_WEIGHT * TVLoss()(last.image)
    assert last.loss == pytest.approx(loss.item(), rel=1e-3)  # the reported loss is that of the reported image


def test_a_tolerance_ends_a_solve_when_little_more_comes(face: np.ndarray) -> None:
    network, photo, shift = towards_its_mirror(face)
    states: list[Iteration] = []
    whole = reconstruct.reconstruct(network, photo, shift, iterations=60, callback=states.append)
    soon, sooner = (
        reconstruct.reconstruct(network, photo, shift, iterations=60, tolerance=tolerance) for tolerance in (0.02, 0.2)
    )
    assert whole.iteration == 60
    assert 5 < sooner.iteration < soon.iteration < 60
    assert soon.loss == states[soon.iteration - 1].loss  # up to there the same solve
    assert states[0].loss - soon.loss > 0.8 * (states[0].loss - whole.loss)


def test_more_total_variation_gives_a_smoother_image(face: np.ndarray) -> None:
    network, photo, shift = towards_its_mirror(face)
    rough, smooth = (
        reconstruct.reconstruct(network, photo, shift, iterations=20, tv_weight=weight).image for weight in (0.0, 10.0)
    )
    assert TVLoss()(smooth[..., 16:48, 16:48]) < 0.8 * TVLoss()(rough[..., 16:48, 16:48])  # the sides stay as they are


def test_what_the_callback_raises_ends_the_solve(face: np.ndarray) -> None:
    class Stop(Exception):
        pass

    seen = []

    def callback(state: Iteration) -> None:
        seen.append(state.iteration)
        if state.iteration == 3:
            raise Stop

    network = vgg.load(tiny_weights(), CPU)
    photo = crop_of(face, 64)
    with pytest.raises(Stop):
        reconstruct.reconstruct(network, photo, towards(photo.flip(3), network), callback=callback)
    assert seen == [1, 2, 3]


def rescaled(weights: dict[str, Tensor], scales: tuple[float, float, float]) -> dict[str, Tensor]:
    """The same function with its taps relu3_1, relu4_1, relu5_1 multiplied by `scales`.

    Convolution and ReLU are positively homogeneous: what one layer's weights gain, the next one's give back.
    """
    result = dict(weights)
    for tap, following, scale in zip((10, 19, 28), (12, 21, None), scales, strict=True):
        for kind in ("weight", "bias"):
            result[f"features.{tap}.{kind}"] = result[f"features.{tap}.{kind}"] * scale
        if following is not None:
            result[f"features.{following}.weight"] = result[f"features.{following}.weight"] / scale
    return result


@pytest.mark.parametrize(
    ("scales", "iterations", "tolerance"), [((8.0, 0.25, 64.0), 10, 0.0), ((37.0, 0.013, 410.0), 2, 0.001)]
)
def test_edits_do_not_depend_on_the_scale_of_the_taps(
    scales: tuple[float, float, float], iterations: int, tolerance: float, tiny_home: Path, face: np.ndarray
) -> None:
    """Bit for bit where the scales are powers of two; others round differently, which ReLU's kinks amplify later on.

    In float64: of float32's rounding some processors make more than others.
    """
    store = open_store("tiny")
    weights = store.weights()
    photo = crop_of(face, layout.FRAME_SIZE)
    networks = [vgg.load(state, CPU, torch.float64) for state in (weights, rescaled(weights, scales))]
    for layer, other, scale in zip(networks[0](photo), networks[1](photo), scales, strict=True):
        torch.testing.assert_close(other, layer * scale, rtol=1e-3, atol=1e-3 * scale)

    plain, other = (
        reconstruct.reconstruct(
            network,
            photo,
            lambda phi: store.shift({"smiling": 0.4, "senior": -0.2}, phi),
            iterations=iterations,
        )
        for network in networks
    )
    assert (plain.image - photo).abs().max() > 10 / 255
    assert (plain.image - other.image).norm() <= tolerance * (plain.image - photo).norm()
    assert plain.loss == pytest.approx(other.loss, rel=tolerance / 20)
