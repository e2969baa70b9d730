"""What SequenceOfUltrasoundRegions says: where two-dimensional echo may lie (PS3.3 section C.8.5.5)."""

from __future__ import annotations

from collections.abc import Sequence

from openus_data.records import Box, Region

_TISSUE_OR_FLOW = (1, 2)
_LEAST_SIDE_PX = 16


def scan_boxes(regions: Sequence[Region], height: int, width: int) -> list[Box]:
    """Boxes of 2D regions, cut at the frame, without those within another, left to right, then top to bottom."""
    boxes: list[Box] = []
    for region in regions:
        x0, y0, x1, y1 = region.box
        x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
        if (
            region.spatial_format == 1
            and region.data_type in _TISSUE_OR_FLOW
            and min(x1 - x0, y1 - y0) >= _LEAST_SIDE_PX
        ):
            boxes.append((x0, y0, x1, y1))
    boxes.sort(key=lambda b: ((b[0] - b[2]) * (b[3] - b[1]), b))
    kept: list[Box] = []
    for box in boxes:
        if all(_overlap(box, other) < 0.5 * (box[2] - box[0]) * (box[3] - box[1]) for other in kept):
            kept.append(box)
    return sorted(kept)


def _overlap(a: Box, b: Box) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
