"""Random arguments for the selective scan, and what tests compare of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openus_model.scan import selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def random_inputs(
    seed: int, *, batch=2, groups=2, channels=3, states=1, length=7, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Arguments of `selective_scan`, drawn in float64; some decays are below exp(-10) per step, some near 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    width = groups * channels
    tensors = [
        normal(batch, width, length),
        normal(batch, width, length) * 2,
        -torch.exp(normal(width, states)),
        normal(batch, groups, states, length),
        normal(batch, groups, states, length),
        normal(width),
        normal(width) - 1,
    ]
    return [x.to(dtype).requires_grad_() for x in tensors]


def value_and_gradients(tensors: list[Tensor], backend: str | Callable[..., Tensor], *, softplus=True) -> list[Tensor]:
    """The scan's output and the gradient of every argument under a fixed probe.

    Args:
        tensors: u, delta, A, B, C and perhaps D, delta_bias.
        backend: a backend's name, or the `scan` of a backend's module.
        softplus: whether the step sizes go through a softplus.
    """
    if isinstance(backend, str):
        y = selective_scan(*tensors, delta_softplus=softplus, backend=backend)
    else:
        split = (tensors[3].shape[1], -1)
        axes = (1, 1, 0, None, None, 0, 0)
        apart = [x if axis is None else torch.unflatten(x, axis, split) for x, axis in zip(tensors, axes, strict=False)]
        y = backend(*apart, *[None] * (7 - len(apart)), softplus).flatten(1, 2)
    probe = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape).to(y.dtype)
    gradients = torch.autograd.grad((y * probe).sum(), tensors, allow_unused=True)
    return [y.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(tensors, gradients, strict=True))]


def worst_error(got: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error of any tensor, relative to that tensor's largest value."""
    errors = [
        float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-6))
        for a, b in zip(got, expected, strict=True)
    ]
    return max(errors)
