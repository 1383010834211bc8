"""How fast an edit is, in one run on one machine, against the reference recipe on the same faces and objective.

The reference is what a plain implementation does (after deepfeatinterp's torch backend): the network in float32,
contiguous; torch.optim.LBFGS with its defaults, on the image's pixels, 500 iterations. Ours is `reconstruct`, free to
change the whole frame as the reference is; its losses are computed once more in float32 before they count.
"""

import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dfi_server import paths, system
from dfi_server.edit import Editor
from dfi_server.face import layout
from dfi_server.face.find import align, find_faces
from dfi_server.face.frame import cut
from dfi_server.photo import disk
from dfi_server.solver import reconstruct, vgg
from dfi_server.vectors import lfw

ATTRIBUTES = ("smiling", "eyeglasses", "senior", "mustache", "mouth_wide_open")  # in turn over the faces
ALPHA = 0.4
SWEEP = (0.1, 0.2, 0.3, 0.4, 0.5)  # alphas
GOALS = (150, 500)  # iterations of the reference whose objective is to be reached
_PATIENCE = 400  # iterations of ours


@dataclass(frozen=True)
class Trace:
    """A solve: seconds and objective after each evaluation that counted."""

    seconds: list[float]
    losses: list[float]

    def until(self, loss: float) -> tuple[float, int] | None:
        """Seconds and evaluations until the objective was `loss` or less."""
        return next(
            ((s, n) for n, (s, x) in enumerate(zip(self.seconds, self.losses, strict=True), 1) if x <= loss), None
        )


@dataclass(frozen=True)
class Report:
    """The benchmark's figures: medians over the faces. Ratios are the reference's time over ours."""

    device: str
    store: str
    faces: int
    ratio_150: float
    ratio_500: float | None  # None: ours did not get there on more than half of the faces
    reference_seconds: float  # to 150 iterations
    ours_seconds: float  # to the same objective
    ours_evaluations: float
    reference_evaluation_seconds: float
    ours_evaluation_seconds: float
    edit_seconds: float  # a finished edit of a frame, as `dfi edit` makes it
    edit_seconds_without_predictor: float
    edit_ratio: float  # reference_seconds over edit_seconds
    sweep_seconds: float  # of five alphas, as `dfi strip` makes it
    sweep_seconds_without_predictor: float
    sweep_ratio: float  # of five times reference_seconds
    preview_seconds: float
    preview_seconds_without_predictor: float
    preview_ratio: float
    floor_seconds: float  # the network's FLOPs of ours_evaluations at this machine's measured matrix rate
    matrix_rate: float  # FLOP/s, of large matrices in the precision used
    memory: int  # peak, bytes


class Objective:
    """The paper's equation (2) for one frame and shift, in a given precision."""

    def __init__(self, network: vgg.VGGFeatures, image: Tensor, shift: Callable[[vgg.Features], vgg.Features]) -> None:
        self.network = network
        with torch.no_grad():
            phi = network(image)
            self.distance = reconstruct.FeatureLoss(phi, shift(phi))
        self.variation = reconstruct.TVLoss()

    def __call__(self, z: Tensor) -> Tensor:
        loss: Tensor = self.distance(self.network(z)) + reconstruct.TV_WEIGHT * self.variation(z)
        return loss


def reference(objective: Objective, image: Tensor, iterations: int) -> Trace:
    """torch.optim.LBFGS as it comes, on the pixels."""
    z = image.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    solver = torch.optim.LBFGS([z], max_iter=iterations, max_eval=iterations, tolerance_grad=0, tolerance_change=0)
    trace = Trace([], [])
    start = time.perf_counter()

    def closure() -> Tensor:
        loss = objective(z)
        (gradient,) = torch.autograd.grad(loss, z)
        z.grad = gradient.contiguous()
        trace.losses.append(loss.item())
        trace.seconds.append(time.perf_counter() - start)
        return loss.detach()

    solver.step(closure)  # type: ignore[no-untyped-call]
    return trace


def ours(editor: Editor, exact: Objective, image: Tensor, alphas: dict[str, float], goal: float) -> Trace:
    """`reconstruct` on the whole frame until the exact objective is `goal`; the checks' time is not counted."""
    trace = Trace([], [])
    checks = 0.0
    start = time.perf_counter()

    class Reached(Exception):
        pass

    def callback(state: reconstruct.Iteration) -> None:
        nonlocal checks
        now = time.perf_counter()
        loss = state.loss
        if loss < 1.02 * goal:
            with torch.no_grad():
                loss = exact(state.image).item()
        checks_before, checks = checks, checks + time.perf_counter() - now
        while len(trace.losses) < state.evaluations:
            trace.losses.append(math.inf)
            trace.seconds.append(now - start - checks_before)
        trace.losses[-1] = loss
        if loss <= goal:
            raise Reached

    with contextlib.suppress(Reached):
        reconstruct.reconstruct(
            editor.network,
            image,
            lambda phi: editor.store.shift(alphas, phi),
            iterations=_PATIENCE,
            everywhere=True,
            callback=callback,
        )
    return trace


def run(
    editor: Editor, frames: Sequence[Tensor], progress: Callable[[str], None] = lambda text: None
) -> tuple[Report, list[tuple[Trace, Trace]]]:
    """Measure over `frames`, (1, 3, 200, 200) in [0, 1]; the report, and each face's traces (reference, ours)."""
    plain = vgg.VGGFeatures(editor.store.weights()).to(editor.device)  # float32
    plain.features.to(memory_format=torch.contiguous_format)
    traces = []
    for number, image in enumerate(frames):
        alphas = {ATTRIBUTES[number % len(ATTRIBUTES)]: ALPHA}
        exact = Objective(plain, image, lambda phi, alphas=alphas: editor.store.shift(alphas, phi))  # type: ignore[misc]
        if number == 0:  # threads, kernels and caches
            reference(exact, image, 2)
            ours(editor, exact, image, alphas, math.inf)
        progress(f"face {number + 1} of {len(frames)}: reference")
        theirs = reference(exact, image, max(GOALS))
        progress(f"face {number + 1} of {len(frames)}: ours")
        traces.append((theirs, ours(editor, exact, image, alphas, theirs.losses[-1])))
    progress("edits and sweeps")
    return _report(editor, frames, traces), traces


def _report(editor: Editor, frames: Sequence[Tensor], traces: Sequence[tuple[Trace, Trace]]) -> Report:
    def ratio(goal: int) -> float | None:
        found = [mine.until(theirs.losses[goal - 1]) for theirs, mine in traces]
        ratios = [
            theirs.seconds[goal - 1] / there[0] if there else 0.0
            for (theirs, _), there in zip(traces, found, strict=True)
        ]
        return statistics.median(ratios) or None

    reached = [mine.until(theirs.losses[GOALS[0] - 1]) or (math.inf, _PATIENCE) for theirs, mine in traces]
    rate = matrix_rate(editor.device, editor.network.precision)
    evaluations = statistics.median(n for _, n in reached)
    edit, sweep, preview = with_and_without(editor, frames)
    reference_seconds = statistics.median(theirs.seconds[GOALS[0] - 1] for theirs, _ in traces)
    ratio_150 = ratio(150)
    return Report(
        device=editor.device_name,
        store=editor.store_name,
        faces=len(frames),
        ratio_150=ratio_150 or 0.0,
        ratio_500=ratio(500),
        reference_seconds=reference_seconds,
        ours_seconds=statistics.median(s for s, _ in reached),
        ours_evaluations=evaluations,
        reference_evaluation_seconds=statistics.median(
            theirs.seconds[-1] / len(theirs.seconds) for theirs, _ in traces
        ),
        ours_evaluation_seconds=statistics.median(mine.seconds[-1] / len(mine.seconds) for _, mine in traces),
        edit_seconds=edit[0],
        edit_seconds_without_predictor=edit[1],
        edit_ratio=reference_seconds / edit[0],
        sweep_seconds=sweep[0],
        sweep_seconds_without_predictor=sweep[1],
        sweep_ratio=len(SWEEP) * reference_seconds / sweep[0],
        preview_seconds=preview[0],
        preview_seconds_without_predictor=preview[1],
        preview_ratio=reference_seconds / preview[0],
        floor_seconds=evaluations * evaluation_flops(editor.network) / rate,
        matrix_rate=rate,
        memory=_peak_memory(editor.device),
    )


def with_and_without(editor: Editor, frames: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Median seconds of a finished edit, of a sweep and of a preview: with a predictor's first steps, and without."""
    previewer = Editor(paths.PREVIEW, editor.device.type)
    work = [(editor, (ALPHA,)), (editor, SWEEP), (previewer, (ALPHA,))]
    led: list[list[float]] = [[] for _ in work]
    alone: list[list[float]] = [[] for _ in work]
    box = (0, 0, layout.FRAME_SIZE, layout.FRAME_SIZE)
    for number, frame in enumerate(frames):
        photo, name = picture(frame), ATTRIBUTES[number % len(ATTRIBUTES)]
        for (one, alphas), seconds_led, seconds_alone in zip(work, led, alone, strict=True):
            sweep = partial(one.sweep, photo, [{name: alpha} for alpha in alphas], box=box)
            if number == 0:  # threads, kernels and caches
                sweep()
            seconds_led.append(_timed(sweep))
            one.stage.led = False
            seconds_alone.append(_timed(sweep))
            one.stage.led = True
    return [
        (statistics.median(with_it), statistics.median(without)) for with_it, without in zip(led, alone, strict=True)
    ]


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def evaluation_flops(network: vgg.VGGFeatures) -> int:
    """Floating-point operations of the network, forward and back to the image, for one frame."""
    image = torch.rand(1, 3, layout.FRAME_SIZE, layout.FRAME_SIZE, device=network.mean.device, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(torch.stack([layer.float().sum() for layer in network(image)]).sum())
    return int(counter.get_total_flops())


def matrix_rate(device: torch.device, precision: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of square matrix products in `precision`: the best of several."""
    a, b = torch.randn(2, size, size, device=device).to(precision)
    a @ b

    def product() -> None:
        (a @ b)[0, 0].item()  # waits for the device

    return 2 * size**3 / min(_timed(product) for _ in range(repeats))


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return system.peak_memory()


def lfw_frames(archive: Path, count: int) -> list[Tensor]:
    """The frames of the first `count` people held out from evaluations' stores. Raises DFIError(BAD_DATA)."""
    frames: list[Tensor] = []
    for key, jpeg in lfw.read_photos(archive):
        if len(frames) < count and key.endswith("_0001") and lfw.is_held_out(key):
            photo = lfw.decode(jpeg)
            if photo is not None:
                frames.append(_tensor(layout.to_frame(photo)))
    return frames


def sample_frames(editor: Editor, count: int) -> list[Tensor]:
    """`count` views of the bundled portrait: turned, shifted and lit a little differently each time."""
    portrait = disk.read(paths.SAMPLE).pixels
    (face, *_) = find_faces(portrait, editor.store.canonical_landmarks)
    random = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        landmarks = face.landmarks + random.normal(0, 2, 2) + random.normal(0, 0.7, face.landmarks.shape)
        image = cut(portrait, align(landmarks, editor.store.canonical_landmarks))
        frames.append((image * float(random.uniform(0.85, 1.1))).clamp(0, 1))
    return frames


def picture(frame: Tensor) -> np.ndarray:
    """A frame as a photo: (200, 200, 3) uint8."""
    pixels: np.ndarray = (frame[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    return pixels


def _tensor(frame: np.ndarray) -> Tensor:
    return torch.from_numpy(frame.copy()).permute(2, 0, 1)[None] / 255


def table(report: Report) -> str:
    """The report in Markdown."""
    lines = ["| | |", "|---|---|"]
    for name, value in asdict(report).items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        lines.append(f"| {name} | {text} |")
    return "\n".join(lines)


def plot(traces: Sequence[tuple[Trace, Trace]], target: Path) -> None:
    """Objective against time, every face, as a PNG. Needs matplotlib (extra "benchmarks")."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (theirs, mine) in enumerate(traces):
        label = number == 0
        axes.plot(theirs.seconds, theirs.losses, "C0", alpha=0.6, label="reference" if label else None)
        axes.plot(mine.seconds, mine.losses, "C1", alpha=0.8, label="ours" if label else None)
    axes.set(xscale="log", xlabel="seconds", ylabel="objective")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=100)


def write_json(report: Report, target: Path) -> None:
    target.write_text(json.dumps(asdict(report), indent=1) + "\n")
