"""Heads equal the authors', and frozen prototypes do not move."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from openus_model.heads import PixelDecoder, ProjectionHead


def rule_r1(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    """The fixtures' weights (their parity.md, rule R1), for the tensors of a head."""
    g = np.random.RandomState(zlib.crc32((salt + name).encode())).standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "weight_g":
        g = np.ones(shape)
    elif leaf == "bias":
        g = 0.05 * g
    else:
        g = g / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(g.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_logits_equal_the_authors(fixtures_algorithm: Path, role: str) -> None:
    data = np.load(fixtures_algorithm / "parity_head.npz")
    head = ProjectionHead(16, hidden=32, bottleneck=8, prototypes=40, separate=role == "student")
    state = {name: rule_r1(name, tuple(tensor.shape), "head:") for name, tensor in head.state_dict().items()}
    if role == "teacher":  # the shared tensor is loaded under its second name last
        for leaf in ("weight_g", "weight_v"):
            state[f"last_layer.{leaf}"] = state[f"last_layer2.{leaf}"]
    head.load_state_dict(state)
    x = torch.from_numpy(data["x"])
    cls, patch = head(x[:, 0], x[:, 1:])
    local, none = head(torch.from_numpy(data["x_local"])[:, 0])
    assert none is None
    np.testing.assert_allclose(cls.detach(), data[f"{role}/cls"], atol=5e-6)
    np.testing.assert_allclose(patch.detach(), data[f"{role}/patch"], atol=5e-6)
    np.testing.assert_allclose(local.detach(), data[f"{role}/local_cls"], atol=5e-6)


def test_frozen_prototypes_get_no_gradient_and_the_rest_does() -> None:
    head = ProjectionHead(4, hidden=8, bottleneck=4, prototypes=6, separate=True)
    head.freeze_prototypes(True)
    head(torch.randn(3, 4))[0].square().sum().backward()
    assert head.last_layer.weight_v.grad is None
    assert head.mlp[0].weight.grad is not None
    head.freeze_prototypes(False)
    head(torch.randn(3, 4))[0].square().sum().backward()
    assert head.last_layer.weight_v.grad is not None


def test_shared_prototypes_are_one_tensor() -> None:
    head = ProjectionHead(4, hidden=8, bottleneck=4, prototypes=6, separate=False)
    assert head.last_layer.weight_v is head.last_layer2.weight_v


def test_the_decoder_puts_each_cells_pixels_where_the_cell_is() -> None:
    decoder = PixelDecoder(5, stride=32, channels=3)
    features = torch.zeros(1, 5, 2, 3)
    base = decoder(features)
    features[0, :, 1, 2] = 1.0
    changed = (decoder(features) - base).abs().sum(1)[0] > 0
    assert base.shape == (1, 3, 64, 96)
    assert changed[32:, 64:].all()
    assert not changed[:32].any()
    assert not changed[:, :64].any()
