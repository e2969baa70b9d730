"""The audit as one self-contained HTML file: no network, readable without a mouse, light and dark, fit to print.

Tables are in the HTML; the plots (Chart.js, carried along under its licence) and the filter come on top of them. The
filter works on aggregated cells, so the page's size does not grow with the rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from openus_data.audit.cells import cells
from openus_data.audit.composition import CROSSED
from openus_data.audit.markup import chart, counts_table, figure, paragraph, section, table, words
from openus_data.audit.pictures import Thumbnail, thumbnails
from openus_data.audit.pixels import Looked
from openus_data.audit.report import AuditReport
from openus_data.audit.rows import Rows
from openus_data.card import Card
from openus_data.citation import bibliography
from openus_data.store import write_bytes_aside

MOST_ROWS: Final = 150
"""Rows of a table on the page; --json has all."""
SHOWN: Final = 36
ODD_SHOWN: Final = 12
_FIRST: Final = ("anatomy", "device_manufacturer", "device_model", "organ")
_CROSS_ROWS, _CROSS_COLUMNS = 40, 14
_SECTIONS: Final = (
    ("summary", "Summary"),
    ("findings", "Findings"),
    ("composition", "Composition"),
    ("cross", "Cross-tables"),
    ("spread", "Spread"),
    ("flow", "Flow"),
    ("duplicates", "Duplicates"),
    ("splits", "Splits"),
    ("cones", "Scan areas"),
    ("quality", "Quality"),
    ("privacy", "Privacy"),
    ("licence", "Licence"),
    ("citations", "Citations"),
)


def write_page(
    path: Path,
    report: AuditReport,
    rows: Rows,
    outs: Sequence[Path],
    shown: Sequence[Looked],
    cards: Mapping[str, Card],
) -> None:
    """Write the page."""
    charts: dict[str, Any] = {}
    body = _body(report, rows, outs, shown, cards, charts)
    data = json.dumps({"cells": cells(rows), "charts": charts}, separators=(",", ":")).replace("<", "\\u003c")
    listed = (*_SECTIONS, *((("compare", "Compare"),) if report.compare is not None else ()))
    links = "".join(f'<li><a href="#{i}">{t}</a></li>' for i, t in listed)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>Audit of an ultrasound corpus</title><style>{_asset('audit_page.css')}</style></head><body>"
        '<a class="skip" href="#summary">To the summary</a>'
        f'<header><h1>Audit of an ultrasound corpus</h1></header><nav aria-label="Sections"><ul>{links}</ul></nav>'
        f"<main>{body}</main><footer><p class=dim>Plots: Chart.js, MIT licence. Nothing on this page was loaded from "
        "a network. A research tool: not for diagnosis, no legal advice.</p></footer>"
        f'<script type="application/json" id="audit-data">{data}</script>'
        f"<script>{_asset('chartjs/chart.umd.min.js')}</script><script>{_asset('audit_page.js')}</script></body></html>\n"
    )
    write_bytes_aside(path, page.encode())


def _asset(name: str) -> str:
    return (files("openus_data") / "data" / name).read_text(encoding="utf-8")


def _body(
    report: AuditReport,
    rows: Rows,
    outs: Sequence[Path],
    shown: Sequence[Looked],
    cards: Mapping[str, Card],
    charts: dict[str, Any],
) -> str:
    with_text = [s for s in shown if s.text][:ODD_SHOWN]
    sample = _sample(rows)
    doubtful = rows.column(f"select sample_id from m order by cone_confidence, sample_id limit {ODD_SHOWN}")
    paired = [s for pair in report.duplicates["pairs"] for s in pair["samples"]]
    coarse = frozenset(s.sample_id for s in shown if s.text)
    made = thumbnails(rows, outs, [*sample, *doubtful, *paired, *(s.sample_id for s in with_text)], coarse=coarse)
    parts = [
        _summary(report),
        _findings(report),
        _composition(report, made, sample, charts),
        _cross(report),
        _spread(report),
        _flow(report, charts),
        _duplicates(report, made),
        _splits(report),
        _cones(report, made, doubtful, charts),
        _quality(report, charts),
        _privacy(report, made, with_text),
        _licence(report, charts),
        _citations(report, cards),
        _compare(report),
    ]
    return "".join(parts)


def _sample(rows: Rows) -> list[str]:
    """Sample ids spread over organs and makers, in a fixed order."""
    return [
        str(s)
        for s in rows.column(
            "select sample_id from (select sample_id, organ, device_manufacturer, row_number() over (partition by "
            "organ, device_manufacturer, dataset order by pixel_sha256, sample_id) as turn from m) "
            f"order by turn, organ, device_manufacturer, sample_id limit {SHOWN}"
        )
    ]


def _summary(report: AuditReport) -> str:
    t, p = report.totals, report.paper
    tiles = [(f"{t[k]:,}", k) for k in ("images", "subjects", "clips", "datasets")]
    tiles += [(f"{t['bytes'] / 1e6:,.1f} MB", "of pictures")]
    tiles += [(f"{p['images_here']:,}", f"of the paper's {p['openus_images']:,} images")]
    tiles += [(f"{p['datasets_here']}", f"of the paper's {p['openus_datasets']} datasets")]
    failing = sorted({f.id for f in report.failing})
    verdict = (
        f'<p class="error">Not clean: {escape(", ".join(failing))}.</p>'
        if failing
        else f'<p class="clean">Clean: no error, no warning; {report.looked_at:,} pictures were looked at again.</p>'
    )
    items = "".join(f"<li><b>{escape(v)}</b>{escape(k)}</li>" for v, k in tiles)
    return section("summary", "Summary", verdict, f'<ul class="tiles">{items}</ul>')


def _findings(report: AuditReport) -> str:
    if not report.findings:
        return section("findings", "Findings", paragraph("None."))
    body = "".join(
        f'<tr><td class="{f.severity}">{f.severity}</td><td class="n">{f.count:,}</td><td>{escape(f.title)}'
        f'<details><summary>{escape(f.id)}</summary><span class="dim">{escape(f.detail)}</span>'
        + (f"<br><code>{escape(', '.join(f.examples))}</code>" if f.examples else "")
        + "</details></td></tr>"
        for f in report.findings
    )
    head = '<th scope="col">severity</th><th scope="col" class="n">count</th><th scope="col">what</th>'
    return section(
        "findings",
        "Findings",
        paragraph("error: do not use or share. warning: a person should look. note: a limit to state in a paper."),
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>',
    )


def _composition(
    report: AuditReport, made: Mapping[str, Thumbnail], sample: Sequence[str], charts: dict[str, Any]
) -> str:
    panels = []
    for column in dict.fromkeys((*_FIRST, *report.by)):
        counted = report.by[column]
        charts[f"c-{column}"] = {
            "kind": "count",
            "pairs": [[str(r["value"]), r["images"]] for r in counted[:MOST_ROWS]],
        }
        panels.append(chart(f"c-{column}", f"By {words(column)}", counts_table(column, counted[:MOST_ROWS])))
    form = (
        '<form class="filter" role="search" onsubmit="return false"><label for="f-organ">Organ<select id="f-organ">'
        '<option value="">all</option></select></label><label for="f-device">Device maker<select id="f-device">'
        '<option value="">all</option></select></label><label for="f-words">Search datasets, anatomy, models ...'
        '<input id="f-words" type="search" autocomplete="off"></label><button id="f-clear" type="button">Clear</button>'
        '<output id="f-count" aria-live="polite"></output></form>'
    )
    figures = "".join(figure(made[s], filtered=True) for s in sample if s in made)
    pictures = (
        '<h3>Pictures <span class="dim" id="p-count"></span></h3><p class="dim">Reduced, text filled; green: scan '
        f'area.</p><div class="gallery">{figures}</div>'
    )
    return section("composition", "Composition", form, f'<div class="grid">{"".join(panels)}</div>', pictures)


def _cross(report: AuditReport) -> str:
    blocks = [_cross_table(a, b, report.cross[f"{a} x {b}"]) for a, b in CROSSED]
    return section("cross", "Cross-tables", paragraph("Images for each pair; darker is more."), *blocks)


def _cross_table(first: str, second: str, pairs: Sequence[Mapping[str, Any]]) -> str:
    at = {(str(p[first]), str(p[second])): int(p["images"]) for p in pairs}
    down = _largest([(a, n) for (a, _), n in at.items()])[:_CROSS_ROWS]
    across = _largest([(b, n) for (_, b), n in at.items()])[:_CROSS_COLUMNS]
    most = max(at.values(), default=1)
    title = f"{first.replace('_', ' ')} by {second.replace('_', ' ')}"
    head = "".join(f'<th scope="col" class="n">{escape(b)}</th>' for b in across)
    body = "".join(
        f'<tr><th scope="row">{escape(a)}</th>'
        + "".join(
            f'<td class="n" style="background:rgba(var(--heat),{0.6 * (n / most) ** 0.5:.2f})">{n:,}</td>'
            if (n := at.get((a, b), 0))
            else '<td class="n dim">0</td>'
            for b in across
        )
        + "</tr>"
        for a in down
    )
    return (
        f"<details{' open' if first == 'organ' else ''}><summary>{escape(title)}</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table><thead><tr>'
        f'<th scope="col">{words(first)}</th>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _largest(pairs: Sequence[tuple[str, int]]) -> list[str]:
    sums: dict[str, int] = {}
    for value, count in pairs:
        sums[value] = sums.get(value, 0) + count
    return sorted(sums, key=lambda v: (-sums[v], v))


def _spread(report: AuditReport) -> str:
    rows = [
        (words(c), v["values"], v["effective_number"], v["largest"], f"{100 * v['largest_share']:.1f}%", v["known"])
        for c, v in report.concentration.items()
    ]
    heads = ("column", "values", "effective number", "largest", "its share", "images with a known value")
    share = "unknown" if report.phantom_share is None else f"{100 * report.phantom_share:.1f}%"
    text = "The effective number is exp(entropy): as many values of equal size would be spread so evenly."
    return section("spread", "Spread", paragraph(f"{text} Share of phantoms: {share}."), table(heads, rows, "Spread"))


def _flow(report: AuditReport, charts: dict[str, Any]) -> str:
    listed = sorted(report.flow, key=lambda d: -(int(d["kept"]) + int(d["turned_away"])))[:60]
    stages = sorted({str(r["stage"]) for d in listed for r in d["reasons"]})
    series = [{"label": "kept", "data": [d["kept"] for d in listed]}]
    series += [
        {
            "label": f"{s}: turned away",
            "data": [sum(r["items"] for r in d["reasons"] if r["stage"] == s) for d in listed],
        }
        for s in stages
    ]
    charts["c-flow"] = {"kind": "stacked", "labels": [d["dataset"] for d in listed], "series": series}
    heads = ("dataset", "card promises", "in the paper", "kept", "turned away")
    rows = [[d["dataset"], d["promised"], d["in_paper"], d["kept"], d["turned_away"]] for d in report.flow]
    reasons = [(d["dataset"], r["stage"], r["reason"], r["items"]) for d in report.flow for r in d["reasons"]]
    return section(
        "flow",
        "From listed to kept",
        chart("c-flow", "Kept and turned away by dataset", table(heads, rows, "Flow by dataset"), is_open=True),
        "<h3>Reasons</h3>",
        table(("dataset", "stage", "reason", "items"), reasons[:MOST_ROWS], "Why items were turned away"),
    )


def _duplicates(report: AuditReport, made: Mapping[str, Thumbnail]) -> str:
    d = report.duplicates
    text = (
        f"{d['groups']:,} groups of near-duplicates hold {d['images_in_groups']:,} images; "
        f"{d['groups_across_datasets']:,} join datasets, {d['groups_across_splits']:,} cross splits. "
        f"{d['extra_exact_copies']:,} further exact copies."
    )
    pairs = "".join(
        f'<div class="panel"><div class="pair">{figure(made[a])}{figure(made[b])}</div>'
        f'<p class="dim">group {escape(p["group"])}; {_unknown(p["bits_apart"])} of 256 hash bits apart</p></div>'
        for p in d["pairs"]
        if (a := p["samples"][0]) in made and (b := p["samples"][1]) in made
    )
    between = [(p["first"], p["second"], p["groups"]) for p in d["between"][:MOST_ROWS]]
    shared = table(("dataset", "and", "groups"), between, "Groups that two datasets share") if between else ""
    return section("duplicates", "Duplicates", paragraph(text), f'<div class="pictures">{pairs}</div>', shared)


def _splits(report: AuditReport) -> str:
    wanted = ("subject_crosses_splits", "group_crosses_splits", "contamination", "no_subject_key")
    found = {f.id: f for f in report.findings}
    rows = [(i.replace("_", " "), found[i].count if i in found else 0) for i in wanted]
    return section(
        "splits",
        "Splits and leaks",
        table(("check", "count"), rows, "Leaks between splits"),
        table(
            ("split", "images", "clips", "subjects"),
            [(s["value"], s["images"], s["clips"], s["subjects"]) for s in report.by["split"]],
            "Splits",
        ),
    )


def _cones(report: AuditReport, made: Mapping[str, Thumbnail], doubtful: Sequence[str], charts: dict[str, Any]) -> str:
    bins = int(report.cones["bins"])
    labels = [f"{k / bins:.2f}" for k in range(bins)]
    histogram = report.cones["histogram"]
    charts["c-confidence"] = {
        "kind": "histogram",
        "labels": labels,
        "series": [{"label": g, "data": counts} for g, counts in histogram.items()],
    }
    rows = [(labels[k], *(counts[k] for counts in histogram.values())) for k in range(bins)]
    of = table(("confidence from", *histogram), rows, "Images by confidence and geometry")
    figures = "".join(
        figure(made[s], f"{made[s].row['cone_geometry']}, confidence {made[s].row['cone_confidence']:.2f}")
        for s in doubtful
        if s in made
    )
    return section(
        "cones",
        "Scan areas",
        chart("c-confidence", "Confidence of the outlines", of),
        f'<h3>Least confident</h3><div class="gallery">{figures}</div>',
    )


def _quality(report: AuditReport, charts: dict[str, Any]) -> str:
    if not report.quality:
        return section("quality", "Quality", paragraph("No quality flag was raised."))
    charts["c-quality"] = {"kind": "count", "pairs": [[q["flag"], q["images"]] for q in report.quality]}
    of = table(("flag", "images"), [(q["flag"], q["images"]) for q in report.quality], "Images by quality flag")
    return section("quality", "Quality", chart("c-quality", "Quality flags", of))


def _privacy(report: AuditReport, made: Mapping[str, Thumbnail], with_text: Sequence[Looked]) -> str:
    p = report.privacy
    text = (
        f"{report.looked_at:,} of {report.totals['images']:,} pictures were looked at again, with their metadata. "
        f"Text was filled in {p['images_with_text_removed']:,} images ({p['text_boxes_removed']:,} boxes). "
        "Below, pictures in which something still reads like text: in coarse blocks, its place in orange."
    )
    figures = "".join(
        figure(made[s.sample_id], f"{len(s.text)} places", boxes=s.text) for s in with_text if s.sample_id in made
    )
    did = [(a["action"], a["images"]) for a in p["actions"]]
    refused = [(r["stage"], r["reason"], r["items"]) for r in p["refused"]]
    return section(
        "privacy",
        "Privacy",
        paragraph(text),
        f'<div class="gallery">{figures}</div>' if figures else paragraph("None was found."),
        table(("rule", "images"), did, "De-identification rules that changed something"),
        table(("stage", "reason", "items"), refused, "Items refused for privacy"),
    )


def _licence(report: AuditReport, charts: dict[str, Any]) -> str:
    found = report.licence
    charts["c-class"] = {"kind": "count", "pairs": sorted(found["classes"].items(), key=lambda kv: -kv[1])}
    classes = table(("class", "images"), list(found["classes"].items()), "Images by licence class")
    rows = [(d["dataset"], d["class"], d["licence"], d["images"], d["redistributable"]) for d in found["datasets"]]
    text = (
        f"{found['redistributable_images']:,} images may be handed on; a build with --license-class attribution keeps "
        f"{found['commercial_images']:,}. {found['note']}"
    )
    heads = ("dataset", "class", "licence", "images", "may be handed on")
    return section(
        "licence",
        "Licence",
        paragraph(text),
        chart("c-class", "Images by licence class", classes),
        table(heads, rows, "Licences by dataset"),
    )


def _citations(report: AuditReport, cards: Mapping[str, Card]) -> str:
    text = bibliography([str(d["dataset"]) for d in report.flow if d["kept"]], cards)
    return section(
        "citations",
        "Citations",
        f'<pre tabindex="0" aria-label="BibTeX">{escape(text or "No dataset has a card.")}</pre>',
    )


def _compare(report: AuditReport) -> str:
    if report.compare is None:
        return ""
    kinds = report.compare["kinds"]
    rows = [(d, *(counted.get(k, 0) for k in kinds)) for d, counted in report.compare["by_dataset"].items()]
    text = f"{report.compare['before']:,} images before, {report.compare['now']:,} now: "
    text += ", ".join(f"{v['count']:,} {k}" for k, v in kinds.items()) + "."
    return section("compare", "Compare", paragraph(text), table(("dataset", *kinds), rows, "Differences by dataset"))


def _unknown(value: int | None) -> str:
    return "unknown" if value is None else str(value)
