"""Write the reference pages and the README's tables from the code; `--check` fails when they are not current.

python docs/generate.py [--check]
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.update(COLUMNS="100", TERM="dumb", NO_COLOR="1")

NOTE = "<!-- Written by docs/generate.py: change the code, not this page. -->\n\n"


def command_page(package: str) -> str:
    """Every command's help text."""
    import importlib

    import typer.main
    from typer.testing import CliRunner

    module = importlib.import_module(f"{package}.cli")
    name = package.replace("_", "-")
    parts = [NOTE, f"# `{name}`\n\n", _help(CliRunner(), module.app, name, [])]
    for command in typer.main.get_command(module.app).commands:  # type: ignore[attr-defined]
        parts += [f"\n## `{name} {command}`\n\n", _help(CliRunner(), module.app, name, [command])]
    return "".join(parts)


def _help(runner: object, app: object, name: str, arguments: list[str]) -> str:
    answer = runner.invoke(app, [*arguments, "--help"], prog_name=name, terminal_width=100)  # type: ignore[attr-defined]
    return f"```\n{answer.output.strip()}\n```\n"


def manifest_page() -> str:
    """Columns of manifest.parquet and rejects.parquet."""
    from openus_data import schema

    parts = [
        NOTE,
        "# Files of a corpus, a run and an evaluation\n\n",
        LAYOUT,
        "\n## `manifest.parquet`\n\nA row per kept sample.\n\n",
    ]
    parts += [_table(("column", "type", "unit or range", "null", "meaning"), map(_column, schema.MANIFEST_COLUMNS))]
    parts += ["\n## `rejects.parquet`\n\nA row per item that was not kept.\n\n"]
    parts += [_table(("column", "type", "unit or range", "null", "meaning"), map(_column, schema.REJECT_COLUMNS))]
    parts += ["\n", RUN_LAYOUT, _table(("column", "type", "meaning"), SEEN_COLUMNS), "\n", SCORES]
    return "".join(parts)


LAYOUT = """```
OUT/shards/<split>/openus-<split>-000000.tar   <sample_id>.<png|jpg|webp>, <sample_id>.json, <sample_id>.mask.png
OUT/shards/<split>/openus-<split>-000000.json  sidecar: samples, bytes, sha256, members' offsets
OUT/manifest.parquet                           a row per kept sample
OUT/rejects.parquet                            a row per item not kept: dataset, item, stage, reason, detail
OUT/build.json                                 recipe, versions, card hashes, counts per dataset and stage
OUT/datacard.md, OUT/croissant.json            a Hugging Face style dataset card and MLCommons Croissant metadata
```
Shards are plain WebDataset. `offset` and `size_bytes` address the image in its tar, so that one sample is read
without a scan.
"""


RUN_LAYOUT = """## Runs, exports and scores

```
RUN/recipe.yaml, metrics.jsonl, checkpoints/, figures/   see docs/how-to/pretrain-on-a-cluster.md
RUN/seen.parquet                     a row per image that was trained on; `export` carries it on
DIR/model.safetensors, config.json   exported weights; README.md is their model card
DIR/model-224.onnx                   with `export --onnx 224`
SCORES/scores.json, scores.html      an evaluation
SCORES/features-<key>.npy            frozen features of knn and linear, kept for the next run; may be deleted
FILE.parquet                         of `embed`: sample_id, embedding (fixed-size list of float32), weights_sha256
FILE.parquet.parts/                  what an `embed` that was stopped goes on from
```

### `seen.parquet`

No pixel and no name. It is what contamination is decided by, and what the model card is made of.

"""

SEEN_COLUMNS = (
    ("`dataset`, `subject_id`", "`string`", "the pair is a subject; a test image of it counts as seen."),
    ("`duplicate_group`", "`string`", "null where there is none; a test image of the group counts as seen."),
    ("`pixel_sha256`", "`string`", "a test image with these pixels counts as seen."),
    ("`phash`", "`string`", "a test image within 32 of its 256 bits counts as seen."),
    ("`license`, `redistributable`, `organ`, `device_manufacturer`", "as in the manifest", "for the model card."),
)

SCORES = """### `scores.json`

| key | meaning |
|---|---|
| `schema`, `openus_version` | `openus-scores/1`; the version that wrote it. |
| `protocol`, `recipe`, `seed`, `label_fraction` | how it was done; `recipe` holds every key. |
| `model`, `weights_sha256` | what was tested; the hash is over names, shapes and values of the tensors. |
| `dataset`, `target`, `classes`, `test_images`, `test_subjects` | on what; `classes` in the order of `confusion`. |
| `metrics` | name to `value`, `low`, `high` (95 %, bootstrap by subject), `undefined_draws`; null where not defined. |
| `confusion` | classification: a row per true class, a column per class that was said, in images. |
| `by` | per value of maker, model and organ: `images`, `subjects`, `mean`, `low`, `high` of accuracy or DSC. |
| `folds` | per fold its name, its numbers of images, and what was chosen or how training went. |
| `contamination` | `known`, `contaminated` (or null), `images` seen of `of` tested, `by` kind of evidence, `allowed`. |
| `paper` | the paper's figures for this cell in per cent, where a recipe carries them; not a result of this toolkit. |
| `notes` | what limits the scores, in sentences. |
"""


def _column(column: object) -> tuple[str, ...]:
    c = column
    nullable = "yes" if c.nullable else "no"  # type: ignore[attr-defined]
    return f"`{c.name}`", f"`{c.type}`".replace("list<element:", "list<"), c.unit or "", nullable, c.meaning  # type: ignore[attr-defined]


def card_page() -> str:
    """Fields of a card."""
    from openus_data.card import card_reference

    rows = [(f"`{d.name}`", d.type, "yes" if d.required else "", d.meaning) for d in card_reference()]
    return (
        NOTE
        + "# Fields of a dataset card\n\nA card is `manifests/<id>.toml`, loaded strictly.\n\n"
        + _table(("field", "type", "required", "meaning"), rows)
    )


def recipe_page() -> str:
    """Keys of build, pretraining and evaluation recipes."""
    from openus_data.recipe import recipe_reference
    from openus_model.evaluate import settings
    from openus_model.recipe import describe_keys

    build = [(f"`{d.name}`", d.type, d.default, d.meaning) for d in recipe_reference() if d.type != "table"]
    pretrain, evaluate = (
        [(f"`{key}`", kind, f"`{default}`", meaning) for key, kind, default, meaning in describe()]
        for describe in (describe_keys, settings.describe_keys)
    )
    return (
        f"{NOTE}# Keys of recipes\n\nUnknown keys are refused with the nearest name.\n\n## Build\n\n"
        f"`openus-data build --recipe NAME`; built in: `recipes/build/`.\n\n"
        f"{_table(('key', 'type', 'default', 'meaning'), build)}"
        f"\n## Pretrain\n\n`openus-model pretrain NAME --set key=value`; built in: `recipes/pretrain/`.\n\n"
        f"{_table(('key', 'type', 'default', 'meaning'), pretrain)}"
        "\n## Evaluate\n\n`openus-model evaluate PROTOCOL --recipe NAME --set key=value`; built in, one for each cell "
        "of the paper's tables: `recipes/evaluate/`. Keys of training are not read by `knn` and `linear`.\n\n"
        f"{_table(('key', 'type', 'default', 'meaning'), evaluate)}"
    )


def dataset_table() -> str:
    """The cards, for the README."""
    from openus_data.card import load_cards
    from openus_data.catalogue import datasets_markdown

    return datasets_markdown(load_cards().values())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/openus-data.md": lambda: command_page("openus_data"),
    "docs/reference/openus-model.md": lambda: command_page("openus_model"),
    "docs/reference/files.md": manifest_page,
    "docs/reference/cards.md": card_page,
    "docs/reference/recipes.md": recipe_page,
}
SECTIONS: dict[tuple[str, str], Callable[[], str]] = {("README.md", "datasets"): dataset_table}


def generated() -> dict[Path, str]:
    """Every page and what it should say."""
    pages = {ROOT / name: make() for name, make in PAGES.items()}
    for (name, section), make in SECTIONS.items():
        text = pages.get(ROOT / name) or (ROOT / name).read_text()
        pattern = re.compile(rf"(<!-- {section}: begin -->\n).*?(<!-- {section}: end -->)", re.S)
        body = make()
        pages[ROOT / name] = pattern.sub(lambda m, body=body: m[1] + body + m[2], text)
    return pages


def main(check: bool) -> int:
    """Write, or say which pages are out of date."""
    stale = [path for path, text in generated().items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        sys.stderr.write(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}\n")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(generated()[path])
    if check and stale:
        sys.stderr.write("run python docs/generate.py\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
