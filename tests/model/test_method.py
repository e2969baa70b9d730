"""One step of the method, on the smallest backbone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from openus_model.assemble import build_method, crop_groups, make_clock
from openus_model.contracts import Batch
from openus_model.method import OpenUSMethod
from openus_model.recipe import PretrainRecipe, load_recipe, recipe_names


def make_batch(images: int = 2, large: int = 64, small: int = 32, locals_: int = 2, channels: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def pixels(views: int, size: int) -> torch.Tensor:
        return torch.randint(0, 256, (images, views, channels, size, size), dtype=torch.uint8, generator=generator)

    return Batch(
        global_BVCHW=pixels(2, large),
        local_BVCHW=pixels(locals_, small),
        global_valid_BVHW=torch.ones(images, 2, large // 32, large // 32),
        local_valid_BVHW=torch.ones(images, locals_, small // 32, small // 32),
        sample_ids=tuple(f"toy-{k}" for k in range(images)),
        sample_index_B=torch.arange(images),
    )


def make_method(*overrides: str) -> tuple[OpenUSMethod, PretrainRecipe]:
    recipe = load_recipe("smoke", overrides)
    return build_method(recipe, make_clock(recipe, 1), samples=8), recipe


def test_a_step_gives_every_term_and_gradients_for_all_that_it_uses() -> None:
    method, _ = make_method("schedule.freeze_prototypes_epochs=0", "views.local_size=32", "views.global_size=96")
    losses = method.step(make_batch(large=96, small=64), 0, pictures=True)
    assert set(losses.terms) == {
        "cls", "patch", "reconstruct_global", "reconstruct_local", "mask_ratio", "teacher_entropy",
    }  # fmt: skip
    assert losses.total.item() == pytest.approx(
        sum(float(losses.terms[name]) for name in list(losses.terms)[:4]), rel=1e-5
    )
    losses.total.backward()
    unused = {name for name, p in method.student.named_parameters() if p.requires_grad and p.grad is None}
    assert {name.split(".")[1] for name in unused} == {"outnorm0", "outnorm1", "outnorm2"}
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert set(losses.pictures) == {"image", "attention", "difficulty", "mask", "reconstruction"}
    assert losses.pictures["image"].shape == losses.pictures["reconstruction"].shape == (2, 3, 96, 96)


@pytest.mark.parametrize(
    "overrides",
    [
        ("masking.difficulty=same_step",),
        (
            "masking.rule=released",
            "masking.difficulty=previous_batch",
            "head.teacher=released",
            "losses.local_cls=masked",
        ),
        ("losses.centring=sinkhorn", "losses.koleo=0.1", "masking.inside_share=0.5"),
        ("masking.guide=random",),
        ("masking.guide=attention", "masking.loss_mask=blocks"),
        ("masking.guide=difficulty", "head.separate=false"),
        ("views.local_count=0",),
        ("losses.reconstruct_local=0",),
    ],
)
def test_every_option_makes_finite_steps(overrides: tuple[str, ...]) -> None:
    method, recipe = make_method(*overrides)
    batch = make_batch(recipe.engine.batch_size, locals_=recipe.views.local_count)
    for step in range(2):
        losses = method.step(batch, step)
        losses.total.backward()
        method.after_update(step)
        assert torch.isfinite(losses.total)


@pytest.mark.parametrize(
    "overrides",
    [
        ("masking.inside_share=0.5", "losses.centring=sinkhorn", "losses.koleo=0.1"),
        ("masking.difficulty=same_step", "masking.inside_share=0.5"),
        ("masking.ratio=1.0", "losses.koleo=0.1"),
    ],
)
def test_one_image_without_any_echo_makes_a_finite_step(overrides: tuple[str, ...]) -> None:
    method, _ = make_method(*overrides)
    batch = make_batch(images=1)
    empty = dataclasses.replace(
        batch,
        global_valid_BVHW=torch.zeros_like(batch.global_valid_BVHW),
        local_valid_BVHW=torch.zeros_like(batch.local_valid_BVHW),
    )
    losses = method.step(empty, 0)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in method.student.parameters() if p.grad is not None)
    method.after_update(0)
    assert torch.isfinite(method.step(batch, 1).total)


def test_views_need_not_be_square() -> None:
    method, _ = make_method("masking.difficulty=same_step", "losses.centring=sinkhorn")
    batch = make_batch()
    wide = dataclasses.replace(
        batch,
        global_BVCHW=batch.global_BVCHW.repeat(1, 1, 1, 1, 2)[..., :96],
        global_valid_BVHW=torch.ones(2, 2, 2, 3),
    )
    losses = method.step(wide, 0, pictures=True)
    assert torch.isfinite(losses.total)
    assert losses.pictures["mask"].shape == (2, 2, 3)


def test_bf16_gives_the_losses_of_fp32_to_two_percent() -> None:
    method, _ = make_method("losses.centring=sinkhorn", "losses.koleo=0.1", "masking.guide=random")
    batch = make_batch(images=4, large=96, small=64)
    plain = method.step(batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        low = method.step(batch, 0)
    low.total.backward()
    assert low.total.dtype == torch.float32
    for name, value in plain.terms.items():
        assert low.terms[name].item() == pytest.approx(value.item(), rel=2e-2), name
    assert all(torch.isfinite(p.grad).all() for p in method.student.parameters() if p.grad is not None)


def test_the_teacher_is_deterministic_though_the_student_drops_paths() -> None:
    method, _ = make_method("backbone.drop_path=0.5")
    image = torch.randn(2, 3, 64, 64)
    assert method.student.training
    assert not method.teacher.training
    torch.testing.assert_close(method.teacher(image).cls_NK, method.teacher(image).cls_NK, rtol=0, atol=0)
    released, _ = make_method("backbone.drop_path=0.5", "backbone.teacher_drop_path=true")
    assert released.teacher.training


def test_grey_images_and_their_colour_copies_give_one_loss() -> None:
    method, _ = make_method()
    grey = make_batch()
    colour = dataclasses.replace(
        grey,
        global_BVCHW=grey.global_BVCHW.expand(-1, -1, 3, -1, -1),
        local_BVCHW=grey.local_BVCHW.expand(-1, -1, 3, -1, -1),
    )
    torch.testing.assert_close(method.step(grey, 0).total, method.step(colour, 0).total, rtol=0, atol=0)


def test_the_mirror_teacher_averages_both_sets_of_prototypes_and_the_released_one_shares_the_patches() -> None:
    mirror, _ = make_method()
    head = mirror.teacher.head
    assert head.last_layer.weight_v.equal(mirror.student.head.last_layer.weight_v)
    assert head.last_layer2.weight_v.equal(mirror.student.head.last_layer2.weight_v)
    released, _ = make_method("head.teacher=released")
    head = released.teacher.head
    assert head.last_layer.weight_v.equal(released.student.head.last_layer2.weight_v)
    assert head.last_layer2.weight_v is head.last_layer.weight_v


def test_frozen_prototypes_stay_for_their_epochs() -> None:
    method, _ = make_method("schedule.freeze_prototypes_epochs=1", "schedule.steps=6", "schedule.epochs=3")
    for step, frozen in ((1, True), (2, False)):
        method.zero_grad()
        method.step(make_batch(), step).total.backward()
        assert (method.student.head.last_layer.weight_v.grad is None) == frozen


def test_a_skipped_step_leaves_centres_and_difficulties_alone() -> None:
    skipped, plain = make_method()[0], make_method()[0]
    skipped.step(make_batch(3), 0)
    for method in (skipped, plain):
        method.step(make_batch(2), 1)
        method.after_update(1)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(skipped.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_masks_and_small_masks_stay_inside_the_cone() -> None:
    method, _ = make_method("masking.inside_share=0.5", "views.global_size=96", "views.local_size=64")
    batch = make_batch(large=96, small=64)
    batch.global_valid_BVHW[..., 0] = 0.2
    batch.local_valid_BVHW[..., 0, :] = 0.0
    pictures = method.step(batch, 0, pictures=True).pictures
    assert pictures["mask"][..., 0].max() == 0
    assert pictures["mask"].sum((1, 2)).tolist() == [4.0, 4.0]
    masks = method.masks.blocks(
        batch.sample_ids, 2, (2, 2), step=0, stream="small", eligible_NHW=batch.local_valid_BVHW.flatten(0, 1) >= 0.5
    )
    assert masks[:, 0].max() == 0


def test_difficulties_of_the_table_reach_the_next_mask_of_the_same_image_only() -> None:
    method, _ = make_method()
    batch = make_batch()
    method.step(batch, 0)
    method.after_update(0)
    known = ~method.masks.memory.table_SGG.isnan().flatten(1).all(1)
    assert known.tolist() == [True, True] + [False] * 6


def test_equal_seeds_give_equal_weights_and_leave_the_callers_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, other = make_method()[0], make_method()[0]
    assert torch.rand(1).equal(expected)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipes_views_can_be_drawn(name: str) -> None:
    views = load_recipe(name).views
    groups = crop_groups(views)
    assert [(group.count, group.size) for group in groups] == [
        (views.global_count, views.global_size),
        (views.local_count, views.local_size),
    ]


def test_the_length_of_a_run_is_its_steps_or_its_epochs_of_the_corpus() -> None:
    assert make_clock(load_recipe("smoke"), 7).steps == 6
    assert make_clock(load_recipe("openus_small"), 2416).steps == 364_816


def test_difficulties_land_where_the_crop_was(caplog: pytest.LogCaptureFixture) -> None:
    method, _ = make_method("masking.ratio=1.0")
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 0.0, 0.5]]]).repeat(2, 1, 1)
    plain = make_batch()
    batch = dataclasses.replace(plain, global_box_BV4=boxes)
    method.step(batch, 0)
    method.after_update(0)
    known = ~method.masks.memory.table_SGG.isnan()
    assert known[:2, :7, :7].all()
    assert not known[:2, 7:].any()
    assert not known[:2, :, 7:].any()
    assert not caplog.records
    method.step(plain, 1)
    assert "where their crops lie" in caplog.text
