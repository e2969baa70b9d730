"""The selective scan: every backend against the definition in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_inputs import NAMES, random_inputs, value_and_gradients, worst_error

from openus_model.errors import MissingExtra, UsageError
from openus_model.scan import available_backends, choose_backend, scan_groups, selective_scan
from openus_model.scan import cpu as cpu_scan

FAST = [name for name in available_backends("cpu") if name != "reference"]


def test_the_reference_is_the_recurrence_written_out_by_hand():
    tensors = random_inputs(0, batch=1, groups=1, channels=1, states=2, length=3)
    u, delta, A, B, C, D, bias = (x.detach() for x in tensors)
    y = selective_scan(u, delta, A, B, C, D, bias, delta_softplus=True, backend="reference")
    h = [0.0, 0.0]
    for t in range(3):
        dt = math.log1p(math.exp(float(delta[0, 0, t] + bias[0])))
        for n in range(2):
            h[n] = math.exp(dt * float(A[0, n])) * h[n] + dt * float(B[0, 0, n, t] * u[0, 0, t])
        expected = sum(float(C[0, 0, n, t]) * h[n] for n in range(2)) + float(D[0] * u[0, 0, t])
        assert float(y[0, 0, t]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    batch=st.integers(1, 3),
    groups=st.integers(1, 4),
    channels=st.integers(1, 5),
    states=st.sampled_from([1, 1, 2, 3]),
    length=st.sampled_from([1, 2, 7, 13, 31, 53]),
    softplus=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_backend_equals_the_reference_in_float64(
    backend, seed, batch, groups, channels, states, length, softplus, dtype
):
    shape = {"batch": batch, "groups": groups, "channels": channels, "states": states, "length": length}
    expected = value_and_gradients(random_inputs(seed, **shape), "reference") if softplus else None
    tensors = random_inputs(seed, **shape, dtype=dtype)
    if expected is None:  # without the softplus a step size must be positive by itself
        positive = random_inputs(seed, **shape)
        positive[1].data = positive[1].data.abs() * 0.1
        positive[6].data = positive[6].data.abs() * 0.1
        tensors = [x.detach().to(dtype).requires_grad_() for x in positive]
        expected = value_and_gradients(positive, "reference", softplus=False)
    got = value_and_gradients(tensors, backend, softplus=softplus)
    assert worst_error(got, expected) < (1e-12 if dtype == torch.float64 else 5e-6)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_only_the_rounding_of_inputs_and_outputs(backend, dtype):
    rounded = [x.detach().to(dtype) for x in random_inputs(3, channels=8, length=61)]
    exact = [x.double().requires_grad_() for x in rounded]
    for i in (2, 5, 6):  # parameters stay float32 under mixed precision
        rounded[i] = rounded[i].float()
    got = value_and_gradients([x.requires_grad_() for x in rounded], backend)
    assert got[0].dtype == got[1].dtype == dtype
    assert worst_error(got, value_and_gradients(exact, "reference")) < 2e-2


@pytest.mark.parametrize("backend", FAST)
def test_memory_layout_does_not_change_the_result(backend):
    tensors = [x.detach() for x in random_inputs(4, channels=6, length=29, dtype=torch.float32)]
    plain = selective_scan(*tensors, delta_softplus=True, backend=backend)
    strided = [x.mT.contiguous().mT if x.ndim >= 3 else x.repeat_interleave(2, 0)[::2] for x in tensors]
    strided[0] = torch.cat((tensors[0], tensors[0]), dim=2)[:, :, :29]
    assert torch.equal(selective_scan(*strided, delta_softplus=True, backend=backend), plain)


@pytest.mark.parametrize("backend", FAST)
def test_gradcheck_in_float64(backend):
    tensors = random_inputs(5, channels=2, states=2, length=5)
    assert torch.autograd.gradcheck(lambda *x: selective_scan(*x, delta_softplus=True, backend=backend), tensors)


@pytest.mark.parametrize("backend", FAST)
def test_skip_and_bias_may_be_absent(backend):
    tensors = random_inputs(6)[:5]
    assert worst_error(value_and_gradients(tensors, backend), value_and_gradients(tensors, "reference")) < 1e-12


@pytest.mark.parametrize("elements", [1, 24, 100])
def test_blocks_of_any_size_give_the_same_scan(elements, monkeypatch):
    tensors = random_inputs(7, length=37)
    monkeypatch.setattr(cpu_scan, "MIN_STEPS", 1)
    monkeypatch.setattr(cpu_scan, "BLOCK_ELEMENTS", elements)
    assert worst_error(value_and_gradients(tensors, "cpu"), value_and_gradients(tensors, "reference")) < 1e-12


@pytest.mark.parametrize("backend", FAST)
def test_no_step_size_overflows(backend):
    tensors = random_inputs(8, length=31, dtype=torch.float32)
    tensors[1].data *= 100
    assert all(torch.isfinite(x).all() for x in value_and_gradients(tensors, backend))


@pytest.mark.parametrize("backend", FAST)
def test_the_scan_repeats_to_the_bit(backend):
    first, second = (value_and_gradients(random_inputs(9, length=53, dtype=torch.float32), backend) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_groups_may_come_as_an_axis_of_their_own():
    u, delta, A, B, C, D, bias = (x.detach() for x in random_inputs(10))
    split = [torch.unflatten(x, i, (2, 3)) for x, i in ((u, 1), (delta, 1), (A, 0), (D, 0), (bias, 0))]
    apart = scan_groups(split[0], split[1], split[2], B, C, split[3], split[4], True)
    assert torch.equal(apart.flatten(1, 2), selective_scan(u, delta, A, B, C, D, bias, True))


def test_auto_takes_the_cpu_backend_and_says_so_once(caplog):
    choose_backend.cache_clear()
    with caplog.at_level("INFO", logger="openus_model.scan"):
        assert [choose_backend("cpu") for _ in range(3)] == ["cpu"] * 3
    assert caplog.messages == ["selective scan on cpu: cpu (chosen by auto)"]


def test_cuda_without_a_fast_backend_is_refused_not_run_slowly(monkeypatch):
    choose_backend.cache_clear()
    monkeypatch.setattr("openus_model.scan._is_installed", lambda name: False)
    with pytest.raises(MissingExtra, match="install-cuda"):
        choose_backend("cuda")
    with pytest.raises(MissingExtra, match="mamba_ssm is not installed"):
        choose_backend("cuda", "mamba_ssm")
    choose_backend.cache_clear()


def test_cuda_prefers_triton_then_mamba_ssm(monkeypatch):
    choose_backend.cache_clear()
    monkeypatch.setattr("openus_model.scan._is_installed", lambda name: True)
    assert choose_backend("cuda") == "triton"
    choose_backend.cache_clear()
    monkeypatch.setattr("openus_model.scan._is_installed", lambda name: name == "mamba_ssm")
    assert choose_backend("cuda") == "mamba_ssm"
    choose_backend.cache_clear()


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_shape_is_named(name):
    tensors = random_inputs(11)
    index = NAMES.index(name)
    tensors[index] = tensors[index].detach()[..., None]
    with pytest.raises(UsageError):
        selective_scan(*tensors)


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="expected auto, reference, cpu, triton, mamba_ssm; got fast"):
        selective_scan(*random_inputs(12), backend="fast")
