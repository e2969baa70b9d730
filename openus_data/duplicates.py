"""The same picture twice: a 256-bit hash of what the scan area shows, an index over it, and a check on thumbnails.

A picture is reduced to a 32 x 32 thumbnail of its cropped scan area; the hash is the sign of its 256 lowest DCT
coefficients against their median. Pairs of close hashes come from an index of 32 sorted tables: each table orders the
hashes by another sequence of their bytes, and only neighbours in a table are compared, so that the work grows as
n log n however alike the pictures are. A pair counts when the thumbnails, freed of slow shading, correlate. Mirrored
copies and copies with a margin cut away are found because each picture also enters the index as its own mirror image
and as its own crops. All arithmetic is on whole numbers, so that the groups do not depend on a machine's rounding.

    labels = group(thumbnails)          # equal labels: near-duplicates

Source: DCT hash as in C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2,
with 256 bits in place of 64.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.records import Pixels

THUMBNAIL_PX: Final = 32
HASH_BYTES: Final = 32
_KEPT: Final = 16  # lowest frequencies on each axis
_BLOCK: Final = 4096
_HASHED_AT_ONCE: Final = 256
_TABLES: Final = 32
_WINDOW: Final = 6
_STRETCH: Final = 1 << 16
"""Entries of a table that are compared at a time."""
_BLUR_PX: Final = 9

Thumbnails = NDArray[np.uint8]
"""uint8 (N, 32, 32); may be memory-mapped."""
Labels = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateSettings:
    """What counts as a near-duplicate.

    Args:
        most_distance: bits of 256 in which two hashes may differ.
        least_correlation: of the thumbnails, after slow shading is taken away.
        flips: also find mirrored copies.
        crops: also find copies with up to 5% cut away on one side, at one corner, or all around.
    """

    most_distance: int = 48
    least_correlation: float = 0.85
    flips: bool = True
    crops: bool = True


def thumbnail(pixels: Pixels) -> Pixels:
    """The picture inside the scan area in 32 x 32 grey pixels.

    Args:
        pixels: uint8 (H, W) or (H, W, 3), cropped to the scan area, black outside it.
    """
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    running = np.zeros((THUMBNAIL_PX, width + 1), np.int64)
    np.cumsum(_bands(grey), axis=1, out=running[:, 1:])
    whole, part = _edges(width)
    sums = running[:, whole] * (THUMBNAIL_PX - part) + running[:, whole + 1] * part  # of everything left of each edge
    return np.asarray(np.rint(np.diff(sums, axis=1) / (height * width)), dtype=np.uint8)


def _bands(grey: Pixels) -> NDArray[np.int32]:
    """32 times the sums, (32, W), of 32 equal bands of rows of a picture (H, W); an edge may lie within a row."""
    whole, part = _edges(len(grey))
    sums = np.zeros((THUMBNAIL_PX, grey.shape[1]), np.int32)
    for band, (start, end) in enumerate(pairwise(whole.tolist())):
        if start < end:
            cv2.reduce(grey[start:end], 0, cv2.REDUCE_SUM, dst=sums[band : band + 1], dtype=cv2.CV_32S)
    cut = grey[whole] * part[:, None].astype(np.int32)
    sums *= THUMBNAIL_PX
    sums += cut[1:]
    sums -= cut[:-1]
    return sums


def _edges(length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The 33 edges of 32 equal cells over `length` pixels: the pixel that each cuts, and how many 32nds lie before."""
    edges = np.arange(THUMBNAIL_PX + 1) * length
    whole = np.minimum(edges // THUMBNAIL_PX, length - 1)
    return whole, edges - whole * THUMBNAIL_PX


def phash(thumb: Pixels) -> str:
    """The hash of one thumbnail as 64 hexadecimal digits."""
    return _hashes(thumb[None]).tobytes().hex()


def correlation(first: Pixels, second: Pixels) -> float:
    """How alike two thumbnails are, in [-1, 1], after slow shading is taken away; 0 for a picture without structure."""
    return float(_correlations(first[None], second[None])[0])


def structure(thumb: Pixels) -> NDArray[np.float64]:
    """A thumbnail freed of slow shading, as a vector of length 1, (1024,); the product of two is their correlation."""
    levels = _without_shading(thumb[None]).ravel()
    return np.asarray(levels / max(float(np.linalg.norm(levels)), 1.0), dtype=np.float64)


def group(thumbnails: Thumbnails, settings: DuplicateSettings | None = None) -> Labels:
    """Label near-duplicates.

    Args:
        thumbnails: uint8 (N, 32, 32) in an order that does not depend on the run.
        settings: what counts.

    Returns:
        int64 (N,): the index of the first picture of each picture's group; its own where it has no near-duplicate.
    """
    settings = settings or DuplicateSettings()
    labels = np.arange(len(thumbnails), dtype=np.int64)
    if len(labels) < 2:
        return labels
    views = _views(settings)
    hashes = _view_hashes(thumbnails, views)
    for first, second in _close_pairs(hashes, len(thumbnails), settings.most_distance, labels):
        alike = _verified(thumbnails, views, first, second, settings.least_correlation)
        join(labels, first[alike] % len(thumbnails), second[alike] % len(thumbnails))
    return labels


def join(labels: Labels, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
    """Merge the groups of each pair, in place; a group's label is its smallest index.

    Args:
        labels: int64 (N,), each label the smallest index of its group.
        first, second: int64 (P,), the pairs.
    """
    while len(first):
        one, other = labels[first], labels[second]
        apart = one != other
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        least = np.minimum(one, other)
        np.minimum.at(labels, one, least)
        np.minimum.at(labels, other, least)
        while not np.array_equal(shorter := labels[labels], labels):
            labels[:] = shorter


def join_equal(labels: Labels, keys: NDArray[np.bytes_]) -> None:
    """Merge the groups of all entries with the same key, in place; `keys` is (N,) of fixed-width bytes."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    join(labels, order[:-1][same].astype(np.int64), order[1:][same].astype(np.int64))


def _cosines() -> _Floats:
    """(16, 32) DCT-II rows, whole numbers."""
    n = np.arange(THUMBNAIL_PX)
    return np.round(1024 * np.cos(np.pi * (2 * n + 1) * np.arange(_KEPT)[:, None] / (2 * THUMBNAIL_PX)))


def _blur() -> _Floats:
    """(32, 32) of whole numbers: rows of a running sum over 9 pixels, mirrored at the border."""
    rows = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX))
    for row in range(THUMBNAIL_PX):
        for step in range(-(_BLUR_PX // 2), _BLUR_PX // 2 + 1):
            at = abs(row + step)
            rows[row, min(at, 2 * (THUMBNAIL_PX - 1) - at)] += 1
    return rows


_COSINES: Final = _cosines()
_BLUR: Final = _blur()
_MIXED: Final = np.random.default_rng(0).permutation(8 * HASH_BYTES)
"""Spreads neighbouring coefficients, which fail together, over the bytes that the tables are sorted by."""

_WHOLE: Final = 64 * np.eye(THUMBNAIL_PX)
"""Rows or columns as they are, on the scale of a view's."""

_View = tuple[_Floats, _Floats] | None
"""How a view takes a thumbnail's rows and columns, (32, 32) each, rows summing to 64; None: as it is."""


def _views(settings: DuplicateSettings) -> tuple[_View, ...]:
    as_is = _cut(0.0, 0.0)
    views: list[_View] = [None]
    if settings.flips:
        views.append((as_is, as_is[:, ::-1].copy()))
    if settings.crops:
        views += [(_cut(part, part), _cut(part, part)) for part in (0.025, 0.05)]
        views += [(as_is, _cut(*ends)) for ends in ((0.05, 0.0), (0.0, 0.05))]
        views += [(_cut(*ends), as_is) for ends in ((0.05, 0.0), (0.0, 0.05))]
        views += [
            (_cut(*rows), _cut(*ends)) for rows in ((0.05, 0.0), (0.0, 0.05)) for ends in ((0.05, 0.0), (0.0, 0.05))
        ]
    return tuple(views)


def _cut(before: float, behind: float) -> _Floats:
    """(32, 32): linear interpolation of an axis of which a part is cut away at each end."""
    kept = 1.0 - before - behind
    centres = (np.arange(THUMBNAIL_PX) + 0.5) * kept + before * THUMBNAIL_PX - 0.5
    centres = np.clip(centres, 0, THUMBNAIL_PX - 1)
    low = np.minimum(np.floor(centres).astype(int), THUMBNAIL_PX - 2)
    share = np.round(64 * (centres - low))
    weights = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX))
    rows = np.arange(THUMBNAIL_PX)
    weights[rows, low] += 64 - share
    weights[rows, low + 1] += share
    return weights


def _seen(thumbs: Thumbnails, view: _View) -> Thumbnails:
    """Thumbnails (N, 32, 32) as one view shows them."""
    if view is None:
        return thumbs
    rows, columns = view[0].astype(np.float32), view[1].astype(np.float32)
    levels = rows @ thumbs.astype(np.float32) @ columns.T  # at most 255 * 64 * 64: exact in float32
    return ((levels + 2048) / 4096).astype(np.uint8)


def _hashes(thumbs: Thumbnails) -> NDArray[np.uint8]:
    """(N, 32) bytes of thumbnails (N, 32, 32)."""
    return np.packbits(_signs(_COSINES @ thumbs.astype(np.float64) @ _COSINES.T), axis=1)


def _signs(waves: _Floats) -> NDArray[np.bool_]:
    """(N, 256): which of the lowest coefficients (N, 16, 16) lie above the median of all but the first."""
    flat = waves.reshape(len(waves), -1)
    middle = (flat.shape[1] - 1) // 2
    return flat > np.partition(flat[:, 1:], middle, axis=1)[:, middle, None]


def _view_hashes(thumbs: Thumbnails, views: tuple[_View, ...]) -> NDArray[np.uint8]:
    """(views * N, 32) bytes, the bits mixed; block by block, so that memory stays flat.

    A view is linear, so that view and cosines are one product, and views that take the rows alike share half of it.
    """
    mixed = np.empty((len(views), len(thumbs), HASH_BYTES), np.uint8)
    shared: dict[bytes, tuple[_Floats, list[tuple[int, _Floats]]]] = {}
    for number, view in enumerate(views):
        rows, columns = view or (_WHOLE, _WHOLE)
        shared.setdefault(rows.tobytes(), (_COSINES @ rows, []))[1].append((number, (_COSINES @ columns).T.copy()))
    for start in range(0, len(thumbs), _HASHED_AT_ONCE):
        levels = thumbs[start : start + _HASHED_AT_ONCE].astype(np.float64)
        for rows, pairs in shared.values():
            half = (rows @ levels).reshape(-1, THUMBNAIL_PX)
            for number, columns in pairs:  # below 2^50: exact
                signs = _signs((half @ columns).reshape(len(levels), _KEPT, _KEPT))
                mixed[number, start : start + len(levels)] = np.packbits(np.take(signs, _MIXED, axis=1), axis=1)
        if start % _BLOCK == 0:
            _let_go(thumbs)
    _let_go(thumbs)
    return mixed.reshape(-1, HASH_BYTES)


def _let_go(thumbs: Thumbnails) -> None:
    """Give the pages of mapped thumbnails back; they are read again from the file where they are needed."""
    mapped: object = thumbs.base
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _close_pairs(
    hashes: NDArray[np.uint8], count: int, most_distance: int, labels: Labels
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of entries (view * count + picture) whose hashes are close and whose pictures are not yet in one group.

    At least one of a pair is a plain picture. `labels` is read anew at each step, so that groups that the caller joins
    meanwhile are not looked at again.
    """
    for table in range(_TABLES):
        order = _sorted_by(hashes, table)
        for start in range(0, len(order), _STRETCH):
            part = order[start : start + _STRETCH + _WINDOW]
            words = np.ascontiguousarray(hashes[part].view(np.uint64).T)
            plain = np.flatnonzero(part < count)
            for step in range(1, min(_WINDOW, len(part) - 1) + 1):
                before = plain[plain >= step] - step  # the plain one comes second, and the other is none
                near = np.concatenate([plain, before[part[before] >= count]])
                near = near[near < min(_STRETCH, len(part) - step)]
                near = near[_distances(words[:2], near, step) <= most_distance]  # half of a hash rules out nearly all
                near = near[_distances(words, near, step) <= most_distance]
                first, second = part[near], part[near + step]
                apart = labels[first % count] != labels[second % count]
                if apart.any():
                    yield first[apart], second[apart]


def _sorted_by(hashes: NDArray[np.uint8], table: int) -> NDArray[np.int64]:
    """Order of the entries by six of their bytes or less, another sequence for each table.

    Each key ends in the entry's number: keys differ, so that the quickest way of sorting gives one order everywhere.
    """
    sequence = np.random.default_rng(table).permutation(HASH_BYTES)
    lead = (np.flatnonzero(sequence == table % HASH_BYTES)[0]).item()
    sequence[[0, lead]] = sequence[[lead, 0]]  # each byte leads in one table, so that every bit is used
    keys = np.ascontiguousarray(hashes[:, sequence[:8]]).view(">u8").ravel().astype(np.uint64)
    low = np.uint64((1 << max(16, len(keys).bit_length())) - 1)
    keys = np.sort((keys & ~low) | np.arange(len(keys), dtype=np.uint64))
    return (keys & low).astype(np.int64)


def _distances(words: NDArray[np.uint64], near: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Hamming distance of columns `near` and `near + step` of words (W, N)."""
    bits = np.zeros(len(near), np.int64)
    for row in words:
        bits += np.bitwise_count(row[near] ^ row[near + step])
    return bits


def _verified(
    thumbs: Thumbnails,
    views: tuple[_View, ...],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    least_correlation: float,
) -> NDArray[np.bool_]:
    """Which pairs of entries show thumbnails that correlate; bool (P,)."""
    alike = np.zeros(len(first), np.bool_)
    count = len(thumbs)
    plain_first = first < count
    base, other = np.where(plain_first, first, second), np.where(plain_first, second, first)
    for number, view in enumerate(views):
        picked = np.flatnonzero(other // count == number)
        for start in range(0, len(picked), _BLOCK):
            part = picked[start : start + _BLOCK]
            shown = _seen(np.asarray(thumbs[other[part] % count]), view)
            alike[part] = _correlations(np.asarray(thumbs[base[part]]), shown) >= least_correlation
    _let_go(thumbs)
    return alike


def _correlations(first: Thumbnails, second: Thumbnails) -> _Floats:
    """Correlation of each pair of thumbnails (N, 32, 32) after the local mean is taken away."""
    one, other = _without_shading(first), _without_shading(second)
    product = np.einsum("nij,nij->n", one, other)
    power = np.einsum("nij,nij->n", one, one) * np.einsum("nij,nij->n", other, other)
    return np.asarray(product / np.sqrt(np.maximum(power, 1.0)), dtype=np.float64)


def _without_shading(thumbs: Thumbnails) -> _Floats:
    levels = thumbs.astype(np.float64)
    return levels * _BLUR_PX**2 - _BLUR @ levels @ _BLUR.T
