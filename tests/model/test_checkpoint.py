"""Checkpoints are whole or not at all, and a torn one is passed over."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import pytest
import torch

from openus_model import checkpoint as module
from openus_model.checkpoint import (
    METHOD,
    OPTIMIZER,
    STATE,
    SUMS,
    Checkpoint,
    checkpoints,
    find_fault,
    load_checkpoint,
    newest_sound,
    rotate,
    run_lock,
    save_checkpoint,
)
from openus_model.errors import LockedError, WeightsError


def _checkpoint(step: int) -> Checkpoint:
    shared = torch.arange(6.0)
    return Checkpoint(
        step=step,
        method={"a": shared, "alias": shared, "turned": torch.arange(6.0).view(2, 3).T},
        optimizer={"a/exp_avg": torch.ones(2)},
        state={"stream": {"step": step}},
    )


def test_what_is_saved_is_loaded_back_also_tensors_that_share_memory(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, _checkpoint(7))
    assert folder == tmp_path / "checkpoints" / "step-00000007"
    loaded = load_checkpoint(folder)
    assert loaded.step == 7
    assert loaded.state["stream"] == {"step": 7}
    for name, tensor in _checkpoint(7).method.items():
        assert loaded.method[name].equal(tensor)
    assert loaded.optimizer["a/exp_avg"].equal(torch.ones(2))


@pytest.mark.parametrize("name", [METHOD, OPTIMIZER, STATE, SUMS])
@pytest.mark.parametrize("how", ["cut", "gone", "flipped"])
def test_a_torn_checkpoint_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, how: str
) -> None:
    sound, torn = save_checkpoint(tmp_path, _checkpoint(1)), save_checkpoint(tmp_path, _checkpoint(2))
    path = torn / name
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert find_fault(sound) is None
    with caplog.at_level(logging.WARNING):
        assert newest_sound(tmp_path) == sound
    assert "step-00000002 is passed over" in caplog.text


def test_a_full_disk_leaves_nothing_behind_and_the_older_checkpoint_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = save_checkpoint(tmp_path, _checkpoint(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_sync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, _checkpoint(2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert newest_sound(tmp_path) == older


def test_a_half_written_folder_of_a_killed_save_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".step-00000009.part").mkdir(parents=True)
    assert newest_sound(tmp_path) is None
    save_checkpoint(tmp_path, _checkpoint(9))
    assert [step for step, _ in checkpoints(tmp_path)] == [9]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_rotation_keeps_the_newest_and_the_round_ones(tmp_path: Path) -> None:
    for step in range(10, 70, 10):
        save_checkpoint(tmp_path, _checkpoint(step))
    rotate(tmp_path, keep=2, keep_every=30)
    assert [step for step, _ in checkpoints(tmp_path)] == [60, 50, 30]


def test_two_runs_cannot_hold_one_folder(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"), pytest.raises(LockedError, match="run"), run_lock(tmp_path / "run"):
        pass
    with run_lock(tmp_path / "run"):
        pass


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, _checkpoint(1))
    state = json.loads((folder / STATE).read_text())
    (folder / STATE).write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(WeightsError, match="99"):
        load_checkpoint(folder)
