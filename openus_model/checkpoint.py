"""A run's folder on disk: one writer at a time, checkpoints whole or not at all, the newest sound one found again.

    RUN/checkpoints/step-00001000/method.safetensors     student, teacher, centres, difficulties
                                  optimizer.safetensors  moments, by parameter
                                  state.json             step, stream position, recipe, versions
                                  sums.json              size and SHA-256 of the three, written last

A checkpoint is written beside its final name, synced and renamed; one whose sums do not hold is passed over with a
warning. There is no pickle in it, and no random state: every step seeds itself from (seed, step, rank).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from openus_model.errors import LockedError, UsageError, WeightsError

logger = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "checkpoints"
METHOD, OPTIMIZER, STATE, SUMS = "method.safetensors", "optimizer.safetensors", "state.json", "sums.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a run goes on from.

    Args:
        step: updates done.
        method: tensors of the method by name.
        optimizer: tensors of the optimizer by name.
        state: plain values: stream position, recipe, versions.
    """

    step: int
    method: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Hold a run's folder against other trainers; freed when the process ends, however it ends.

    Raises:
        UsageError: the folder cannot be made.
        LockedError: another process holds it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError("cannot make the run's folder", where="--out", got=reason) from None
    with (run / ".lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                "another run holds the folder", where=run.name, next_step="wait for it, or use another --out"
            ) from None
        yield


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint under its final name, whole; an older one of the same step gives way.

    Raises:
        OSError: the disk is full or gone; nothing is left behind and older checkpoints stand.
    """
    final = run / FOLDER / f"step-{checkpoint.step:08d}"
    aside = final.with_name(f".{final.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        save_file(_own_memory(checkpoint.method), aside / METHOD)
        save_file(_own_memory(checkpoint.optimizer), aside / OPTIMIZER)
        state = {"format": FORMAT, "step": checkpoint.step, **checkpoint.state}
        (aside / STATE).write_text(json.dumps(state, indent=1, sort_keys=True))
        sums = {name: _sum(aside / name) for name in (METHOD, OPTIMIZER, STATE)}
        (aside / SUMS).write_text(json.dumps(sums, indent=1))
        for path in (*aside.iterdir(), aside):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _sync(final.parent)
    return final


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of everything that has a checkpoint's name, newest first, sound or not."""
    found = [(match, path) for path in (run / FOLDER).glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return sorted(((int(match[1]), path) for match, path in found), reverse=True)


def newest_sound(run: Path) -> Path | None:
    """Folder of the newest checkpoint whose sums hold; torn ones are passed over, said aloud."""
    for _, path in checkpoints(run):
        fault = find_fault(path)
        if fault is None:
            return path
        logger.warning("checkpoint %s is passed over: %s", path.name, fault)
    return None


def find_fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sums = json.loads((folder / SUMS).read_text())
        for name in (METHOD, OPTIMIZER, STATE):
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _sum(folder / name) != sums[name]:
                return f"{name} is not what was saved"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{SUMS} cannot be read"
    return None


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint that `newest_sound` named.

    Raises:
        WeightsError: it is of another format.
    """
    state = json.loads((folder / STATE).read_text())
    if state.get("format") != FORMAT:
        raise WeightsError(
            "a checkpoint of another format", where=folder.name, expected=str(FORMAT), got=str(state.get("format"))
        )
    return Checkpoint(
        step=int(state["step"]), method=load_file(folder / METHOD), optimizer=load_file(folder / OPTIMIZER), state=state
    )


def rotate(run: Path, *, keep: int, keep_every: int) -> None:
    """Delete all but the newest `keep` sound-looking checkpoints and those at multiples of `keep_every` steps."""
    for place, (step, path) in enumerate(checkpoints(run)):
        if place >= keep and not (keep_every and step % keep_every == 0):
            shutil.rmtree(path, ignore_errors=True)


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors of which no two share memory, as safetensors wants them."""
    taken: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        if copy.untyped_storage().data_ptr() in taken:
            copy = copy.clone()
        taken.add(copy.untyped_storage().data_ptr())
        own[name] = copy
    return own


def _sum(path: Path) -> dict[str, int | str]:
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
