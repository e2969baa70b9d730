"""Annotations of an image, whatever their format, as one label map: 0 is background, 1.. are the card's `mask_classes`.

Read: grey, binary and coloured pictures, label volumes, closed outlines, run lengths in a table, and polygons in COCO,
LabelMe, point-list and DDTI XML files. Where classes overlap, the one with the higher value is on top.

    label_map = load_mask(card, item, height_px=480, width_px=640)     # uint8 (480, 640), or None: no annotation
"""

from __future__ import annotations

import csv
import functools
import io
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from openus_data.card_fields import Card, MaskRule, Orient
from openus_data.decode import decode
from openus_data.errors import DecodeError, MissingExtra
from openus_data.items import classify, image_key
from openus_data.records import Item

logger = logging.getLogger(__name__)

LabelMap = NDArray[np.uint8]
Shape = tuple[int, int]
Point = tuple[float, float]
_CocoImage = tuple[tuple[str, ...], int, int, int]
"""Its path's parts, its id, its height and width, px (0 where not listed)."""

LARGEST_FILE_BYTES: Final = 512 << 20
LARGEST_SIDE_PX: Final = 1 << 15
ANY_NAME: Final = "*"
"""Key of `values` that stands for every name that is not listed."""
_ASPECT_TOLERANCE: Final = 0.02
_MALFORMED: Final = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    RecursionError,
    ElementTree.ParseError,
)

_TURNS: Final[Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "as-is": lambda a: a,
    "transpose": lambda a: np.swapaxes(a, 0, 1),
    "flip-rows": lambda a: a[::-1],
    "flip-columns": lambda a: a[:, ::-1],
    "rotate-90": lambda a: np.rot90(a, 1),
    "rotate-180": lambda a: np.rot90(a, 2),
    "rotate-270": lambda a: np.rot90(a, 3),
}


def oriented(pixels: NDArray[Any], orient: Orient) -> NDArray[Any]:
    """The picture as it was scanned: (H, W) or (H, W, C) in, the same kind out. Turns are counter-clockwise."""
    return np.ascontiguousarray(_TURNS[orient](pixels))


class _NotListed(Exception):
    """An annotation file for many images says nothing of this one."""


def load_mask(card: Card, item: Item, *, height_px: int, width_px: int, frame_index: int = 0) -> LabelMap | None:
    """The label map of one frame of an image.

    Args:
        card: whose rules say how the annotations are read.
        item: an image with its annotation files.
        height_px, width_px: size of the decoded frame; annotations of another size and the same aspect are resized.
        frame_index: frame or slice, for annotations that are volumes.

    Returns:
        uint8 (height_px, width_px); None where the item has no annotation: no file, or only files for many images of
        which none lists this one. Listed without an area is an annotation, an empty one.

    Raises:
        DecodeError: an annotation cannot be read, or is of another shape than the image.
        MissingExtra: the format needs an extra that is not installed.
    """
    if not item.masks:
        return None
    root = item.path.parents[len(Path(item.relative).parts) - 1]
    layers = np.zeros((height_px, width_px), np.uint8)
    is_annotated = False
    for path in item.masks:
        _, index = classify(card, path.relative_to(root).as_posix())
        rule = card.masks[index]
        try:
            for value, inside in _read(card, rule, item, path, (height_px, width_px), frame_index):
                np.maximum(layers, np.where(inside, np.uint8(value), np.uint8(0)), out=layers)
        except _NotListed:
            continue
        is_annotated = True
    return layers if is_annotated else None


def _read(
    card: Card, rule: MaskRule, item: Item, path: Path, shape: Shape, frame_index: int
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """(class value, where it is) of one annotation file, in the shape of the frame."""
    if rule.encoding in ("binary", "index", "colour", "outline"):
        picture = oriented(_picture(path, frame_index), rule.orient)
        found = _CODED[rule.encoding](card, rule, picture)
    elif rule.encoding == "rle-table":
        try:
            inside = _run_lengths(path, image_key(card, item.relative), shape)
        except (*_MALFORMED, OverflowError) as error:
            raise DecodeError("a run length cannot be read", where="mask", got=type(error).__name__) from error
        inside = oriented(inside, rule.orient)
        found = iter([(card.mask_classes[rule.class_ or ""], inside)])
    else:
        found = _from_polygons(card, rule, item, path, shape)
    for value, inside in found:
        yield value, _fitted(inside, shape)


def _picture(path: Path, frame_index: int) -> NDArray[Any]:
    """Raw values of an annotation picture or of one slice of an annotation volume."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _nifti_slice(path, frame_index)
    media = decode(path)
    wanted = frame_index if media.kind != "still" else 0
    if wanted >= media.frame_count:
        raise DecodeError("an annotation with fewer slices than its image", where="mask", got=str(media.frame_count))
    return next(iter(media.read([wanted])))[1]


def _nifti_slice(path: Path, frame_index: int) -> NDArray[Any]:
    """One slice with its values as stored: labels must not pass through a grey-tone mapping."""
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    except ImportError as error:
        raise MissingExtra(
            "NIfTI annotations need nibabel", where="mask", next_step="pip install 'openus[volumes]'"
        ) from error
    try:
        volume: Any = nibabel.load(path)
        stack = volume.dataobj
        slices = math.prod(stack.shape[2:])
        if frame_index >= slices:
            raise DecodeError("an annotation with fewer slices than its image", where="mask", got=str(slices))
        slower = np.unravel_index(frame_index, stack.shape[2:], order="F")  # as the image's slices are counted
        if stack.dtype.kind not in "buif":
            raise ValueError("no labels")
        plane = np.asarray(stack[(slice(None), slice(None), *(int(n) for n in slower))])
    except (*_MALFORMED, OSError, EOFError, zlib.error, HeaderDataError, ImageFileError) as error:
        raise DecodeError("an annotation volume cannot be read", where="mask", got=type(error).__name__) from error
    return plane.T


def _binary(card: Card, rule: MaskRule, picture: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    yield card.mask_classes[rule.class_ or ""], _grey(picture) > rule.threshold


def _outline(card: Card, rule: MaskRule, picture: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    line = (_grey(picture) > rule.threshold).astype(np.uint8)
    contours, _ = cv2.findContours(line, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    yield card.mask_classes[rule.class_ or ""], cv2.drawContours(np.zeros_like(line), contours, -1, 1, cv2.FILLED) > 0


def _index(card: Card, rule: MaskRule, picture: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    grey = _grey(picture)
    if picture.ndim == 3 and (picture != grey[:, :, None]).any():
        raise DecodeError(
            "a coloured mask where the card expects values", where="mask", next_step='use encoding = "colour"'
        )
    for raw in np.unique(grey):
        name = rule.values.get(f"{raw:g}")
        if name:
            yield card.mask_classes[name], grey == raw
        elif raw:
            _report(card.id, f"{raw:g}")


def _colour(card: Card, rule: MaskRule, picture: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The nearest listed colour, black among them: edges of lossy or resampled masks have colours in between."""
    rgb = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    palette = np.array([(0, 0, 0), *(_rgb(code) for code in rule.values)], np.int32)  # (colours, 3)
    distance = np.stack([((rgb.astype(np.int32) - c) ** 2).sum(-1) for c in palette])  # (colours, H, W)
    nearest = distance.argmin(0)
    for position, name in enumerate(rule.values.values(), start=1):
        yield card.mask_classes[name], nearest == position


_CODED: Final = {"binary": _binary, "index": _index, "colour": _colour, "outline": _outline}


def _rgb(code: str) -> tuple[int, int, int]:
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def _grey(picture: NDArray[Any]) -> NDArray[Any]:
    return picture if picture.ndim == 2 else picture.max(axis=2)


def _fitted(inside: NDArray[np.bool_], shape: Shape) -> NDArray[np.bool_]:
    """Resized to the frame without new values; a shape that no resizing explains is an error."""
    if inside.shape == shape:
        return inside
    stretch = (inside.shape[0] * shape[1]) / (inside.shape[1] * shape[0])
    # a pixel more or less on one side (resampled copies) is no other shape
    near = all(abs(a - b) <= 1 for a, b in zip(inside.shape, shape, strict=True))
    if not near and abs(stretch - 1) > _ASPECT_TOLERANCE:
        raise DecodeError(
            "an annotation of another shape than its image", where="mask", expected=str(shape), got=str(inside.shape)
        )
    resized = cv2.resize(inside.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized > 0)


def _from_polygons(
    card: Card, rule: MaskRule, item: Item, path: Path, shape: Shape
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    try:
        if rule.encoding == "coco":
            named = _coco(path, item.relative, shape)
        else:
            named = [(n, _filled([p], shape)) for n, p in _POLYGONS[rule.encoding](path)]
    except _MALFORMED as error:
        raise DecodeError("an annotation file cannot be read", where="mask", got=type(error).__name__) from error
    for name, inside in named:
        meant = rule.class_ or rule.values.get(name) or rule.values.get(ANY_NAME)
        if meant:
            yield card.mask_classes[meant], inside
        else:
            _report(card.id, name)


def _coco(path: Path, relative: str, shape: Shape) -> list[tuple[str, NDArray[np.bool_]]]:
    """Category name and area of each annotation of one image (COCO object detection format)."""
    images, annotations = _coco_index(path, path.stat().st_mtime_ns)
    own = Path(relative)
    listed = images.get(own.name, ())
    if len(listed) > 1:  # images of one name in several folders: the one whose folders are the image's own
        listed = [entry for entry in listed if own.parts[-len(entry[0]) :] == entry[0]]
        most = max((len(entry[0]) for entry in listed), default=0)
        listed = [entry for entry in listed if len(entry[0]) == most]
        if not listed:
            raise ValueError("several images of one name, and none in the folder of this one")
    if not listed:
        raise _NotListed
    _, number, height, width = listed[-1]
    areas = []
    for name, segmentation in annotations.get(number, ()):
        if isinstance(segmentation, Mapping):
            areas.append((name, _coco_runs(segmentation)))
        elif segmentation:
            rings = [list(zip(ring[0::2], ring[1::2], strict=True)) for ring in segmentation]
            areas.append((name, _filled(rings, (height, width) if height and width else shape)))
    return areas


@functools.lru_cache(maxsize=2)
def _coco_index(
    path: Path,
    changed: int,  # noqa: ARG001  # part of the cache's key
) -> tuple[dict[str, list[_CocoImage]], dict[int, list[tuple[str, Any]]]]:
    """File name to its images, and id to (category, segmentation); kept, since one file serves every image."""
    raw = _json(path)
    names = {c["id"]: str(c["name"]) for c in raw["categories"]}
    images: dict[str, list[_CocoImage]] = {}
    for i in raw["images"]:
        parts = tuple(part for part in Path(i["file_name"].replace("\\", "/")).parts if part != "/")
        images.setdefault(parts[-1], []).append((parts, i["id"], int(i.get("height", 0)), int(i.get("width", 0))))
    annotations: dict[int, list[tuple[str, Any]]] = {}
    for note in raw["annotations"]:
        annotations.setdefault(note["image_id"], []).append((names[note["category_id"]], note.get("segmentation")))
    return images, annotations


def _coco_runs(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    """COCO run lengths, down the columns, background first; as numbers or in COCO's compressed text."""
    height, width = (int(n) for n in segmentation["size"])
    counts = segmentation["counts"]
    runs = list(_uncompressed(counts)) if isinstance(counts, str) else [int(c) for c in counts]
    _check_size((height, width))
    if any(r < 0 for r in runs) or sum(runs) != height * width:
        raise ValueError("runs do not fill the picture")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _uncompressed(text: str) -> Iterator[int]:
    """COCO's text: six bits a character from "0" on, the sixth says that more follow; differences from run 4 on."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return iter(runs)


def _run_lengths(path: Path, key: str, shape: Shape) -> NDArray[np.bool_]:
    """One row of a table `key columns ..., "start length start length ..."`, 1-based and down the columns (Kaggle)."""
    flat = np.zeros(shape[0] * shape[1], bool)
    runs = _run_table(path, path.stat().st_mtime_ns).get(key)
    if runs is None:
        raise _NotListed
    numbers = [int(n) for n in runs.split()]
    if numbers in ([-1], [0]):  # what some tables write for nothing
        numbers = []
    for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
        if start < 1 or length < 0 or start - 1 + length > len(flat):
            raise ValueError("a run beyond the picture")
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(shape[1], shape[0]).T


@functools.lru_cache(maxsize=2)
def _run_table(
    path: Path,
    changed: int,  # noqa: ARG001  # part of the cache's key
) -> dict[str, str]:
    text = _bytes(path).decode("utf-8-sig", errors="replace")
    before = csv.field_size_limit(len(text) + 1)  # a finely drawn outline takes more than 128 KiB, csv's bound
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if len(row) > 1]
    except csv.Error as error:
        raise ValueError("no table") from error
    finally:
        csv.field_size_limit(before)
    return {"_".join(row[:-1]).casefold(): row[-1] for row in rows[1:]}


def _labelme(path: Path) -> Iterator[tuple[str, list[Point]]]:
    for drawn in _json(path)["shapes"]:
        points = [(float(x), float(y)) for x, y in drawn["points"]]
        if drawn.get("shape_type", "polygon") == "rectangle" and len(points) == 2:
            (x0, y0), (x1, y1) = points
            points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        if drawn.get("shape_type") == "circle" and len(points) == 2:
            (x, y), radius = points[0], math.dist(*points)
            turns = np.linspace(0, 2 * math.pi, 64, endpoint=False).tolist()
            points = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
        yield str(drawn["label"]), points


def _points(path: Path) -> Iterator[tuple[str, list[Point]]]:
    corners = _json(path)
    if not isinstance(corners, list):
        raise ValueError("no list of points")
    yield ANY_NAME, [_point(p) for p in corners]


def _polygons_xml(path: Path) -> Iterator[tuple[str, list[Point]]]:
    """DDTI: each `svg` element holds JSON text, a list of shapes with their points."""
    for drawn in ElementTree.fromstring(_bytes(path)).iter("svg"):
        for figure in json.loads(drawn.text or "[]"):
            yield str(figure.get("regionType", ANY_NAME)), [_point(p) for p in figure["points"]]


_POLYGONS: Final = {"labelme": _labelme, "points": _points, "polygons-xml": _polygons_xml}


def _point(raw: Any) -> Point:
    x, y = (raw["x"], raw["y"]) if isinstance(raw, Mapping) else raw
    return float(x), float(y)


def _filled(rings: Iterable[list[Point]], shape: Shape) -> NDArray[np.bool_]:
    """Where the polygons are; a vertex at (0, 0) is the centre of the first pixel."""
    _check_size(shape)
    canvas = np.zeros(shape, np.uint8)
    for ring in rings:
        corners = np.array(ring, np.float64).reshape(-1, 2)
        if len(corners) >= 3 and np.isfinite(corners).all():
            cv2.fillPoly(canvas, [np.clip(np.rint(corners), -LARGEST_SIDE_PX, LARGEST_SIDE_PX).astype(np.int32)], 1)
    return canvas > 0


def _check_size(shape: Shape) -> None:
    if not all(0 < side <= LARGEST_SIDE_PX for side in shape):
        raise ValueError("a size beyond the stated bound")


def _json(path: Path) -> Any:
    return json.loads(_bytes(path).decode("utf-8-sig", errors="ignore"))


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise ValueError("a file beyond the stated bound")
    return path.read_bytes()


@functools.cache
def _report(dataset: str, value: str) -> None:
    """Say once that the card does not list a value."""
    logger.warning("%s: a mask holds %.40r, which the card does not list: taken as background", dataset, value)
