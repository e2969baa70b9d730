"""Groups, rates, clipping, and the optimizer's state as flat tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from openus_model.backbones import build_backbone
from openus_model.errors import WeightsError
from openus_model.optimizer import (
    Rates,
    build_adamw,
    clip_gradients,
    decays,
    load_optimizer_tensors,
    optimizer_tensors,
    set_rates,
)


def test_only_matrices_decay_by_default_and_the_released_rule_decays_more() -> None:
    named = dict(build_backbone("vmamba_nano").named_parameters())
    ours = {name for name, p in named.items() if decays(name, p, "matrices")}
    released = {name for name, p in named.items() if decays(name, p, "released")}
    extra = {name.rsplit(".", 1)[-1] for name in released - ours}
    assert ours < released
    assert extra == {"A_logs", "dt_projs_bias", "masked_embed"}
    assert all(named[name].ndim > 1 for name in ours)


def test_rates_reach_their_groups() -> None:
    optimizer = build_adamw(nn.Linear(3, 2), rule="matrices", betas=(0.9, 0.999), eps=1e-8)
    set_rates(optimizer, Rates(lr=0.1, weight_decay=0.2))
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [
        (0.1, 0.2, 1),
        (0.1, 0.0, 1),
    ]


def _with_gradients(*values: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_global_clipping_keeps_the_direction() -> None:
    parameters = _with_gradients([3.0, 0.0], [0.0, 4.0])
    norm = clip_gradients(parameters, 1.0)
    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.8]))


def test_clipping_per_tensor_bounds_each_alone() -> None:
    parameters = _with_gradients([3.0, 0.0], [0.0, 0.5])
    clip_gradients(parameters, 1.0, "per_tensor")
    torch.testing.assert_close(parameters[0].grad, torch.tensor([1.0, 0.0]), rtol=1e-5, atol=0)
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.5]))


def test_a_limit_of_zero_and_small_gradients_change_nothing() -> None:
    parameters = _with_gradients([3.0], [4.0])
    assert clip_gradients(parameters, 0.0).item() == pytest.approx(5.0)
    clip_gradients(parameters, 100.0)
    assert parameters[0].grad.item() == 3.0
    assert clip_gradients([nn.Parameter(torch.zeros(1))], 1.0).item() == 0.0


def test_state_taken_out_and_put_back_goes_on_to_the_bit() -> None:
    def train(module: nn.Linear, optimizer: torch.optim.AdamW) -> None:
        set_rates(optimizer, Rates(lr=0.1, weight_decay=0.1))
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = build_adamw(module, rule="matrices", betas=(0.9, 0.999), eps=1e-8)
    train(module, optimizer)
    again = nn.Linear(3, 2)
    again.load_state_dict(module.state_dict())
    fresh = build_adamw(again, rule="matrices", betas=(0.9, 0.999), eps=1e-8)
    load_optimizer_tensors(fresh, again, {k: v.clone() for k, v in optimizer_tensors(optimizer, module).items()})
    train(module, optimizer)
    train(again, fresh)
    assert module.weight.equal(again.weight)
    assert module.bias.equal(again.bias)


def test_state_of_another_model_is_refused() -> None:
    module = nn.Linear(3, 2)
    optimizer = build_adamw(module, rule="matrices", betas=(0.9, 0.999), eps=1e-8)
    with pytest.raises(WeightsError, match="strange"):
        load_optimizer_tensors(optimizer, module, {"strange/exp_avg": torch.zeros(2, 3)})
