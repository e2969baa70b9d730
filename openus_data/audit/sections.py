"""Parts of the report beyond counts: outlines, duplicates, quality, de-identification. Columnar throughout."""

from __future__ import annotations

from typing import Any, Final

from openus_data.audit.rows import Rows

BINS: Final = 20
PAIRS: Final = 12
"""Pairs of near-duplicates that are named, those that cross splits or datasets first."""
_MEMBERS: Final = 8


def cones(rows: Rows) -> dict[str, Any]:
    """Confidence of the outlines: a histogram over [0, 1] for each geometry, and quantiles."""
    found = rows.ask(
        f"select cone_geometry, least({BINS - 1}, greatest(0, floor(cone_confidence * {BINS})))::int as bin, count(*) "
        "from m group by 1, 2 order by 1, 2"
    )
    histogram: dict[str, list[int]] = {}
    for geometry, bin_, count in found:
        histogram.setdefault(str(geometry), [0] * BINS)[int(bin_)] += int(count)
    quantiles = rows.one("select quantile_cont(cone_confidence::double, [0.05, 0.25, 0.5, 0.75, 0.95]) from m")
    return {"bins": BINS, "histogram": histogram, "quantiles": [round(float(q), 4) for q in quantiles or ()]}


def quality(rows: Rows) -> list[dict[str, Any]]:
    """Images for each quality flag."""
    found = rows.ask("select f, count(*) as n from (select unnest(quality) as f from m) group by f order by n desc, f")
    return [{"flag": flag, "images": int(count)} for flag, count in found]


def privacy(rows: Rows) -> dict[str, Any]:
    """What de-identification did: images for each rule that changed something, and text boxes that were filled."""
    actions = rows.ask(
        "select a, count(*) as n from (select unnest(deid_actions) as a from m) group by a order by n desc, a"
    )
    images, boxes = rows.ask(
        "select count(*) filter (len(text_boxes_removed) > 0), coalesce(sum(len(text_boxes_removed)), 0)::bigint from m"
    )[0]
    refused = rows.ask(
        "select stage, reason, count(*) as n from rejects where stage in ('deid', 'text') group by 1, 2 "
        "order by n desc, 1, 2"
    )
    return {
        "actions": [{"action": action, "images": int(count)} for action, count in actions],
        "images_with_text_removed": int(images),
        "text_boxes_removed": int(boxes),
        "refused": [{"stage": stage, "reason": reason, "items": int(count)} for stage, reason, count in refused],
    }


def duplicates(rows: Rows) -> dict[str, Any]:
    """Exact and near duplicates within and across datasets, with named pairs."""
    rows.ask(
        "create or replace temp table g as select duplicate_group, count(*) as n, count(distinct dataset) as datasets, "
        "count(distinct split) as splits from m where duplicate_group is not null group by 1"
    )
    groups, images, across, crossing = rows.ask(
        "select count(*), coalesce(sum(n), 0)::bigint, count(*) filter (datasets > 1), "
        "count(*) filter (splits > 1) from g"
    )[0]
    exact = rows.one("select coalesce(sum(n - 1), 0)::bigint from (select count(*) n from m group by pixel_sha256)")
    between = rows.ask(
        "select a.dataset, b.dataset, count(distinct a.duplicate_group) from "
        "(select distinct dataset, duplicate_group from m where duplicate_group is not null) a join "
        "(select distinct dataset, duplicate_group from m where duplicate_group is not null) b "
        "on a.duplicate_group = b.duplicate_group and a.dataset < b.dataset group by 1, 2 order by 3 desc, 1, 2"
    )
    return {
        "groups": int(groups),
        "images_in_groups": int(images),
        "groups_across_datasets": int(across),
        "groups_across_splits": int(crossing),
        "extra_exact_copies": int(exact),
        "between": [{"first": a, "second": b, "groups": int(n)} for a, b, n in between],
        "pairs": _pairs(rows),
    }


def _pairs(rows: Rows) -> list[dict[str, Any]]:
    members: dict[str, list[tuple[str, str, str, str]]] = {}
    for group, *member in rows.ask(
        f"with top as (select * from g order by splits desc, datasets desc, duplicate_group limit {PAIRS}), "
        "turns as (select m.duplicate_group as group_id, sample_id, dataset, split, phash, row_number() over "
        "(partition by "
        "m.duplicate_group, dataset, split order by sample_id) as turn from m join top using (duplicate_group)) "
        f"select group_id, sample_id, dataset, split, phash from turns where turn <= {_MEMBERS} "
        "order by group_id, turn, sample_id"
    ):
        members.setdefault(str(group), []).append((str(member[0]), str(member[1]), str(member[2]), str(member[3])))
    found = []
    for group, listed in sorted(members.items()):
        first, others = listed[0], listed[1:] or listed[:1]
        second = max(others, key=lambda o: (o[2] != first[2], o[1] != first[1]))
        found.append(
            {
                "group": group,
                "samples": [first[0], second[0]],
                "datasets": [first[1], second[1]],
                "splits": [first[2], second[2]],
                "bits_apart": _distance(first[3], second[3]),
            }
        )
    return sorted(found, key=lambda p: (p["splits"][0] == p["splits"][1], p["datasets"][0] == p["datasets"][1]))


def _distance(first: str, second: str) -> int | None:
    try:
        return (int(first, 16) ^ int(second, 16)).bit_count()
    except ValueError:  # withheld
        return None
