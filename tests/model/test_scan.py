"""The selective scan: every backend against the definition in float64."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_inputs import NAMES, random_inputs, value_and_gradients, worst_error

from openus_model import scan as scan_module
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
@pytest.mark.parametrize("states", [1, 16])
@pytest.mark.parametrize("softplus", [True, False])
def test_step_sizes_from_a_millionth_to_fifty_are_exact_together(backend, states, softplus):
    exact = [x.detach() for x in random_inputs(13, channels=4, states=states, length=101)]
    step = torch.logspace(-6, math.log10(50), exact[1].numel(), dtype=torch.float64)
    step = step[torch.randperm(len(step), generator=torch.Generator().manual_seed(0))].view(exact[1].shape)
    exact[1] = step + torch.log(-torch.expm1(-step)) if softplus else step  # the softplus's inverse
    exact[6].zero_()
    rounded = [x.float() for x in exact]
    expected = value_and_gradients([x.double().requires_grad_() for x in rounded], "reference", softplus=softplus)
    got = value_and_gradients([x.requires_grad_() for x in rounded], backend, softplus=softplus)
    assert worst_error(got, expected) < 2e-6


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("length", [1999, 2048])
def test_a_long_sequence_stays_exact(backend, length):
    shape = {"batch": 1, "channels": 2, "length": length}
    got = value_and_gradients(random_inputs(14, **shape, dtype=torch.float32), backend)
    rounded = [x.detach().float().double().requires_grad_() for x in random_inputs(14, **shape)]
    assert worst_error(got, value_and_gradients(rounded, "reference")) < 2e-6


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("last", ["time", "channels"])
def test_gradients_do_not_depend_on_the_layout_of_inputs_or_of_the_gradient_that_comes_in(backend, last):
    plain = [x.detach() for x in random_inputs(15, channels=24, length=83, dtype=torch.float32)]
    laid = [x.clone() if last == "time" or x.ndim < 3 else x.mT.contiguous().mT for x in plain]
    probe = torch.randn(plain[0].shape, generator=torch.Generator().manual_seed(1))
    runs = []
    for tensors, dy in (
        (plain, probe.mT.contiguous().mT),
        (laid, probe),
        (laid, torch.cat((probe, probe), 2)[..., :83]),
    ):
        leaves = [x.requires_grad_() for x in tensors]
        y = selective_scan(*leaves, delta_softplus=True, backend=backend)
        runs.append([y.detach(), *torch.autograd.grad(y, leaves, dy)])
    assert all(worst_error(run, runs[0]) < 1e-6 for run in runs)


@pytest.mark.parametrize("backend", FAST)
def test_a_gradient_that_is_one_number_for_all_is_taken_as_it_is(backend):
    leaves = random_inputs(16, channels=24, length=83)
    summed = torch.autograd.grad(selective_scan(*leaves, delta_softplus=True, backend=backend).sum(), leaves)
    y = selective_scan(*leaves, delta_softplus=True, backend=backend)
    assert worst_error(list(summed), list(torch.autograd.grad(y, leaves, torch.ones_like(y)))) < 1e-12


@pytest.mark.parametrize("backend", FAST)
def test_inference_gives_the_bits_of_training(backend):
    leaves = random_inputs(17, channels=5, length=53, dtype=torch.float32)
    trained = selective_scan(*leaves, delta_softplus=True, backend=backend)
    with torch.no_grad():
        assert torch.equal(selective_scan(*leaves, delta_softplus=True, backend=backend), trained)
    with torch.inference_mode():
        assert torch.equal(selective_scan(*leaves, delta_softplus=True, backend=backend), trained)


@pytest.mark.parametrize("backend", FAST)
def test_a_second_backward_over_a_kept_graph_gives_the_same_gradients(backend):
    leaves = random_inputs(18, length=31)
    y = selective_scan(*leaves, delta_softplus=True, backend=backend)
    first, second = (torch.autograd.grad(y.sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backend", ["reference", *FAST])
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(backend):
    got = value_and_gradients(random_inputs(19, batch=0, length=5), backend)
    assert got[0].shape == (0, 6, 5)
    assert [float(x.abs().sum()) for x in got] == [0.0] * 8


def test_a_kernel_that_does_not_load_is_said_in_one_line_and_not_replaced(monkeypatch):
    load = scan_module._load
    load.cache_clear()
    monkeypatch.setitem(sys.modules, "openus_model.scan.mamba_kernel", None)  # importing it raises ImportError
    with pytest.raises(MissingExtra, match=r"mamba_ssm is installed but does not load.*install-cuda"):
        load("mamba_ssm")
    load.cache_clear()


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
