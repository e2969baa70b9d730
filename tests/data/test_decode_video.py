"""Clips: every frame or a refusal, grey from luma, one local file and no other."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import hostile
import numpy as np
import pytest
from numpy.typing import NDArray

from openus_data.decode import Limits, decode
from openus_data.errors import DecodeError
from openus_data.records import Media

CLIP = [hostile.speckle(seed=seed) for seed in range(6)]
CONTAINERS = [("mp4", "libx264"), ("avi", "mjpeg"), ("matroska", "libx264"), ("mov", "libx264"), ("avi", "mpeg4")]


def load(folder: Path, content: bytes) -> Media:
    (folder / "clip").write_bytes(content)
    return decode(folder / "clip")


def frames(media: Media) -> list[NDArray[np.uint8]]:
    return [pixels for _, pixels in media.read(None)]


@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
def test_grey_clips_come_back_grey_in_full_range(tmp_path: Path, container: str, codec: str) -> None:
    ramp = np.tile(np.linspace(0, 255, 128).astype(np.uint8), (96, 1))
    options = {"crf": "5"} if codec == "libx264" else {}
    media = load(tmp_path, hostile.video([ramp] * 3, container, codec, **options))
    assert media.kind == "clip" and media.frame_count == 3
    for pixels in frames(media):
        assert pixels.ndim == 2 and np.abs(pixels.astype(int) - ramp).mean() < 4
        assert pixels.min() <= 6 and pixels.max() >= 249


@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
def test_coloured_clips_keep_their_colour(tmp_path: Path, container: str, codec: str) -> None:
    pictures = [hostile.speckle(seed=seed, colour=True) for seed in range(3)]
    media = load(tmp_path, hostile.video(pictures, container, codec))
    for picture, pixels in zip(pictures, frames(media), strict=True):
        assert pixels.ndim == 3 and np.abs(pixels.astype(int) - picture).mean() < 15
        assert pixels[25, 35, 0] > 120 > pixels[25, 35, 2], "red stays red"


@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
def test_chosen_frames_equal_those_of_a_whole_pass(tmp_path: Path, container: str, codec: str) -> None:
    media = load(tmp_path, hostile.video(CLIP, container, codec))
    whole = frames(media)
    assert len(whole) == len(CLIP)
    for chosen in ([0], [5], [1, 4], []):
        got = list(media.read(chosen))
        assert [index for index, _ in got] == chosen
        assert all(np.array_equal(pixels, whole[index]) for index, pixels in got)


def test_the_luma_plane_equals_a_conversion_to_grey(tmp_path: Path) -> None:
    content = hostile.video(CLIP)
    ours = frames(load(tmp_path, content))
    with av.open(str(tmp_path / "clip")) as container:
        for pixels, frame in zip(ours, container.decode(video=0), strict=True):
            assert np.abs(pixels.astype(int) - frame.to_ndarray(format="gray")).max() <= 2


def test_a_rotation_in_the_container_is_applied(tmp_path: Path) -> None:
    content = bytearray(hostile.video([hostile.speckle()] * 2))
    plain = frames(load(tmp_path, bytes(content)))[0]
    matrix = content.index(b"tkhd") + 4 + 40
    struct.pack_into(
        ">9i", content, matrix, 0, 1 << 16, 0, -1 << 16, 0, 0, 96 << 16, 0, 1 << 30
    )  # a quarter, clockwise
    turned = frames(load(tmp_path, bytes(content)))[0]
    assert turned.shape == plain.shape[::-1] and np.array_equal(turned, np.rot90(plain, -1))


def test_frames_that_change_size_are_refused(tmp_path: Path) -> None:
    clip = bytearray(hostile.video([hostile.speckle()] * 3, "avi", "mjpeg"))
    other = hostile.jpeg(np.dstack([hostile.speckle(48, 64)] * 3))
    place = clip.index(b"00dc", clip.index(b"00dc", clip.index(b"movi")) + 4)
    (length,) = struct.unpack_from("<I", clip, place + 4)
    assert len(other) <= length
    clip[place + 8 : place + 8 + length] = other.ljust(length, b"\0")
    media = load(tmp_path, bytes(clip))
    with pytest.raises(DecodeError, match="change their size"):
        frames(media)


def test_damage_inside_a_clip_is_refused_and_names_no_file(tmp_path: Path) -> None:
    clip = bytearray(hostile.video([hostile.speckle(200, 300, seed) for seed in range(6)]))
    place = clip.index(b"mdat") + 2000
    clip[place : place + 3000] = bytes(3000)
    with pytest.raises(DecodeError) as refused:
        frames(load(tmp_path, bytes(clip)))
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("container", ["mp4", "avi"])
def test_a_clip_cut_anywhere_is_refused(tmp_path: Path, container: str) -> None:
    whole = hostile.video(CLIP, container, "libx264" if container == "mp4" else "mjpeg")
    for length in range(1, len(whole) - 8, 997):
        with pytest.raises(DecodeError):
            load(tmp_path, whole[:length])


def test_a_matroska_clip_with_a_declared_end_is_refused_when_cut(tmp_path: Path) -> None:
    whole = hostile.video(CLIP, "matroska")
    for length in range(100, len(whole) - 100, 2011):
        with pytest.raises(DecodeError):
            frames(load(tmp_path, whole[:length]))


def test_playlists_and_references_open_nothing(tmp_path: Path) -> None:
    (tmp_path / "other.mp4").write_bytes(hostile.video(CLIP))
    for text in ("ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\n#EXTINF:1,\nother.mp4\n"):
        with pytest.raises(DecodeError):
            load(tmp_path, text.encode())


@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
def test_sizes_beyond_the_limit_are_refused(tmp_path: Path, container: str, codec: str) -> None:
    (tmp_path / "clip").write_bytes(hostile.video(CLIP, container, codec))
    for limits in (Limits(frame_pixels=5000), Limits(frames=4), Limits(total_pixels=20000)):
        with pytest.raises(DecodeError):
            decode(tmp_path / "clip", limits=limits)


def test_sound_without_pictures_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track: Any = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(track.encode(sound))
        container.mux(track.encode(None))
    with pytest.raises(DecodeError, match="no video"):
        load(tmp_path, stream.getvalue())
