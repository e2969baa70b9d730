"""VMamba: parity with numbers of the authors' code, sizes, and what masks, checkpointing and drop path do."""

from __future__ import annotations

import copy
import itertools
import json
import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from openus_model.backbones import build_backbone
from openus_model.backbones.attention import raw_attention, scale_to_unit
from openus_model.backbones.ss2d import SS2D, cross_merge, cross_orders, cross_scan
from openus_model.errors import UsageError
from openus_model.losses.reconstruction import cell_errors, reconstruction_loss

CASES = ("sq64", "rect64x96", "local96", "odd72x56")


@pytest.fixture(scope="module")
def parity(fixtures_algorithm):
    return np.load(fixtures_algorithm / "parity_tiny.npz")


@pytest.fixture(scope="module")
def tiny(parity):
    """The fixture's network: nano's sizes, the fixture's weights."""
    config = json.loads(parity["meta"].tobytes())["config"]
    backbone = build_backbone("vmamba_nano", depths=config["depths"], dims=config["dims"]).eval()
    names = [name for name in parity.files if name.startswith("w/") and "decoder" not in name]
    backbone.load_state_dict({name[2:]: torch.from_numpy(parity[name]).float() for name in names})
    return backbone


def _off(got: Tensor, expected: np.ndarray) -> float:
    reference = torch.from_numpy(expected)
    return float((got.detach().float() - reference).abs().max() / reference.abs().max().clamp(min=1))


def _with_class_token(features) -> Tensor:
    return torch.cat((features.pooled_BD[:, None], features.tokens_BND), dim=1)


@pytest.mark.parametrize("case", CASES)
def test_features_equal_the_authors(tiny, parity, case):
    with torch.no_grad():
        features = tiny(torch.from_numpy(parity[f"{case}/input"]).float())
    assert _off(_with_class_token(features), parity[f"{case}/x_out"]) < 5e-5
    for i, stage in enumerate(features.stages, start=1):
        if f"{case}/stage{i}" in parity:
            assert _off(stage, parity[f"{case}/stage{i}"]) < 5e-5
    assert features.grid == tuple(features.stages[-1].shape[2:])


@pytest.mark.parametrize("case", CASES[:3])
def test_masked_features_equal_the_authors(tiny, parity, case):
    with torch.no_grad():
        features = tiny(torch.from_numpy(parity[f"{case}/input"]).float(), torch.from_numpy(parity[f"{case}/mask"]))
    assert _off(_with_class_token(features), parity[f"{case}/masked_x_out"]) < 5e-5
    for i, stage in enumerate(features.stages, start=1):
        if f"{case}/masked_stage{i}" in parity:
            assert _off(stage, parity[f"{case}/masked_stage{i}"]) < 5e-5


@pytest.mark.parametrize("case", CASES[:3])
def test_reconstruction_and_its_losses_equal_the_authors(tiny, parity, case):
    image, mask = torch.from_numpy(parity[f"{case}/input"]).float(), torch.from_numpy(parity[f"{case}/mask"])
    with torch.no_grad():
        redrawn = _redraw(tiny(image, mask), parity)
    errors_BHW = cell_errors(redrawn, image, 32)
    assert _off(redrawn[:, :, :2, :8], parity[f"{case}/x_rec_first"]) < 5e-5
    assert _off((errors_BHW * mask).flatten(1), parity[f"{case}/patch_loss"]) < 1e-4
    assert _off(reconstruction_loss(errors_BHW, mask, 32), parity[f"{case}/rec_loss"]) < 1e-4


@pytest.mark.parametrize("case", ["sq64", "local96"])
def test_the_attention_map_equals_the_authors(tiny, parity, case):
    with torch.no_grad():
        features, attention_BLL = tiny.attend(torch.from_numpy(parity[f"{case}/input"]).float(), stage=3, block=1)
    assert _off(_with_class_token(features), parity[f"{case}/x_out"]) < 5e-5
    expected = scale_to_unit(torch.from_numpy(parity[f"{case}/attn"]))  # theirs is scaled over the batch
    assert _off(attention_BLL, expected.numpy()) < 1e-4


def test_one_scan_block_equals_the_authors_inside(tiny, parity):
    key = "ss2d_layers.1.blocks.0"
    x_BHWC = torch.from_numpy(parity[f"{key}/in"]).permute(0, 2, 3, 1)
    out_BHWC, state = tiny.layers[1].blocks[0].op.scan(x_BHWC, want_state=True)
    assert _off(out_BHWC.permute(0, 3, 1, 2), parity[f"{key}/out"]) < 5e-5
    assert _off(state.B_BGNL, parity[f"{key}/Bs"]) < 5e-5
    assert _off(state.C_BGNL, parity[f"{key}/Cs"]) < 5e-5


def test_gradients_equal_the_authors(tiny, parity):
    image = torch.from_numpy(parity["sq64/input"]).float().requires_grad_()
    mask = torch.from_numpy(parity["sq64/mask"])
    features = tiny(image, mask)
    reconstruction = reconstruction_loss(cell_errors(_redraw(features, parity), image, 32), mask, 32)
    assert _off(reconstruction, parity["sq64/rec_loss"]) < 1e-4
    probe = torch.from_numpy(parity["grad/probe"]).float()
    loss = reconstruction + (_with_class_token(features) * probe).mean()
    names = [name.removeprefix("grad/") for name in parity.files if name.startswith("grad/")]
    names = [name for name in names if name not in ("probe", "loss", "input")]
    tensors = [tiny.get_parameter(name) for name in names]
    for name, gradient in zip(names, torch.autograd.grad(loss, tensors), strict=True):
        expected = parity[f"grad/{name}"]
        assert np.abs(gradient.numpy() - expected).max() <= 1e-4 * np.abs(expected).max(), name


def _redraw(features, parity) -> Tensor:
    """The authors' decoder: it is stored as a checksum only, and drawn by the rule that the fixtures' notes give."""
    weight = _drawn("tiny:decoder.0.weight", (3072, 128, 1, 1), 128**-0.5)
    bias = torch.from_numpy(parity["w/decoder.0.bias"]).float()
    return torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(features.stages[-1], weight, bias), 32)


def _drawn(key: str, shape: tuple[int, ...], scale: float) -> Tensor:
    drawn = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape) * scale
    return torch.from_numpy(drawn.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_stays_within_two_percent(tiny, parity, case):
    image = torch.from_numpy(parity[f"{case}/input"]).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = tiny(image)
    assert _off(_with_class_token(features), parity[f"{case}/x_out"]) < 2e-2
    for i, stage in enumerate(features.stages, start=1):
        if f"{case}/stage{i}" in parity:
            assert _off(stage, parity[f"{case}/stage{i}"]) < 2e-2


def test_a_network_cast_to_bfloat16_whole_stays_within_two_percent(tiny, parity):
    with torch.no_grad():
        features = copy.deepcopy(tiny).bfloat16()(torch.from_numpy(parity["sq64/input"]).bfloat16())
    assert features.tokens_BND.dtype == torch.bfloat16
    assert _off(_with_class_token(features), parity["sq64/x_out"]) < 2e-2


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_the_state_dict_has_the_published_names_and_shapes(fixtures_algorithm, size):
    listing = json.loads((fixtures_algorithm / f"vmamba_{size}_state_dict.json").read_text())
    with torch.device("meta"):
        backbone = build_backbone(f"vmamba_{size}")
    published = {name: tuple(shape) for name, shape, _ in listing["openus_backbone_state_dict"]}
    method_only = {name for name in published if name.startswith("decoder") or name == "ema_initialized"}
    ours = {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}
    assert ours == {name: shape for name, shape in published.items() if name not in method_only}
    assert sum(p.numel() for p in backbone.parameters()) == listing["params"]["encoder_only"]


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 3)])
def test_both_memory_layouts_scan_the_same_orders(grid):
    z_BHWD = torch.randn(2, *grid, 3)
    last, first = (cross_scan(z_BHWD, channels_last=flag) for flag in (True, False))
    assert torch.equal(last, first)
    orders_GL = cross_orders(grid, z_BHWD.device)
    for g in range(4):
        assert torch.equal(last[:, g].mT, z_BHWD.flatten(1, 2)[:, orders_GL[g]])


def test_merging_the_orders_puts_every_position_back():
    z_BHWD = torch.randn(2, 3, 5, 4)
    assert torch.allclose(cross_merge(cross_scan(z_BHWD, channels_last=True), (3, 5)), 4 * z_BHWD)


def test_the_layout_for_cuda_gives_the_same_projections():
    block, z_BHWD = SS2D(8), torch.randn(2, 3, 4, 16)
    ours = [block._project(cross_scan(z_BHWD, channels_last=flag), channels_last=flag) for flag in (True, False)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*ours, strict=True))


def test_gradient_checkpointing_changes_no_gradient():
    image = torch.randn(2, 3, 64, 64)
    gradients = []
    for flag in (False, True):
        torch.manual_seed(0)
        backbone = build_backbone("vmamba_nano", gradient_checkpointing=flag, drop_path=0.2)
        torch.manual_seed(1)
        backbone(image).tokens_BND.square().mean().backward()
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_drop_path_follows_the_seed_and_leaves_the_evaluated_network_alone():
    backbone, image = build_backbone("vmamba_nano", drop_path=0.5), torch.randn(4, 3, 32, 32)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(backbone(image).tokens_BND)
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    backbone.eval()
    plain = build_backbone("vmamba_nano").eval()
    plain.load_state_dict(backbone.state_dict())
    assert torch.equal(backbone(image).tokens_BND, plain(image).tokens_BND)


def test_the_attention_map_is_the_formula_in_every_order_and_on_a_grid_that_is_not_square():
    backbone = build_backbone("vmamba_nano").double().eval()
    with torch.no_grad():
        block, (rows, columns) = backbone.layers[3].blocks[0], (2, 3)
        _, state = block.op.scan(torch.randn(2, rows, columns, 128, dtype=torch.float64), want_state=True)
        got_BLL = raw_attention(state)
        expected_BLL = torch.zeros_like(got_BLL)
        for g, b in itertools.product(range(4), range(2)):
            dt, A, B, C = (
                x.double() for x in (state.dt_BGDL[b, g], state.A_GDN[g], state.B_BGNL[b, g], state.C_BGNL[b, g])
            )
            raster = torch.arange(rows * columns).view(rows, columns)
            order = (raster if g % 2 == 0 else raster.T).flatten()
            order = order if g < 2 else order.flip(0)
            for i in range(rows * columns):
                for j in range(i + 1):
                    decay_D = torch.exp((dt[:, j + 1 : i + 1] * A).sum(1))
                    expected_BLL[b, order[i], order[j]] += (C[0, i] * decay_D * B[0, j]).mean()
    assert torch.allclose(got_BLL, expected_BLL, rtol=1e-4, atol=1e-7)


def test_drop_path_drops_whole_samples_while_training_only():
    backbone = build_backbone("vmamba_nano", drop_path=0.9)
    rates = [layer.blocks[i].drop_path.p for layer in backbone.layers for i in range(len(layer.blocks))]
    assert rates == pytest.approx(np.linspace(0, 0.9, 5).tolist())
    ones = torch.ones(400, 2, 2, 3)
    kept = backbone.layers[3].blocks[1].drop_path(ones).flatten(1)
    assert kept.unique().tolist() == pytest.approx([0.0, 10.0])
    assert (kept == kept[:, :1]).all()
    backbone.eval()
    assert torch.equal(backbone.layers[3].blocks[1].drop_path(ones), ones)


def test_attention_of_any_stage_and_grid_is_causal_in_no_order_and_scaled():
    backbone = build_backbone("vmamba_nano").eval()
    with torch.no_grad():
        for stage, cells in enumerate((16 * 24, 8 * 12, 4 * 6, 2 * 3)):
            _, attention_BLL = backbone.attend(torch.randn(2, 3, 64, 96), stage=stage)
            assert attention_BLL.shape == (2, cells, cells)
            assert attention_BLL.flatten(1).amin(1).tolist() == [0, 0]
            assert attention_BLL.flatten(1).amax(1).tolist() == [1, 1]


def test_attending_changes_no_feature():
    backbone, image = build_backbone("vmamba_nano").eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.attend(image)[0].tokens_BND, backbone(image).tokens_BND)


def test_a_block_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="stage 3, block 5"):
        build_backbone("vmamba_nano").attend(torch.zeros(1, 3, 32, 32), block=5)


def test_initial_step_sizes_lie_between_a_thousandth_and_a_tenth():
    step = torch.nn.functional.softplus(build_backbone("vmamba_nano").layers[0].blocks[0].op.dt_projs_bias)
    assert step.min() > 0.99e-3 and step.max() < 0.101
