"""Vim: its causal convolution, directions and stages. What all backbones promise is in test_backbones."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from openus_model.backbones import build_backbone, causal_conv
from openus_model.backbones.causal_conv import causal_conv_silu, causal_conv_silu_torch
from openus_model.errors import UsageError


def _small():
    torch.manual_seed(0)
    return build_backbone("vim_small", depth=4, dims=32, ssm_d_state=2).eval()


def test_the_convolution_is_the_formula_and_sees_no_future():
    x, weight, bias = torch.randn(2, 3, 7), torch.randn(3, 4), torch.randn(3)
    got = causal_conv_silu(x, weight, bias)
    for t in range(7):
        window = torch.nn.functional.pad(x, (3, 0))[:, :, t : t + 4]
        expected = torch.nn.functional.silu((window * weight).sum(-1) + bias)
        assert torch.allclose(got[:, :, t], expected, atol=1e-6)


class _OnCuda(torch.Tensor):
    """A tensor that says it lies on CUDA."""

    is_cuda = True


def _causal_conv1d_fn(
    x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False, final_states_out=None,
    activation=None,
):  # fmt: skip
    """causal-conv1d's documented function on torch; refuses what its kernel refuses."""
    assert activation == "silu" and seq_idx is None and initial_states is None and not return_final_states
    assert x.stride(2) == 1 and weight.shape == (x.shape[1], weight.shape[1]) and 2 <= weight.shape[1] <= 4
    assert bias.dtype == weight.dtype and bias.is_contiguous()
    return causal_conv_silu_torch(x.as_subclass(torch.Tensor), weight, bias)


@pytest.fixture
def installed(monkeypatch):
    """`installed("a", "b")` makes these modules importable."""

    def install(*names: str) -> None:
        for name in names:
            module = types.ModuleType(name)
            module.causal_conv1d_fn = _causal_conv1d_fn
            module.__spec__ = types.SimpleNamespace(name=name)
            monkeypatch.setitem(sys.modules, name, module)
        causal_conv._kernel.cache_clear()

    yield install
    causal_conv._kernel.cache_clear()


def test_the_kernel_runs_where_it_is_installed_and_only_for_cuda(installed, monkeypatch):
    installed("causal_conv1d", "causal_conv1d_cuda")
    calls = []
    monkeypatch.setattr(causal_conv, "causal_conv_silu_torch", lambda *x: calls.append("torch"))
    x, weight, bias = torch.randn(1, 2, 5), torch.randn(2, 4), torch.randn(2)
    assert torch.equal(causal_conv_silu(x.as_subclass(_OnCuda), weight, bias), causal_conv_silu_torch(x, weight, bias))
    assert calls == []
    causal_conv_silu(x, weight, bias)
    causal_conv_silu(x.as_subclass(_OnCuda), torch.randn(2, 5), bias)  # wider than the kernel knows
    assert calls == ["torch"] * 2


def test_a_package_without_its_extension_does_not_count_as_installed(installed, caplog):
    installed("causal_conv1d")
    with caplog.at_level("INFO", logger=causal_conv.__name__):
        assert causal_conv._kernel() is None
    assert "causal_conv1d_cuda is not installed" in caplog.text


def test_both_ends_of_the_sequence_see_each_other():
    backbone = _small()
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    tokens_BND = backbone(image).tokens_BND
    for token in (0, 3):
        (gradient,) = torch.autograd.grad(tokens_BND[0, token].sum(), image, retain_graph=True)
        assert gradient[0, :, :32, :32].abs().sum() > 0
        assert gradient[0, :, 32:, 32:].abs().sum() > 0


def test_the_stages_are_one_map_at_four_strides():
    stages = _small()(torch.randn(1, 3, 64, 96)).stages
    assert [tuple(stage.shape[2:]) for stage in stages] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert torch.allclose(torch.nn.functional.avg_pool2d(stages[2], 2), stages[3])


def test_vim_small_has_the_papers_size():
    with torch.device("meta"):
        backbone = build_backbone("vim_small")
    with_head = sum(p.numel() for p in backbone.parameters()) + 384 * 1000 + 1000
    assert abs(with_head / 26e6 - 1) < 0.02


def test_the_map_of_any_quarter_of_the_blocks_is_over_cells():
    backbone = _small()
    for stage in range(4):
        assert backbone.attend(torch.randn(2, 3, 64, 96), stage=stage)[1].shape == (2, 6, 6)
    with pytest.raises(UsageError, match="stage 4"):
        backbone.attend(torch.randn(1, 3, 64, 64), stage=4)


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for flag in (False, True):
        torch.manual_seed(0)
        backbone = build_backbone("vim_small", depth=4, dims=32, ssm_d_state=2, gradient_checkpointing=flag)
        backbone(torch.ones(1, 3, 64, 64)).tokens_BND.square().mean().backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_depth_that_does_not_quarter_is_refused():
    with pytest.raises(UsageError, match="multiple of 4"):
        build_backbone("vim_small", depth=6)
