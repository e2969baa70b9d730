"""The steps of the first stage on one decoded file: frames, cone, crop, burned-in text, quality, hash, encoding, row.

samples, rejects = SampleMaker(item, source, media, terms, recipe).run()
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openus_data import cone as cones
from openus_data.card import Card
from openus_data.card_fields import Orient
from openus_data.duplicates import phash, thumbnail
from openus_data.first_stage.clean_text import CleanedText, TextCleaner
from openus_data.first_stage.crop import Crop, cut, cut_mask, on_grid, plan_crops, to_grey_if_grey
from openus_data.first_stage.encode import CHANGING, decode_stored, encode, encode_png
from openus_data.first_stage.frames import Novelty, evenly_spaced, planned_frames
from openus_data.first_stage.passthrough import strip_source
from openus_data.first_stage.polar_view import PolarView, cut_polar, cut_polar_mask, plan_polar, polar_boxes
from openus_data.first_stage.records import DatasetTerms, EncodedSample, reject_of
from openus_data.first_stage.votes import Ballot, ballot_of
from openus_data.items import classify
from openus_data.masks import load_mask, oriented
from openus_data.quality import QualitySettings, judge
from openus_data.recipe import BuildRecipe
from openus_data.records import Candidate, Cone, Item, Media, Pixels, Reject, TextBox
from openus_data.schema import PIPELINE_VERSION, pixel_sha256

EVIDENCE_FRAMES = 16
"""Frames of a clip that cone and text are found on."""
HELD_BYTES = 64 << 20
"""A clip up to this size is read once and held; a longer one is read twice."""
_CARD_WINS = ("organ", "anatomy", "view", "pathology", "institution", "country")
_FACT_COLUMNS = (*_CARD_WINS, "device_manufacturer", "device_model", "transducer", "frequency_mhz")
_PASSTHROUGH_TOLERANCE = 4
_PARTS_OF_ONE = 4096
"""Confidence is stored in these, which float32, as in the manifest, and JSON hold alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What a clip or a still shows, found once for all its frames.

    Args:
        crops: what is cut out.
        views: per crop, its way to beam space; None where it is stored as the screen shows it.
        texts: per crop, the text of all frames; None where each frame is searched by itself.
    """

    crops: tuple[Crop, ...]
    views: tuple[PolarView | None, ...]
    texts: tuple[CleanedText, ...] | None


class SampleMaker:
    """The steps on one decoded file.

    Args:
        item: the file.
        source: the keyed digest of its bytes.
        media: as decoded.
        terms: what holds for its dataset.
        recipe: the choices of the build.
        prior: scan area to take, in place of looking for one.

    Attributes:
        ballot: what the file says of its device's scan area, where the recipe wants a vote and there is no prior.
    """

    def __init__(
        self,
        item: Item,
        source: str,
        media: Media,
        terms: DatasetTerms,
        recipe: BuildRecipe,
        *,
        prior: Cone | None = None,
    ) -> None:
        self.item, self.source, self.media, self.terms, self.recipe = item, source, media, terms, recipe
        self.prior = prior
        self._text = TextCleaner(terms, recipe.text)
        self.ballot: Ballot | None = None
        self.names = terms.pseudonymizer
        self.orient = _orient(item, terms.card)
        is_turned = self.orient in ("transpose", "rotate-90", "rotate-270")
        size = (media.height_px, media.width_px)
        self.height_px, self.width_px = size[::-1] if is_turned else size
        self.frames_used = 0
        self.rejects: list[Reject] = []
        self.subject, self.chance = self._subject()
        self.study = self._study()

    def run(self) -> tuple[tuple[EncodedSample, ...], tuple[Reject, ...]]:
        """Samples and rejects of the file."""
        indices = self._indices()
        if not indices:
            return (), (reject_of(self.item, self.terms, "decode", "no_frames", f"policy {self._policy()}"),)
        evidence, frames = self._read(indices)
        look = self._look(evidence)
        if not look.crops:
            self._turn_away("cone", "no_echo", "no scan area was found")
            self.frames_used = len(indices)
            return (), tuple(self.rejects)
        novelty = [Novelty(self.recipe.frames.novel_correlation, self.recipe.frames.most) for _ in look.crops]
        samples: list[EncodedSample] = []
        for index, pixels in frames:
            for number, crop in enumerate(look.crops):
                picture = to_grey_if_grey(cut(pixels, crop))
                if self._policy() == "novel" and len(indices) > 1 and not novelty[number].is_new(thumbnail(picture)):
                    continue
                self.frames_used += crop is look.crops[0]
                text = None if look.texts is None else look.texts[number]
                sample = self._sample(index, picture, pixels, crop, look.views[number], text)
                if sample is not None:
                    samples.append(sample)
        return tuple(samples), tuple(self.rejects)

    def _policy(self) -> str:
        return self.item.frames if self.recipe.frames.policy == "card" else self.recipe.frames.policy

    def _indices(self) -> list[int]:
        if self.media.kind == "still":
            return [0]
        count, policy = self.media.frame_count, self._policy()
        annotated = [i for i in range(count) if self._is_annotated(i)] if policy == "annotated" else []
        return planned_frames(policy, count, most=self.recipe.frames.most, annotated=annotated)

    def _is_annotated(self, index: int) -> bool:
        mask = self._label_map(index)
        return mask is not None and bool(mask.any())

    def _frames(self, indices: list[int]) -> Iterator[tuple[int, Pixels]]:
        """Frames as they were scanned, in the order of the indices."""
        wanted = None if len(indices) == self.media.frame_count else indices
        for index, pixels in self.media.read(wanted):
            yield index, pixels if self.orient == "as-is" else oriented(pixels, self.orient)

    def _read(self, indices: list[int]) -> tuple[NDArray[np.uint8], Iterator[tuple[int, Pixels]]]:
        """Frames to find cone and text on, (T, H, W) or (T, H, W, 3), and the frames to store."""
        size = self.height_px * self.width_px * 3
        if len(indices) * size <= HELD_BYTES:
            held = dict(self._frames(indices))
            shown = evenly_spaced(indices, EVIDENCE_FRAMES)
            return _stacked([held[i] for i in shown]), iter(held.items())
        shown = evenly_spaced(list(range(self.media.frame_count)), max(2, min(EVIDENCE_FRAMES, HELD_BYTES // size)))
        return _stacked([pixels for _, pixels in self._frames(shown)]), self._frames(indices)

    def _look(self, evidence: NDArray[np.uint8]) -> _Look:
        image = self.recipe.image
        is_still = len(evidence) == 1
        cone = on_grid(self.prior or cones.detect(evidence[0] if is_still else evidence, regions=self.media.regions))
        if image.consensus and self.prior is None:
            self.ballot = ballot_of(cone, self._facts(), self.height_px, self.width_px)
        crops = plan_crops(
            cone,
            self.height_px,
            self.width_px,
            by_panel=image.panels,
            blacken_outside=image.blacken_outside,
            least_confidence=image.least_confidence,
        )
        is_polar = image.view == "polar"
        views = tuple(plan_polar(c, least_confidence=image.least_confidence) if is_polar else None for c in crops)
        if is_still or self.media.kind != "clip" or self.terms.policy == "keep":
            return _Look(crops=crops, views=views, texts=None)
        shown = [np.stack([cut(frame, crop) for frame in evidence]) for crop in crops]
        texts = tuple(self._text.look(s, c) for s, c in zip(shown, crops, strict=True))
        return _Look(crops=crops, views=views, texts=texts)

    def _sample(
        self, index: int, picture: Pixels, frame: Pixels, crop: Crop, view: PolarView | None, text: CleanedText | None
    ) -> EncodedSample | None:
        if text is None:
            text = CleanedText() if self.terms.policy == "keep" else self._text.look(picture, crop)
        else:
            text = self._text.look_again(text, picture, crop)
        if text.remains or (text.boxes and self.terms.policy == "quarantine"):
            self._turn_away("text", "text_remains" if text.remains else "burned_in_text", self._place(index, crop))
            return None
        boxes = text.boxes
        cleaned = text.cleaned(picture)
        text_px = sum((b.box[2] - b.box[0]) * (b.box[3] - b.box[1]) for b in boxes)
        quality, area_px = self.recipe.quality, crop.area_px
        report = judge(
            cleaned,
            crop.inside_bool,
            settings=QualitySettings(
                least_side_px=quality.least_side_px,
                least_contrast=quality.least_contrast,
                reject_saturated=quality.reject_saturated,
            ),
            cone_part=area_px / crop.frame_px,
            text_part=text_px / max(1, area_px),
            is_cone_sure=crop.cone.confidence >= self.recipe.image.least_confidence,
            is_view_kept=view is not None or self.recipe.image.view == "scan",
        )
        if report.reject_reason:
            self._turn_away("quality", report.reject_reason, self._place(index, crop))
            return None
        mask = self._mask(index, crop, view)
        if view is not None:
            cleaned = cut_polar(cleaned, view)
        suffix, image, stored = self._encode(cleaned, frame, crop, bool(boxes) or view is not None)
        thumb = thumbnail(stored)
        row = self._row(index, stored, crop, view, boxes) | {
            "quality": list(report.flags),
            "phash": phash(thumb),
            "pixel_sha256": pixel_sha256(stored),
        }
        candidate = Candidate(
            row=row, thumbnail=thumb.tobytes(), group_hints=(self.subject,), published_split=self.item.split
        )
        return EncodedSample(candidate=candidate, chance=self.chance, suffix=suffix, image=image, mask=mask)

    def _mask(self, index: int, crop: Crop, view: PolarView | None) -> bytes | None:
        """The image's annotation with the same crop and view, as PNG."""
        whole = self._label_map(index)
        if whole is None:
            return None
        mask = cut_mask(whole, crop)
        return encode_png(mask if view is None else cut_polar_mask(mask, view))

    def _label_map(self, index: int) -> Pixels | None:
        card = self.terms.card
        if card is None or not self.item.masks:
            return None
        return load_mask(card, self.item, height_px=self.height_px, width_px=self.width_px, frame_index=index)

    def _encode(self, picture: Pixels, frame: Pixels, crop: Crop, is_changed: bool) -> tuple[str, bytes, Pixels]:
        """Suffix, bytes, and the pixels that a reader gets."""
        image = self.recipe.image
        if image.codec == "passthrough" and not is_changed and self.media.kind == "still":
            passed = self._passed_through(picture, frame, crop)
            if passed is not None:
                return passed
        suffix, data = encode(picture, codec=image.codec, quality=image.jpeg_quality)
        return suffix, data, decode_stored(data) if image.codec in CHANGING else picture

    def _passed_through(self, picture: Pixels, frame: Pixels, crop: Crop) -> tuple[str, bytes, Pixels] | None:
        if crop.inside is not None or picture.shape != frame.shape:
            return None
        stripped = strip_source(self.item.path.read_bytes())
        if stripped is None:
            return None
        stored = decode_stored(stripped[1])
        if (
            stored.shape != picture.shape
            or int(np.abs(stored.astype(np.int16) - picture).max()) > _PASSTHROUGH_TOLERANCE
        ):
            return None
        return (*stripped, stored)

    def _row(
        self, index: int, stored: Pixels, crop: Crop, view: PolarView | None, boxes: tuple[TextBox, ...]
    ) -> dict[str, object]:
        item, terms, cone = self.item, self.terms, crop.cone
        spacing = self._spacing(crop) if view is None else None  # beams diverge: no distance holds for a column
        polygon = crop.polygon if view is None else view.polygon
        stored_boxes = boxes if view is None else polar_boxes(boxes, view)
        return self._facts() | {
            "sample_id": self.names.sample_id(item.dataset, item.relative, self.source, str(index), str(crop.panel)),
            "dataset": item.dataset,
            "subject_id": self.subject,
            "study_id": self.study,
            "frame_index": index,
            "role": terms.role,
            "width_px": stored.shape[1],
            "height_px": stored.shape[0],
            "channels": 1 if stored.ndim == 2 else 3,
            "spacing_row_mm": spacing[0] if spacing else None,
            "spacing_col_mm": spacing[1] if spacing else None,
            "labels": json.dumps(dict(item.labels), sort_keys=True, ensure_ascii=False),
            "cone_geometry": cone.geometry,
            "cone_polygon": [list(vertex) for vertex in polygon],
            "cone_box": [float(v) for v in crop.box],
            "cone_confidence": round(cone.confidence * _PARTS_OF_ONE) / _PARTS_OF_ONE,
            "cone_method": cone.method,
            "text_boxes_removed": sorted([float(v) for v in b.box] for b in stored_boxes),
            "deid_actions": self._actions(stored, crop, view, bool(boxes)),
            "source_sha256": self.source,
            "license": terms.license,
            "redistributable": terms.redistributable,
            "card_sha256": terms.card_sha256,
            "pipeline_version": PIPELINE_VERSION,
        }

    def _facts(self) -> dict[str, object]:
        card, header = self.item.facts, self.media.facts
        facts: dict[str, object] = {name: header.get(name) or card.get(name) for name in _FACT_COLUMNS}
        return facts | {name: card.get(name) or header.get(name) for name in _CARD_WINS}

    def _actions(self, stored: Pixels, crop: Crop, view: PolarView | None, is_text_removed: bool) -> list[str]:
        is_cropped = view is not None or stored.shape[:2] != (self.height_px, self.width_px)
        actions = {"black-outside-cone": crop.inside is not None or is_cropped, "remove-text": is_text_removed}
        return sorted(name for name, is_done in actions.items() if is_done)

    def _spacing(self, crop: Crop) -> tuple[float, float] | None:
        """(row, column) in mm: of the DICOM region that covers most of the crop, else of the file."""
        covering = [(_overlap(r.box, crop.box), r.spacing_mm) for r in self.media.regions if r.spatial_format == 1]
        covered, spacing = max(covering, key=lambda pair: pair[0], default=(0, None))
        return spacing if covered else self.media.spacing_mm

    def _subject(self) -> tuple[str, float]:
        """The subject's pseudonym and its keyed hash; a study, else the file, stands in for an unknown one."""
        item, terms, header = self.item, self.terms, self.media.subject
        raw = (header or item.subject) if terms.header_subject else (item.subject or header)
        if raw is not None and raw == f"family {terms.family}":
            name = self.names.identifier("subject", "leak family", raw)
        elif raw is not None:
            name = self.names.identifier("subject", item.dataset, raw)
        elif study := item.study or self.media.study:
            name = self.names.identifier("study for subject", item.dataset, study)
        else:
            name = self.names.identifier("file for subject", item.dataset, item.relative)
        return name, self.names.unit_interval("split", name)

    def _study(self) -> str | None:
        raw = (
            self.item.study
            or self.media.study
            or (None if self.media.kind == "still" else f"file {self.item.relative}")
        )
        return None if raw is None else self.names.identifier("study", self.item.dataset, raw)

    def _place(self, index: int, crop: Crop) -> str:
        return f"frame {index}, panel {crop.panel}"

    def _turn_away(self, stage: str, reason: str, detail: str) -> None:
        self.rejects.append(reject_of(self.item, self.terms, stage, reason, detail))


def _orient(item: Item, card: Card | None) -> Orient:
    """What must be done to the stored pixels to see them as they were scanned."""
    if card is None:
        return "as-is"
    role, index = classify(card, item.relative)
    return card.images[index].orient if role == "image" else "as-is"


def _stacked(frames: list[Pixels]) -> NDArray[np.uint8]:
    """Frames as one array, (T, H, W) when all are grey, else (T, H, W, 3)."""
    if any(f.ndim == 3 for f in frames):
        frames = [f if f.ndim == 3 else np.repeat(f[..., None], 3, axis=2) for f in frames]
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)
