"""Segmentation decoders: the paper's agrees with the released one; both take maps of any grid."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from openus_model.errors import UsageError
from openus_model.evaluate.decoder import MambaDecoder, build_decoder


def _value(name: str, shape: tuple[int, ...], salt: str) -> torch.Tensor:
    """Rule R1 of the fixtures (parity.md)."""
    seed = zlib.crc32(f"{salt}{name}".encode()) & 0xFFFFFFFF
    g = np.random.RandomState(seed).standard_normal(shape)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "A_logs":
        g = 0.5 * g
    elif leaf == "Ds" or (leaf in ("weight", "scale1", "scale2") and len(shape) == 1):
        g = 1 + 0.1 * g
    elif leaf == "dt_projs_bias":
        g = -3 + g
    elif leaf == "bias":
        g = 0.05 * g
    elif leaf in ("x_proj_weight", "dt_projs_weight"):
        g = g / np.sqrt(shape[-1])
    else:
        g = g / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(g.astype(np.float16).astype(np.float32))


def test_the_mamba_decoder_computes_what_the_released_one_does(fixtures_algorithm: Path) -> None:
    fixture = np.load(fixtures_algorithm / "parity_decoder.npz")
    meta = json.loads(bytes(fixture["meta"]).decode())
    decoder = MambaDecoder(meta["embed_dim"], meta["num_classes"], depth=1).eval()
    assert {k: tuple(v.shape) for k, v in decoder.state_dict().items()} == {k: tuple(s) for k, s in meta["keys"]}
    decoder.load_state_dict({k: _value(k, tuple(s), meta["salt"]) for k, s in meta["keys"]})
    with torch.inference_mode():
        logits = decoder([torch.from_numpy(fixture[f"in{i}"].astype(np.float32)) for i in range(4)]).numpy()
    worst = np.abs(logits - fixture["logits"]).max()
    assert worst <= 5e-5 * max(1, np.abs(fixture["logits"]).max()), worst
    whole = {k: tuple(v.shape) for k, v in MambaDecoder(96, 2).state_dict().items()}
    assert whole == {k: tuple(s) for k, s in meta["real_keys"]}


@pytest.mark.parametrize("kind", ["mamba", "pyramid"])
def test_a_decoder_gives_logits_at_four_times_the_finest_grid(kind: str) -> None:
    decoder = build_decoder(kind, [8, 16, 32, 64], 3, depth=1)  # type: ignore[arg-type]
    stages = [torch.randn(1, 8 * 2**i, *grid) for i, grid in enumerate([(16, 12), (8, 6), (4, 3), (2, 2)])]
    assert decoder(stages).shape == (1, 3, 64, 48)


def test_the_mamba_decoder_says_which_maps_it_takes() -> None:
    with pytest.raises(UsageError, match="decoder=pyramid"):
        build_decoder("mamba", [8, 8, 8, 8], 2)
