"""The report as one HTML page. Whatever comes from outside, names of files above all, is escaped here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from dfi_server import __version__
from dfi_server.commands.report import charts, pictures
from dfi_server.commands.report.findings import STRENGTHS, VISIBLE, Findings, Reading

_TEMPLATE = Path(__file__).with_name("page.html")
_SMALL, _MIDDLE = 420, 640  # pixels of pictures that stand beside others
_CLOSE = 0.6  # of the photo: where the face takes up more of it, the photo is shown once
_MOST_CHARTS = 8
_LEAST_MOTION = 0.05  # photo pixels: what moves less stays where it is


@dataclass(frozen=True)
class Settings:
    """What the page says of an edit beside its pictures. `photo`: the file's name; `details`: names and values."""

    photo: str
    alphas: Mapping[str, float]
    command: str
    details: Sequence[tuple[str, str]]


def page(findings: Findings, settings: Settings) -> str:
    """The whole page."""
    setting = _setting(settings.alphas)
    sections = (_before_and_after, _strip, _readings, _change, _energy, _losses)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_text(f"{settings.photo}: {setting}"),
        setting=_text(setting),
        photo=_text(settings.photo),
        version=_text(__version__),
        sections="\n".join([*(section(findings, settings) for section in sections), _repeat(settings)]),
    )


def _text(text: str) -> str:
    """Any text as HTML shows it; bytes of a file's name that are no text, as escapes."""
    return escape(text.encode("utf-8", "backslashreplace").decode())


def _number(value: float, digits: int = 2) -> str:
    """With its sign: "+0.4", or with a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _setting(alphas: Mapping[str, float], strength: float = 1.0) -> str:
    return ", ".join(f"{_words(name)} {strength * alpha:+.3g}".replace("-", "−") for name, alpha in alphas.items())


def _words(name: str) -> str:
    return name.replace("_", " ")


def _section(title: str, lead: str, *body: str) -> str:
    return "\n".join([f"<section>\n<h2>{title}</h2>\n<p>{lead}</p>", *body, "</section>"])


def _image(picture: np.ndarray, alt: str) -> str:
    height, width = picture.shape[:2]
    return f'<img src="{pictures.uri(picture)}" width="{width}" height="{height}" alt="{_text(alt)}">'


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def _row(figures: Sequence[str], kind: str = "") -> str:
    return f'<div class="row {kind}">{"".join(figures)}</div>'


def _before_and_after(findings: Findings, settings: Settings) -> str:
    def pair(before: np.ndarray, after: np.ndarray, what: str) -> str:
        held = f'<div class="stack hold">{_image(before, f"{what} before")}{_image(after, f"{what} after")}</div>'
        return _row(
            [
                _figure(_image(before, f"{what} before"), "<b>Before</b>"),
                _figure(held, "<b>After</b> (press to compare)"),
            ]
        )

    _, _, width, height = findings.view.box
    _, _, *whole = findings.whole_view.box
    rows = [pair(findings.before, findings.steps[-1], "The face")]
    if width * height < _CLOSE * whole[0] * whole[1]:
        before, after = findings.whole
        rows.insert(0, pair(before, after, "The photo") + '<div style="height:14px"></div>')
    many = len(findings.edit.faces)
    lead = f"{'One face was' if many == 1 else f'{many} faces were'} edited: {_text(_setting(settings.alphas))}."
    return _section("Before and after", lead, *rows)


def _strip(findings: Findings, settings: Settings) -> str:
    pairs = zip(STRENGTHS, findings.steps, strict=True)
    figures = [_figure(_image(pictures.reduced(findings.before, _SMALL), "The face"), "<b>The photo</b>")]
    for strength, picture in pairs:
        label = _setting(settings.alphas, strength)
        image = _image(pictures.reduced(picture, _SMALL), f"The edit with {label}")
        figures.append(_figure(image, _text(label)))
    return _section("From a little to all of it", "The same edit, more and more of it.", _row(figures, "strip"))


def _readings(findings: Findings, settings: Settings) -> str:
    lead = (
        "What the starter's network reads from the face: a ridge regression of its features on the attribute vectors. "
        "Zero is the average face of Labeled Faces in the Wild, one is a standard deviation of these. "
        "<i>Area</i> says how far a reading can be trusted: how often a face that is labelled with the attribute reads "
        "higher than one that is not (0.5 is guessing), among people the network has not seen. "
        "Below the attributes that were set, and those that were kept, stand those that changed most."
    )
    if findings.unread:
        lead += f" Not read, as it is your own: {_text(', '.join(map(_words, findings.unread)))}."
    legend = (
        '<ul class="legend"><li><i style="background:var(--was)"></i>before</li>'
        '<li><i style="background:var(--accent)"></i>after</li></ul>'
    )
    tables = []
    for number, readings in enumerate(findings.readings, start=1):
        if len(findings.edit.faces) > 1:
            tables.append(f"<h3>Face {number}</h3>")
        tables.append(_table(readings))
    if (left := len(findings.edit.faces) - len(findings.readings)) > 0:
        tables.append(f"<p>{left} more faces are not shown.</p>")
    return _section("Predicted attributes", lead, legend, *tables)


def _table(readings: Sequence[Reading]) -> str:
    top = max(1.0, *(abs(value) for each in readings for value in (each.before, each.after))) * 1.04

    def bar(value: float, y: int, kind: str) -> str:
        return f'<rect class="{kind}" x="{min(value, 0):.3f}" y="{y}" width="{abs(value):.3f}" height="7"/>'

    rows = []
    for each in readings:
        kept = " (kept)" if each.is_kept else ""
        bars = bar(each.before, 3, "was") + bar(each.after, 11, "is")
        rows.append(
            f'<tr{" class=set" if each.is_set else ""}><th scope="row">{_text(_words(each.name))}{kept}</th>'
            '<td class="track">'
            f'<svg viewBox="{-top:.3f} 0 {2 * top:.3f} 22" preserveAspectRatio="none" aria-hidden="true">{bars}'
            f'<line class="zero" x1="0" x2="0" y1="0" y2="22"/></svg></td>'
            f"<td>{_number(each.before)}</td><td>{_number(each.after)}</td>"
            f'<td class="area">{"–" if each.area is None else f"{each.area:.2f}"}</td></tr>'
        )
    head = '<tr><th></th><td class="track"></td><td>before</td><td>after</td><td class="area">area</td></tr>'
    return f'<table class="bars"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def _change(findings: Findings, settings: Settings) -> str:
    picture, top = pictures.difference(findings.difference)
    scale = f'<div class="scale"></div><div class="ends"><span>0</span><span>{top:.0f} of 255 or more</span></div>'
    caption = (
        f"{findings.visibly:.1%} of the photo's pixels changed by more than {VISIBLE:g} of 255; "
        f"{findings.untouched:.1%} are bit-identical. The colours follow the square root."
    )
    motion = findings.motion
    length = np.hypot(motion[..., 0], motion[..., 1])
    if length.max() > _LEAST_MOTION:
        drawn, stretch = charts.arrows(motion, findings.view.size, findings.view.scale)
        told = "as long as the way" if stretch == 1 else f"drawn {stretch:g} times as long as the way"
        moved = (
            f"The motion field: where the photo's own pixels went, {told}. The longest is {length.max():.1f} pixels."
        )
    else:
        drawn, moved = "", "Nothing was moved: what is new was painted."
    field = f'<div class="stack">{_image(pictures.faded(findings.steps[-1]), "The edited face")}{drawn}</div>'
    field = field.replace("<svg ", '<svg class="arrows" ', 1)
    return _section(
        "What changed",
        "An edit moves the photo's own pixels along a smooth field, and paints only what is new.",
        _row(
            [
                _figure(_image(picture, "The difference of before and after") + scale, caption),
                _figure(field, moved),
            ]
        ),
    )


def _energy(findings: Findings, settings: Settings) -> str:
    figures = []
    for layer, energy in findings.energy.items():
        picture = pictures.reduced(pictures.heat(findings.before, energy), _MIDDLE)
        figures.append(_figure(_image(picture, f"Where the vectors act in {layer}"), f"<b>{layer}</b>"))
    return _section(
        "Where the vectors act",
        "The energy of what is added to the network's features, summed over the channels of each layer and put back "
        "over the face: dark where there is none of it, bright where there is most.",
        _row(figures, "three"),
    )


def _losses(findings: Findings, settings: Settings) -> str:
    solves = [(number, solve) for number, face in enumerate(findings.edit.faces, start=1) for solve in face.solves]
    lead = (
        "L-BFGS looks for the change whose features are the wanted ones. The loss is the sum of each layer's distance "
        "to them, in units of the layer's own energy, and of a total variation too small to be seen here."
    )
    if not solves:
        lead = "No solver was needed: what was asked for moves the photo's own pixels, as learnt from landmarks."
        return _section("The loss", lead)
    figures = []
    for number, solve in solves[:_MOST_CHARTS]:
        whose = f"face {number}, " if len(findings.edit.faces) > 1 else ""
        first, last = (sum(each.layers) + each.variation for each in (solve.losses[0], solve.losses[-1]))
        caption = (
            f"<b>{_text(_setting(solve.alphas))}</b>, {whose}in a frame of {solve.frame.size} pixels: "
            f"from {first:.3f} to {last:.3f} in {solve.iterations} iterations, {solve.evaluations} evaluations"
        )
        figures.append(_figure(charts.loss_chart(solve.losses), caption))
    more = [f"<p>{len(solves) - _MOST_CHARTS} more are not shown.</p>"] if len(solves) > _MOST_CHARTS else []
    return _section("The loss", lead, charts.legend(), _row(figures), *more)


def _repeat(settings: Settings) -> str:
    details = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in settings.details)
    return _section(
        "To repeat it",
        "This makes the edited photo, at its full resolution and depth:",
        f"<pre>{_text(settings.command)}</pre>\n<dl>{details}</dl>",
    )
