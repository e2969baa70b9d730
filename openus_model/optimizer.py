"""AdamW, its parameter groups, and gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from openus_model.errors import WeightsError

NEVER_DECAYED = ("bias", "A_logs", "Ds", "masked_embed", "weight_g")
"""Last parts of names: what a Mamba layer's authors leave out of weight decay, and the mask token (D10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the optimizer does in one step."""

    lr: float
    weight_decay: float


def decays(name: str, parameter: Tensor, rule: Literal["matrices", "released"]) -> bool:
    """Whether a parameter gets weight decay.

    Args:
        name: dotted name.
        parameter: the tensor.
        rule: "matrices" spares biases of any shape, norms, A_logs and the mask token; "released" spares what has one
            axis or ends in `.bias`, hence decays A_logs, dt_projs_bias and the mask token.
    """
    if parameter.ndim <= 1 or name.endswith(".bias"):
        return False
    return rule == "released" or not name.endswith(NEVER_DECAYED)


def build_adamw(
    module: nn.Module, *, rule: Literal["matrices", "released"], betas: tuple[float, float], eps: float
) -> AdamW:
    """AdamW over the trainable parameters, in two groups; rates come with each step through `set_rates`."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decays(name, p, rule)], "decay": True},
        {"params": [p for name, p in named if not decays(name, p, rule)], "decay": False},
    ]
    on_gpu = bool(named) and named[0][1].is_cuda
    return AdamW(groups, lr=0.0, betas=betas, eps=eps, weight_decay=0.0, fused=on_gpu or None, foreach=None)


def set_rates(optimizer: AdamW, rates: Rates) -> None:
    """Put the rates of the coming step into the groups."""
    for group in optimizer.param_groups:
        group["lr"] = rates.lr
        group["weight_decay"] = rates.weight_decay if group["decay"] else 0.0


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[nn.Parameter], limit: float, rule: Literal["global", "per_tensor"] = "global"
) -> Tensor:
    """Scale gradients down to a norm of at most `limit`; 0 leaves them alone.

    Args:
        parameters: those without a gradient are passed over.
        limit: largest L2 norm.
        rule: one norm over all gradients, or one for each tensor (D11).

    Returns:
        the L2 norm over all gradients before clipping, a scalar on their device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(gradients))
    norm: Tensor = torch.linalg.vector_norm(norms)
    if limit > 0:
        if rule == "per_tensor":
            torch._foreach_mul_(gradients, list((limit / (norms + 1e-6)).clamp(max=1.0).unbind()))
        else:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def optimizer_tensors(optimizer: AdamW, module: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as flat names, `<parameter>/<kind>`, so that it can lie in a safetensors file."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{names[parameter]}/{kind}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for parameter, state in optimizer.state.items()
        for kind, value in state.items()
    }


def load_optimizer_tensors(optimizer: AdamW, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took out.

    Raises:
        WeightsError: a name is not a parameter of the module.
    """
    by_name = dict(module.named_parameters())
    for key, tensor in tensors.items():
        name, kind = key.rsplit("/", 1)
        if name not in by_name:
            raise WeightsError("the optimizer's state does not fit the model", where=name)
        parameter = by_name[name]
        device = torch.device("cpu") if kind == "step" and not parameter.is_cuda else parameter.device
        optimizer.state[parameter][kind] = tensor.to(device)
