"""A short causal convolution over time, one filter per channel, with a SiLU behind it.

On CUDA it runs on causal-conv1d's fused kernel where that is installed (extra `[mamba]`), elsewhere on torch; both
compute the same, and which one runs is logged once. Axes: B batch, D channels, L time, W width of the filter.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import cast

from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

MAX_KERNEL_WIDTH = 4
"""The widest filter that causal-conv1d knows; the narrowest is 2."""


def causal_conv_silu(x_BDL: Tensor, weight_DW: Tensor, bias_D: Tensor) -> Tensor:
    """silu(sum over w of weight[w] x[t - W + 1 + w] + bias), x being 0 before its start (BDL)."""
    kernel = _kernel() if x_BDL.is_cuda and 2 <= weight_DW.shape[1] <= MAX_KERNEL_WIDTH else None
    if kernel is not None:
        return kernel(x_BDL, weight_DW.to(x_BDL.dtype), bias_D.to(x_BDL.dtype), activation="silu")
    return causal_conv_silu_torch(x_BDL, weight_DW, bias_D)


def causal_conv_silu_torch(x_BDL: Tensor, weight_DW: Tensor, bias_D: Tensor) -> Tensor:
    """The same in plain torch."""
    padded_BDL = functional.pad(x_BDL, (weight_DW.shape[1] - 1, 0))
    return functional.silu(functional.conv1d(padded_BDL, weight_DW[:, None], bias_D, groups=weight_DW.shape[0]))


@functools.cache
def _kernel() -> Callable[..., Tensor] | None:
    missing = [name for name in ("causal_conv1d", "causal_conv1d_cuda") if importlib.util.find_spec(name) is None]
    if missing:  # a build that skipped CUDA leaves the package without its extension
        logger.info("causal convolution on cuda: torch (%s is not installed)", missing[0])
        return None
    logger.info("causal convolution on cuda: causal-conv1d")
    return cast(Callable[..., Tensor], importlib.import_module("causal_conv1d").causal_conv1d_fn)
