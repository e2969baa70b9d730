"""What flows through the pipeline: Item -> Media -> Frame -> Cone -> Candidate, and the Reject that may end it.

All are frozen; none holds an open file. Fields that could identify a person have `repr=False`, so that no log or
traceback shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Pixels = NDArray[np.uint8]
"""uint8, (H, W) for grey or (H, W, 3) for RGB."""
Role = Literal["image", "mask", "label"]
Geometry = Literal["sector", "curvilinear", "linear", "trapezoid", "full", "multi", "none"]
Box = tuple[int, int, int, int]
"""Half-open pixel box (x0, y0, x1, y1)."""


def quick_pickle(kind: type[T]) -> type[T]:
    """Pickle a frozen dataclass of two or more fields quickly; its own way looks up the fields each time, 20 us."""
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]
    read, put = attrgetter(*names), [getattr(kind, name).__set__ for name in names]

    def restore(self: T, state: tuple[object, ...]) -> None:
        for place, value in zip(put, state, strict=True):
            place(self, value)

    kind.__getstate__ = lambda self: read(self)  # type: ignore[method-assign]
    kind.__setstate__ = restore  # type: ignore[attr-defined]
    return kind


@quick_pickle
@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One source file that a card's rules picked, before it is opened.

    Args:
        dataset: id of the card.
        path: where the file lies. Never shown.
        relative: path below the dataset's files with forward slashes. Never shown; the input of every keyed id.
        role: what the file is.
        subject: the source's own subject key, or None. Never shown.
        study: the source's own study, clip or volume key, or None. Never shown.
        split: the published split, or None.
        facts: manifest columns the card fixes for this item (organ, anatomy, view, pathology, device_*, ...).
        labels: the dataset's own labels, by name.
        masks: mask files that belong to this image.
        frames: frame policy, for example "all", "every 10", "max 32", "novel", "annotated".
    """

    dataset: str
    path: Path = field(repr=False)
    relative: str = field(repr=False)
    role: Role = "image"
    subject: str | None = field(default=None, repr=False)
    study: str | None = field(default=None, repr=False)
    split: str | None = None
    facts: Mapping[str, str | float | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    masks: tuple[Path, ...] = field(default=(), repr=False)
    frames: str = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One item of SequenceOfUltrasoundRegions (PS3.3 section C.8.5.5).

    Args:
        box: half-open box in pixels of the frame (the stored maximum is inclusive; this is not).
        spatial_format: 1 = 2D tissue or flow, 2 = M-mode, 3 = spectral, 4 = waveform, 5 = graphics.
        data_type: 1 = tissue, 2 = colour flow, ..., 0xD and 0xE = grey and colour bars.
        spacing_mm: (row, column) where both units are centimetres and the deltas finite and not zero, else None.
    """

    box: Box
    spatial_format: int
    data_type: int
    spacing_mm: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A decoded file: frames on demand, and the few facts that may pass.

    Args:
        kind: what sort of thing the frames are.
        frame_count: frames that can be read, counted and not merely declared.
        height_px, width_px: size of every frame.
        read: called with frame indices in rising order (None for all), yields (index, pixels) in that order.
        regions: DICOM ultrasound regions, empty elsewhere.
        spacing_mm: (row, column) where known, else None.
        facts: manifest columns read from the header by the allow-list, already normalised.
        subject, study: the header's own keys (PatientID with issuer; StudyInstanceUID), or None. Never shown.
        notes: how pixels became uint8 and what was repaired, as closed words (for example "monochrome1").
    """

    kind: Literal["still", "clip", "volume"]
    frame_count: int
    height_px: int
    width_px: int
    read: Callable[[Sequence[int] | None], Iterator[tuple[int, Pixels]]] = field(repr=False)
    regions: tuple[Region, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    facts: Mapping[str, str | float | None] = field(default_factory=dict)
    subject: str | None = field(default=None, repr=False)
    study: str | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cone:
    """The scan area of a frame, a clip or a volume.

    Args:
        geometry: shape; `multi` has `panels`, `none` has an empty polygon.
        polygon: vertices (x, y) in pixels of the frame, continuous (pixel i covers [i, i+1)), clockwise.
        box: half-open box that holds the polygon, cut at the frame.
        confidence: calibrated probability in [0, 1] that the outline overlaps the truth at IoU >= 0.9.
        method: evidence, for example "regions+image", "temporal", "image", "consensus".
        parameters: of the geometry, in pixels and radians (apex_x, apex_y, radius_near, radius_far, angle_left,
            angle_right, ...), for the polar view.
        panels: the cones of a `multi`, left to right, then top to bottom.
    """

    geometry: Geometry
    polygon: tuple[tuple[float, float], ...]
    box: Box
    confidence: float
    method: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    panels: tuple[Cone, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBox:
    """Burned-in text or a calliper's label.

    Args:
        box: half-open box in pixels of the frame.
        score: in [0, 1].
        detector: "gate" or "ocr".
    """

    box: Box
    score: float
    detector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Why an item, a frame or a panel is not in the corpus: a row of rejects.parquet.

    Args:
        dataset: id of the card.
        item: keyed pseudonym of the item.
        stage: as listed in the schema.
        reason: a word of the closed list of that stage.
        detail: one line, free of identity.
    """

    dataset: str
    item: str
    stage: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A sample after the first stage: its row without split and shard, and where its encoded bytes wait.

    Args:
        row: manifest columns known so far.
        thumbnail: uint8 (32, 32), the picture inside the scan area, for the near-duplicate check.
        group_hints: keys that tie samples together before any duplicate is looked for (subject, clip, leak family).
        published_split: the card's split, or None.
    """

    row: Mapping[str, object]
    thumbnail: bytes = field(repr=False)
    group_hints: tuple[str, ...] = ()
    published_split: str | None = None
