"""`openus-data deid SRC DST`: DICOM ultrasound in, de-identified DICOM out, headers and pixels.

    walk SRC -> decode -> refuse faces -> clean pixels -> check again -> clean header -> DST/<new SOPInstanceUID>.dcm

One file is one pure function of its bytes and the key, so that any order and any number of workers give the same
output. A file that cannot be judged is not written: it is reported, by its place in the sorted list and a keyed digest,
never by its name. The list of rules is `openus_data.deid.policy.describe()`.
"""

from __future__ import annotations

import collections
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from openus_data import cone as cones
from openus_data import executor as executors
from openus_data.decode import Limits, decode
from openus_data.decode.later import looks_like_dicom
from openus_data.decode.source import open_source
from openus_data.deid import values
from openus_data.deid.dicom import attach_pixels, clean_dataset, is_rendered, write_file
from openus_data.deid.headers import Facts, read_facts, read_keys, read_value
from openus_data.deid.pixels import CleanFrames, clean_frames
from openus_data.deid.pseudonym import Pseudonymizer, load_or_create_key
from openus_data.deid.quiet import quiet_pydicom
from openus_data.deid.replacements import Dates
from openus_data.errors import DecodeLimit, DeidError, NotUltrasound, OpenUSDataError, UsageError
from openus_data.executor import open_executor
from openus_data.progress import Progress
from openus_data.records import Cone, Media
from openus_data.store import PART_SUFFIX, sha256_file

logger = logging.getLogger(__name__)

Verdict = Literal["written", "quarantined", "failed", "skipped"]

SAFE_ORGANS: Final = frozenset({"cardiac", "breast", "thyroid", "abdomen", "kidney", "prostate", "vascular", "lung"})
"""Organs whose 3D renderings show no face."""
LIMITS: Final = Limits(total_pixels=1 << 29)
"""All frames of one file are held in memory while they are cleaned."""

EVIDENCE_FRAMES: Final = 16
"""Frames of a clip that the scan area is found on."""
TASK_LIMITS: Final = executors.TaskLimits(seconds=600.0, memory_mb=6000)
HAS_OCR: Final = all(importlib.util.find_spec(name) for name in ("rapidocr_onnxruntime", "onnxruntime"))
"""With the `[ocr]` extra its detector looks too, so that outputs may differ from those made without it."""
STILL_CLASSES: Final = frozenset(
    {"1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7"}
)
"""Classes whose objects have no NumberOfFrames."""

_OWN_NAME: Final = re.compile(rf"2\.25\.\d{{1,39}}\.dcm|\d{{8}}{re.escape(PART_SUFFIX)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file.

    Args:
        number: its place in the sorted list of SRC, from 1.
        digest: keyed digest of its path below SRC.
        verdict: whether it was written, and if not, why not in one word.
        reason: a word of a closed list; empty for what was written.
        detail: one line for a person, free of identity.
        output: name of the file written, below DST.
        frames: frames written.
        text_boxes: boxes of text removed inside the scan area, over all frames.
        rules: names of the policy's rules that acted on it.
    """

    number: int
    digest: str
    verdict: Verdict
    reason: str = ""
    detail: str = ""
    output: str = ""
    frames: int = 0
    text_boxes: int = 0
    rules: tuple[str, ...] = ()

    def line(self) -> str:
        """The outcome for a person."""
        why = f": {self.reason}" + (f", {self.detail}" if self.detail else "") if self.reason else ""
        return f"file {self.number} ({self.digest}) {self.verdict}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeidReport:
    """What became of every file of SRC, in the order of the sorted list.

    Args:
        outcomes: one per file.
        dates: what was done to dates.
        key_file: where the key lies, as the user named it or as it was chosen.
    """

    outcomes: tuple[Outcome, ...]
    dates: Dates
    key_file: Path = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Files per verdict."""
        found = collections.Counter(outcome.verdict for outcome in self.outcomes)
        return {verdict: found[verdict] for verdict in ("written", "quarantined", "failed", "skipped")}

    @property
    def exit_code(self) -> int:
        """0 when every ultrasound image was written, 1 when one was quarantined or failed."""
        return 1 if self.counts["quarantined"] or self.counts["failed"] else 0

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "counts": self.counts,
            "dates": self.dates,
            "files": [
                {
                    "number": o.number,
                    "digest": o.digest,
                    "verdict": o.verdict,
                    "reason": o.reason,
                    "detail": o.detail,
                    "output": o.output,
                    "frames": o.frames,
                    "text_boxes_removed": o.text_boxes,
                    "rules": list(o.rules),
                }
                for o in self.outcomes
            ],
        }

    def to_text(self) -> str:
        """Counts per verdict and reason; the lines of single files went to the log."""
        reasons = collections.Counter((o.verdict, o.reason) for o in self.outcomes if o.verdict != "written")
        lines = [f"{self.counts['written']} written, dates {self.dates}"]
        lines += [f"{count} {verdict}: {reason}" for (verdict, reason), count in sorted(reasons.items())]
        if reasons:
            lines.append("A file's number is its place in the sorted list of SRC, from 1.")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One file, and what its worker must know."""

    number: int
    path: Path = field(repr=False)
    relative: str = field(repr=False)
    target: Path = field(repr=False)
    pseudonyms: Pseudonymizer
    dates: Dates

    @property
    def aside(self) -> Path:
        """Where the copy waits until its name is known to be free."""
        return self.target / f"{self.number:08d}{PART_SUFFIX}"

    def outcome(self, verdict: Verdict, **rest: Any) -> Outcome:
        digest = self.pseudonyms.identifier("deid file", self.relative, length=12)
        return Outcome(number=self.number, digest=digest, verdict=verdict, **rest)


def deidentify(
    src: Path,
    dst: Path,
    *,
    key_file: Path | None = None,
    dates: str = "remove",
    workers: int | None = None,
    quiet: bool = False,
) -> DeidReport:
    """De-identify a DICOM file or every DICOM file below a folder.

    Args:
        src: file or folder; only read.
        dst: folder for the copies, made if need be; it may hold nothing but earlier output of this command.
        key_file: secret key of the pseudonyms; made on first use. None: `openus/deid.key` in the user's config folder.
        dates: "remove", or "shift" by one offset per patient.
        workers: processes; None for as many as there are cores. The output does not depend on it.
        quiet: no progress bar.

    Raises:
        UsageError: the call would endanger the input or the key, or an argument is not one of its words.
    """
    if dates not in ("remove", "shift"):
        raise UsageError("unknown way with dates", where="--dates", expected="remove or shift")
    key_path = key_file or default_key_file()
    _check_places(src, dst, key_path)
    pseudonyms = load_or_create_key(key_path)
    dst.mkdir(parents=True, exist_ok=True)
    for unfinished in dst.glob(f"*{PART_SUFFIX}"):  # of a run that was ended
        unfinished.unlink()
    tasks = [
        _Task(
            number=number,
            path=path,
            relative=relative,
            target=dst,
            pseudonyms=pseudonyms,
            dates=cast(Dates, dates),
        )
        for number, (path, relative) in enumerate(_walk(src), start=1)
    ]
    return DeidReport(outcomes=tuple(_run(tasks, quiet, workers)), dates=cast(Dates, dates), key_file=key_path)


def default_key_file() -> Path:
    """Where the key lies unless the user says otherwise: in the config folder, far from any output."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "openus" / "deid.key"


def _check_places(src: Path, dst: Path, key: Path) -> None:
    if not src.exists():
        raise UsageError("nothing there", where="SRC", expected="a DICOM file or a folder")
    source, target, key = src.resolve(), dst.resolve(), key.resolve()
    if target == source or target.is_relative_to(source) or source.is_relative_to(target):
        raise UsageError(
            "one of SRC and DST holds the other", expected="two folders apart", next_step="choose another DST"
        )
    if key.is_relative_to(target):
        raise UsageError(
            "the key would lie inside the output, and with it every pseudonym could be undone",
            where="--key-file",
            expected="a place outside DST",
        )
    if dst.exists() and (not dst.is_dir() or any(not _OWN_NAME.fullmatch(entry.name) for entry in dst.iterdir())):
        raise UsageError("DST holds something else", expected="a new or empty folder", next_step="choose another DST")


def _walk(src: Path) -> Iterator[tuple[Path, str]]:
    """Every file below `src` with its relative path, sorted.

    Links to folders are not followed, and folders that cannot be read hold what nobody sees: both stand in the list
    themselves, so that nothing is passed over in silence.
    """
    if not src.is_dir():
        yield src, src.name
        return
    found: list[Path] = []

    def note(error: OSError) -> None:
        found.append(Path(error.filename))

    for folder, folders, names in os.walk(src, onerror=note):
        here = Path(folder)
        found.extend(here / name for name in [*names, *(name for name in folders if (here / name).is_symlink())])
    yield from sorted(((p, p.relative_to(src).as_posix()) for p in found), key=lambda pair: os.fsencode(pair[1]))


def _run(tasks: list[_Task], quiet: bool, workers: int | None) -> Iterator[Outcome]:
    """Outcomes in the order of the tasks; each file is worked on in a process of its own limits."""
    taken: set[str] = set()
    wanted = min(len(tasks), workers or os.cpu_count() or 1)
    executor = open_executor("local", workers=max(wanted, 1), limits=TASK_LIMITS)
    with Progress("deid", total=len(tasks), quiet=quiet) as progress:
        for done in executor.run(clean_file, tasks, ordered=True) if tasks else ():
            outcome = _settle(done.item, _value(done), taken)
            if outcome.verdict in ("quarantined", "failed"):
                logger.warning("%s", outcome.line())
            progress.advance()
            yield outcome


def _value(done: executors.Outcome[_Task, Outcome]) -> Outcome:
    if done.value is not None:
        return done.value
    kind = done.failure.kind if done.failure else "error"
    reason = {"memory": "too-large", "timeout": "too-slow"}.get(kind, "internal")
    return done.item.outcome("failed", reason=reason, detail=done.failure.detail if done.failure else "")


def _settle(task: _Task, outcome: Outcome, taken: set[str]) -> Outcome:
    """Give a finished file its name, unless an earlier one has it."""
    aside = task.aside
    if outcome.verdict != "written":
        aside.unlink(missing_ok=True)
        return outcome
    if outcome.output in taken:
        aside.unlink()
        return task.outcome("quarantined", reason="same-instance-uid", detail="an earlier file has this SOPInstanceUID")
    taken.add(outcome.output)
    aside.replace(task.target / outcome.output)
    return outcome


def clean_file(task: _Task) -> Outcome:
    """One file to its outcome, the clean copy waiting under `task.aside`; raises nothing for what the file holds."""
    try:
        if task.path.is_symlink() and task.path.is_dir():
            return task.outcome("skipped", reason="linked-folder")
        if task.path.is_dir():
            return task.outcome("failed", reason="folder-not-readable")
        if not looks_like_dicom(open_source(task.path).head):
            return task.outcome("skipped", reason="not-dicom")
        with quiet_pydicom():
            return _clean(task)
    except NotUltrasound as error:
        return task.outcome("skipped", reason="not-ultrasound", detail=error.got)
    except DeidError as error:
        return task.outcome("quarantined", reason=error.what, detail=error.got)
    except DecodeLimit as error:
        return task.outcome("failed", reason="too-large", detail=str(error))
    except OpenUSDataError as error:
        return task.outcome("failed", reason="not-decoded", detail=str(error))


def _clean(task: _Task) -> Outcome:
    headers: list[Dataset] = []

    def look(dataset: Dataset) -> tuple[Facts, str | None, str | None]:
        headers.append(dataset)
        return read_facts(dataset)

    media = decode(task.path, limits=LIMITS, read_facts=look)
    if not headers:
        raise NotUltrasound("not a DICOM object", got="another kind of file")
    header = headers[0]
    if is_rendered(header) and media.facts.get("organ") not in SAFE_ORGANS:
        raise DeidError("may-show-a-face", got="a volume or rendering, and the header names no anatomy without a face")
    pixels = _clean_pixels(media)
    clean = clean_dataset(
        header, pseudonyms=task.pseudonyms, dates=task.dates, pixels_cleaned=True, stand_in=_stand_in(header, task)
    )
    is_still = str(clean.dataset.get("SOPClassUID")) in STILL_CLASSES and len(pixels.frames) == 1
    attach_pixels(clean.dataset, pixels.frames, is_clip=not is_still)
    with task.aside.open("wb") as handle:
        write_file(clean.dataset, handle)
        handle.flush()
        os.fsync(handle.fileno())
    return task.outcome(
        "written",
        output=f"{clean.dataset.SOPInstanceUID}.dcm",
        frames=len(pixels.frames),
        text_boxes=sum(len(boxes) for boxes in pixels.boxes),
        rules=tuple(sorted({*clean.rules, "black-outside-cone", "remove-text", "re-encode", "rebuild-file"})),
    )


def _stand_in(header: Dataset, task: _Task) -> str:
    """A key for what lacks the identifiers that every object has: the digest of its bytes."""
    if all(values.first(read_value(header, keyword)) for keyword in ("SOPInstanceUID", "SeriesInstanceUID")):
        _, study = read_keys(header)
        if study is not None:
            return ""
    return sha256_file(task.path)


def _clean_pixels(media: Media) -> CleanFrames:
    frames = _read_frames(media)
    shown = frames[:: -(-len(frames) // EVIDENCE_FRAMES)]
    cone = cones.detect(shown if len(shown) > 1 else shown[0], regions=media.regions)
    inside = _scan_area(cone, media)
    if not inside.any():
        raise DeidError("no-scan-area", got="no scan area was found, so that all of the picture may be text")
    cleaned = clean_frames(frames, None if inside.all() else inside, ocr=HAS_OCR)
    if cleaned.is_doubtful:
        raise DeidError("text-remains", got="text is still found after it was filled")
    return cleaned


def _read_frames(media: Media) -> NDArray[np.uint8]:
    """All frames, (T, H, W) when every one is grey, else (T, H, W, 3)."""
    grey = np.empty((media.frame_count, media.height_px, media.width_px), np.uint8)
    colour: NDArray[np.uint8] | None = None
    for index, pixels in media.read(None):
        if colour is None and pixels.ndim == 3:
            colour = np.repeat(grey[..., None], 3, axis=3)
        if colour is None:
            grey[index] = pixels
        else:
            colour[index] = pixels if pixels.ndim == 3 else pixels[..., None]
    return grey if colour is None else colour


def _scan_area(cone: Cone, media: Media) -> NDArray[np.bool_]:
    """The scan area, bool (H, W): the detected one, else the 2D regions that the header gives, else nothing."""
    if cone.geometry != "none":
        return cones.raster(cone, media.height_px, media.width_px)
    inside = np.zeros((media.height_px, media.width_px), dtype=np.bool_)
    for region in media.regions:
        if region.spatial_format == 1:
            x0, y0, x1, y1 = region.box
            inside[y0:y1, x0:x1] = True
    return inside
