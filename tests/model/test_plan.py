"""The plan counts what a step does, and answers what it was asked."""

from __future__ import annotations

import pytest

from openus_model.errors import UsageError
from openus_model.plan import plan

SMALL = (
    "backbone.name=vmamba_nano", "views.global_size=64", "views.local_count=1", "views.local_size=32",
    "engine.precision=fp32", "head.prototypes=64", "head.hidden=32", "head.bottleneck=16",
)  # fmt: skip


def test_twice_the_images_take_twice_as_long_and_twice_the_gpus_about_half() -> None:
    one, more = plan("openus_small", images=1280, overrides=SMALL), plan("openus_small", images=2560, overrides=SMALL)
    assert more.steps == 2 * one.steps == 2 * 10 * 151
    assert more.hours == pytest.approx(2 * one.hours)
    four = plan("openus_small", images=1280, gpus=4, overrides=SMALL)
    assert four.hours == pytest.approx(one.hours / 4 / 0.95)
    assert four.memory_gib["activations"] == pytest.approx(one.memory_gib["activations"] / 4, rel=0.1)


def test_a_second_masked_pass_and_trial_passes_cost_what_they_are() -> None:
    base = plan("openus_small", images=1280, overrides=(*SMALL, "losses.local_cls=masked")).multiply_adds_per_image
    second = plan("openus_small", images=1280, overrides=SMALL).multiply_adds_per_image
    trial = plan(
        "openus_small", images=1280, overrides=(*SMALL, "masking.difficulty=same_step")
    ).multiply_adds_per_image
    assert base < second < trial


def test_a_batch_that_does_not_fit_says_so_and_what_to_do() -> None:
    report = plan("openus_small", images=128_000, gpu="a10g", overrides=(*SMALL, "engine.batch_size=1280000"))
    assert (report.fits, report.exit_code) == (False, 1)
    assert "engine.accumulate" in report.to_text()


def test_steps_can_be_timed_on_this_machine() -> None:
    report = plan("smoke", gpu="here", images=40)
    assert 0 < report.step_seconds < 60
    assert "timed on this machine" in report.to_text()
    assert report.to_json()["memory_of_gpu_gib"] is None
    assert "GPU" not in report.to_text() and report.check == ""


def test_the_plan_says_what_it_rests_on_and_how_that_was_checked() -> None:
    report = plan("openus_small", images=1280, overrides=SMALL)
    assert "its README" in report.basis and "no GPU has confirmed it" in report.check
    assert report.basis in report.to_text() and report.check in report.to_text()


def test_a_timed_batch_says_where_its_crops_lie(caplog: pytest.LogCaptureFixture) -> None:
    plan("smoke", gpu="here", images=40)
    assert not caplog.records


@pytest.mark.parametrize(("options", "word"), [({"gpu": "abacus"}, "h100"), ({"gpus": 3}, "multiple of 3")])
def test_what_cannot_be_planned_is_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        plan("openus_small", overrides=SMALL, **options)  # type: ignore[arg-type]
