"""A picture of embeddings to hover: two principal axes, coloured by a manifest column, as one HTML file.

    python -m openus_model.embed_map embeddings.parquet out --by organ --html map.html

`nearest` answers the other question: which images are most like one.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray

from openus_model.corpus import Corpus
from openus_model.errors import DataError, OpenUSModelError, UsageError

COLOURS: Final = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#9c6ade", "#76b7b2", "#b07a4a", "#d37295")
OTHERS: Final = "#888888"
MOST: Final = 20_000
"""Dots of a page; more would neither be told apart nor open in a browser."""
_SIDE, _PAD = 720, 16
_STYLE: Final = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
circle{opacity:.75}circle:hover{opacity:1;stroke:currentColor;stroke-width:2}svg{width:100%;height:auto}
@media(max-width:30rem){circle{r:8px}}ul{padding:0}li{display:inline-block;margin-right:1.2rem}p{max-width:44rem}
.dot{display:inline-block;width:.8em;height:.8em;border-radius:50%}
"""


def read_embeddings(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Sample ids and vectors (N, D) of a file that `embed` wrote."""
    if not path.is_file():
        raise DataError("no such file", where=path.name, next_step="run openus-model embed")
    table = pq.read_table(path, partitioning=None)
    vectors = table.column("embedding").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return table.column("sample_id").to_pylist(), vectors.reshape(table.num_rows, -1).astype(np.float32)


def nearest(path: Path, sample_id: str, count: int = 10) -> list[tuple[str, float]]:
    """The images most like one, with their cosine similarity, the likest first; without itself.

    Raises:
        UsageError: no such sample.
    """
    names, vectors = read_embeddings(path)
    if sample_id not in names:
        raise UsageError("no such sample in the embeddings", where=path.name, got=sample_id)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit[names.index(sample_id)]
    order = [int(k) for k in np.argsort(-alike, kind="stable") if names[k] != sample_id]
    return [(names[k], float(alike[k])) for k in order[:count]]


def principal_axes(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Positions (N, 2) on the two axes of largest variance, and the share of variance that they show."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    chosen = axes[:, ::-1][:, :2]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), [0, 1]])  # an axis has no sign: fix one
    return centred @ chosen, float(values[-2:].sum() / max(values.sum(), 1e-12))


def write_map(embeddings: Path, data: Path, out: Path, *, by: str = "organ") -> Path:
    """Write the page.

    Args:
        embeddings: a file that `embed --data` wrote.
        data: the same OUT, for the manifest.
        out: FILE.html.
        by: manifest column that gives the colour.

    Raises:
        UsageError: no such column.
        DataError: a sample that the manifest does not have.
    """
    names, vectors = read_embeddings(embeddings)
    corpus = Corpus.open(data)
    if by not in corpus.table.column_names:
        raise UsageError("no such manifest column", where="--by", got=by)
    rows = {name: k for k, name in enumerate(corpus.column("sample_id"))}
    missing = next((name for name in names if name not in rows), None)
    if missing is not None:
        raise DataError("an embedding is of another corpus", where=data.name, got=missing)
    facts = [corpus.row(rows[name], ["dataset", "organ", "device_manufacturer", by]) for name in names]
    places, share = principal_axes(vectors)
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    aside.write_text(_page(names, places, facts, by, share), encoding="utf-8")
    aside.replace(out)
    return out


def _page(names: list[str], places: NDArray[np.float64], facts: list[dict[str, Any]], by: str, share: float) -> str:
    kinds = [str(f[by] or "unknown") for f in facts]
    counts = Counter(kinds)
    colours = dict(zip([v for v, _ in counts.most_common(len(COLOURS))], COLOURS, strict=False))
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = _PAD + (places - low) / np.maximum(high - low, 1e-12) * (_SIDE - 2 * _PAD)
    drawn = np.linspace(0, len(names) - 1, min(MOST, len(names))).astype(int).tolist()
    dots = "".join(
        f'<circle cx="{scaled[k, 0]:.1f}" cy="{_SIDE - scaled[k, 1]:.1f}" r="4" fill="{colours.get(kinds[k], OTHERS)}">'
        f"<title>{html.escape(_words(names[k], facts[k]))}</title></circle>"
        for k in drawn
    )
    legend = "".join(
        f'<li><span class="dot" style="background:{colours.get(v, OTHERS)}"></span> {html.escape(v)}: {n}</li>'
        for v, n in counts.most_common()
    )
    title = f"{len(names):,} embeddings by {html.escape(by.replace('_', ' '))}"
    part = f" {len(drawn):,} of them are drawn, evenly spaced in the file." if len(drawn) < len(names) else ""
    words = f"Two principal axes, {share:.0%} of the variance.{part} Hover a dot to see what it is."
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"</head><body><main><h1>{title}</h1><p>{words}</p>"
        f'<ul>{legend}</ul><svg role="img" aria-label="{title}" viewBox="0 0 {_SIDE} {_SIDE}">{dots}</svg>'
        "</main></body></html>\n"
    )


def _words(name: str, facts: dict[str, Any]) -> str:
    return "; ".join([name, *(f"{key.replace('_', ' ')}: {value or 'unknown'}" for key, value in facts.items())])


def main(
    embeddings: Path,
    data: Path,
    html_file: Annotated[Path, typer.Option("--html", help="FILE.html")],
    by: Annotated[str, typer.Option("--by", help="Manifest column that gives the colour.")] = "organ",
) -> None:
    """A picture of embeddings to hover."""
    try:
        typer.echo(str(write_map(embeddings, data, html_file, by=by)))
    except OpenUSModelError as error:
        typer.echo(f"openus_model.embed_map: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None


if __name__ == "__main__":
    typer.run(main)
