"""Views: geometry, grey levels and distributions held to PIL, which iBOT's pipeline uses."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
import PIL
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from openus_model.views import CropGroup, UltrasoundChanges, ViewParams, draw_view, multi_crop
from openus_model.views.apply import apply, valid_share
from openus_model.views.resample import resized_crop

NO_POLYGON = np.zeros((0, 2), np.float32)


def _speckle(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.standard_normal((height, width, 2)).astype(np.float32), (0, 0), 1.5)
    envelope = np.log1p(4 * np.hypot(field[..., 0], field[..., 1]))
    return np.asarray(255 * envelope / envelope.max(), np.uint8)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-12))


def test_the_resize_agrees_with_pil_to_rounding() -> None:
    image = _speckle()
    rng = np.random.default_rng(3)
    new_order = int(PIL.__version__.split(".")[0]) >= 13  # older ones take columns first, whatever the shape
    group = CropGroup(count=1, size=96, scale=(0.05, 1.0), ratio=(0.6, 1.7))
    ours, theirs = [], []
    for _ in range(200):
        x, y, w, h = draw_view(rng, group, 0, *image.shape, None).box
        if not new_order and h - 96 > 2 * max(w - 96, 0):
            continue
        pil = Image.fromarray(image).crop((x, y, x + w, y + h)).resize((96, 96), Image.Resampling.BICUBIC)
        ours.append(resized_crop(image, (x, y, w, h), 96))
        theirs.append(np.asarray(pil))
    assert len(ours) > 150 and _psnr(np.stack(ours), np.stack(theirs)) > 72
    assert min(_psnr(a, b) for a, b in zip(ours, theirs, strict=True)) > 69.5  # a level off in 0.7 % of a view's pixels


def test_a_colour_resize_agrees_with_pil_to_rounding() -> None:
    grey = _speckle()
    image = np.ascontiguousarray(np.stack([grey, grey[::-1], grey[:, ::-1]], -1))
    for box in ((10, 20, 260, 190), (100, 3, 80, 230), (0, 0, 50, 40)):
        x, y, w, h = box
        crop = Image.fromarray(image).crop((x, y, x + w, y + h))
        pil = crop.resize((96, 96), Image.Resampling.BICUBIC)
        ours = resized_crop(image, box, 96)
        assert _psnr(ours, np.asarray(pil)) > (70 if int(PIL.__version__.split(".")[0]) >= 13 else 50)


def test_the_resize_equals_torchs_over_one_channel_to_the_bit() -> None:
    rng = np.random.default_rng(8)
    for _ in range(80):
        height, width = rng.integers(1, 90, 2).tolist()
        image = rng.integers(0, 256, (height, width), dtype=np.uint8)
        w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        crop_BCHW = torch.from_numpy(image[None, None, y : y + h, x : x + w].copy())
        for sides in (((32, w), (32, 32)), ((h, 32), (32, 32))):  # rows first, columns first
            passes = crop_BCHW
            for side in sides:
                passes = torch.nn.functional.interpolate(passes, side, mode="bicubic", antialias=True)
            if np.array_equal(resized_crop(image, (x, y, w, h), 32), passes[0, 0].numpy()):
                break
        else:
            pytest.fail(f"neither order of passes gives the resize of {w} x {h}")


@pytest.mark.parametrize("order", [("brightness", "contrast"), ("contrast", "brightness")])
@pytest.mark.parametrize("factors", [(0.6, 1.4), (1.37, 0.61), (1.0, 1.25)])
def test_brightness_and_contrast_equal_pil(order: tuple[str, str], factors: tuple[float, float]) -> None:
    image = _speckle(64, 64)
    jitter = tuple(zip(order, factors, strict=True))
    ours = apply(image, ViewParams(box=(0, 0, 64, 64), size=64, jitter=jitter))
    pil = Image.fromarray(image)
    for name, factor in jitter:
        pil = getattr(ImageEnhance, name.capitalize())(pil).enhance(factor)
    assert np.abs(ours.astype(int) - np.asarray(pil).astype(int)).max() <= 1


def test_blur_and_solarise_follow_pil() -> None:
    image = _speckle(128, 128)
    for sigma in (0.1, 0.5, 1.0, 1.5, 2.0):
        ours = apply(image, ViewParams(box=(0, 0, 128, 128), size=128, blur_px=sigma))
        pil = Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))
        assert _psnr(ours[8:-8, 8:-8], np.asarray(pil)[8:-8, 8:-8]) > 42
    ours = apply(image, ViewParams(box=(0, 0, 128, 128), size=128, solarize=True))
    assert np.array_equal(ours, np.asarray(ImageOps.solarize(Image.fromarray(image), 128)))


def _reference_box(rng: random.Random, scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """RandomResizedCrop as torchvision documents it, for an image of 400 by 300."""
    while True:
        target = 120_000 * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if w <= 400 and h <= 300:
            return rng.randint(0, 400 - w), rng.randint(0, 300 - h), w, h


@pytest.mark.parametrize("scale", [(0.14, 1.0), (0.05, 0.4)])
def test_crop_boxes_have_the_distribution_of_random_resized_crop(scale: tuple[float, float]) -> None:
    rng, reference = np.random.default_rng(0), random.Random(0)
    group = CropGroup(count=1, size=96, scale=scale)
    ours = np.array([draw_view(rng, group, 0, 300, 400, None).box for _ in range(3000)], float)
    theirs = np.array([_reference_box(reference, scale) for _ in range(3000)], float)
    quantiles = np.linspace(0.05, 0.95, 19)
    for column, unit in ((0, 400), (1, 300), (2, 400), (3, 300)):
        gap = np.quantile(ours[:, column], quantiles) - np.quantile(theirs[:, column], quantiles)
        assert np.abs(gap).max() / unit < 0.025


def test_a_view_is_replayed_exactly_from_its_parameters() -> None:
    image = _speckle()
    groups = (
        CropGroup(
            count=2, size=64, scale=(0.2, 1.0), ultrasound=UltrasoundChanges(gain_db=6, tgc_db=6, attenuation_db=9)
        ),
    )
    (views,) = multi_crop(image, NO_POLYGON, groups, np.random.default_rng(1))
    again = multi_crop(image, NO_POLYGON, groups, np.random.default_rng(1))[0]
    for view, twin in zip(views, again, strict=True):
        assert np.array_equal(view.pixels, apply(image, view.params))
        assert np.array_equal(view.pixels, twin.pixels)


def test_the_scan_area_follows_crop_and_flip() -> None:
    triangle = np.array([[160, 0], [320, 240], [0, 240]], np.float32)
    inside = np.zeros((240, 320), np.uint8)
    cv2.fillPoly(inside, [triangle.astype(np.int32)], 255)
    for flip in (False, True):
        params = ViewParams(box=(30, 20, 240, 200), size=96, flip=flip)
        picture = apply(inside, params).astype(float) / 255
        truth = picture.reshape(3, 32, 3, 32).mean(axis=(1, 3))
        assert np.abs(valid_share(triangle, params) - truth).max() < 0.04  # an outline's pixels count as inside
    assert np.all(valid_share(NO_POLYGON, params) == 1)


def test_crops_stay_inside_the_scan_area_when_asked() -> None:
    triangle = np.array([[160, 0], [320, 240], [0, 240]], np.float32)
    shares = []
    for share in (0.0, 0.7):
        group = CropGroup(count=40, size=32, scale=(0.05, 0.2), inside_share=share)
        (views,) = multi_crop(_speckle(), triangle, (group,), np.random.default_rng(2))
        shares.append(float(np.mean([v.valid.mean() for v in views])))
    assert shares[0] < 0.75 < 0.78 < shares[1]


def test_hue_and_saturation_leave_grey_images_alone_and_colour_keeps_its_channels() -> None:
    image = _speckle(64, 64)
    jitter = (("saturation", 0.5), ("hue", 0.1))
    assert np.array_equal(apply(image, ViewParams(box=(0, 0, 64, 64), size=64, jitter=jitter)), image)
    colour = np.stack([image, image // 2, 255 - image], -1)
    turned = apply(colour, ViewParams(box=(0, 0, 64, 64), size=64, jitter=jitter))
    assert turned.shape == colour.shape and not np.array_equal(turned, colour)
    grey = apply(colour, ViewParams(box=(0, 0, 64, 64), size=64, grey=True))
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_gain_changes_leave_black_black_and_attenuation_darkens_with_depth() -> None:
    image = np.full((64, 64), 120, np.uint8)
    image[:, :8] = 0
    gain = np.linspace(0, -12, 64, dtype=np.float32)
    view = apply(image, ViewParams(box=(0, 0, 64, 64), size=64, gain_db=gain))
    assert view[:, :7].max() == 0 and view[0, 32] == 120 and view[63, 32] == 120 - round(12 * 255 / 60)
    assert np.all(np.diff(view[:, 32].astype(int)) <= 0)


def test_a_lateral_blur_keeps_the_axial_structure() -> None:
    rows = np.repeat((np.arange(64) % 2 * 200).astype(np.uint8)[:, None], 64, axis=1)
    params = ViewParams(box=(0, 0, 64, 64), size=64, lateral_blur_px=2.0)
    assert np.array_equal(apply(rows, params), rows)
    assert apply(rows.T.copy(), params).std() < 20
