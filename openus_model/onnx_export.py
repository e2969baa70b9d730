"""ONNX for one input size, checked against torch: `write_onnx(backbone, Path("folder"), 224)`.

A selective scan is a recurrence over thousands of positions; unrolled it would be a graph of a hundred thousand nodes.
Here it is written as a prefix scan that doubles its reach at each step (Hillis and Steele, "Data parallel algorithms",
1986): a dozen steps for a 224-pixel image, the same function, and no division by a decay. The graph has one input,
`image` (1, 3, SIZE, SIZE) float32 normalised, and outputs `pooled` (1, D) and the four maps `stage1` to `stage4`.

Torch's tracing exporter is used: on these graphs it takes seconds where the newer one takes minutes
(docs/how-to/export.md has the figures).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from openus_model import scan as scans
from openus_model.contracts import Features
from openus_model.errors import MissingExtra, UsageError, WeightsError

OPSET: Final = 17
TOLERANCE: Final = 1e-4
"""Largest difference to torch that is let pass, over what is larger, 1 or the largest value."""
OUTPUTS: Final = ("pooled", "stage1", "stage2", "stage3", "stage4")


def write_onnx(backbone: Any, folder: Path, size_px: int) -> float:
    """Write `model-SIZE.onnx` and compare it with torch.

    Args:
        backbone: in eval mode, on the CPU.
        folder: of the export.
        size_px: side of the square input.

    Returns:
        the largest difference over all outputs, over what is larger, 1 or the output's largest value.

    Raises:
        MissingExtra: `onnx` or `onnxruntime` is not installed.
        UsageError: a size that the backbone's stride does not divide.
        WeightsError: the graph computes something else than torch, or the network cannot be written as one.
    """
    runtime = _need("onnxruntime")
    _need("onnx")
    if size_px < backbone.stride or size_px % backbone.stride:
        raise UsageError(
            "not a size for ONNX", where="--onnx", expected=f"a multiple of {backbone.stride}", got=str(size_px)
        )
    path = folder / f"model-{size_px}.onnx"
    aside = folder / f".{path.name}.part"
    image = torch.randn(1, backbone.in_channels, size_px, size_px, generator=torch.Generator().manual_seed(0))
    _trace(backbone, image, aside)
    error = _compare(runtime, backbone, aside, image)
    if not error <= TOLERANCE:
        aside.unlink()
        raise WeightsError(
            "the ONNX graph computes something else than torch", expected=f"a difference of {TOLERANCE}", got=f"{error}"
        )
    aside.replace(path)
    return error


class _Flat(nn.Module):
    """The backbone with tensors for an answer."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        features: Features = self.backbone(image_BCHW)
        return (features.pooled_BD, *features.stages)


def _trace(backbone: nn.Module, image: Tensor, path: Path) -> None:
    try:
        with _prefix_scans(), _symbols(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # shape checks become constants, which a fixed size is meant to have
            torch.onnx.export(
                _Flat(backbone).eval(), (image,), str(path), input_names=["image"], output_names=list(OUTPUTS),
                opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        path.unlink(missing_ok=True)
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise WeightsError("this network cannot be written as ONNX", got=reason[:200]) from error


def _transpose_last(graph: Any, x: Any) -> Any:
    """`tensor.mT`."""
    rank = x.type().dim()
    return graph.op("Transpose", x, perm_i=[*range(rank - 2), rank - 1, rank - 2])


def _rms_norm(graph: Any, x: Any, _shape: Any, weight: Any, eps: Any) -> Any:
    """`torch.nn.RMSNorm` over the last axis."""
    mean = graph.op("ReduceMean", graph.op("Mul", x, x), axes_i=[-1], keepdims_i=1)
    scale = graph.op("Sqrt", graph.op("Add", mean, eps))
    return graph.op("Mul", graph.op("Div", x, scale), weight)


_UNKNOWN: Final = {"aten::mT": _transpose_last, "aten::rms_norm": _rms_norm}
"""Operators of the backbones that the exporter does not know."""


@contextmanager
def _symbols() -> Iterator[None]:
    """Teach the exporter the operators that it does not know, for the time of a trace."""
    for name, symbol in _UNKNOWN.items():
        torch.onnx.register_custom_op_symbolic(name, symbol, OPSET)  # type: ignore[attr-defined,arg-type]
    try:
        yield
    finally:
        for name in _UNKNOWN:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)  # type: ignore[attr-defined]


@contextmanager
def _prefix_scans() -> Iterator[None]:
    """Every selective scan as a prefix scan, for the time of a trace."""
    before = scans._dispatch
    scans._dispatch = prefix_scan
    try:
        yield
    finally:
        scans._dispatch = before


def prefix_scan(
    u_BGDL: Tensor,
    delta_BGDL: Tensor,
    A_GDN: Tensor,
    B_BGNL: Tensor,
    C_BGNL: Tensor,
    D_GD: Tensor | None,
    bias_GD: Tensor | None,
    softplus: bool,
    _backend: str = "auto",
) -> Tensor:
    """`openus_model.scan.scan_groups` in log2(L) steps: pairs (decay, state) are joined with ever farther pairs."""
    dt_BGDL = delta_BGDL if bias_GD is None else delta_BGDL + bias_GD[:, :, None]
    dt_BGDL = functional.softplus(dt_BGDL) if softplus else dt_BGDL
    decay_BGDNL = torch.exp(dt_BGDL[:, :, :, None] * A_GDN[None, :, :, :, None])
    state_BGDNL = (dt_BGDL * u_BGDL)[:, :, :, None] * B_BGNL[:, :, None]
    reach = 1
    while reach < u_BGDL.shape[-1]:
        state_BGDNL = state_BGDNL + decay_BGDNL * functional.pad(state_BGDNL[..., :-reach], (reach, 0))
        decay_BGDNL = decay_BGDNL * functional.pad(decay_BGDNL[..., :-reach], (reach, 0), value=1.0)
        reach *= 2
    y_BGDL = (state_BGDNL * C_BGNL[:, :, None]).sum(3)
    return y_BGDL if D_GD is None else y_BGDL + D_GD[:, :, None] * u_BGDL


def _compare(runtime: Any, backbone: nn.Module, path: Path, traced: Tensor) -> float:
    """On another image than the traced one, so that nothing of it can have become a constant."""
    image = torch.randn(traced.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = [x.numpy() for x in _Flat(backbone).eval()(image)]
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(list(OUTPUTS[: len(expected)]), {"image": image.numpy()})
    worst = max(np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in zip(got, expected, strict=True))
    return float(worst)


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(f"{name} is not installed", next_step="pip install onnx onnxruntime") from None
