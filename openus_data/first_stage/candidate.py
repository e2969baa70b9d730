"""The first stage: one source file to candidate samples, a pure function that any executor may run.

    file -> decode -> header facts -> frames -> cone -> crop -> burned-in text -> quality -> hash -> encode

    result = process(SourceTask(item=item), stage)

The steps on the decoded pictures are in `sample_maker.py`.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from dataclasses import replace
from pathlib import Path
from typing import Any

from openus_data.build_report import PIXEL_LIBRARIES, versions
from openus_data.decode import decode
from openus_data.deid.pseudonym import Pseudonymizer
from openus_data.errors import MissingExtra, NotUltrasound, OpenUSDataError, UnsupportedFormat
from openus_data.first_stage.records import DatasetTerms, SourceResult, SourceTask, StageOne, item_text, reject_of
from openus_data.first_stage.sample_maker import SampleMaker
from openus_data.first_stage.seen import file_states, seen_key
from openus_data.first_stage.votes import cone_digest
from openus_data.recipe import BuildRecipe
from openus_data.records import Item
from openus_data.schema import PIPELINE_VERSION

_SOURCE_BLOCK = 1 << 20


def process(task: SourceTask, stage: StageOne) -> SourceResult:
    """Work on one file. Whatever is wrong with it becomes a reject; nothing it says about a person is kept."""
    item, terms = task.item, stage.datasets[task.item.dataset]
    try:
        states = file_states(item)
        source = keyed_digest(item.path, terms.pseudonymizer.key)
        print_ = fingerprint(item, source, stage)
        seen = seen_key(item, states, print_, terms)
        if print_ == task.known:
            return SourceResult(fingerprint=print_, is_unchanged=True, seen=seen)
    except OSError as error:
        reject = reject_of(item, terms, "decode", "unreadable", type(error).__name__)
        return SourceResult(fingerprint="", rejects=(reject,))
    return replace(_work(task, source, stage), fingerprint=print_, seen=seen)


def keyed_digest(path: Path, key: bytes) -> str:
    """HMAC-SHA256 of a file's bytes in hexadecimal; memory stays flat."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    with path.open("rb", buffering=0) as handle:
        while block := handle.read(_SOURCE_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(item: Item, source: str, stage: StageOne) -> str:
    """What the result of this file depends on, keyed: equal fingerprints, equal results."""
    terms = stage.datasets[item.dataset]
    masks = [_mask_digest(mask, terms.pseudonymizer.key) for mask in item.masks]
    return terms.pseudonymizer.identifier("fingerprint", terms.settings, item_text(item), source, *masks)


@functools.lru_cache(maxsize=512)
def _mask_digest(path: Path, key: bytes) -> str:
    """A shared annotation file is read once a worker, not once an image."""
    return keyed_digest(path, key)


def settings_digest(recipe: BuildRecipe, terms: DatasetTerms) -> str:
    """Digest of the parts of recipe and terms that the first stage reads, without the key."""
    plain = replace(terms, pseudonymizer=Pseudonymizer(key=b""), card=None, settings="")
    releases = sorted(versions(PIXEL_LIBRARIES).items())
    parts = (PIPELINE_VERSION, releases, recipe.image, recipe.text, recipe.frames, recipe.quality, plain)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _work(task: SourceTask, source: str, stage: StageOne) -> SourceResult:
    item, terms = task.item, stage.datasets[task.item.dataset]
    try:
        media = decode(item.path, read_facts=_read_facts)
        work = SampleMaker(item, source, media, terms, stage.recipe, prior=task.prior)
        samples, rejects = work.run()
    except OpenUSDataError as error:
        return SourceResult(fingerprint="", rejects=(reject_of(item, terms, "decode", _reason(error), str(error)),))
    return SourceResult(
        fingerprint="",
        samples=samples,
        rejects=rejects,
        frames=media.frame_count,
        skipped=media.frame_count - work.frames_used,
        ballot=work.ballot,
        prior=None if task.prior is None else cone_digest(task.prior),
    )


def _read_facts(dataset: Any) -> tuple[Any, str | None, str | None]:
    """`deid.headers.read_facts`, loaded with the first DICOM file: pydicom takes a fifth of a second."""
    from openus_data.deid.headers import read_facts

    return read_facts(dataset)


def _reason(error: OpenUSDataError) -> str:
    """The error's class as a word of the rejects: `DecodeLimit` is `decode_limit`."""
    if isinstance(error, NotUltrasound | UnsupportedFormat | MissingExtra):
        return {NotUltrasound: "not_ultrasound", UnsupportedFormat: "unsupported", MissingExtra: "missing_extra"}[
            type(error)
        ]
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in type(error).__name__).lstrip("_")
