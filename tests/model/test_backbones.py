"""What every backbone of the table promises; a new line in `BACKBONES` is tested by itself."""

from __future__ import annotations

import math

import pytest
import torch

from openus_model import scan
from openus_model.backbones import BACKBONE_NAMES, BACKBONES, build_backbone
from openus_model.errors import UsageError


def _small(name: str):
    """A backbone of the table's kind that is quick to run: narrow and shallow."""
    _, config = BACKBONES[name]
    return build_backbone(name, **config.shrunk())


@pytest.fixture(params=sorted({build for build, _ in BACKBONES.values()}, key=lambda build: build.__name__))
def backbone(request):
    torch.manual_seed(0)
    name = next(name for name, (build, _) in BACKBONES.items() if build is request.param)
    return _small(name)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (72, 56), (33, 31), (1, 1)])
def test_features_have_the_promised_shapes_at_any_size(backbone, size):
    features = backbone(torch.randn(2, 3, *size))
    grid = tuple(math.ceil(side / backbone.stride) for side in size)
    assert features.grid == grid
    assert features.tokens_BND.shape == (2, grid[0] * grid[1], backbone.embed_dim)
    assert torch.allclose(features.pooled_BD, features.tokens_BND.mean(1), atol=1e-6)
    assert len(features.stages) == 4
    assert torch.allclose(features.stages[-1].flatten(2).mT, features.tokens_BND)


def test_a_mask_hides_what_it_covers_and_an_empty_one_nothing(backbone):
    backbone.eval()
    image, mask = torch.randn(1, 3, 64, 64), torch.zeros(1, 2, 2, dtype=torch.bool)
    with torch.no_grad():
        plain = backbone(image).tokens_BND
        assert torch.equal(backbone(image, mask).tokens_BND, plain)
        assert not torch.allclose(backbone(image, ~mask).tokens_BND, plain, atol=1e-3)
        assert torch.allclose(backbone(image, ~mask).tokens_BND, backbone(image + 5, ~mask).tokens_BND)


def test_every_parameter_gets_a_gradient_from_a_masked_pass(backbone):
    mask = torch.tensor([[[True, False], [False, False]]])
    features = backbone(torch.randn(1, 3, 64, 64), mask)
    (sum(stage.square().mean() for stage in features.stages) + features.tokens_BND.sin().mean()).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_samples_do_not_see_each_other(backbone):
    backbone.eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = backbone(images).tokens_BND
        apart = torch.cat([backbone(image[None]).tokens_BND for image in images])
    assert torch.allclose(together, apart, atol=1e-5)


def test_the_attention_map_is_square_over_tokens_and_in_the_unit_interval(backbone):
    features, attention_BLL = backbone.attend(torch.randn(2, 3, 64, 96))
    tokens = features.tokens_BND.shape[1]
    assert attention_BLL.shape == (2, tokens, tokens)
    assert attention_BLL.min() == 0 and attention_BLL.max() == 1
    assert not attention_BLL.requires_grad


def test_the_fast_scan_equals_the_reference_through_the_whole_network(backbone):
    torch.manual_seed(0)
    slow = _small_with_reference(backbone)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(slow.eval()(image).tokens_BND, backbone.eval()(image).tokens_BND, atol=1e-5)


def _small_with_reference(backbone):
    _, config = BACKBONES[backbone.name]
    slow = build_backbone(backbone.name, **{**config.shrunk(), "scan_backend": "reference"})
    slow.load_state_dict(backbone.state_dict())
    return slow


def test_mixed_precision_runs_forward_and_backward(backbone):
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(torch.randn(1, 3, 64, 64))
        features.tokens_BND.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters() if p.grad is not None)


def test_compiling_leaves_the_scans_out_of_the_graphs(backbone, monkeypatch):
    monkeypatch.setattr(scan, "_dispatch", scan._dispatch)
    monkeypatch.setattr(torch.compiler, "disable", lambda call: lambda *x: ("left out", call))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: None)
    backbone.compile()
    assert scan._dispatch()[0] == "left out"


def test_a_mask_of_another_grid_and_a_grey_image_are_refused(backbone):
    with pytest.raises(UsageError, match="mask"):
        backbone(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 3, dtype=torch.bool))
    with pytest.raises(UsageError, match="images"):
        backbone(torch.zeros(1, 1, 64, 64))


def test_the_names_are_the_table():
    assert tuple(BACKBONES) == BACKBONE_NAMES
    assert {"vmamba_nano", "vmamba_tiny", "vmamba_small", "vmamba_base"} <= set(BACKBONE_NAMES)


def test_an_unknown_name_or_setting_gets_the_nearest_one():
    with pytest.raises(UsageError, match="did you mean vmamba_small"):
        build_backbone("vmamba_smal")
    with pytest.raises(UsageError, match="did you mean drop_path"):
        build_backbone("vmamba_nano", drop_pth=0.1)
