"""What shadow and depth hide: sides without a crisp edge are moved out to where the scanner's border must be.

The border that a scanner paints is crisp to a pixel; the border of a shadow is not. So where one side of a fan is
crisp and the other both soft and nearer to the axis, the fan is made symmetric; where a slab fills the frame but for a
dark strip that fades in, the strip is taken in. Both keep echo rather than lose it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from openus_data.cone.evidence import Grey
from openus_data.cone.fade import reach
from openus_data.cone.outline import Polygon
from openus_data.cone.shape import Fan, Shape, Slab

_LEAST_SKEW = math.radians(1.0)
_SLIGHT_SKEW = math.radians(5.0)
_SOFT, _CRISP = 0.45, 0.55
_STRIP = 0.4
_SAMPLES = 40
_MARGIN_PX = 0.5
_DEPTHS = np.linspace(0.01, 0.05, 6)
"""Where echo near the probe is looked at, as parts of the depth of the scan area."""
_BAND_FULL, _DARK, _FLAT, _GAP_PX, _PROBES_PX = 0.5, 6, 2, 5, (5, 12)
_LEAST_RUN, _LEAST_RUN_PX, _LEAST_NEAR, _MOST_TURN = 0.05, 16, 0.15, math.radians(40)
_ALONG = (np.arange(128) + 0.5) / 128
_DEEPER, _WIDER = 0.8, 0.4
"""How much deeper and wider a shape may be than its echo is at first sight, as parts of its size."""


def complete(shape: Shape, distance: Grey, *, faint: bool = True) -> Shape:
    """The shape, in pixels, with hidden sides moved out and a margin of half a pixel.

    Args:
        shape: on its edges.
        distance: uint8 (H, W), 0 on the background.
        faint: whether scattered pixels beyond the border may be echo; they are not where all of the frame is noisy.
    """
    if isinstance(shape, Fan):
        shape = _as_wide_as_near(_symmetric(shape, distance), distance)
        return _with_margin_fan(_deeper_fan(shape, distance) if faint else shape, distance.shape)
    shape = _as_wide_as_top(_to_the_rim(shape, distance), distance)
    return _with_margin_slab(_wider(_deeper_slab(shape, distance), distance) if faint else shape, distance.shape)


def _deeper_fan(fan: Fan, distance: Grey) -> Fan:
    """The far arc where the last faint echo lies."""
    angle = fan.left + (fan.right - fan.left) * _ALONG
    rays = np.empty((len(angle), 2))
    rays[:, 0], rays[:, 1] = np.sin(angle), (-1.0 if fan.inverted else 1.0) * np.cos(angle)
    most = _DEEPER * (fan.far - fan.near)
    more = most * reach(fan.far * rays + (fan.apex_x, fan.apex_y), most * rays, distance)
    return replace(fan, far=fan.far + more) if more else fan


def _deeper_slab(slab: Slab, distance: Grey) -> Slab:
    """The flat bottom where the last faint echo lies, its sides going on as they run."""
    height = slab.bottom - slab.top
    most = min(_DEEPER * height, distance.shape[0] - slab.bottom)
    left = (slab.bottom_left - slab.top_left) / max(1.0, height)
    right = (slab.bottom_right - slab.top_right) / max(1.0, height)
    start, way = np.empty((len(_ALONG), 2)), np.empty((len(_ALONG), 2))
    start[:, 0], start[:, 1] = slab.bottom_left + (slab.bottom_right - slab.bottom_left) * _ALONG, slab.bottom
    way[:, 0], way[:, 1] = most * (left + (right - left) * _ALONG), most
    more = most * reach(start, way, distance)
    return replace(
        slab,
        bottom=slab.bottom + more,
        bottom_left=slab.bottom_left + left * more,
        bottom_right=slab.bottom_right + right * more,
    )


def _wider(slab: Slab, distance: Grey) -> Slab:
    """The straight sides where the last faint echo lies."""
    most = _WIDER * (slab.bottom_right - slab.bottom_left)
    room_left = min(most, slab.top_left, slab.bottom_left)
    room_right = min(most, distance.shape[1] - max(slab.top_right, slab.bottom_right))
    start, way = np.empty((len(_ALONG), 2)), np.zeros((len(_ALONG), 2))
    start[:, 1] = slab.top + (slab.bottom - slab.top) * _ALONG
    start[:, 0], way[:, 0] = slab.top_left + (slab.bottom_left - slab.top_left) * _ALONG, -room_left
    less = room_left * reach(start, way, distance)
    start[:, 0], way[:, 0] = slab.top_right + (slab.bottom_right - slab.top_right) * _ALONG, room_right
    more = room_right * reach(start, way, distance)
    return replace(
        slab,
        top_left=slab.top_left - less,
        bottom_left=slab.bottom_left - less,
        top_right=slab.top_right + more,
        bottom_right=slab.bottom_right + more,
    )


def _symmetric(fan: Fan, distance: Grey) -> Fan:
    skew = fan.left + fan.right
    if abs(skew) < _LEAST_SKEW or fan.right - fan.left < math.radians(30):
        return fan
    left, right = (_crispness(fan, angle, side, distance) for angle, side in ((fan.left, -1.0), (fan.right, 1.0)))
    nearer, other = (right, left) if skew < 0 else (left, right)
    slight = abs(skew) < _SLIGHT_SKEW
    if nearer >= _SOFT or not (slight or other > max(_CRISP, nearer)):
        return fan
    return replace(fan, right=-fan.left) if skew < 0 else replace(fan, left=-fan.right)


def _crispness(fan: Fan, angle: float, side: float, distance: Grey) -> float:
    """How much of the fall across a straight border, as far as the frame shows it, happens at the border."""
    down = -1.0 if fan.inverted else 1.0
    ray = np.array([math.sin(angle), down * math.cos(angle)])
    normal = side * np.array([math.cos(angle), -down * math.sin(angle)])
    radius = np.linspace(fan.near, fan.far, _SAMPLES + 2)[1:-1, None]
    return _sharpness(np.array([fan.apex_x, fan.apex_y]) + radius * ray, normal, distance)


def _sharpness(point: Polygon, normal: NDArray[np.float64], distance: Grey) -> float:
    """Fall of the mean brightness within three pixels of a border over that within fifteen; 0.5 where it is unseen.

    Args:
        point: (N, 2) on the border, px.
        normal: (2,) outward.
        distance: uint8 (H, W).
    """
    h, w = distance.shape
    inside = (point > 2).all(axis=1) & (point[:, 0] < w - 2) & (point[:, 1] < h - 2)
    if inside.sum() < 5:
        return 0.5
    offset = np.array([-16.0, -14, -12, -4, -3, -2, 2, 3, 4])
    at = point[inside, None] + offset[:, None] * normal
    column = np.clip(at[..., 0], 0, w - 1).astype(np.intp)
    row = np.clip(at[..., 1], 0, h - 1).astype(np.intp)
    deep, close, beyond = distance[row, column].mean(axis=0).reshape(3, 3).mean(axis=1)
    return float(np.clip((close - beyond) / max(1.0, deep - beyond), 0, 1))


def _as_wide_as_near(fan: Fan, distance: Grey) -> Fan:
    """Sides in shadow moved out to where echo along the near arc ends, which lost contact leaves."""
    deep = fan.near + _DEPTHS * (fan.far - fan.near)
    if fan.near < _LEAST_NEAR * fan.far or deep[-1] - deep[0] < len(_DEPTHS):
        return fan
    down, step = -1.0 if fan.inverted else 1.0, 1 / deep[0]
    for name, angle, side in (("left", fan.left, -1.0), ("right", fan.right, 1.0)):
        rays = [
            (math.sin(turned), down * math.cos(turned)) for turned in (angle + side * step * px for px in _PROBES_PX)
        ]
        spots = [(fan.apex_x + r * x, fan.apex_y + r * y) for x, y in rays for r in deep[::2].tolist()]
        if not _any_echo(spots, distance):
            continue
        turn = side * step * _outward(_MOST_TURN / step, distance.shape)
        x, y = np.outer(deep, np.sin(angle + turn)), np.outer(deep, np.cos(angle + turn))
        run = _run(fan.apex_x + x, fan.apex_y + down * y, distance)
        if run and _crispness(fan, angle, side, distance) < _SOFT:
            fan = replace(fan, **{name: angle + side * step * run})
    return fan


def _as_wide_as_top(slab: Slab, distance: Grey) -> Slab:
    """The same for upright sides, along the top."""
    height, width = slab.bottom - slab.top, slab.top_right - slab.top_left
    deep = slab.top + _DEPTHS * height
    if (slab.top_left, slab.top_right) != (slab.bottom_left, slab.bottom_right) or deep[-1] - deep[0] < len(_DEPTHS):
        return slab
    for name, x, side in (("left", slab.top_left, -1.0), ("right", slab.top_right, 1.0)):
        if not _any_echo([(x + side * px, y) for px in _PROBES_PX for y in deep[::2].tolist()], distance):
            continue
        out = x + side * _outward(_WIDER * width, distance.shape)
        run = _run(*np.meshgrid(out, deep), distance)
        if not run:
            continue
        point = np.stack([np.full(len(_ALONG), x), slab.top + height * _ALONG], 1)
        if _sharpness(point, np.array([side, 0.0]), distance) < _SOFT:
            slab = replace(slab, **{f"top_{name}": x + side * run, f"bottom_{name}": x + side * run})
    return slab


def _any_echo(spots: Sequence[tuple[float, float]], distance: Grey) -> bool:
    """Whether both the first and the second half of some spots (x, y) in px show echo; mostly neither does."""
    h, w = distance.shape
    half = len(spots) // 2
    return all(
        any(0 <= x < w and 0 <= y < h and distance[int(y), int(x)] > _DARK for x, y in some)
        for some in (spots[:half], spots[half:])
    )


def _outward(most: float, size: tuple[int, ...]) -> NDArray[np.float64]:
    """Distances in px (N,) from a border outward at which echo is looked for."""
    return np.arange(1.0, max(2.0, min(most, size[1])))


def _run(x: NDArray[np.float64], y: NDArray[np.float64], distance: Grey) -> int:
    """How far echo goes on, px, at points (D, N) of D depths; 0 if that is as short as a mark, or endless."""
    h, w = distance.shape
    least = max(_LEAST_RUN_PX, int(_LEAST_RUN * w))
    if x.shape[1] <= least:
        return 0
    column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    seen = (column >= 0) & (row >= 0) & (column < w) & (row < h)
    level = distance[np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)]
    rough = level.max(axis=0) > level.min(axis=0) + _FLAT  # which a plain interface is not
    echo = rough & ((seen & (level > _DARK)).mean(axis=0) >= _BAND_FULL)
    gaps = np.convolve(echo, np.ones(_GAP_PX), "full")[_GAP_PX - 1 :] == 0  # nothing here nor just beyond
    run = int(gaps.argmax()) if gaps.any() else 0
    return run if run >= least else 0


def _to_the_rim(slab: Slab, distance: Grey) -> Slab:
    h, w = distance.shape
    wide = max(slab.top_left, slab.bottom_left) < 2 and min(slab.top_right, slab.bottom_right) > w - 2
    if not wide or slab.top > 2 or not h - slab.bottom <= _STRIP * h:
        return slab
    along = np.linspace(0, w, _SAMPLES + 2)[1:-1]
    point = np.stack([along, np.full(_SAMPLES, slab.bottom)], 1)
    soft = _sharpness(point, np.array([0.0, 1.0]), distance) < _SOFT
    return replace(slab, bottom=float(h)) if soft else slab


def _with_margin_fan(fan: Fan, size: tuple[int, ...]) -> Fan:
    h, w = size
    x0, y0, x1, y1 = fan.box
    widen = _MARGIN_PX / max(1.0, 0.6 * fan.far)
    box = (max(0, x0 - _MARGIN_PX), max(0, y0 - _MARGIN_PX), min(w, x1 + _MARGIN_PX), min(h, y1 + _MARGIN_PX))
    near, far = max(0.0, fan.near - _MARGIN_PX), fan.far + _MARGIN_PX
    return replace(fan, left=fan.left - widen, right=fan.right + widen, near=near, far=far, box=box)


def _with_margin_slab(slab: Slab, size: tuple[int, ...]) -> Slab:
    return Slab(
        top_left=slab.top_left - _MARGIN_PX,
        top_right=slab.top_right + _MARGIN_PX,
        bottom_right=slab.bottom_right + _MARGIN_PX,
        bottom_left=slab.bottom_left - _MARGIN_PX,
        top=max(0.0, slab.top - _MARGIN_PX),
        bottom=min(float(size[0]), slab.bottom + _MARGIN_PX),
    )
