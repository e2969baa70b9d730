"""Segmentation: learns discs, scores per image at its own size, says what is empty; the page shows it."""

from __future__ import annotations

import json
from pathlib import Path

import conftest
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_corpus

from openus_model.corpus import Corpus
from openus_model.errors import DataError, RecipeError
from openus_model.evaluate import EvaluateRequest, evaluate
from openus_model.evaluate.metrics import dice
from openus_model.evaluate.page import pick_panels
from openus_model.evaluate.segment import _mean_over_labels, dice_loss, make_mask_task, turn_and_flip

QUICK = ("size_px=64", "epochs=6", "batch_size=4", "decoder=pyramid", "lr=0.01")


def _disc(index: int, size: int, colour: bool) -> np.ndarray:
    """A bright disc where the corpus's mask has one."""
    image = np.random.default_rng(index).integers(0, 60, (size, size), dtype=np.uint8)
    return np.asarray(cv2.circle(image, (size // 2, size // 3 + 5 * (index % 4)), size // 6, 220, -1))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of discs with masks, spacing known on one half."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "_image", _disc)
        folder = write_corpus(tmp_path_factory.mktemp("masks"), 24, size=64, shards=2, split="train", with_masks=True)
    table = pq.read_table(folder / "manifest.parquet")
    changes = {
        "split": [("train", "train", "val", "test")[i // 2 % 4] for i in range(24)],
        "dataset": ["toy"] * 24,
        "subject_id": [f"subject-{i // 2}" for i in range(24)],
        "spacing_row_mm": [0.2 if i % 2 else None for i in range(24)],
        "spacing_col_mm": [0.2 if i % 2 else None for i in range(24)],
    }
    for name, values in changes.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), [values])
    pq.write_table(table, folder / "manifest.parquet")
    return folder


def _request(root: Path, out: Path, **options: object) -> EvaluateRequest:
    values = {
        "protocol": "segment", "weights": "random:vmamba_nano", "data": root, "dataset": "toy", "out": out,
        "quiet": True, "overrides": QUICK,
    }  # fmt: skip
    return EvaluateRequest(**{**values, **options})  # type: ignore[arg-type]


def test_a_decoder_on_a_frozen_backbone_learns_discs_and_the_page_shows_it(root: Path, tmp_path: Path) -> None:
    report = evaluate(_request(root, tmp_path / "full"))
    scores = json.loads((tmp_path / "full" / "scores.json").read_text())
    assert scores["metrics"]["dsc"]["value"] > 0.5, scores["metrics"]
    assert scores["metrics"]["dsc"]["value"] >= scores["metrics"]["iou"]["value"]
    assert scores["test_images"] == 6 and any(
        "HD95 in mm is not defined on 3 test images" in n for n in scores["notes"]
    )
    assert scores["folds"][0]["best_epoch"] >= 1
    assert evaluate(_request(root, tmp_path / "full")).to_json() == report.to_json()
    evaluate(_request(root, tmp_path / "half", label_fraction=0.5))
    page = (tmp_path / "half" / "scores.html").read_text()
    for word in ("Best, median, worst", "Label efficiency", "data:image/png", "By device and organ"):
        assert word in page
    assert "http" not in page and "<script" not in page


def test_a_backbone_can_be_trained_with_the_papers_decoder(root: Path, tmp_path: Path) -> None:
    changes = ("size_px=64", "epochs=1", "frozen=false", "decoder=mamba", "decoder_depth=1", "augment=false")
    scores = evaluate(_request(root, tmp_path / "out", overrides=changes)).scores
    assert 0 <= scores["metrics"]["dsc"]["value"] <= 1 and scores["recipe"]["decoder"] == "mamba"


def test_empty_masks_score_by_rule() -> None:
    empty, full = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)
    assert _mean_over_labels(dice, empty, empty, [1]) == 1.0
    assert _mean_over_labels(dice, empty, full, [1]) == 0.0
    both = full.copy()
    both[:2] = 2
    assert _mean_over_labels(dice, both, full, [1, 2]) == pytest.approx((2 * 8 / 24 + 0) / 2)


def test_the_picture_of_an_empty_image_is_shown_only_where_there_is_no_other(root: Path) -> None:
    corpus, rows = Corpus.open(root), np.arange(4)
    empty = corpus.mask(0)
    assert empty is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Corpus, "mask", lambda self, index: np.zeros_like(empty) if index == 0 else empty)
        panels = pick_panels(corpus, rows, np.array([1.0, 0.9, 0.6, 0.2]), dict.fromkeys(range(4), empty))
        assert [(p.title, p.dsc) for p in panels] == [("best", 0.9), ("median", 0.6), ("worst", 0.2)]
        alone = pick_panels(corpus, rows[:1], np.array([1.0]), {0: empty})
        assert [p.dsc for p in alone] == [1.0] * 3


def test_turns_move_image_and_mask_alike() -> None:
    mask = torch.randint(0, 2, (6, 8, 8))
    images = mask[:, None].to(torch.uint8)
    turned, followed = turn_and_flip(images, mask, torch.Generator().manual_seed(3))
    assert torch.equal(turned[:, 0].long(), followed) and not torch.equal(followed, mask)


def test_the_dice_loss_is_none_for_certain_and_right_answers() -> None:
    wanted = torch.randint(0, 3, (2, 8, 8))
    logits = torch.nn.functional.one_hot(wanted, 3).permute(0, 3, 1, 2).float() * 100
    assert dice_loss(logits, wanted) < 1e-6 < dice_loss(-logits, wanted)


def test_what_cannot_be_segmented_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image has a mask"):
        make_mask_task(Corpus.open(write_corpus(tmp_path / "bare", 4, size=64)))
    with pytest.raises(RecipeError, match="another protocol"):
        evaluate(_request(root, tmp_path / "x", overrides=("protocol=knn",)))
    with pytest.raises(RecipeError, match="did you mean epochs"):
        evaluate(_request(root, tmp_path / "x", overrides=("epoch=3",)))
