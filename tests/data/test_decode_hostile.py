"""Hostile and broken files cost one clear refusal: no crash, no hang, no part of a picture, no word on the terminal."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import hostile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openus_data.decode import DECODERS, decode
from openus_data.deid.residual import scan_row
from openus_data.errors import DecodeError, DecodeLimit, NotUltrasound, UnsupportedFormat
from openus_data.executor.local import LocalExecutor

GOOD = hostile.good_files()
HOSTILE = dict(hostile.hostile_files())
LIMITED = {"bomb.png", "wide.png", "bomb.jpg", "bomb.bmp", "bomb.tif", "alloc_bomb.dcm", "deflate_bomb.dcm"}
LIMITED |= {"many_scans.jpg", "sq_depth_bomb.dcm", "dims_lie.nii", "lowest.bmp", "times.mp4"}
UNSUPPORTED = {"text.dcm", "page.jpg", "playlist.mp4", "concat.mp4", "no_codec.dcm", "big.tif", "complex.nii"}
UNSUPPORTED |= {"jpeg.tif", "colours_words.dcm", "colours_argb.dcm", "colours_wavelet.dcm", "private_syntax.dcm"}
OTHER_OBJECTS = ("sr.dcm", "ct.dcm", "capture.dcm")


def read_all(path: Path) -> int:
    """Decode every frame, checking each."""
    media = decode(path)
    count = 0
    for index, pixels in media.read(None):
        assert index == count and pixels.dtype == np.uint8
        assert pixels.shape[:2] == (media.height_px, media.width_px)
        count += 1
    assert count == media.frame_count >= 1
    return count


def count_frames(path: Path) -> int:
    """A task that a worker can import with nothing but this project."""
    return read_all(path)


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_good_files_of_every_kind_are_read(tmp_path: Path, name: str) -> None:
    assert read_all(write(tmp_path, name, GOOD[name])) in (1, 4)


def test_every_decoder_has_a_good_file_that_it_alone_claims() -> None:
    claimed = {decoder.name: [name for name in GOOD if decoder.sniff(GOOD[name][:4096])] for decoder in DECODERS}
    assert [kind for kind, names in claimed.items() if not names] == ["HDF5"], "see test_decode_volume"
    assert sum(len(names) for names in claimed.values()) == len(GOOD)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_quickly_and_without_identity(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, HOSTILE[name])
    started = time.process_time()
    with pytest.raises(DecodeError) as refused:
        read_all(path)
    assert time.process_time() - started < 10
    text = f"{refused.value} {refused.value.__cause__}"
    assert (
        "SECRET" not in text
        and "19610307" not in text
        and str(tmp_path) not in text
        and name not in text
        and "root:" not in text
    )
    assert "\n" not in str(refused.value) and len(str(refused.value)) > 10
    assert isinstance(refused.value, DecodeLimit) == (name in LIMITED), refused.value
    assert isinstance(refused.value, UnsupportedFormat) >= (name in UNSUPPORTED)
    assert isinstance(refused.value, NotUltrasound) == (name in OTHER_OBJECTS)
    assert not [found.kind for found in scan_row({"detail": str(refused.value)})], "the audit would call it a leak"


def test_refusals_name_what_a_person_needs(tmp_path: Path) -> None:
    words = {
        "sr.dcm": "Basic Text SR Storage",
        "ct.dcm": "CT Image Storage",
        "no_codec.dcm": "1.2.3.4.5",
        "no_pixeldata.dcm": "without pixel data",
        "frames_lie.dcm": "30 frames",
        "frames_lie_jpeg.dcm": "fewer frames than it declares",
        "page.jpg": "a web page",
        "empty.png": "the file is empty",
        "no_frames.mp4": "no frames",
        "private_syntax.dcm": "a private UID",
        "capture.dcm": "of an unknown modality",
        "bomb.png": "limit frame_pixels",
        "jpeg.tif": "compression 7",
    }
    for name, word in words.items():
        with pytest.raises(DecodeError, match=word):
            decode(write(tmp_path, name, HOSTILE[name]))


@pytest.mark.parametrize("name", GOOD)
def test_a_file_cut_at_any_kilobyte_is_refused(tmp_path: Path, name: str) -> None:
    whole = GOOD[name]
    step = max(1024, len(whole) // 24)
    for length in [*range(1, len(whole) - 64, step), len(whole) - 64]:
        with pytest.raises(DecodeError):
            read_all(write(tmp_path, name, whole[:length]))


def test_a_flipped_bit_in_a_deflated_strip_is_never_a_picture(tmp_path: Path) -> None:
    whole = GOOD["deflated.tif"]
    truth = next(iter(decode(write(tmp_path, "a.tif", whole)).read(None)))[1]
    for number in range(40):
        content = bytearray(whole)
        content[200 + number * (len(whole) - 600) // 40] ^= 1 << number % 8
        try:
            pixels = next(iter(decode(write(tmp_path, "a.tif", bytes(content))).read(None)))[1]
        except DecodeError:
            continue
        assert np.array_equal(pixels, truth)


def test_bits_above_or_below_the_stored_ones_are_dropped(tmp_path: Path) -> None:
    """An overlay in the unused bits of 16-bit samples (retired, PS3.5 section 8.1.2) does not reach the picture."""
    grey = hostile.speckle().astype(np.uint16)
    for bits, high, hidden in ((8, 7, 0xFF00), (8, 11, 0xF00F), (8, 15, 0x00FF)):
        noise = np.random.default_rng(1).integers(0, 1 << 16, grey.shape).astype(np.uint16) & np.uint16(hidden)
        stored = (grey << np.uint16(high + 1 - bits)) | noise
        made = hostile.dicom(hostile.dataset(stored, BitsStored=bits, HighBit=high))
        pixels = next(iter(decode(write(tmp_path, "a.dcm", made)).read(None)))[1]
        assert np.array_equal(pixels, grey)


def test_pipes_folders_links_and_locked_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, word in (("pipe.png", "a pipe"), (".", "a folder"), ("loop.png", "cannot be opened"), ("no", "No such")):
        with pytest.raises(DecodeError, match=word):
            decode(tmp_path / name)
    locked = write(tmp_path, "locked.png", GOOD["grey.png"])
    locked.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(DecodeError, match="Permission denied"):
            decode(locked)


def test_nothing_is_printed_and_memory_stays_bounded(tmp_path: Path) -> None:
    for name, content in {**HOSTILE, **GOOD}.items():
        write(tmp_path, name, content)
    script = (
        "import sys, resource; from pathlib import Path\n"
        "from openus_data.decode import decode; from openus_data.errors import DecodeError\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: list(decode(path).read(None))\n"
        "    except DecodeError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) * 1024 < 1.5 * (1 << 30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", GOOD)
@settings(
    max_examples=int(os.environ.get("OPENUS_FUZZ_EXAMPLES", "25")),
    deadline=5000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_damage_gives_a_picture_or_a_refusal(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = bytearray(GOOD[name])
    where = st.integers(0, len(content) - 1) | st.integers(0, min(600, len(content) - 1))
    for place in data.draw(st.lists(where, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    keep = data.draw(st.just(len(content)) | st.integers(1, len(content)))
    try:
        read_all(write(tmp_path, name, bytes(content[:keep])))
    except DecodeError as refused:
        assert "SECRET" not in str(refused)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_decoded_holds_no_open_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, GOOD[name])
    media = decode(path)
    assert media.frame_count
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list open files")
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert str(path) not in links


def test_workers_survive_all_hostile_files(tmp_path: Path) -> None:
    paths = [write(tmp_path, name, content) for name, content in {**HOSTILE, **GOOD}.items()]
    outcomes = list(LocalExecutor(workers=2).run(count_frames, paths, ordered=True))
    assert [outcome.item for outcome in outcomes] == paths
    for path, outcome in zip(paths, outcomes, strict=True):
        if path.name in GOOD:
            assert outcome.failure is None
        else:
            assert outcome.failure is not None and outcome.failure.kind == "error", path.name
            assert (
                "Decode" in outcome.failure.detail
                or "Format" in outcome.failure.detail
                or "Not" in outcome.failure.detail
            )
            assert str(tmp_path) not in outcome.failure.detail
