"""Equal inputs give equal trees, whatever the workers, the order, the locale and the number of interruptions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_builds import inline, run_build, times, tree, write_pictures

from openus_data import build_report, shard_task
from openus_data import publish as publish_module
from openus_data.errors import CorpusError, LockedError, NoSpace, UsageError
from openus_data.first_stage import candidate, sample_maker
from openus_data.first_stage import folder as staging
from openus_data.manifest import read_manifest
from openus_data.store import folder_lock
from openus_data.verify import verify

__all__ = ["inline"]

SCRIPT = """
import sys
from pathlib import Path
from openus_data import build as module
from openus_data.build import BuildRequest, build
module._FEW_SAMPLES = 0  # workers write the shards too
tmp, out, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
folders = {"out": tmp / out, "root": tmp / "root", "images": tmp / "images"}
build(BuildRequest(**folders, name="clinic", workers=workers, policy="keep", quiet=True))
"""


def start(tmp: Path, out: str, workers: int, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp), out, str(workers)],
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )


def test_processes_locale_and_kills_do_not_change_a_byte(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(12))
    run_build(tmp_path, tmp_path / "images", out="plain")
    reference = tree(tmp_path / "plain")
    environment = {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Apia", "PYTHONHASHSEED": "7"}
    for delay in (1.2, 2.0):
        killed = start(tmp_path, "killed", 2, **environment)
        time.sleep(delay)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert start(tmp_path, "killed", 2, **environment).wait() == 0
    assert tree(tmp_path / "killed") == reference


class Killed(BaseException):
    """Stands for kill -9: nothing that runs afterwards may depend on it being seen."""


@pytest.mark.parametrize("moment", ["keep", "shard", "tables", "commit", "move 1", "move 3", "move 5", "after"])
def test_a_kill_at_any_step_is_made_good_by_the_next_run(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write_pictures(tmp_path / "images", range(6))
    run_build(tmp_path, tmp_path / "images", out="plain")
    shutil.copytree(tmp_path / "plain", tmp_path / "out")
    write_pictures(tmp_path / "images", range(6, 10))
    run_build(tmp_path, tmp_path / "images", out="plain")
    with monkeypatch.context() as patch:
        kill_at(patch, moment)
        with pytest.raises(Killed):
            run_build(tmp_path, tmp_path / "images")
    report = run_build(tmp_path, tmp_path / "images")
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")
    assert report.reused >= (7 if moment == "keep" else 10)


def kill_at(patch: pytest.MonkeyPatch, moment: str) -> None:
    def after(module: object, name: str, calls: int) -> None:
        real, left = getattr(module, name), [calls]

        def wrapped(*args: object, **options: object) -> object:
            result = real(*args, **options)
            left[0] -= 1
            if not left[0]:
                raise Killed
            return result

        patch.setattr(module, name, wrapped)

    if moment == "keep":
        after(staging.Staging, "keep", 1)
    elif moment == "shard":
        after(shard_task, "_write", 1)
    elif moment == "tables":
        from openus_data import build as build_module

        after(build_module, "_write_tables", 1)
    elif moment == "commit":
        after(publish_module, "write_text_aside", 1)
    elif moment.startswith("move"):
        after(publish_module, "_move", int(moment.split()[1]))
    else:
        after(publish_module.shutil, "rmtree", 1)


def test_a_second_run_does_nothing_and_touches_nothing(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(5))
    assert run_build(tmp_path, tmp_path / "images").worked_on == 5
    before, stamps = tree(tmp_path / "out"), times(tmp_path / "out")
    report = run_build(tmp_path, tmp_path / "images")
    assert (report.worked_on, report.reused, report.is_changed) == (0, 5, False)
    assert tree(tmp_path / "out") == before and times(tmp_path / "out") == stamps


def test_a_changed_file_is_worked_on_again_and_the_rest_is_not(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(6))
    run_build(tmp_path, tmp_path / "images")
    shutil.copy(tmp_path / "images/p0/000.png", tmp_path / "images/p2/004.png")
    (tmp_path / "images/p1/003.png").unlink()
    report = run_build(tmp_path, tmp_path / "images")
    assert (report.worked_on, report.reused) == (1, 4)
    run_build(tmp_path, tmp_path / "images", out="fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_another_recipe_works_on_everything_again(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(3))
    run_build(tmp_path, tmp_path / "images")
    (tmp_path / "jpeg.yaml").write_text("image: {codec: jpeg}")
    assert run_build(tmp_path, tmp_path / "images", recipe=str(tmp_path / "jpeg.yaml")).worked_on == 3
    assert verify(tmp_path / "out").faults == ()


def test_added_datasets_reuse_what_is_there_and_give_the_bytes_of_one_build(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(6))
    write_pictures(tmp_path / "more", range(20, 24))
    run_build(tmp_path, tmp_path / "images")
    added = run_build(tmp_path, tmp_path / "more", name="other")
    assert (added.worked_on, set(added.datasets)) == (4, {"clinic", "other"})
    run_build(tmp_path, tmp_path / "more", name="other", out="fresh")
    run_build(tmp_path, tmp_path / "images", out="fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    assert read_manifest(tmp_path / "out").num_rows == 10 and verify(tmp_path / "out").faults == ()


def test_an_added_dataset_with_another_recipe_is_refused(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(2))
    run_build(tmp_path, tmp_path / "images")
    (tmp_path / "jpeg.yaml").write_text("image: {codec: jpeg}")
    with pytest.raises(UsageError, match=r"another recipe.*image"):
        run_build(tmp_path, tmp_path / "images", name="other", recipe=str(tmp_path / "jpeg.yaml"))


def test_a_dataset_is_not_added_to_those_of_another_pipeline_version(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "images", range(2))
    with monkeypatch.context() as patch:
        for module in (build_report, candidate, sample_maker):
            patch.setattr(module, "PIPELINE_VERSION", "0")
        run_build(tmp_path, tmp_path / "images")
    with pytest.raises(UsageError, match="another pipeline version"):
        run_build(tmp_path, tmp_path / "images", name="other")
    assert run_build(tmp_path, tmp_path / "images").worked_on == 2


def test_a_deleted_shard_is_made_again(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(4))
    run_build(tmp_path, tmp_path / "images")
    before = tree(tmp_path / "out")
    shard = next((tmp_path / "out/shards").rglob("*.tar"))
    shard.unlink()
    assert run_build(tmp_path, tmp_path / "images").worked_on == 4
    assert tree(tmp_path / "out") == before


def test_a_full_disk_is_said_and_the_next_run_goes_on(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "images", range(4))

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shard_task.ShardWriter, "_write", full)
        with pytest.raises(NoSpace):
            run_build(tmp_path, tmp_path / "images")
    assert [p.name for p in (tmp_path / "out").rglob("*.tar")] == []
    assert run_build(tmp_path, tmp_path / "images").reused == 4


def test_two_runs_on_one_folder_exclude_each_other(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(1))
    with folder_lock(tmp_path / "out"), pytest.raises(LockedError):
        run_build(tmp_path, tmp_path / "images")


def test_a_damaged_old_shard_is_never_copied_on(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(4))
    run_build(tmp_path, tmp_path / "images")
    shard = next((tmp_path / "out/shards").rglob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    write_pictures(tmp_path / "images", range(4, 6))
    with pytest.raises(CorpusError, match="damaged"):
        run_build(tmp_path, tmp_path / "images")


def test_damaged_records_are_not_trusted_for_datasets_that_are_not_named(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(3))
    run_build(tmp_path, tmp_path / "images")
    before = tree(tmp_path / "out")
    records = tmp_path / "out/.records"
    data = bytearray(records.read_bytes())
    data[len(data) // 2] ^= 1
    records.write_bytes(data)
    assert {f.kind for f in verify(tmp_path / "out").faults} == {"table_changed"}
    with pytest.raises(UsageError, match="damaged"):
        run_build(tmp_path, tmp_path / "images", name="other")
    run_build(tmp_path, tmp_path / "images")
    assert tree(tmp_path / "out") == before
