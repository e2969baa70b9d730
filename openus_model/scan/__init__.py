"""The selective scan, the recurrence at the heart of a Mamba block, behind one function with four backends.

    from openus_model.scan import selective_scan
    y = selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus=True)  # backend="auto"

| backend | runs on | module |
|---|---|---|
| `reference` | any device, float64 | `reference`: the definition, slow; the oracle |
| `cpu` | CPU | `cpu`: blocks of time steps with its own backward, pure torch |
| `triton` | CUDA | `triton_kernel`: fused, repeats to the bit |
| `mamba_ssm` | CUDA | `mamba_kernel`: mamba-ssm's kernel, from the extra `[mamba]` |

`auto` takes `cpu` on the CPU, and on CUDA `triton`, else `mamba_ssm`, else it stops: it never falls to a slow scan in
silence. What it took is logged once per device. Axes: B batch, G groups (scan directions), D channels of a group, N
states, L time.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor

from openus_model.errors import MissingExtra, UsageError

logger = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "cpu", "triton", "mamba_ssm"]
_MODULES: dict[str, str] = {
    "reference": "openus_model.scan.reference",
    "cpu": "openus_model.scan.cpu",
    "triton": "openus_model.scan.triton_kernel",
    "mamba_ssm": "openus_model.scan.mamba_kernel",
}
_NEEDS: dict[str, str] = {"triton": "triton", "mamba_ssm": "selective_scan_cuda"}
BACKENDS: tuple[str, ...] = tuple(_MODULES)

Scan = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, bool],
    Tensor,
]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Scan sequences with input-dependent step sizes; the shapes are mamba-ssm's.

    Args:
        u: input (B, D, L), any float dtype and strides.
        delta: step sizes before bias and softplus (B, D, L).
        A: (D, N), negative: the decay rates.
        B: (B, G, N, L), D divisible by G: channel d uses group d // (D / G).
        C: (B, G, N, L).
        D: skip connection (D,).
        delta_bias: (D,), added to `delta` before the softplus.
        delta_softplus: whether `delta` goes through a softplus.
        backend: `auto`, `reference`, `cpu`, `triton` or `mamba_ssm`.

    Returns:
        (B, D, L) in the dtype of `u`; the arithmetic is float32, or float64 where `u` is float64.

    Raises:
        UsageError: shapes that do not fit, or a backend that cannot run here.
    """
    _check_shapes(u, delta, A, B, C, D, delta_bias)
    channels, groups = u.shape[1], B.shape[1]
    split = (groups, channels // groups)
    y = scan_groups(
        torch.unflatten(u, 1, split),
        torch.unflatten(delta, 1, split),
        torch.unflatten(A, 0, split),
        B,
        C,
        None if D is None else D.view(split),
        None if delta_bias is None else delta_bias.view(split),
        delta_softplus,
        backend,
    )
    return y.flatten(1, 2)


def scan_groups(
    u_BGDL: Tensor,
    delta_BGDL: Tensor,
    A_GDN: Tensor,
    B_BGNL: Tensor,
    C_BGNL: Tensor,
    D_GD: Tensor | None,
    bias_GD: Tensor | None,
    softplus: bool,
    backend: Backend = "auto",
) -> Tensor:
    """`selective_scan` with the groups as an axis of their own, so that any memory layout passes without a copy."""
    if u_BGDL.is_meta:  # shapes without values, as when a network is described
        return torch.empty_like(u_BGDL)
    return _dispatch(u_BGDL, delta_BGDL, A_GDN, B_BGNL, C_BGNL, D_GD, bias_GD, softplus, backend)


def _dispatch(u_BGDL: Tensor, *arguments: Any) -> Tensor:
    *rest, backend = arguments
    return _load(choose_backend(u_BGDL.device.type, backend))(u_BGDL, *rest)


def keep_out_of_compiled_graphs() -> None:
    """Make torch.compile leave the scans as they are: they are fused already, and their loops would be unrolled.

    The backbones call it when they are compiled; it is not done at once because it loads the compiler, for seconds.
    """
    global _dispatch
    if not getattr(_dispatch, "_torchdynamo_disable", False):
        _dispatch = torch.compiler.disable(_dispatch)  # type: ignore[no-untyped-call]


def available_backends(device: str) -> tuple[str, ...]:
    """The backends that can run on a device type here."""
    if device == "cuda":
        return ("reference", *(name for name in _NEEDS if _is_installed(name)))
    return ("reference", "cpu")


@functools.cache
def choose_backend(device: str, backend: str = "auto") -> str:
    """The backend that runs for a device type (`cpu`, `cuda`); logs it the first time.

    Raises:
        UsageError: the backend has no such name or does not run on this device.
        MissingExtra: it is not installed, or nothing fast is installed for CUDA.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError("no such scan backend", expected=", ".join(("auto", *BACKENDS)), got=backend)
    name = backend if backend != "auto" else _fastest(device)
    if name == "cpu" and device != "cpu":
        raise UsageError("the scan backend cpu runs on the CPU only", got=device, next_step="use backend auto")
    if name in _NEEDS and not _is_installed(name):
        raise MissingExtra(f"the scan backend {name} is not installed", next_step=_install_hint(name))
    logger.info("selective scan on %s: %s%s", device, name, " (chosen by auto)" if backend == "auto" else "")
    return name


def _fastest(device: str) -> str:
    if device != "cuda":
        return "cpu" if device == "cpu" else "reference"
    for name in ("triton", "mamba_ssm"):
        if _is_installed(name):
            return name
    raise MissingExtra(
        "no fast selective scan for CUDA is installed",
        expected="triton (comes with torch's CUDA wheels) or mamba-ssm",
        next_step="pip install triton, or see docs/how-to/install-cuda.md; backend reference is a slow last resort",
    )


def _install_hint(name: str) -> str:
    if name == "triton":
        return "torch's CUDA wheels bring it: reinstall torch, or pip install triton"
    return 'pip install --no-build-isolation "openus[mamba]"; see docs/how-to/install-cuda.md'


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(_NEEDS[name]) is not None


@functools.cache
def _load(name: str) -> Scan:
    try:
        return cast(Scan, importlib.import_module(_MODULES[name]).scan)
    except ImportError as error:  # installed, but built for another torch or CUDA
        raise MissingExtra(
            f"the scan backend {name} is installed but does not load",
            got=str(error).splitlines()[0],
            next_step=_install_hint(name),
        ) from error


def _check_shapes(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None
) -> None:
    if u.ndim != 3 or A.ndim != 2 or B.ndim != 4 or not u.shape[2]:
        raise UsageError(
            "the scan takes u (B, D, L), A (D, N), B and C (B, G, N, L), L >= 1",
            got=f"u {tuple(u.shape)}, A {tuple(A.shape)}, B {tuple(B.shape)}",
        )
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    if not groups or channels % groups:
        raise UsageError("the channels do not divide into the groups", expected=f"D % {groups} == 0", got=f"{channels}")
    wanted = {
        "delta": (delta, (batch, channels, length)),
        "A": (A, (channels, states)),
        "B": (B, (batch, groups, states, length)),
        "C": (C, (batch, groups, states, length)),
        "D": (D, (channels,)),
        "delta_bias": (delta_bias, (channels,)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise UsageError(
                "a tensor of the scan has a wrong shape", where=name, expected=f"{shape}", got=f"{tuple(tensor.shape)}"
            )
        if tensor is not None and tensor.device != u.device:
            raise UsageError(
                "the scan's tensors lie on two devices", where=name, expected=f"{u.device}", got=f"{tensor.device}"
            )


__all__ = [
    "BACKENDS",
    "Backend",
    "available_backends",
    "choose_backend",
    "keep_out_of_compiled_graphs",
    "scan_groups",
    "selective_scan",
]
