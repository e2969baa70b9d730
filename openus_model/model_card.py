"""The model card of exported weights: README.md with the hub's front matter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from openus_model.seen import is_whole

CARD: Final = "README.md"
_FRONT: Final = """---
library_name: openus
tags: [ultrasound, medical-imaging, mamba, self-supervised-learning, image-feature-extraction]
license: other
license_name: see-the-licences-of-the-data
---
"""
_LIMITS: Final = """## Intended use and limits

For research on ultrasound images: features for retrieval, probes, fine-tuning, segmentation. Not a medical device; no
diagnosis, no triage, no use on patients. It was not tested for any clinical purpose.

- What it has not seen it may not know: the tables above name the organs and makers that are rare or absent. Check the
  scores per device and organ on your own images (`openus-model evaluate`), not the mean alone.
- Images should be cropped to the scan area with burned-in text removed, as `openus-data build` does: text and rulers
  can leak a label.
- A test image, or another image of its subject, may be among what it saw: `openus-model evaluate` refuses such a test
  as long as `seen.parquet` lies beside the weights. That file holds pseudonyms, hashes of pixels and perceptual hashes,
  no pixel; decide whether yours may be published.
- Self-supervised features carry the biases of their data: hospitals, machines, countries, body sizes.
"""


def find_scores(weights: Path, digest: str) -> list[dict[str, Any]]:
    """Every `scores.json` below the weights' folder that was measured with these very weights, by dataset."""
    found = []
    for path in sorted(weights.rglob("scores.json")):
        scores = json.loads(path.read_text())
        if scores.get("weights_sha256") == digest:
            found.append(scores)
    return sorted(found, key=lambda s: (s["dataset"], s["protocol"], -s["label_fraction"]))


def write_card(
    folder: Path,
    backbone: Any,
    facts: Mapping[str, Any],
    seen: pa.Table | None,
    scores: Sequence[Mapping[str, Any]],
) -> None:
    """Write README.md whole or not at all.

    Args:
        folder: of the export.
        backbone: the network.
        facts: where the weights come from.
        seen: what they were trained on; None where they do not say.
        scores: contents of scores.json.
    """
    parts = [
        _FRONT,
        *_head(folder.resolve().name, backbone, facts),
        *_composition(seen),
        *_scores(scores),
        _LIMITS,
        *_citation(),
    ]
    aside = folder / f".{CARD}.part"
    aside.write_text("\n".join(parts), encoding="utf-8")
    aside.replace(folder / CARD)


def _head(name: str, backbone: Any, facts: Mapping[str, Any]) -> Iterator[str]:
    parameters = sum(p.numel() for p in backbone.parameters())
    yield f"# {name}\n"
    yield f"A `{backbone.name}` backbone for ultrasound, {parameters:,} parameters, {backbone.embed_dim} features.\n"
    yield "```python\nimport openus_model\n"
    yield f'backbone = openus_model.load_backbone("{name}")  # or openus_model.hub.pull("owner/{name}")'
    yield "features = backbone(image_BCHW).pooled_BD  # three channels, of openus_model.pixels.normalise\n```\n"
    if "step" in facts:
        recipe = facts["recipe"].get("name")
        yield f"Pretrained with the recipe `{recipe}` for {facts['step']:,} steps; the teacher's weights."
        yield "`config.json` holds the whole recipe.\n"
    elif facts.get("imported_from"):
        yield f"Imported from `{facts['imported_from']}`, part `{facts.get('part')}`.\n"
    yield f"SHA-256 of the tensors: `{facts['weights_sha256']}`\n"


def _composition(seen: pa.Table | None) -> Iterator[str]:
    yield "## What it was trained on\n"
    if seen is None:
        yield "These weights do not say. Contamination cannot be excluded, and the licences are unknown.\n"
        return
    subjects = len(set(zip(*(seen.column(c).to_pylist() for c in ("dataset", "subject_id")), strict=True)))
    yield f"{seen.num_rows:,} images of {subjects:,} subjects.\n"
    if not is_whole(seen):
        yield "They started from weights that do not say what they were trained on: what follows is a part.\n"
    yield "| dataset | images | subjects | licence | may be handed on |\n|---|---|---|---|---|"
    yield from _datasets(seen)
    closed = sorted(
        {r["dataset"] for r in seen.select(["dataset", "redistributable"]).to_pylist() if not r["redistributable"]}
    )
    yield ""
    if closed:
        yield (
            f"Not redistributable: {', '.join(closed)}. Whether weights trained on them may be published is for you "
            "and the terms to decide.\n"
        )
    for column, title in (("organ", "organ"), ("device_manufacturer", "maker of the machine")):
        yield f"| {title} | images | share |\n|---|---|---|"
        for value, count in Counter(seen.column(column).to_pylist()).most_common():
            yield f"| {value or 'unknown'} | {count:,} | {count / seen.num_rows:.1%} |"
        yield ""


def _datasets(seen: pa.Table) -> Iterator[str]:
    groups: dict[tuple[Any, ...], set[Any]] = {}
    counts: Counter[tuple[Any, ...]] = Counter()
    for row in seen.select(["dataset", "license", "redistributable", "subject_id"]).to_pylist():
        key = (row["dataset"], row["license"] or "unknown", row["redistributable"])
        groups.setdefault(key, set()).add(row["subject_id"])
        counts[key] += 1
    for key in sorted(groups, key=lambda k: (-counts[k], k)):
        dataset, license_name, open_ = key
        yield f"| {dataset} | {counts[key]:,} | {len(groups[key]):,} | {license_name} | {'yes' if open_ else 'no'} |"


def _scores(scores: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "## Scores\n"
    if not scores:
        yield "None were measured before this export.\n"
        return
    yield "Intervals are 95 %, by bootstrap over subjects.\n"
    yield "| dataset | target | protocol | tested on | labels used | metric | value | interval | seen in training |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for s in scores:
        known = s["contamination"].get("images")
        what = f"| {s['dataset']} | {s['target']} | {s['protocol']} | {s['test_images']:,} images of "
        what += f"{s['test_subjects']:,} subjects | {s['label_fraction']:.0%} |"
        for name, m in s["metrics"].items():
            if m["value"] is not None:
                interval = "" if m["low"] is None else f"{m['low']:.3f} to {m['high']:.3f}"
                seen = "unknown" if known is None else f"{known} images"
                yield f"{what} {name} | {m['value']:.3f} | {interval} | {seen} |"
    yield ""


def _citation() -> Iterator[str]:
    yield "## Citation\n"
    yield "The method: OpenUS, 2025, https://arxiv.org/abs/2511.11510. The datasets: see their cards"
    yield "(`openus-data show ID`), and cite those that you use.\n"
