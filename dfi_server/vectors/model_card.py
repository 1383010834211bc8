"""What lies beside the starter's weights: a card that says how they came about, and the training's curve."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dfi_server.solver import vgg
from dfi_server.vectors.store import Store

_CARD = """# The starter

A network of VGG-19's shape with {width:g} times its channels ({parameters:.1f} million parameters, float16), and
vectors of {attributes} attributes made with it. It stands in for VGG-19 until `dfi setup` has been run.

| | |
|---|---|
| made by | `python -m dfi_server.vectors.distill` |
| start | random weights (He initialisation), seed {seed}; nothing is copied from downloaded weights |
| teacher | VGG-19, Simonyan & Zisserman's ImageNet weights (CC BY 4.0) |
| learnt | relu3_1, relu4_1, relu5_1, through 1x1 adapters, then dropped |
| data | {photos} photos of LFW, deep funneled, without the people held out for evaluation |
| steps | {steps}, of 4 photos and 4 blended twins, crops of 128 pixels |
| vectors | {method}, from {vector_photos} photos; singular values up to the {rank}th, in 8 bits |
| for previews | the same for a frame of {preview_size} pixels instead of {size}; {preview_rank} singular values |
| `averages.json` | what faces of the people held out show of each attribute, for `dfi report`: made by \
`python -m dfi_server.vectors.averages` |
| built | {built} |

Losses at the end, relative to the teacher's energy (0: the same, 1: nothing learnt):

| | relu3_1 | relu4_1 | relu5_1 |
|---|---|---|---|
| features | {f3:.3f} | {f4:.3f} | {f5:.3f} |
| differences between twins | {d3:.3f} | {d4:.3f} | {d5:.3f} |

![The losses over the steps](training.png)

LFW holds press photographs from around 2005, mostly of public persons from the United States, mostly men: on faces
unlike theirs edits are weaker. How well edits work is measured in docs/quality.md.
"""

_PORTRAITS_CARD = """# What was learnt from sharp portraits

LFW's photos are 250 pixels wide, so what is learnt from them is no finer. What a face of more pixels needs beside that
lies here and in `starter/detail.safetensors`. Made by `python -m dfi_server.vectors.portraits` on {built}.

| | what it is | made from |
|---|---|---|
| `landmarks.safetensors` | where 68 landmarks go with each of LFW's attributes (ridge k=20); how to \
tell an open mouth | LFW, every third photo, without the people held out |
| `mouths/`, `pictures.safetensors` | {mouths} pictures of mouths, with their inner contours | SFHQ and SFHQ-T2I |
| `beard.jpg` | the lower half of a face: its hairs give those of painted beards | SFHQ-T2I |
| `lines.png` | the lines of an old woman's skin | SFHQ-T2I |
| `../starter/detail.safetensors` | the starter's vectors of {attributes}, for a frame of {size} pixels ({method}, \
singular values up to the {rank}th, 8 bits) | {photos} portraits: {congress} from Congress, {sfhq} of SFHQ, {t2i} of \
SFHQ-T2I; labelled by a kernel ridge regression from LFW |

- **Congress**: official portraits of members of the US Congress, works of the US Government, in the public domain. No
  picture of them is here: what is left of them is in the vectors.
- **SFHQ, SFHQ-T2I**: (c) David Beniaguev, MIT licence. These people do not exist; the mouths, the beard and the
  lines are theirs.
- **LFW**: Huang et al., deep funneled, with the attributes of Kumar et al.; only statistics of it are here.
- The landmarks themselves are found by face_landmark_68 (see face/predictor/README.md).

Portraits of the sheets that docs/ shows (`sample_2x4`), and one sheet in eight beside them, are left out of the
vectors. Adults with light skin and a frontal look are in the majority in all three sets.
"""


def write_portraits(folder: Path, detail: Store, names: Sequence[str]) -> None:
    """README.md in portraits/. `detail`: the starter's vectors for a large frame, made from portraits `names`."""
    count = Counter(name.split("/")[0] for name in names)
    card = _PORTRAITS_CARD.format(
        built=detail.info.built,
        mouths=len(list((folder / "mouths").glob("*.jpg"))),
        attributes=", ".join(detail.info.attributes),
        size=detail.info.frame_size,
        method=detail.info.method,
        rank=detail.info.rank,
        photos=detail.info.photos,
        congress=count["congress"],
        sfhq=count["sfhq"],
        t2i=count["sfhq-t2i"],
    )
    (folder / "README.md").write_text(card)


def write(store: Store, preview: Store, log: Path) -> None:
    """README.md, training.json and training.png beside `store`, from a training's log (see distill.Recorder).

    `preview`: its vectors for previews.
    """
    training = json.loads(log.read_text())
    last = dict(zip(("f3", "f4", "f5", "d3", "d4", "d5"), training["curve"][-1][1:], strict=True))
    card = _CARD.format(
        **{key: training[key] for key in ("width", "photos", "steps", "seed")},
        **last,
        parameters=sum(tensor.numel() for tensor in store.weights().values()) / 1e6,
        attributes=len(store.info.attributes),
        method=store.info.method,
        vector_photos=store.info.photos,
        rank=store.info.rank,
        size=store.info.frame_size,
        preview_size=preview.info.frame_size,
        preview_rank=preview.info.rank,
        built=store.info.built,
    )
    (store.path / "README.md").write_text(card)
    (store.path / "training.json").write_text(json.dumps(training) + "\n")
    plot(training["curve"], store.path / "training.png")


def plot(curve: list[list[float]], target: Path) -> None:
    """The six losses over the steps, as a picture. Needs matplotlib (extra "benchmarks")."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps, *losses = zip(*curve, strict=True)
    for i, loss in enumerate(losses):
        what = vgg.LAYERS[i % 3] + (", differences" if i > 2 else "")
        axes.plot(steps, loss, f"C{i % 3}", linestyle="--" if i > 2 else "-", label=what)
    axes.set(xlabel="step", ylabel="squared error / the teacher's energy", ylim=(0, 1), xlim=(0, steps[-1]))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=100)
