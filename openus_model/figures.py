"""The figure of a step: input, teacher attention, difficulty, mask and reconstruction, a row per image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Picture = NDArray[np.uint8]
COLUMNS = ("input", "attention", "difficulty", "mask", "reconstruction")
GAP_PX, TITLE_PX = 4, 18


def draw_step(pictures: Mapping[str, Tensor]) -> Picture:
    """One picture of a step.

    Args:
        pictures: image and reconstruction (R, 3, H, W) in [0, 1]; attention, difficulty and mask (R, h, w) in [0, 1].

    Returns:
        uint8 RGB, a row per image under a line of titles.
    """
    plain = {name: tensor.detach().float().cpu().numpy() for name, tensor in pictures.items()}
    rows = [_row({name: stack[k] for name, stack in plain.items()}) for k in range(len(plain["image"]))]
    body = np.concatenate([part for row in rows for part in (row, _blank(GAP_PX, row.shape[1]))])
    return np.concatenate([_titles(body.shape[1]), body])


def write_figure(path: Path, picture: Picture) -> None:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    aside = path.with_name(f".{path.name}.part")
    aside.write_bytes(encoded.tobytes())
    aside.replace(path)


def _row(maps: Mapping[str, NDArray[np.float32]]) -> Picture:
    image = np.round(maps["image"].transpose(1, 2, 0) * 255).astype(np.uint8)
    drawn = np.round(maps["reconstruction"].transpose(1, 2, 0) * 255).astype(np.uint8)
    hidden = _enlarge(maps["mask"], image, cv2.INTER_NEAREST)[..., None] > 0.5
    panels = (
        image,
        _overlay(image, maps["attention"]),
        _overlay(image, maps["difficulty"]),
        np.where(hidden, np.uint8(90), image),
        np.where(hidden, drawn, image),
    )
    gap = _blank(image.shape[0], GAP_PX)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def _enlarge(cells: NDArray[np.float32], image: Picture, how: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(cells.astype(np.float32), image.shape[1::-1], interpolation=how), np.float32)


def _overlay(image: Picture, cells: NDArray[np.float32]) -> Picture:
    """A map in false colours over its dimmed image."""
    heat = np.round(_enlarge(cells, image, cv2.INTER_NEAREST).clip(0, 1) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.addWeighted(image, 0.45, colours, 0.55, 0), np.uint8)


def _titles(width: int) -> Picture:
    strip = _blank(TITLE_PX, width)
    step = (width + GAP_PX) / len(COLUMNS)
    for k, title in enumerate(COLUMNS):
        cv2.putText(
            strip, title, (round(k * step) + 2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (20, 20, 20), 1, cv2.LINE_AA
        )
    return strip


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), 255, np.uint8)
