"""Checkpoints in and out: every tensor accounted for, no pickle run, torn files named."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import shutil
import sys
import types

import pytest
import torch

from openus_model.backbones import build_backbone
from openus_model.errors import UsageError, WeightsError
from openus_model.weights import import_weights, read_backbone, read_checkpoint, save_backbone


@pytest.fixture(scope="module")
def nano():
    torch.manual_seed(3)
    backbone = build_backbone("vmamba_nano").eval()
    for p in backbone.parameters():
        p.data.add_(0.01 * torch.randn_like(p))
    return backbone


def _heads(dim: int = 128) -> dict[str, torch.Tensor]:
    return {"head.mlp.0.weight": torch.ones(8, dim), "head.last_layer.weight_v": torch.ones(4, 8)}


def _classifier(backbone) -> dict[str, torch.Tensor]:
    """A VMamba classification state dict: no output norms, no mask token, a classifier."""
    kept = {k: v for k, v in backbone.state_dict().items() if not k.startswith(("outnorm", "masked_embed"))}
    return {**kept, "classifier.norm.weight": torch.ones(128), "classifier.head.weight": torch.ones(10, 128)}


def _openus(backbone, prefix: str) -> dict[str, torch.Tensor]:
    state = {f"{prefix}backbone.{k}": v for k, v in backbone.state_dict().items()}
    for name, shape in (
        ("decoder.0.weight", (3072, 128, 1, 1)),
        ("decoder2.0.bias", (4,)),
        ("ema_loss_map", (128, 49)),
    ):
        state[f"{prefix}backbone.{name}"] = torch.zeros(shape)
    state[f"{prefix}backbone.ema_initialized"] = torch.tensor(True)
    return {**state, **{prefix + k: v for k, v in _heads().items()}}


def _same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_saved_backbone_reads_back_equal(nano, tmp_path):
    save_backbone(tmp_path / "w", nano, facts={"license": "Apache-2.0"})
    again = read_backbone(tmp_path / "w")
    assert _same(nano, again) and not again.training and again.config == nano.config
    assert json.loads((tmp_path / "w" / "config.json").read_text())["license"] == "Apache-2.0"
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == ["config.json", "model.safetensors"]


def test_a_public_classifier_is_taken_over_and_its_head_named(nano, tmp_path):
    file = tmp_path / "vssm.pth"
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}
    torch.save({"model": _classifier(nano), "optimizer": optimizer, "max_accuracy": 83.6, "epoch": 222}, file)
    report = import_weights(file, tmp_path / "out")
    assert report.backbone == "vmamba_nano" and report.part == "model"
    assert set(report.unused) == {"classifier.norm.weight", "classifier.head.weight", "optimizer.state.0.exp_avg"}
    assert set(report.initial) == {k for k in nano.state_dict() if k.startswith(("outnorm", "masked_embed"))}
    got, expected = read_backbone(tmp_path / "out").state_dict(), nano.state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in report.placed)
    assert not torch.equal(got["outnorm0.weight"], expected["outnorm0.weight"])
    assert "2 unused: the ImageNet classifier" in report.to_text()


@pytest.mark.parametrize(("part", "prefix"), [("teacher", ""), ("student", "module.")])
def test_an_openus_checkpoint_gives_either_network(nano, tmp_path, part, prefix):
    file = tmp_path / "openus.pth"
    other = "student" if part == "teacher" else "teacher"
    beside = {"ibot_loss": {"center": torch.ones(1, 4)}, "epoch": 3, "args": argparse.Namespace(lr=1e-3)}
    torch.save({part: _openus(nano, prefix), other: {"x": torch.ones(1)}, **beside}, file)
    report = import_weights(file, tmp_path / "out", part=part)
    assert _same(nano, read_backbone(tmp_path / "out"))
    assert report.initial == () and report.part == part
    assert set(report.extras) == {"decoder.0.weight", *_heads()}
    assert set(read_checkpoint(tmp_path / "out" / "extras.safetensors")) == set(report.extras)
    assert set(report.unused) == {
        "decoder2.0.bias",
        "ema_loss_map",
        "ema_initialized",
        "ibot_loss.center",
        f"{other}.x",
    }
    assert all(report.unused.values())


def test_the_teacher_is_taken_where_nothing_is_said(nano, tmp_path):
    torch.save({"student": _openus(nano, "module."), "teacher": _openus(nano, "")}, tmp_path / "a.pth")
    assert import_weights(tmp_path / "a.pth", tmp_path / "out").part == "teacher"


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_every_tensor_of_the_published_layouts_is_accounted_for(fixtures_algorithm, tmp_path, size):
    listing = json.loads((fixtures_algorithm / f"vmamba_{size}_state_dict.json").read_text())
    dtypes = {"float32": torch.float32, "bool": torch.bool}
    # One value stored once for all: the file stays small, and what is checked is names and shapes.
    state = {n: torch.zeros((), dtype=dtypes[d]).expand(s) for n, s, d in listing["classification_state_dict"]}
    torch.save({"model": state}, tmp_path / "c.pth")
    report = import_weights(tmp_path / "c.pth", tmp_path / "out")
    assert report.backbone == f"vmamba_{size}"
    assert set(report.unused) | set(report.placed) == set(state)
    assert report.parameters == listing["params"]["encoder_only"]
    shutil.rmtree(tmp_path / "out")  # 100 to 350 MB that pytest would keep


def test_older_names_and_one_by_one_convolutions_fit(nano, tmp_path):
    state = _classifier(nano)
    state["layers.0.blocks.0.mlp.fc1.weight"] = state["layers.0.blocks.0.mlp.fc1.weight"][:, :, None, None]
    state = {k.replace(".norm.", ".ln_1.").replace(".op.", ".self_attention."): v for k, v in state.items()}
    state["norm.bias"] = torch.ones(128)
    torch.save(state, tmp_path / "old.pth")
    report = import_weights(tmp_path / "old.pth", tmp_path / "out")
    assert "classifier.norm.bias" in report.unused
    assert len(report.placed) + len(report.initial) == len(nano.state_dict())


def test_a_size_of_ones_own_is_imported_by_its_shapes(tmp_path):
    backbone = build_backbone("vmamba_nano", depths=(1, 2, 1, 1), dims=8, ssm_ratio=1.0, ssm_d_state=2)
    torch.save(backbone.state_dict(), tmp_path / "own.pth")
    import_weights(tmp_path / "own.pth", tmp_path / "out")
    assert _same(backbone, read_backbone(tmp_path / "out"))


class _Evil:
    def __reduce__(self):
        return os.system, (f"touch {_Evil.target}",)


def test_a_pickle_that_runs_code_is_refused_and_not_run(nano, tmp_path):
    _Evil.target = tmp_path / "ran"
    torch.save({"model": nano.state_dict(), "config": _Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"not run.*got posix\.system"):
        import_weights(tmp_path / "evil.pth", tmp_path / "out")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(WeightsError):
        import_weights(tmp_path / "plain.pth", tmp_path / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_a_configuration_object_beside_the_weights_is_read_as_nothing(tmp_path):
    torch.save({"args": argparse.Namespace(command="anything")}, tmp_path / "a.pth")
    args = read_checkpoint(tmp_path / "a.pth")["args"]
    assert not isinstance(args, argparse.Namespace) and vars(args) == {}


def test_a_public_checkpoint_with_its_yacs_configuration_is_read(nano, tmp_path, monkeypatch):
    config = types.ModuleType("yacs.config")
    config.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", config)
    nested = config.CfgNode(MODEL=config.CfgNode(TYPE="vssm"))
    nested.frozen = True
    torch.save({"model": _classifier(nano), "config": nested}, tmp_path / "vssm.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    assert import_weights(tmp_path / "vssm.pth", tmp_path / "out").backbone == "vmamba_nano"


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_torn_file_is_named_without_a_traceback(nano, tmp_path, keep):
    torch.save(nano.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"torn\.pth"):
        import_weights(tmp_path / "torn.pth", tmp_path / "out")
    save_backbone(tmp_path / "w", nano)
    (tmp_path / "w" / "model.safetensors").write_bytes(b"x" * keep)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_backbone(tmp_path / "w")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.pop("layers.1.blocks.0.op.Ds"), "layers.1.blocks.0.op.Ds: a tensor does not fit.*got nothing"),
        (lambda s: s.update({"layers.9.x": torch.ones(2)}), "layers.9.x: a tensor that no VMamba has"),
        (lambda s: s.update({"outnorm3.bias": torch.ones(5)}), r"outnorm3.bias.*expected \(128,\); got \(5,\)"),
        (lambda s: s.pop("layers.0.blocks.0.norm.weight"), "holds no VMamba"),
        (lambda s: s.update({"layers.0.blocks.0.norm.weight": torch.ones(0)}), "holds no VMamba"),
        (lambda s: s.update({"layers.0.blocks.0.norm.weight": torch.ones(10**6)}), "a tensor does not fit"),
        (lambda s: s.update({"layers.0.blocks.900000000.norm.weight": torch.ones(16)}), "a tensor that no VMamba has"),
        (lambda s: s.update({"module.masked_embed": torch.ones(1, 16)}), "two tensors.*masked_embed"),
        (lambda s: s["outnorm0.bias"].fill_(float("nan")), "outnorm0.bias.*holds NaN"),
        (lambda s: s.update({"outnorm0.bias": torch.ones(16, dtype=torch.int32)}), "outnorm0.bias.*got int32, strided"),
        (lambda s: s.update({"outnorm0.bias": torch.ones(16).to_sparse()}), "outnorm0.bias.*got float32, sparse_coo"),
        (lambda s: s.update({"hidden": {"deep": [torch.ones(2)]}}), r"hidden\.deep\.0: a tensor that no VMamba has"),
    ],
)
def test_what_does_not_fit_is_an_error_and_leaves_nothing_behind(nano, tmp_path, change, complaint):
    state = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
    change(state)
    torch.save({"teacher": state}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=complaint):
        import_weights(tmp_path / "a.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "prefix", ["", "module.", "module.backbone.", "_orig_mod.module.", "module._orig_mod.backbone."]
)
def test_the_prefixes_of_wrappers_are_taken_off(nano, tmp_path, prefix):
    torch.save({"teacher": {prefix + k: v for k, v in nano.state_dict().items()}}, tmp_path / "a.pth")
    import_weights(tmp_path / "a.pth", tmp_path / "out")
    assert _same(nano, read_backbone(tmp_path / "out"))


def test_a_network_in_containers_of_its_own_is_read_and_a_bare_one_names_what_lies_beside(nano, tmp_path):
    torch.save({"teacher": {"backbone": nano.state_dict(), "head": {"mlp.0.bias": torch.ones(3)}}}, tmp_path / "a.pth")
    assert import_weights(tmp_path / "a.pth", tmp_path / "nested").extras == ("head.mlp.0.bias",)
    torch.save({**nano.state_dict(), "optimizer": {"state": [torch.ones(2)]}}, tmp_path / "b.pth")
    report = import_weights(tmp_path / "b.pth", tmp_path / "bare")
    assert set(report.unused) == {"optimizer.state.0"} and report.unused["optimizer.state.0"]
    assert _same(read_backbone(tmp_path / "nested"), read_backbone(tmp_path / "bare"))


@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bytes_end_in_one_line_or_in_an_import(nano, tmp_path, zipped):
    torch.save({"teacher": nano.state_dict()}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a.pth").read_bytes()
    draw = random.Random(5)
    for _ in range(15):
        raw = bytearray(whole)
        raw[draw.randrange(40_000)] = draw.randrange(256)
        (tmp_path / "b.pth").write_bytes(raw)
        try:
            import_weights(tmp_path / "b.pth", tmp_path / "out")
        except WeightsError as error:
            assert "\n" not in str(error) and "b.pth" in str(error)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        import_weights(tmp_path / "none.pth", tmp_path / "out")
    with pytest.raises(UsageError, match="no backbone in this folder"):
        read_backbone(tmp_path)
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no dictionary"):
        import_weights(tmp_path / "list.pth", tmp_path / "out")
    torch.save({"model": {}}, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match="expected model; got teacher"):
        import_weights(tmp_path / "m.pth", tmp_path / "out", part="teacher")
