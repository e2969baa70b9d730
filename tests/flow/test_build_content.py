"""What a build puts into a corpus, what it turns away, and what it says about both."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_builds import TOY_CARD, InlineExecutor, inline, run_build, sector, tree, write_pictures

from openus_data import build as build_module
from openus_data.build import BuildReport, BuildRequest, build
from openus_data.card import load_card
from openus_data.errors import RecipeError, UsageError
from openus_data.first_stage.encode import decode_stored
from openus_data.manifest import read_manifest, read_rejects
from openus_data.schema import pixel_sha256
from openus_data.shards import read_member

__all__ = ["inline"]


def toy_root(tmp: Path, pictures: int = 6) -> Path:
    """ROOT with a public dataset of images and masks."""
    for part in ("images", "masks"):
        (tmp / "root/toy/files" / part).mkdir(parents=True)
    for seed in range(pictures):
        name = f"p{seed // 2}_{seed}.png"
        cv2.imwrite(str(tmp / "root/toy/files/images" / name), sector(seed))
        mask = np.zeros((150, 200), np.uint8)
        cv2.circle(mask, (100, 80), 20, 255, -1)
        cv2.imwrite(str(tmp / "root/toy/files/masks" / name), mask)
    (tmp / "toy.toml").write_text(TOY_CARD)
    return tmp / "root"


def build_toy(tmp: Path, **options: object) -> BuildReport:
    options = {"policy": "keep"} | options
    return build(
        BuildRequest(out=tmp / "out", root=tmp / "root", cards=(load_card(tmp / "toy.toml"),), quiet=True, **options)  # type: ignore[arg-type]
    )


def rows_of(out: Path) -> list[dict[str, object]]:
    return list(read_manifest(out).to_pylist())


def reasons(out: Path) -> list[tuple[str, str]]:
    return [(r["stage"], r["reason"]) for r in read_rejects(out).to_pylist()]


def test_every_row_addresses_its_own_picture_and_a_mask_of_the_same_crop(tmp_path: Path, inline: None) -> None:
    toy_root(tmp_path)
    assert build_toy(tmp_path).exit_code == 0
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 6 and {r["split"] for r in rows} <= {"train", "val", "test"}
    for row in rows:
        pixels = decode_stored(read_member(tmp_path / "out", row))
        assert pixels.shape == (row["height_px"], row["width_px"]) and row["channels"] == 1
        assert pixel_sha256(pixels) == row["pixel_sha256"]
        with tarfile.open(tmp_path / "out" / str(row["shard"])) as tar:
            mask_file, json_file = (tar.extractfile(f"{row['sample_id']}.{s}") for s in ("mask.png", "json"))
            assert mask_file is not None and json_file is not None
            mask, metadata = decode_stored(mask_file.read()), json.load(json_file)
        assert mask.shape == pixels.shape and set(np.unique(mask)) == {0, 1}
        assert metadata == {k: v for k, v in row.items() if k not in ("shard", "offset", "size_bytes")}


def test_subjects_stay_together_and_nothing_names_the_source(tmp_path: Path, inline: None) -> None:
    toy_root(tmp_path, 10)
    build_toy(tmp_path)
    by_subject: dict[object, set[object]] = {}
    for row in rows_of(tmp_path / "out"):
        by_subject.setdefault(row["subject_id"], set()).add(row["split"])
    assert len(by_subject) == 5 and all(len(s) == 1 for s in by_subject.values())
    everything = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"p3_7" not in everything and str(tmp_path).encode() not in everything


def test_two_labs_get_the_same_bytes_of_public_data(tmp_path: Path, inline: None) -> None:
    for lab in ("one", "two"):
        (tmp_path / lab).mkdir()
        toy_root(tmp_path / lab)
        build_toy(tmp_path / lab)
    assert tree(tmp_path / "one/out") == tree(tmp_path / "two/out")


def test_private_names_depend_on_the_secret_key(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(2))
    run_build(tmp_path, tmp_path / "images")
    (tmp_path / "other.key").write_text("cd" * 32)
    (tmp_path / "other.key").chmod(0o600)
    run_build(tmp_path, tmp_path / "images", out="out2", key_file=tmp_path / "other.key")
    ids = [
        {str(r[c]) for r in rows_of(tmp_path / o) for c in ("sample_id", "subject_id", "source_sha256")}
        for o in ("out", "out2")
    ]
    assert not ids[0] & ids[1]


def test_bad_files_cost_a_row_each_and_exit_code_1(
    tmp_path: Path, inline: None, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path / "images", range(3))
    whole = (tmp_path / "images/p0/000.png").read_bytes()
    (tmp_path / "images/Doe_Jane_torn.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images/text.dcm").write_text("not a picture")
    (tmp_path / "images/empty.png").touch()
    (tmp_path / "images/link.png").symlink_to("/etc/passwd")
    report = run_build(tmp_path, tmp_path / "images")
    assert report.exit_code == 1 and report.samples == 3 and report.failures == 4
    assert sorted(stage for stage, _ in reasons(tmp_path / "out")) == ["decode", "decode", "decode", "list"]
    assert len(caplog.messages) == 4 and not any("Doe" in m or "\n" in m for m in caplog.messages)


def test_pictures_without_echo_and_blank_ones_are_choices_not_failures(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(2))
    cv2.imwrite(str(tmp_path / "images/black.png"), np.zeros((100, 100), np.uint8))
    report = run_build(tmp_path, tmp_path / "images")
    assert report.exit_code == 0 and len(reasons(tmp_path / "out")) == 1


def with_text(seed: int) -> np.ndarray:
    image = sector(seed, 300, 400)
    cv2.putText(image, "DOE JANE 1970", (130, 150), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)
    return image


@pytest.mark.parametrize(("policy", "kept"), [("mask", 1), ("quarantine", 0), ("keep", 1)])
def test_the_policy_decides_on_burned_in_text(tmp_path: Path, inline: None, policy: str, kept: int) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), with_text(1))
    run_build(tmp_path, tmp_path / "images", policy=policy)
    rows = rows_of(tmp_path / "out")
    if policy == "quarantine":
        assert rows == [] and reasons(tmp_path / "out") == [("text", "burned_in_text")]
    elif policy == "keep":
        assert len(rows) == kept and rows[0]["text_boxes_removed"] == []
    elif rows:
        assert rows[0]["text_boxes_removed"] and "remove-text" in rows[0]["deid_actions"]  # type: ignore[operator]
    else:
        assert reasons(tmp_path / "out") == [("text", "text_remains")]


def test_a_dead_worker_costs_its_file_and_the_next_run_tries_it_again(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "images", range(3))
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "open_executor", lambda *a, **o: InlineExecutor(fail_at=1))
        report = run_build(tmp_path, tmp_path / "images")
    assert report.exit_code == 1 and report.samples == 2 and reasons(tmp_path / "out") == [("decode", "worker_died")]
    report = run_build(tmp_path, tmp_path / "images")
    assert (report.exit_code, report.samples, report.worked_on, report.reused) == (0, 3, 1, 2)


def test_a_missing_dataset_does_not_stop_the_rest(
    tmp_path: Path, inline: None, caplog: pytest.LogCaptureFixture
) -> None:
    toy_root(tmp_path)
    (tmp_path / "absent.toml").write_text(TOY_CARD.replace('id = "toy"', 'id = "absent"'))
    cards = tuple(load_card(tmp_path / f"{n}.toml") for n in ("toy", "absent"))
    report = build(BuildRequest(out=tmp_path / "out", root=tmp_path / "root", cards=cards, policy="keep", quiet=True))
    assert report.exit_code == 1 and set(report.missing) == {"absent"} and report.samples == 6
    assert "openus-data fetch absent" in caplog.text


def test_licence_classes_leave_datasets_out_and_say_so(tmp_path: Path, inline: None) -> None:
    toy_root(tmp_path)
    write_pictures(tmp_path / "images", range(2))
    (tmp_path / "key").write_text("ab" * 32)
    (tmp_path / "key").chmod(0o600)
    build_toy(
        tmp_path, license_classes=("attribution",), images=tmp_path / "images", name="mine", key_file=tmp_path / "key"
    )
    assert {r["dataset"] for r in rows_of(tmp_path / "out")} == {"mine"}
    assert reasons(tmp_path / "out") == [("license", "not_wanted")]


def test_a_dry_run_writes_nothing_and_says_what_it_would_do(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", range(3))
    report = build(
        BuildRequest(out=tmp_path / "out", root=tmp_path / "root", images=tmp_path / "images", name="x", dry_run=True)
    )
    assert report.exit_code == 0 and report.to_json()["files"] == 3 and report.to_json()["disk_needed_bytes"] > 0
    assert not (tmp_path / "out").exists() and not (tmp_path / "root").exists()


def test_a_limit_takes_the_first_files(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(5))
    assert run_build(tmp_path, tmp_path / "images", limit=2).samples == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": None, "name": None, "recipe": "private"}, "nothing to build"),
        ({"name": "Dr. No"}, "needs a name"),
        ({"name": None}, "needs a name"),
        ({"name": "busi"}, "name is that of a public dataset"),
        ({"policy": "masc"}, "did you mean 'mask'"),
        ({"license_classes": ("atribution",)}, "did you mean 'attribution'"),
        ({"workers": 0}, "no workers"),
        ({"executor": "slurm"}, "unknown executor"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(tmp_path: Path, options: dict[str, object], words: str) -> None:
    write_pictures(tmp_path / "images", range(1))
    with pytest.raises(UsageError, match=words):
        run_build(tmp_path, **({"images": tmp_path / "images"} | options))  # type: ignore[arg-type]
    assert not (tmp_path / "out/manifest.parquet").exists()


def test_a_key_inside_the_output_and_folders_in_each_other_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", range(1))
    with pytest.raises(UsageError, match="inside the output"):
        run_build(tmp_path, tmp_path / "images", key_file=tmp_path / "out/key")
    with pytest.raises(UsageError, match="inside each other"):
        run_build(tmp_path, tmp_path / "images", out="images/out")
    with pytest.raises(RecipeError, match="no such recipe"):
        run_build(tmp_path, tmp_path / "images", recipe="opnus")


def test_a_copy_in_a_pretraining_set_of_a_test_image_is_dropped_and_counted(tmp_path: Path, inline: None) -> None:
    toy_root(tmp_path, 12)
    build_toy(tmp_path)
    test = [r for r in rows_of(tmp_path / "out") if r["split"] == "test"]
    assert test, "the fixed key puts some subject of the toy set into test"
    (tmp_path / "images").mkdir()
    for path in (tmp_path / "root/toy/files/images").iterdir():
        image = np.asarray(cv2.imread(str(path), 0))
        cv2.imwrite(str(tmp_path / "images" / path.with_suffix(".jpg").name), image, [cv2.IMWRITE_JPEG_QUALITY, 70])
    report = run_build(tmp_path, tmp_path / "images")
    assert {r["split"] for r in rows_of(tmp_path / "out") if r["dataset"] == "clinic"} <= {"pretrain"}
    assert report.datasets["clinic"].rejected["split/near_test"] >= len(test)


def test_counts_add_up(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(6))
    cv2.imwrite(str(tmp_path / "images/again.png"), sector(0))
    (tmp_path / "images/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    report = run_build(tmp_path, tmp_path / "images")
    counts = report.datasets["clinic"]
    assert counts.images == 8 == counts.kept.total() + counts.rejected.total()
    assert counts.rejected["duplicate/same_pixels"] == 1
    assert json.loads((tmp_path / "out/build.json").read_text())["datasets"]["clinic"] == counts.to_json()
    assert report.to_json()["samples"] == len(rows_of(tmp_path / "out"))
    assert "same_pixels" in report.to_text()


def test_build_json_holds_no_clock_no_path_and_no_worker_count(tmp_path: Path, inline: None) -> None:
    write_pictures(tmp_path / "images", range(1))
    run_build(tmp_path, tmp_path / "images", workers=3)
    content = json.loads((tmp_path / "out/build.json").read_text())
    assert set(content) == {
        "schema_version",
        "pipeline_version",
        "versions",
        "recipe",
        "cards",
        "inputs",
        "datasets",
        "shards",
        "sha256",
    }


@pytest.mark.parametrize(("codec", "suffix"), [("jpeg", "jpg"), ("webp", "webp"), ("passthrough", "png")])
def test_every_codec_gives_a_corpus_that_reads_back(tmp_path: Path, inline: None, codec: str, suffix: str) -> None:
    write_pictures(tmp_path / "images", range(2))
    (tmp_path / "r.yaml").write_text(f"image: {{codec: {codec}}}")
    run_build(tmp_path, tmp_path / "images", recipe=str(tmp_path / "r.yaml"))
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2
    for row in rows:
        data = read_member(tmp_path / "out", row)
        assert pixel_sha256(decode_stored(data)) == row["pixel_sha256"]
        with tarfile.open(tmp_path / "out" / str(row["shard"])) as tar:
            assert f"{row['sample_id']}.{suffix}" in tar.getnames()


def test_an_unchanged_jpeg_passes_through_without_its_metadata(tmp_path: Path, inline: None) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (160, 160), dtype=np.uint8), (0, 0), 3)
    picture = cv2.normalize(texture, None, 20, 230, cv2.NORM_MINMAX)
    Image.fromarray(picture).save(tmp_path / "images/a.jpg", quality=80, comment=b"DOE JANE")
    (tmp_path / "r.yaml").write_text("image: {codec: passthrough}\ntext: {policy: keep}")
    run_build(tmp_path, tmp_path / "images", recipe=str(tmp_path / "r.yaml"))
    (row,) = rows_of(tmp_path / "out")
    data = read_member(tmp_path / "out", row)
    if row["cone_geometry"] == "full":  # nothing was cut: the coded bytes are the camera's own
        assert data[:2] == b"\xff\xd8" and data[-300:] == (tmp_path / "images/a.jpg").read_bytes()[-300:]
    assert b"DOE" not in data
