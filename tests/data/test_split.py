"""Splits honour what was published, cross no subject and no group, and move nobody when data are added."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from openus_data import split
from openus_data.split import PRETRAIN, TEST, TRAIN, UNPUBLISHED, VAL, SplitInput, SplitSettings


@st.composite
def corpora(draw: st.DrawFn) -> SplitInput:
    """Samples of three datasets, of few subjects and few groups, with published splits here and there."""
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dataset = np.sort(rng.integers(0, 3, n))
    subject = dataset * 100 + rng.integers(0, 12, n)
    roles, is_published = rng.integers(0, 3, 3), rng.random(n) < draw(st.sampled_from([0.0, 0.3]))
    first_of = lambda keys: np.array([int(np.flatnonzero(keys == k)[0]) for k in keys], dtype=np.int64)  # noqa: E731
    exact = first_of(rng.integers(0, 2 * n, n))
    near = first_of(rng.integers(0, max(1, n // 2), n)[exact])
    return SplitInput(
        subject=subject,
        dataset=dataset,
        role=roles[dataset],
        published=np.where(is_published, rng.integers(TRAIN, TEST + 1, n), UNPUBLISHED),
        near=near,
        exact=exact,
        chance=np.random.default_rng(1).random(300)[subject],
    )


def part(samples: SplitInput, chosen: np.ndarray) -> SplitInput:
    return SplitInput(**{f.name: getattr(samples, f.name)[chosen] for f in dataclasses.fields(SplitInput)})


def splits_by(keys: np.ndarray, result: split.Assignment) -> list[set[int]]:
    return [set(result.split[(keys == k) & result.is_kept]) for k in set(keys)]


@given(corpora())
def test_no_subject_and_no_group_crosses_a_split(samples: SplitInput) -> None:
    result = split.assign(samples, SplitSettings())
    for keys in (samples.subject, samples.near, samples.exact):
        assert all(len(found) <= 1 for found in splits_by(keys, result))


@given(corpora())
def test_every_sample_is_kept_or_dropped_with_a_reason(samples: SplitInput) -> None:
    result = split.assign(samples, SplitSettings())
    assert sorted(d.index for d in result.dropped) == sorted(np.flatnonzero(~result.is_kept))
    assert all(d.because_of != d.index and d.stage in ("split", "duplicate") for d in result.dropped)


@given(corpora())
def test_a_published_split_is_never_changed(samples: SplitInput) -> None:
    result = split.assign(samples, SplitSettings())
    held_out = np.isin(samples.published, [VAL, TEST])
    assert np.array_equal(result.split[held_out], samples.published[held_out])
    train = (samples.published == TRAIN) & (samples.role != 0)
    assert set(result.split[train]) <= {TRAIN}


@given(corpora())
def test_adding_a_dataset_moves_nobody(samples: SplitInput) -> None:
    whole = split.assign(samples, SplitSettings())
    for dataset in set(samples.dataset):
        chosen = samples.dataset == dataset
        alone = split.assign(part(samples, chosen), SplitSettings())
        assert np.array_equal(alone.split, whole.split[chosen])


@given(corpora())
def test_the_order_of_the_samples_does_not_matter(samples: SplitInput) -> None:
    order = np.random.default_rng(0).permutation(len(samples.subject))
    mixed = split.assign(part(samples, order), SplitSettings(drop_exact=False))
    plain = split.assign(samples, SplitSettings(drop_exact=False))
    assert np.array_equal(mixed.split, plain.split[order]) and np.array_equal(mixed.is_kept, plain.is_kept[order])


def corpus(**columns: list[int]) -> SplitInput:
    n = len(columns["subject"])
    defaults = {"dataset": [0] * n, "role": [1] * n, "published": [UNPUBLISHED] * n, "near": list(range(n))}
    filled = {"exact": list(range(n)), **defaults, **columns}
    chance = np.array(filled["subject"]) / 10
    return SplitInput(**{k: np.array(v) for k, v in filled.items()}, chance=chance)


def test_what_is_near_a_test_image_is_dropped_from_pretraining_and_says_so() -> None:
    samples = corpus(subject=[0, 9, 8], dataset=[0, 1, 1], role=[1, 0, 0], near=[0, 0, 2])
    result = split.assign(samples, SplitSettings())
    assert list(result.split) == [TEST, PRETRAIN, PRETRAIN] and list(result.is_kept) == [True, False, True]
    assert [(d.index, d.reason, d.because_of) for d in result.dropped] == [(1, "near_test", 0)]


def test_near_duplicates_within_a_dataset_go_together_and_none_is_lost() -> None:
    result = split.assign(corpus(subject=[0, 9, 9], near=[0, 0, 2]), SplitSettings())
    assert list(result.split) == [TEST, TEST, TEST] and result.is_kept.all()


def test_a_published_split_by_image_loses_the_less_protected_side() -> None:
    result = split.assign(corpus(subject=[1, 1, 1], published=[TRAIN, TEST, VAL]), SplitSettings())
    assert list(result.is_kept) == [False, True, False]
    assert {d.reason for d in result.dropped} == {"subject_in_test"}


def test_equal_pixels_are_kept_once_in_pretraining_and_always_in_evaluation() -> None:
    pretraining = split.assign(corpus(subject=[1, 2], role=[0, 0], exact=[0, 0], near=[0, 0]), SplitSettings())
    assert list(pretraining.is_kept) == [True, False] and pretraining.dropped[0].reason == "same_pixels"
    assert split.assign(corpus(subject=[1, 2], exact=[0, 0], near=[0, 0]), SplitSettings()).is_kept.all()


def test_a_pretraining_dataset_keeps_its_published_test_part_out() -> None:
    result = split.assign(
        corpus(subject=[1, 2, 3], role=[0, 0, 0], published=[TRAIN, TEST, UNPUBLISHED]), SplitSettings()
    )
    assert list(result.split) == [PRETRAIN, TEST, PRETRAIN]


def test_the_training_part_of_both_goes_where_the_recipe_says() -> None:
    samples = corpus(subject=[0, 9], role=[2, 2])
    assert list(split.assign(samples, SplitSettings()).split) == [TEST, TRAIN]
    assert list(split.assign(samples, SplitSettings(train_of_both="pretrain")).split) == [TEST, PRETRAIN]


@settings(max_examples=20)
@given(st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_parts_are_about_as_large_as_asked(val: float, test: float) -> None:
    rng = np.random.default_rng(0)
    n = 4000
    columns = {"subject": np.arange(n), "near": np.arange(n), "exact": np.arange(n), "dataset": np.zeros(n, int)}
    samples = SplitInput(**columns, role=np.ones(n, int), published=np.full(n, UNPUBLISHED), chance=rng.random(n))
    found = split.assign(samples, SplitSettings(val=val, test=test)).split
    assert abs(np.mean(found == TEST) - test) < 0.03 and abs(np.mean(found == VAL) - val) < 0.03


def test_no_samples_give_an_empty_assignment() -> None:
    empty = np.zeros(0, np.int64)
    samples = SplitInput(**{f.name: empty for f in dataclasses.fields(SplitInput)})
    assert split.assign(samples, SplitSettings()).dropped == ()
