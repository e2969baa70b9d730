"""Scan areas by vote: files that show little of one are cut where the others of their device and frame size are.

Each file casts a ballot: its device, its frame size and the scan area that was found on it alone, so that no ballot
depends on another. When all of a dataset's files have been worked on, a file whose outline is doubtful and lies apart
from what most of its kind agree on is worked on once more with the common outline. Votes are counted within a dataset,
so that adding another one changes nothing, and neither the order of the ballots nor the number of runs matters.

    votes = Votes(); votes.add(header["dataset"], header["ballot"])
    prior = votes.prior(header["dataset"], header["ballot"])        # a Cone, or None: its own stands
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from openus_data.cone import Consensus, settle
from openus_data.cone.consensus import SURE, box_overlap
from openus_data.records import Cone

Ballot = dict[str, Any]
"""`device` (manufacturer and model, as normalised, or None), `size` (height and width of the frame, px), `cone`."""
_APART: Final = 0.9
"""An outline whose box overlaps the common one by this much (intersection over union) stands as it is."""


def ballot_of(cone: Cone, facts: Mapping[str, object], height_px: int, width_px: int) -> Ballot:
    """What a file says of its device's scan area."""
    device = [facts.get("device_manufacturer"), facts.get("device_model")]
    return {"device": device, "size": [height_px, width_px], "cone": _plain(cone)}


def cone_digest(cone: Cone) -> str:
    """Digest of a scan area: equal ones have equal digests."""
    return hashlib.sha256(json.dumps(_plain(cone), sort_keys=True).encode()).hexdigest()[:16]


class Votes:
    """The ballots of one build, counted as they come."""

    def __init__(self) -> None:
        self._memory = Consensus()
        self._usual: dict[tuple[object, ...], Cone | None] = {}

    def add(self, dataset: str, ballot: Ballot) -> None:
        """Count a ballot."""
        self._memory.add(_key(dataset, ballot), _cone(ballot["cone"]))

    @staticmethod
    def is_doubtful(ballot: Ballot) -> bool:
        """Whether the vote may give the file another scan area than its own."""
        return ballot["cone"]["geometry"] != "none" and bool(ballot["cone"]["confidence"] < SURE)

    def prior(self, dataset: str, ballot: Ballot) -> Cone | None:
        """What is taken in place of the file's own scan area, or None; asked when all ballots are in."""
        key = _key(dataset, ballot)
        if key not in self._usual:
            self._usual[key] = self._memory.recall(key)
        usual, own = self._usual[key], _cone(ballot["cone"])
        if usual is None or own.geometry == "none" or box_overlap(own.box, usual.box) >= _APART:
            return None
        return usual if settle(own, usual, *ballot["size"]) is usual else None


def _key(dataset: str, ballot: Ballot) -> tuple[object, ...]:
    return dataset, *ballot["device"], *ballot["size"]


def _plain(cone: Cone) -> dict[str, Any]:
    """A Cone as JSON holds it; dataclasses.asdict would copy every vertex, which takes a good while."""
    return {
        "geometry": cone.geometry,
        "polygon": cone.polygon,
        "box": cone.box,
        "confidence": cone.confidence,
        "method": cone.method,
        "parameters": dict(cone.parameters),
        "panels": [_plain(panel) for panel in cone.panels],
    }


def _cone(plain: Mapping[str, Any]) -> Cone:
    """A Cone as JSON gives it back."""
    return Cone(
        geometry=plain["geometry"],
        polygon=tuple(map(tuple, plain["polygon"])),
        box=tuple(plain["box"]),
        confidence=plain["confidence"],
        method=plain["method"],
        parameters=dict(plain["parameters"]),
        panels=tuple(_cone(panel) for panel in plain["panels"]),
    )
