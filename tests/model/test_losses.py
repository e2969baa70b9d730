"""Losses equal the authors' and hold their laws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from openus_model.losses.centring import MeanCentre, Sinkhorn
from openus_model.losses.koleo import koleo_loss
from openus_model.losses.patch import patch_loss
from openus_model.losses.reconstruction import cell_errors, reconstruction_loss
from openus_model.losses.view import view_loss


def test_view_and_patch_losses_equal_the_authors_over_three_steps(fixtures_algorithm: Path) -> None:
    data = np.load(fixtures_algorithm / "parity_loss.npz")
    meta = json.loads(bytes(data["meta"]))
    images, prototypes = meta["B"], meta["K"]
    cls, patch = MeanCentre(prototypes, meta["center_momentum"]), MeanCentre(prototypes, meta["center_momentum"])
    cls.centre_K.copy_(torch.from_numpy(data["center0"][0]))
    patch.centre_K.copy_(torch.from_numpy(data["center2_0"][0, 0]))
    mask = torch.from_numpy(np.concatenate([data["mask0"], data["mask1"]])).flatten(1)
    for call in range(3):
        take = lambda name, call=call: torch.from_numpy(data[f"call{call}/{name}"])  # noqa: E731
        student = [take(name).requires_grad_() for name in ("s_cls", "s_pat", "s_loc") if f"call{call}/{name}" in data]
        logits = torch.cat([student[0], *student[2:]])
        cls_temperature, patch_temperature = data[f"call{call}/temps"]
        q = cls.targets(take("t_cls"), float(cls_temperature)).view(-1, images, prototypes)
        teacher_patch = take("t_pat")
        p = patch.targets(teacher_patch.flatten(0, 1), float(patch_temperature)).view_as(teacher_patch)
        view = view_loss(q, logits.view(-1, images, prototypes), 0.1)
        hidden = patch_loss(p, student[1], mask, 0.1)
        assert view.item() == pytest.approx(float(data[f"call{call}/cls"]), rel=2e-6)
        assert hidden.item() == pytest.approx(float(data[f"call{call}/patch"]), rel=2e-6)
        (view + hidden).backward()
        for tensor, name in zip(student, ("s_cls", "s_pat", "s_loc"), strict=False):
            expected = data[f"call{call}/grad_{name}"]
            np.testing.assert_allclose(tensor.grad, expected, atol=1e-4 * np.abs(expected).max())
        cls.commit()
        patch.commit()
        np.testing.assert_allclose(cls.centre_K, data[f"call{call}/center_after"][0], atol=1e-6)
        np.testing.assert_allclose(patch.centre_K, data[f"call{call}/center2_after"][0, 0], atol=1e-6)


def test_one_view_alone_is_an_error_and_not_a_nan() -> None:
    with pytest.raises(ValueError, match="two views"):
        view_loss(torch.ones(1, 2, 3) / 3, torch.zeros(1, 2, 3), 0.1)


def test_an_empty_mask_adds_nothing() -> None:
    probabilities = torch.full((2, 4, 3), 1 / 3)
    logits = torch.randn(2, 4, 3)
    none, one = torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.bool)
    one[0, 1] = True
    assert patch_loss(probabilities, logits, none, 0.1) == 0
    assert patch_loss(probabilities, logits, one, 0.1) > 0


def test_reconstruction_is_the_mean_over_masked_pixels_and_channels() -> None:
    torch.manual_seed(0)
    drawn, image = torch.randn(2, 3, 64, 96), torch.randn(2, 3, 64, 96)
    mask = torch.rand(2, 2, 3) < 0.5
    pixels = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    expected = ((drawn - image).square() * pixels).sum() / (pixels.sum() + 1e-5) / 3
    assert reconstruction_loss(cell_errors(drawn, image, 32), mask, 32).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    assert reconstruction_loss(cell_errors(drawn, image, 32), torch.zeros_like(mask), 32) == 0


def test_koleo_falls_as_vectors_spread_and_stays_finite_for_equal_ones() -> None:
    corners = torch.eye(4)
    close = torch.eye(4)[:1] + 0.01 * torch.eye(4)
    assert koleo_loss(corners) < koleo_loss(close)
    assert koleo_loss(corners).item() == pytest.approx(-0.5 * np.log(2), abs=1e-6)
    equal = torch.ones(3, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = koleo_loss(equal)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(equal.grad).all()


def _shares(probabilities: Tensor) -> Tensor:
    return probabilities.sum(0) / probabilities.sum()


def test_sinkhorn_gives_rows_that_sum_to_one_and_prototypes_near_equal_shares() -> None:
    torch.manual_seed(0)
    logits = torch.randn(64, 8) * 0.2
    logits[:, 0] += 1.0  # a prototype that everything likes
    q = Sinkhorn(10).targets(logits, 0.1)
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    assert _shares(q).max() < 1.3 / 8
    assert _shares((logits / 0.1).softmax(1)).max() > 0.5


def test_sinkhorn_leaves_out_rows_of_weight_zero() -> None:
    torch.manual_seed(0)
    logits = torch.randn(10, 4)
    weight = torch.tensor([1.0] * 6 + [0.0] * 4)
    with_rest = Sinkhorn(3).targets(logits, 0.5, weight)
    torch.testing.assert_close(with_rest[:6], Sinkhorn(3).targets(logits[:6], 0.5))
    assert with_rest[6:].abs().max() == 0


def _sinkhorn_in_float64(logits: Tensor, temperature: float, iterations: int) -> Tensor:
    """As DINOv2 writes it, where float64 has room for the exponentials."""
    q = (logits.double() / temperature).exp().T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdim=True) * len(q)
        q /= q.sum(0, keepdim=True) * q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.parametrize("temperature", [0.5, 0.04, 0.02])
def test_sinkhorn_equals_the_plain_form_also_where_float32_has_no_room(temperature: float) -> None:
    torch.manual_seed(1)
    logits = torch.randn(12, 16) * torch.linspace(0.1, 3.0, 12)[:, None]
    q = Sinkhorn(3).targets(logits, temperature)
    torch.testing.assert_close(q.double(), _sinkhorn_in_float64(logits, temperature, 3), rtol=1e-3, atol=1e-6)


def test_one_row_alone_and_no_row_at_all_stay_finite() -> None:
    logits = torch.randn(1, 5)
    torch.testing.assert_close(Sinkhorn(3).targets(logits, 0.04), torch.full((1, 5), 0.2))
    assert Sinkhorn(3).targets(logits, 0.04, torch.zeros(1)).abs().max() == 0
    vector = torch.randn(1, 8, requires_grad=True)
    loss = koleo_loss(vector)
    loss.backward()
    assert loss == 0 and torch.isfinite(vector.grad).all()


def test_koleo_takes_float16_vectors_whose_squares_would_overflow_there() -> None:
    torch.manual_seed(0)
    vectors = (200.0 * torch.randn(6, 64)).half()
    assert koleo_loss(vectors).item() == pytest.approx(koleo_loss(vectors.float()).item(), rel=1e-6)


def test_losses_are_the_same_numbers_under_autocast() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 3, 9).softmax(-1), torch.randn(4, 3, 9)
    mask = torch.rand(2, 3) < 0.5

    def losses() -> tuple[Tensor, ...]:
        return (
            view_loss(teacher, student, 0.1),
            patch_loss(teacher, student[:2], mask, 0.1),
            koleo_loss(student[0]),
            Sinkhorn(3).targets(student[0], 0.1),
        )

    plain = losses()
    with torch.autocast("cpu", torch.bfloat16):
        low = losses()
    for ours, theirs in zip(low, plain, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_step_that_did_not_count_leaves_the_centre_alone() -> None:
    centre = MeanCentre(3)
    centre.targets(torch.ones(2, 3), 0.1)
    centre.forget()
    centre.commit()
    assert centre.centre_K.abs().max() == 0
    centre.targets(torch.ones(2, 3), 0.1)
    centre.targets(3 * torch.ones(2, 3), 0.1)
    centre.commit()
    torch.testing.assert_close(centre.centre_K, torch.full((3,), 0.2))
