"""Masks equal the authors' where those are deterministic, and hold their laws elsewhere."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openus_model.difficulty import DifficultyTable, PreviousBatch, Seen
from openus_model.masking import block_mask, block_masks, choose, join_scores, normalise, uniform_noise


def test_released_scores_and_masks_equal_the_authors(fixtures_algorithm: Path) -> None:
    data = np.load(fixtures_algorithm / "parity_mask.npz")
    meta = json.loads(bytes(data["meta"]))
    attention = torch.from_numpy(data["attn"]).mean(1)
    previous = torch.from_numpy(data["prev_importance"])
    noise = torch.rand(attention.shape, generator=torch.Generator().manual_seed(0))
    for row in meta["rows"]:
        name = f"ep{row['epoch']}"
        for case, known in (("teacher_only", False), ("combined", True)):
            score = join_scores(
                attention, previous, torch.full((4,), known), alpha=row["alpha_cosine"], rule="released"
            )
            if known:
                np.testing.assert_allclose(score, data[f"{name}/score"], atol=1e-6)
            choice = choose(score, noise, ratio=0.6, chosen_share=row["m_t"], rule="released")
            top = [np.sort(np.flatnonzero(chosen)) for chosen in choice.chosen_BN.numpy()]
            np.testing.assert_array_equal(top, np.sort(data[f"{name}/{case}/top_idx_sorted"], axis=1))
            assert (choice.mask_BN.sum(1) == row["n_mask"]).all()
            if f"{name}/{case}/mask" in data:
                np.testing.assert_array_equal(choice.mask_BN.view(4, 7, 7), data[f"{name}/{case}/mask"])


def test_the_released_smoothing_equals_the_authors(fixtures_algorithm: Path) -> None:
    data = np.load(fixtures_algorithm / "parity_mask.npz")
    memory = PreviousBatch(3, 18)
    for call in range(3):
        out = memory.smooth(torch.from_numpy(data[f"ema/{call}/in"]).flatten(1))
        np.testing.assert_allclose(out, data[f"ema/{call}/out"].reshape(3, 18), atol=1e-6)
        np.testing.assert_allclose(memory.mean_N, data[f"ema/{call}/buf"].reshape(18), atol=1e-6)


@pytest.mark.parametrize(("epoch", "chosen"), [(0, 3), (28, 7), (59, 12), (93, 17), (97, 18), (147, 26)])
def test_the_papers_rule_chooses_a_share_of_the_budget(epoch: int, chosen: int) -> None:
    score, noise = torch.rand(2, 49), torch.rand(2, 49)
    choice = choose(score, noise, ratio=0.6, chosen_share=0.1 + epoch / 151 * 0.8, rule="paper")
    assert (choice.chosen_BN.sum(1) == chosen).all()
    assert (choice.mask_BN.sum(1) == 30).all()


def test_alpha_weights_the_difficulty_in_the_paper_and_the_attention_as_released() -> None:
    attention, difficulty, known = torch.rand(3, 9), torch.rand(3, 9), torch.ones(3, dtype=torch.bool)
    paper = join_scores(attention, difficulty, known, alpha=0.3, rule="paper")
    released = join_scores(attention, difficulty, known, alpha=0.7, rule="released")
    torch.testing.assert_close(paper, released)
    torch.testing.assert_close(paper, 0.7 * normalise(attention) + 0.3 * normalise(difficulty))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 60),
    st.floats(0.05, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["paper", "released"]),
)
def test_a_mask_keeps_its_budget_its_chosen_part_and_its_cone(
    images: int, cells: int, ratio: float, share: float, rule: str
) -> None:
    generator = torch.Generator().manual_seed(cells)
    score, noise = torch.rand(images, cells, generator=generator), torch.rand(images, cells, generator=generator)
    eligible = torch.rand(images, cells, generator=generator) < 0.7
    choice = choose(score, noise, ratio=ratio, chosen_share=share, rule=rule, eligible_BN=eligible)
    count = eligible.sum(1)
    assert (choice.mask_BN.sum(1) == torch.ceil(count.double() * ratio - 1e-9)).all()
    assert not (choice.mask_BN & ~eligible).any()
    assert not (choice.chosen_BN & ~choice.mask_BN).any()
    for image in range(images):
        kept_out = score[image][eligible[image] & ~choice.chosen_BN[image]]
        if choice.chosen_BN[image].any() and len(kept_out):
            assert score[image][choice.chosen_BN[image]].min() >= kept_out.max()


@pytest.mark.parametrize("rule", ["paper", "released"])
@pytest.mark.parametrize(("ratio", "masked"), [(0.0, 0), (0.01, 1), (0.6, 9), (1.0, 15)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_budget_holds_from_nothing_to_everything_on_any_grid(rule, ratio, masked, share) -> None:
    torch.manual_seed(0)
    score, noise = torch.rand(2, 15), torch.rand(2, 15)  # a grid of 3 by 5
    choice = choose(score, noise, ratio=ratio, chosen_share=share, rule=rule)
    assert choice.mask_BN.sum(1).tolist() == [masked, masked]
    assert not (choice.chosen_BN & ~choice.mask_BN).any()


def test_an_image_without_echo_is_not_masked_and_its_neighbour_as_ever() -> None:
    torch.manual_seed(0)
    attention, difficulty, noise = torch.rand(2, 9), torch.rand(2, 9), torch.rand(2, 9)
    eligible = torch.tensor([[False] * 9, [True] * 9])
    known = torch.tensor([True, True])
    score = join_scores(attention, difficulty, known, alpha=0.5, rule="paper", eligible_BN=eligible)
    assert torch.isfinite(score).all()
    mask = choose(score, noise, ratio=0.6, chosen_share=0.5, rule="paper", eligible_BN=eligible).mask_BN
    assert mask.sum(1).tolist() == [0, 6]
    alone = choose(score[1:], noise[1:], ratio=0.6, chosen_share=0.5, rule="paper").mask_BN
    assert mask[1:].equal(alone)


def test_scores_outside_the_cone_do_not_move_those_inside() -> None:
    score = torch.tensor([[0.0, 1.0, 2.0, 900.0]])
    inside = torch.tensor([[True, True, True, False]])
    torch.testing.assert_close(normalise(score, inside)[0, :3], torch.tensor([0.0, 0.5, 1.0]))
    assert (normalise(score, torch.zeros_like(inside)) == 0).all()


def test_noise_depends_on_everything_that_it_names_and_on_nothing_else() -> None:
    samples = torch.tensor([5, 9, 5, 300_000])
    noise = uniform_noise(samples, 49, seed=1, step=2, view=0)
    torch.testing.assert_close(noise[0], noise[2])
    torch.testing.assert_close(noise[3:], uniform_noise(samples[3:], 49, seed=1, step=2, view=0))
    for other in ({"seed": 2}, {"step": 3}, {"view": 1}):
        changed = uniform_noise(samples, 49, **({"seed": 1, "step": 2, "view": 0} | other))
        assert (changed != noise).float().mean() > 0.99


def test_noise_is_uniform_and_its_cells_are_independent() -> None:
    noise = uniform_noise(torch.arange(4000), 16, seed=0, step=0, view=0)
    assert noise.min() >= 0
    assert noise.max() < 1
    counts = torch.histc(noise, 20, 0, 1)
    assert ((counts - 3200) / 3200**0.5).abs().max() < 5
    correlation = np.corrcoef(noise.T.numpy()) - np.eye(16)
    assert np.abs(correlation).max() < 5 / 4000**0.5


def test_block_masks_have_the_sizes_of_the_authors() -> None:
    generator = random.Random(0)
    sizes = Counter(int(block_mask(generator, 7, 7, 0.3).sum()) for _ in range(800))
    assert sizes[14] / 800 == pytest.approx(0.936, abs=0.035)
    assert set(sizes) <= {11, 12, 13, 14}
    assert {int(block_mask(generator, 3, 3, 0.3).sum()) for _ in range(200)} == {2}
    assert not block_mask(generator, 1, 1, 0.3).any()
    assert block_masks(["a", "b", "a"], 7, 7, ratio=0.3)[0].equal(block_masks(["a"], 7, 7, ratio=0.3)[0])


def _seen(box: tuple[float, float, float, float], error: torch.Tensor, mask: torch.Tensor) -> Seen:
    return Seen(sample_B=torch.tensor([3]), box_B4=torch.tensor([box]), error_BHW=error[None], mask_BHW=mask[None])


def test_the_table_knows_nothing_at_first() -> None:
    table = DifficultyTable(5, grid=8, momentum=0.3)
    read = table.read(torch.tensor([0, 3]), torch.tensor([[0.0, 0, 1, 1]] * 2), 2, 2)
    assert not read.known_B.any()


@pytest.mark.parametrize("flipped", [False, True])
def test_the_table_gives_a_view_back_what_the_same_view_put_in(flipped: bool) -> None:
    table = DifficultyTable(5, grid=8, momentum=0.3)
    box = (1.0, 0.0, 0.0, 1.0) if flipped else (0.0, 0.0, 1.0, 1.0)
    error, mask = torch.tensor([[1.0, 2.0], [3.0, 6.0]]), torch.ones(2, 2, dtype=torch.bool)
    table.note(_seen(box, error, mask))
    table.commit()
    read = table.read(torch.tensor([3]), torch.tensor([box]), 2, 2)
    torch.testing.assert_close(read.score_BN, error.flatten()[None] / 3.0, rtol=2e-3, atol=0)
    straight = table.read(torch.tensor([3]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 2, 2).score_BN.view(2, 2)
    torch.testing.assert_close(straight.flip(1) if flipped else straight, error / 3.0, rtol=2e-3, atol=0)
    assert not table.read(torch.tensor([2]), torch.tensor([box]), 2, 2).known_B.any()


def test_the_table_carries_a_place_from_one_crop_to_another() -> None:
    table = DifficultyTable(5, grid=8, momentum=0.3)
    table.note(_seen((0.0, 0.0, 1.0, 1.0), torch.tensor([[9.0, 1.0], [1.0, 1.0]]), torch.ones(2, 2, dtype=torch.bool)))
    table.commit()
    corner = table.read(torch.tensor([3]), torch.tensor([[0.25, 0.25, 0.75, 0.75]]), 2, 2).score_BN[0]
    assert corner.argmax() == 0
    mirrored = table.read(torch.tensor([3]), torch.tensor([[0.75, 0.25, 0.25, 0.75]]), 2, 2).score_BN[0]
    assert mirrored.argmax() == 1


def test_cells_that_were_not_masked_teach_the_table_nothing() -> None:
    table = DifficultyTable(5, grid=4, momentum=0.3)
    mask = torch.tensor([[True, False], [False, False]])
    table.note(_seen((0.0, 0.0, 1.0, 1.0), torch.tensor([[2.0, 99.0], [99.0, 99.0]]), mask))
    table.commit()
    assert table.table_SGG[3, :2, :2].isnan().sum() == 0
    assert table.table_SGG[3].isnan().sum() == 12
    table.note(_seen((0.0, 0.0, 1.0, 1.0), torch.tensor([[2.0, 99.0], [99.0, 99.0]]), mask))
    table.forget()
    before = table.table_SGG.clone()
    table.commit()
    assert before.nan_to_num(-1).equal(table.table_SGG.nan_to_num(-1))
