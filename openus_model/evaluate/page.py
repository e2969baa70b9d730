"""The page of an evaluation: one self-contained HTML file, light and dark, tables first, pictures with words beside.

Metrics with intervals, the paper's figures where a recipe carries them, the confusion matrix, scores by device and
organ, the best, median and worst segmentation, and a label-efficiency curve when scores of other fractions lie beside.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_model.corpus import Corpus

PAGE: Final = "scores.html"
_WIDE, _HIGH, _PAD = 480, 260, 44
_PANEL_PX: Final = 576
"""Width at which overlays are drawn: twice that at which they are shown, so that outlines stay sharp."""
_TRUTH, _RESULT = (255, 184, 77), (30, 140, 255)
"""Blue and orange as OpenCV has them; both stand out on grey."""
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1a1c1f;--soft:#5c6470;--line:#d5d9df;--back:#fff;--one:#0b6bcb;--two:#b5480a}
@media(prefers-color-scheme:dark){
:root{--ink:#e8eaed;--soft:#a3abb6;--line:#3a4049;--back:#15181c;--one:#6cb2ff;--two:#ffa066}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--back);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}p.soft,figcaption{color:var(--soft)}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.3rem}
th,td{border-bottom:1px solid var(--line);padding:.3rem .8rem .3rem 0;text-align:left}td.n,th.n{text-align:right}
.wrap{overflow-x:auto}svg{max-width:100%;height:auto}.note{border-left:4px solid var(--two);padding-left:.7rem}
.panels{display:flex;flex-wrap:wrap;gap:1rem}
figure{margin:0}figure img{width:18rem;max-width:100%;height:auto;display:block}svg text{fill:var(--ink);font-size:12px}
@media(max-width:30rem){th,td{padding:.3rem .5rem .3rem 0}}
td.heat,th.heat{text-align:right;min-width:3.2rem;padding:.3rem .6rem}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One overlay.

    Args:
        title: best, median or worst.
        dsc: of the image.
        png: the picture, truth and result outlined.
    """

    title: str
    dsc: float
    png: bytes


def pick_panels(
    corpus: Corpus, rows: NDArray[np.int64], dsc: NDArray[np.float64], masks: Mapping[int, NDArray[np.uint8]]
) -> list[Panel]:
    """The best, the median and the worst image by DSC, truth in blue and result in orange.

    Images with nothing to find are left out where others are there: an empty picture shows no skill.
    """
    marked = np.array([(mask := corpus.mask(int(row))) is not None and bool(mask.any()) for row in rows])
    if marked.any():
        rows, dsc = rows[marked], dsc[marked]
    order = np.argsort(-dsc, kind="stable")
    places = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    return [
        Panel(title=title, dsc=float(dsc[order[k]]), png=_overlay(corpus, int(rows[order[k]]), masks))
        for title, k in places.items()
    ]


def _overlay(corpus: Corpus, row: int, masks: Mapping[int, NDArray[np.uint8]]) -> bytes:
    image, truth = corpus.image(row), corpus.mask(row)
    size = (_PANEL_PX, max(1, round(image.shape[0] * _PANEL_PX / image.shape[1])))
    picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for mask, colour, width in ((truth, _TRUTH, 5), (masks[row], _RESULT, 2)):
        if mask is not None:
            large = cv2.resize((mask > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            outlines = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(picture, outlines, -1, colour, width)
    encoded: bytes = cv2.imencode(".png", picture)[1].tobytes()
    return encoded


def write_page(out: Path, scores: Mapping[str, Any], panels: Sequence[Panel]) -> Path:
    """Write scores.html whole or not at all; returns its path."""
    siblings = _siblings(out, scores)
    title = f"{scores['protocol']} of {scores['model']} on {scores['dataset']}"
    sections = (
        _head(title, scores),
        _metrics(scores),
        _confusion(scores),
        _groups(scores),
        _overlays(panels),
        _curve(siblings),
        _folds(scores),
    )
    body = "\n".join(part for section in sections for part in section)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_e(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>\n'
    )
    aside = out / f".{PAGE}.{os.getpid()}.part"
    aside.write_text(page, encoding="utf-8")
    aside.replace(out / PAGE)
    return out / PAGE


def _e(text: object) -> str:
    return html.escape(str(text))


def _head(title: str, s: Mapping[str, Any]) -> Iterator[str]:
    yield f"<main><h1>{_e(title)}</h1>"
    yield (
        f"<p class=soft>{s['test_images']} test images of {s['test_subjects']} subjects; "
        f"{s['label_fraction']:.0%} of the labels; intervals are 95&nbsp;%, by bootstrap over subjects</p>"
    )
    for note in s["notes"]:
        yield f"<p class=note>{_e(note)}</p>"


def _metrics(s: Mapping[str, Any]) -> Iterator[str]:
    paper = s.get("paper", {})
    also = ", and what the paper reports for this cell (its own figure, not ours)" if paper else ""
    yield f"<h2>Metrics</h2><div class=wrap><table><caption>What was measured here{also}"
    yield "</caption><thead><tr><th scope=col>metric<th scope=col class=n>value<th scope=col class=n>low"
    yield "<th scope=col class=n>high" + ("<th scope=col class=n>the paper's" if paper else "") + "</thead><tbody>"
    for name, m in s["metrics"].items():
        theirs = f"<td class=n>{paper[name] / 100:.3f}" if name in paper else "<td class=n>" if paper else ""
        cells = "".join(f"<td class=n>{_number(m[k])}" for k in ("value", "low", "high"))
        yield f"<tr><th scope=row>{_e(name)}{cells}{theirs}"
    yield "</tbody></table></div>"
    if paper.get("note"):
        yield f"<p class=soft>The paper's: {_e(paper['note'])}</p>"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _listed(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _confusion(s: Mapping[str, Any]) -> Iterator[str]:
    if "confusion" not in s:
        return
    yield "<h2>Confusion</h2><div class=wrap><table><caption>Rows: the truth; columns: what was said; images"
    yield "</caption><thead><tr><td>" + "".join(f"<th scope=col class=heat>{_e(c)}" for c in s["classes"]) + "</thead>"
    for name, row in zip(s["classes"], s["confusion"], strict=True):
        total = max(1, sum(row))
        cells = "".join(
            f'<td class=heat style="background:color-mix(in srgb,var(--one) {round(70 * n / total)}%,transparent)">{n}'
            for n in row
        )
        yield f"<tr><th scope=row>{_e(name)}{cells}"
    yield "</table></div>"


def _groups(s: Mapping[str, Any]) -> Iterator[str]:
    what = "mean DSC" if "confusion" not in s else "accuracy"
    yield "<h2>By device and organ</h2>"
    for column, groups in s["by"].items():
        heads = ("images", "subjects", what, "low", "high")
        yield f"<div class=wrap><table><thead><tr><th scope=col>{_e(column.replace('_', ' '))}"
        yield "".join(f"<th scope=col class=n>{head}" for head in heads) + "</thead><tbody>"
        for g in groups:
            numbers = "".join(f"<td class=n>{_number(g[k])}" for k in ("mean", "low", "high"))
            yield f"<tr><th scope=row>{_e(g['value'])}<td class=n>{g['images']}<td class=n>{g['subjects']}{numbers}"
        yield "</tbody></table></div>"


def _overlays(panels: Sequence[Panel]) -> Iterator[str]:
    if not panels:
        return
    yield "<h2>Best, median, worst</h2><p class=soft>Blue: the truth. Orange: the result.</p><div class=panels>"
    for p in panels:
        picture = base64.b64encode(p.png).decode()
        yield f'<figure><img alt="{p.title} case, DSC {p.dsc:.3f}" src="data:image/png;base64,{picture}">'
        yield f"<figcaption>{p.title}: DSC {p.dsc:.3f}</figcaption></figure>"
    yield "</div>"


def _siblings(out: Path, mine: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Scores of the same model, dataset, protocol and folds in folders beside, one per label fraction, in its order."""
    same = ("protocol", "dataset", "weights_sha256", "target", "seed", "test_images")
    found: dict[float, Mapping[str, Any]] = {mine["label_fraction"]: mine}
    for path in sorted(out.resolve().parent.glob("*/scores.json")):
        try:
            other = json.loads(path.read_text())
        except ValueError:
            continue
        if all(other.get(k) == mine.get(k) for k in same):
            found.setdefault(other["label_fraction"], other)
    return [found[f] for f in sorted(found)]


def _curve(siblings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(siblings) < 2:
        return
    name = "dsc" if "dsc" in siblings[0]["metrics"] else "macro_f1"
    points = [(s["label_fraction"], s["metrics"][name]) for s in siblings if s["metrics"][name]["value"] is not None]
    values = [v for _, m in points for v in (m["low"], m["high"], m["value"]) if v is not None]
    low, high = max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)

    def at(fraction: float, value: float) -> tuple[float, float]:
        return _PAD + fraction * (_WIDE - 2 * _PAD), _HIGH - _PAD - (value - low) / (high - low) * (_HIGH - 2 * _PAD)

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(f, m["value"]) for f, m in points))
    yield f"<h2>Label efficiency</h2><figure><svg role=img viewBox='0 0 {_WIDE} {_HIGH}' width={_WIDE} height={_HIGH}>"
    yield f"<title>{name} by share of labels</title>"
    for value in np.linspace(low, high, 4):
        x, y = at(0, float(value))
        yield f"<line x1={x} x2={_WIDE - _PAD} y1={y:.1f} y2={y:.1f} stroke='var(--line)'/>"
        yield f"<text x={x - 6} y={y + 4:.1f} text-anchor=end>{value:.2f}</text>"
    for fraction, m in points:
        x, y = at(fraction, m["value"])
        if m["low"] is not None:
            ends = at(fraction, m["low"])[1], at(fraction, m["high"])[1]
            yield f"<line x1={x:.1f} x2={x:.1f} y1={ends[0]:.1f} y2={ends[1]:.1f} stroke='var(--one)' stroke-width=2 />"
        yield f"<circle cx={x:.1f} cy={y:.1f} r=4 fill='var(--one)'/>"
        yield f"<text x={x:.1f} y={_HIGH - _PAD + 18} text-anchor=middle>{fraction:.0%}</text>"
    yield f"<polyline points='{line}' fill=none stroke='var(--one)' stroke-width=2 /></svg>"
    yield f"<figcaption>{name} by share of training subjects; bars are 95&nbsp;% intervals</figcaption></figure>"
    yield "<div class=wrap><table><thead><tr><th scope=col>labels<th scope=col class=n>value<th scope=col class=n>low"
    yield "<th scope=col class=n>high</thead><tbody>"
    for fraction, m in points:
        cells = "".join(f"<td class=n>{_number(m[k])}" for k in ("value", "low", "high"))
        yield f"<tr><th scope=row>{fraction:.0%}{cells}"
    yield "</tbody></table></div>"


def _folds(s: Mapping[str, Any]) -> Iterator[str]:
    columns = list(dict.fromkeys(k for fold in s["folds"] for k in fold))
    yield "<h2>How it was trained and tested</h2><div class=wrap><table><thead><tr>"
    yield "".join(f"<th scope=col>{_e(c.replace('_', ' '))}" for c in columns) + "</thead><tbody>"
    for fold in s["folds"]:
        yield "<tr>" + "".join(f"<td>{_e(_listed(fold.get(c, '')))}" for c in columns)
    yield f"</tbody></table></div><p class=soft>Weights <code>{_e(s['weights_sha256'][:16])}</code>, seed {s['seed']}, "
    yield f"openus {_e(s['openus_version'])}. Research only, no diagnosis.</p></main>"
