"""The CUDA backends without a CUDA device: Triton's interpreter, and mamba-ssm's extension played by the reference."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types

import pytest
import torch
from scan_inputs import random_inputs, value_and_gradients, worst_error
from torch import Tensor

from openus_model.errors import UsageError
from openus_model.scan import reference

if not torch.cuda.is_available() and importlib.util.find_spec("triton"):
    os.environ["TRITON_INTERPRET"] = "1"  # triton reads it once, when it is first imported


@pytest.fixture
def triton_kernel():
    """The module, under the interpreter where there is no CUDA device."""
    pytest.importorskip("triton", reason="triton comes with torch's CUDA wheels; or pip install --no-deps triton")
    return importlib.import_module("openus_model.scan.triton_kernel")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("states", "length"), [(1, 1), (1, 13), (1, 49), (2, 37)])
@pytest.mark.parametrize("longest_chunk", [512, 16])
def test_triton_equals_the_reference_in_float64(triton_kernel, monkeypatch, dtype, states, length, longest_chunk):
    monkeypatch.setattr(triton_kernel, "MAX_CHUNK", longest_chunk)
    shape = {"channels": 3, "states": states, "length": length}
    expected = value_and_gradients(random_inputs(1, **shape), "reference")
    got = value_and_gradients(random_inputs(1, **shape, dtype=dtype), triton_kernel.scan)
    assert worst_error(got, expected) < (1e-12 if dtype == torch.float64 else 5e-6)


@pytest.mark.parametrize("softplus", [True, False])
def test_triton_does_without_skip_bias_and_softplus(triton_kernel, softplus):
    tensors = random_inputs(2, length=9)[:5]
    tensors[1].data = tensors[1].data.abs() * 0.1
    expected = value_and_gradients(tensors, "reference", softplus=softplus)
    assert worst_error(value_and_gradients(tensors, triton_kernel.scan, softplus=softplus), expected) < 1e-12


def test_triton_takes_any_layout_and_half_precision(triton_kernel):
    tensors = [x.detach().to(torch.bfloat16) for x in random_inputs(3, length=21)]
    tensors[0] = tensors[0].mT.contiguous().mT
    y = value_and_gradients([x.requires_grad_() for x in tensors], triton_kernel.scan)
    exact = value_and_gradients([x.detach().double().requires_grad_() for x in tensors], "reference")
    assert y[0].dtype == torch.bfloat16
    assert worst_error(y, exact) < 2e-2


def test_triton_takes_an_empty_batch(triton_kernel):
    got = value_and_gradients(random_inputs(9, batch=0, length=5), triton_kernel.scan)
    assert [float(x.abs().sum()) for x in got] == [0.0] * 8


def test_triton_repeats_to_the_bit(triton_kernel):
    runs = [value_and_gradients(random_inputs(4, length=40, dtype=torch.float32), triton_kernel.scan) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_triton_refuses_cpu_tensors_outside_the_interpreter(triton_kernel, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("the kernels are compiled here")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(UsageError, match="runs on CUDA"):
        value_and_gradients(random_inputs(5), triton_kernel.scan)


class _Extension(types.ModuleType):
    """What mamba-ssm's extension promises, on the reference; refuses what the real one refuses."""

    def fwd(self, u, delta, A, B, C, D, z, bias, softplus):
        assert z is None and u.dtype == delta.dtype == B.dtype == C.dtype and A.dtype == torch.float32
        assert all(x.is_contiguous() for x in (u, delta, A, B, C))
        return [self._run(u, delta, A, B, C, D, bias, softplus), torch.zeros(1), None]

    def bwd(self, u, delta, A, B, C, D, z, bias, dy, states, out, dz, softplus, recompute):
        assert dy.dtype == u.dtype and dy.is_contiguous() and states.is_contiguous()
        tensors = [x for x in (u, delta, A, B, C, D, bias) if x is not None]
        leaves = [x.detach().requires_grad_() for x in tensors]
        with torch.enable_grad():
            named = iter(leaves)
            arguments = [None if x is None else next(named) for x in (u, delta, A, B, C, D, bias)]
            y = self._run(*arguments, softplus)
        gradients = iter(torch.autograd.grad(y, leaves, dy))
        return [None if x is None else next(gradients) for x in (u, delta, A, B, C, D, bias)]

    @staticmethod
    def _run(u, delta, A, B, C, D, bias, softplus) -> Tensor:
        split = (B.shape[1], -1)
        return reference.scan(
            torch.unflatten(u, 1, split), torch.unflatten(delta, 1, split), torch.unflatten(A, 0, split), B, C,
            None if D is None else D.view(split), None if bias is None else bias.view(split), softplus,
        ).flatten(1, 2)  # fmt: skip


@pytest.fixture
def mamba_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", _Extension("selective_scan_cuda"))
    sys.modules.pop("openus_model.scan.mamba_kernel", None)
    yield importlib.import_module("openus_model.scan.mamba_kernel")
    sys.modules.pop("openus_model.scan.mamba_kernel", None)


@pytest.mark.parametrize("count", [5, 7])
def test_mamba_gets_its_layout_and_every_gradient_comes_back(mamba_kernel, count):
    expected = value_and_gradients(random_inputs(6, states=2)[:count], "reference")
    got = value_and_gradients(random_inputs(6, states=2, dtype=torch.float32)[:count], mamba_kernel.scan)
    assert worst_error(got, expected) < 1e-5


def test_mamba_brings_mixed_dtypes_to_the_inputs_own(mamba_kernel):
    tensors = random_inputs(7, dtype=torch.float32)
    tensors[0] = tensors[0].detach().to(torch.bfloat16).requires_grad_()
    got = value_and_gradients(tensors, mamba_kernel.scan)
    assert [x.dtype for x in got[:3]] == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_mamba_refuses_double_precision(mamba_kernel):
    with pytest.raises(UsageError, match="float64"):
        value_and_gradients(random_inputs(8), mamba_kernel.scan)
