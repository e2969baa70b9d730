"""ShardStream: every batch is a function of (seed, step), and damage is named."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from openus_model.contracts import Batch
from openus_model.errors import DataError, UsageError
from openus_model.order import Order, balanced_weights
from openus_model.stream import ShardStream
from openus_model.views import CropGroup

SMALL = (
    CropGroup(count=2, size=64, scale=(0.3, 1.0), blur_prob=(1.0, 0.1), solarize_prob=(0.0, 0.2)),
    CropGroup(count=3, size=32, scale=(0.1, 0.4)),
)


def _take(stream: ShardStream, count: int) -> list[Batch]:
    return list(itertools.islice(stream, count))


def _same(a: Batch, b: Batch) -> bool:
    pairs = ((a.global_BVCHW, b.global_BVCHW), (a.local_BVCHW, b.local_BVCHW), (a.local_valid_BVHW, b.local_valid_BVHW))
    return a.sample_ids == b.sample_ids and all(torch.equal(x, y) for x, y in pairs)


def test_batches_have_the_promised_shapes_and_types(make_corpus) -> None:
    (batch,) = _take(ShardStream(make_corpus(), batch_size=4, groups=SMALL), 1)
    assert batch.global_BVCHW.shape == (4, 2, 1, 64, 64) and batch.global_BVCHW.dtype == torch.uint8
    assert batch.local_BVCHW.shape == (4, 3, 1, 32, 32)
    assert batch.global_valid_BVHW.shape == (4, 2, 2, 2) and batch.local_valid_BVHW.shape == (4, 3, 1, 1)
    assert len(batch.sample_ids) == 4 and batch.row_B[0]["organ"] in ("breast", "thyroid")


def test_an_epoch_shows_each_sample_once_and_epochs_differ_in_order(make_corpus) -> None:
    batches = _take(ShardStream(make_corpus(12), batch_size=4, groups=SMALL), 6)
    ids = [i for b in batches for i in b.sample_ids]
    assert set(Counter(ids[:12]).values()) == {1} and sorted(ids[:12]) == sorted(ids[12:])
    assert ids[:12] != ids[12:]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_gives_the_same_batches_over_an_epoch_border(make_corpus, workers: int) -> None:
    root = make_corpus(10)
    whole = _take(ShardStream(root, batch_size=4, groups=SMALL, seed=5), 5)
    first = ShardStream(root, batch_size=4, groups=SMALL, seed=5, workers=workers)
    _take(first, 2)
    again = ShardStream(root, batch_size=4, groups=SMALL, seed=5, workers=workers)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert all(_same(a, b) for a, b in zip(whole[2:], _take(again, 3), strict=True))


def test_two_ranks_see_together_what_one_sees(make_corpus) -> None:
    root = make_corpus(10)
    whole = _take(ShardStream(root, batch_size=4, groups=SMALL), 4)
    halves = [_take(ShardStream(root, batch_size=2, groups=SMALL, rank=r, world_size=2), 4) for r in (0, 1)]
    for one, left, right in zip(whole, *halves, strict=True):
        assert one.sample_ids == left.sample_ids + right.sample_ids
        assert torch.equal(one.global_BVCHW, torch.cat([left.global_BVCHW, right.global_BVCHW]))


def test_each_large_view_says_where_it_lies_in_its_image(make_corpus) -> None:
    (batch,) = _take(ShardStream(make_corpus(8), batch_size=8, groups=SMALL), 1)
    assert batch.global_box_BV4 is not None and batch.global_box_BV4.shape == (8, 2, 4)
    x0, y0, x1, y1 = batch.global_box_BV4.unbind(-1)
    assert batch.global_box_BV4.min() >= 0 and batch.global_box_BV4.max() <= 1 and bool((y0 < y1).all())
    area = (x1 - x0).abs() * (y1 - y0)
    assert area.min() > 0.25 and 0 < (x0 > x1).float().mean() < 1  # crops of 0.3 to 1; some flipped, some not


def test_a_position_in_another_corpus_is_refused(make_corpus) -> None:
    stream = ShardStream(make_corpus(8), batch_size=2, groups=SMALL)
    with pytest.raises(DataError, match="another samples"):
        ShardStream(make_corpus(10), batch_size=2, groups=SMALL).load_state_dict(stream.state_dict())


def test_a_condition_keeps_its_rows_and_a_bad_one_says_why(make_corpus) -> None:
    root = make_corpus(12)
    stream = ShardStream(root, batch_size=2, groups=SMALL, where="organ = 'breast'")
    assert len(stream.corpus) == 6 and {r["organ"] for b in _take(stream, 3) for r in b.row_B} == {"breast"}
    with pytest.raises(UsageError, match=r"condition.*did you mean organ"):
        ShardStream(root, batch_size=2, where="organn = 'breast'")
    with pytest.raises(UsageError, match="single quotes: 'breast'"):
        ShardStream(root, batch_size=2, where="organ = breast")
    with pytest.raises(DataError, match=r"no sample left.*brest.*openus-data query"):
        ShardStream(root, batch_size=2, where="organ = 'brest'")
    with pytest.raises(UsageError, match="condition"):
        ShardStream(root, batch_size=2, where="true); drop table manifest; --")


def test_grey_and_colour_images_share_a_batch(make_corpus) -> None:
    (batch,) = _take(ShardStream(make_corpus(4, colour_every=2), batch_size=4, groups=SMALL), 1)
    assert batch.global_BVCHW.shape[2] == 3


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(bytes(data))


def test_a_damaged_sample_is_named_replaced_and_counted_within_the_limit(
    make_corpus, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_corpus(12)
    row = pq.read_table(root / "manifest.parquet").slice(3, 1).to_pylist()[0]
    _flip(root / row["shard"], row["offset"] + row["size_bytes"] // 2)
    lenient = ShardStream(root, batch_size=4, groups=SMALL, max_bad_share=0.1)
    ids = [i for b in _take(lenient, 3) for i in b.sample_ids]
    assert list(lenient.skipped) == [row["sample_id"]] and row["sample_id"] not in ids and len(ids) == 12
    assert caplog.text.count(row["sample_id"]) == 1
    with pytest.raises(DataError, match=f"1 unreadable samples, first .*{row['sample_id']}"):
        _take(ShardStream(root, batch_size=4, groups=SMALL, max_bad_share=0), 3)


def test_one_damaged_sample_is_borne_in_any_corpus_and_two_of_a_small_one_are_not(make_corpus) -> None:
    root = make_corpus(12)
    rows = pq.read_table(root / "manifest.parquet").to_pylist()
    for count in (1, 2):
        row = rows[3 * count]
        _flip(root / row["shard"], row["offset"] + row["size_bytes"] // 2)
        stream = ShardStream(root, batch_size=4, groups=SMALL, workers=count - 1)
        if count == 1:
            _take(stream, 3)
            assert len(stream.skipped) == 1
        else:
            with pytest.raises(DataError, match=r"2 unreadable samples.*at most 1.*max_bad_share"):
                _take(stream, 3)


def test_a_missing_or_torn_shard_is_an_error_unless_allowed(make_corpus) -> None:
    root = make_corpus(12)
    shard = sorted((root / "shards" / "pretrain").glob("*.tar"))[-1]
    shard.write_bytes(shard.read_bytes()[:-1024])
    with pytest.raises(DataError, match="missing or torn"):
        ShardStream(root, batch_size=2)
    assert 0 < len(ShardStream(root, batch_size=2, allow_missing=True).corpus) < 12


def test_a_shard_name_that_leaves_the_folder_is_refused(make_corpus) -> None:
    root = make_corpus(4)
    table = pq.read_table(root / "manifest.parquet")
    names = ["../evil.tar"] * table.num_rows
    position = table.column_names.index("shard")
    pq.write_table(table.set_column(position, table.schema.field("shard"), [names]), root / "manifest.parquet")
    with pytest.raises(DataError, match="plain relative path"):
        ShardStream(root, batch_size=2)


def test_balanced_weights_raise_what_is_rare() -> None:
    groups = [("a",)] * 90 + [("b",)] * 10
    for temperature, expected in ((1.0, 0.1), (0.5, 0.25), (0.0, 0.5)):
        assert balanced_weights(groups, temperature)[90:].sum() == pytest.approx(expected)
    order = Order(100, 3, balanced_weights(groups, 0.0))
    draws = order.at(0, 2000)
    assert 0.45 < np.mean(draws >= 90) < 0.55
    assert np.array_equal(draws[500:600], Order(100, 3, balanced_weights(groups, 0.0)).at(500, 100))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves its files open
def test_the_stock_webdataset_library_reads_the_same_images(make_corpus) -> None:
    import webdataset

    root = make_corpus(6)
    urls = [str(p) for p in sorted((root / "shards" / "pretrain").glob("*.tar"))]
    keys = [s["__key__"] for s in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)]
    assert sorted(keys) == sorted(ShardStream(root, batch_size=2).corpus.column("sample_id"))
