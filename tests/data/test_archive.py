"""Unpacking: every member of a good archive arrives; nothing of a bad one stays, and nothing ever leaves the folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import resource
import stat
import struct
import tarfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openus_data.archive import Limits, Sink, is_archive, unpack, unpack_inner
from openus_data.archive.names import safe_parts, shown
from openus_data.errors import (
    ArchiveError,
    ArchiveLimit,
    DamagedArchive,
    LockedError,
    UnsafeArchive,
    UnsupportedArchive,
    UsageError,
)

RANDOM = random.Random(3)
TREE = {
    "set/a.png": RANDOM.randbytes(70_000),
    "set/deep/b 1.png": RANDOM.randbytes(300_001),
    "set/deep/empty.txt": b"",
    "set/Größe/超声.txt": b"text" * 1000,
}


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


Members = dict[str, bytes] | list[tuple[str, bytes]]


def pairs(members: Members) -> list[tuple[str, bytes]]:
    return list(members.items()) if isinstance(members, dict) else members


def make_zip(members: Members, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # duplicates are what some tests are about
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, content in pairs(members):
                info = zipfile.ZipInfo("x")
                info.filename, info.compress_type, info.create_system = name, method, 3
                archive.writestr(info, content)
    return out.getvalue()


def make_tar(members: Members, **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, content in pairs(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def make_special_tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def make_zst(content: bytes) -> bytes:
    packed: bytes = pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(content)
    return packed


def make_seven_zip(members: dict[str, bytes], **options: Any) -> bytes:
    py7zr = pytest.importorskip("py7zr")
    out = io.BytesIO()
    with py7zr.SevenZipFile(out, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(content, name)
    return out.getvalue()


def make_split_zip(members: dict[str, bytes], cut_at: int) -> tuple[bytes, bytes]:
    """A zip over two parts: the members in the first, as zip -s writes it, the directory in the last."""
    whole = b"PK\x07\x08" + make_zip(members)
    end = whole.rindex(b"PK\x05\x06")
    directory_size, directory_at = struct.unpack_from("<LL", whole, end + 12)
    directory_at += 4
    head, directory, record = whole[:directory_at], bytearray(whole[directory_at:end]), bytearray(whole[end:])
    at = 0
    while at < len(directory):
        name, extra, comment = struct.unpack_from("<HHH", directory, at + 28)
        offset = struct.unpack_from("<L", directory, at + 42)[0] + 4
        disk = int(offset >= cut_at)
        struct.pack_into("<H", directory, at + 34, disk)
        struct.pack_into("<L", directory, at + 42, offset - cut_at * disk)
        at += 46 + name + extra + comment
    struct.pack_into("<HH", record, 4, 1, 1)
    struct.pack_into("<LL", record, 12, directory_size, directory_at - cut_at)
    return head[:cut_at], head[cut_at:] + bytes(directory) + bytes(record)


GOOD: dict[str, Callable[[], bytes]] = {
    "a.zip": lambda: make_zip(TREE),
    "stored.zip": lambda: make_zip(TREE, zipfile.ZIP_STORED),
    "lzma.zip": lambda: make_zip(TREE, zipfile.ZIP_LZMA),
    "prefixed.zip": lambda: b"#!/bin/sh\n" + make_zip(TREE),
    "a.tar": lambda: make_tar(TREE),
    "old.tar": lambda: make_tar(TREE, format=tarfile.GNU_FORMAT),
    "a.tar.gz": lambda: gzip.compress(make_tar(TREE), mtime=0),
    "two.tar.gz": lambda: gzip.compress(make_tar(TREE)[:5000], mtime=0) + gzip.compress(make_tar(TREE)[5000:]),
    "a.tgz": lambda: gzip.compress(make_tar(TREE), mtime=0),
    "a.tar.bz2": lambda: bz2.compress(make_tar(TREE)),
    "a.tar.xz": lambda: lzma.compress(make_tar(TREE)),
    "a.tar.zst": lambda: make_zst(make_tar(TREE)),
    "no_suffix": lambda: gzip.compress(make_tar(TREE), mtime=0),
    "a.7z": lambda: make_seven_zip(TREE),
    "plain.7z": lambda: make_seven_zip(TREE, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}]),
    "lzma1.7z": lambda: make_seven_zip(TREE, filters=[{"id": lzma.FILTER_LZMA1, "preset": 1}]),
    "bzip2.7z": lambda: make_seven_zip(TREE, filters=[{"id": 0x31}]),
    "deflate.7z": lambda: make_seven_zip(TREE, filters=[{"id": 0x32}]),
    "copy.7z": lambda: make_seven_zip(TREE, filters=[{"id": 0x33}]),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_member_of_a_good_archive_arrives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD[name]())
    report = unpack(tmp_path / name, tmp_path / "out")
    assert tree(tmp_path / "out") == TREE
    assert report.to_json()["files"] == len(TREE)
    assert report.to_json()["bytes"] == sum(map(len, TREE.values()))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "out"])


def test_modes_owners_and_times_are_not_copied(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.mode, member.mtime, member.uid, member.size = 0o6777, 86_400, 1234, 5
    (tmp_path / "a.tar").write_bytes(make_special_tar(member))
    unpack(tmp_path / "a.tar", tmp_path / "out")
    found = (tmp_path / "out" / "a").stat()
    assert stat.S_IMODE(found.st_mode) & ~0o644 == 0
    assert found.st_mtime > 1e9
    assert found.st_uid == os.getuid()


def refused(tmp_path: Path, name: str, content: bytes, kind: type[Exception], match: str = ".") -> None:
    """The archive is refused in one line that names it, and leaves nothing anywhere."""
    place = tmp_path / "inside"
    place.mkdir()
    (place / name).write_bytes(content)
    (tmp_path / "canary").write_text("canary")
    with pytest.raises(kind, match=match) as caught:
        unpack(place / name, place / "out", Limits(ratio_from_bytes=5 << 20))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert [p.name for p in place.iterdir()] == [name]
    assert tree(tmp_path) == {"canary": b"canary", f"inside/{name}": content}


BAD_NAMES = [
    "../canary",
    "a/../../canary",
    "/tmp/canary",
    "//host/share/x",
    "C:/canary",
    "C:canary",
    "..\\canary",
    "a\\b",
    "\\\\host\\share\\x",
    "a\nb",
    "a\x1bb",
    "a\u202egnp.exe",
    "n" * 256,
    "d/" * 1500 + "x",
    "..",
]


@pytest.mark.parametrize("bad", BAD_NAMES, ids=lambda n: ascii(n[:20]))
@pytest.mark.parametrize("kind", ["zip", "tar", "7z"])
def test_a_name_that_leads_out_or_hides_something_refuses_the_archive(tmp_path: Path, bad: str, kind: str) -> None:
    members = {"good.txt": b"good", bad: b"evil"}
    make = {"zip": make_zip, "tar": make_tar, "7z": lambda members: make_seven_zip_by_hand(bad)}[kind]
    refused(tmp_path, f"a.{kind}", make(members), UnsafeArchive)


def make_seven_zip_by_hand(name: str) -> bytes:
    """A 7z archive of one stored file, written by hand."""

    def number(value: int) -> bytes:
        return b"\xff" + struct.pack("<Q", value)

    content, encoded = b"evil", name.encode("utf-16-le") + b"\0\0"
    header = b"\x01\x04"
    header += b"\x06" + number(0) + number(1) + b"\x09" + number(len(content)) + b"\x00"
    header += b"\x07\x0b" + number(1) + b"\x00" + number(1) + b"\x01\x00" + b"\x0c" + number(len(content)) + b"\x00\x00"
    header += b"\x05" + number(1) + b"\x11" + number(len(encoded) + 1) + b"\x00" + encoded + b"\x00\x00"
    start = struct.pack("<QQI", len(content), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start + content + header


def test_the_hand_made_7z_is_read_when_its_name_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.7z").write_bytes(make_seven_zip_by_hand("fine/name.txt"))
    unpack(tmp_path / "a.7z", tmp_path / "out")
    assert tree(tmp_path / "out") == {"fine/name.txt": b"evil"}


@pytest.mark.parametrize(
    "names",
    [("a/B.png", "a/b.png"), ("é", "e\u0301"), ("a", "a"), ("a", "a/b"), ("a/b", "a"), ("A/x", "a/y"), ("ß", "SS")],
    ids=ascii,
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_collide_refuse_the_archive(tmp_path: Path, names: tuple[str, str], make: Any) -> None:
    content = make([(names[0], b"1"), (names[1], b"2")])
    refused(tmp_path, "a.zip" if make is make_zip else "a.tar", content, UnsafeArchive)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_refuse_a_tar(tmp_path: Path, kind: bytes) -> None:
    good, bad = tarfile.TarInfo("good"), tarfile.TarInfo("bad")
    bad.type, bad.linkname = kind, "../canary"
    refused(tmp_path, "a.tar", make_special_tar(good, bad), UnsafeArchive, "in the archive")


@pytest.mark.parametrize("system", [3, 19])
def test_links_refuse_a_zip(tmp_path: Path, system: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = system, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../canary")
    refused(tmp_path, "a.zip", out.getvalue(), UnsafeArchive, "a link")


BOMB = bytes(60 << 20)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst", "a.7z"])
def test_a_bomb_is_stopped_early(tmp_path: Path, name: str) -> None:
    pack: dict[str, Callable[[], bytes]] = {
        "a.zip": lambda: make_zip({"zeros": BOMB}),
        "a.tar.gz": lambda: gzip.compress(make_tar({"zeros": BOMB}), 9, mtime=0),
        "a.tar.bz2": lambda: bz2.compress(make_tar({"zeros": BOMB})),
        "a.tar.xz": lambda: lzma.compress(make_tar({"zeros": BOMB}), preset=1),
        "a.tar.zst": lambda: make_zst(make_tar({"zeros": BOMB})),
        "a.7z": lambda: make_seven_zip({"zeros": BOMB}, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}]),
    }
    content = pack[name]()
    began = time.monotonic()
    refused(tmp_path, name, content, ArchiveLimit, "beyond reason")
    assert time.monotonic() - began < 5


def test_a_zstd_bomb_is_stopped_in_little_memory_and_time(tmp_path: Path) -> None:
    """zstandard takes no bound on what it gives: a few kilobytes of input are hundreds of megabytes."""
    content = make_zst(make_tar({"zeros": bytes(1 << 20), "more": bytes(400 << 20)}))
    began, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, "a.tar.zst", content, ArchiveLimit, "beyond reason")
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 200 << 10


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst"])
def test_rubbish_behind_a_compressed_stream_is_found(tmp_path: Path, name: str) -> None:
    refused(tmp_path, name, GOOD[name]() + b"JUNK" * 100, DamagedArchive)


def test_a_sparse_member_cannot_fill_the_disk(tmp_path: Path) -> None:
    member = tarfile.TarInfo("big")
    content = b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512
    member.size = len(content)
    member.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "big", "GNU.sparse.realsize": str(1 << 40),
    }  # fmt: skip
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    refused(tmp_path, "a.tar", out.getvalue(), ArchiveLimit, "beyond reason")


def test_headers_that_only_extend_each_other_are_an_error_of_ours(tmp_path: Path) -> None:
    long = tarfile.TarInfo("pax")
    long.type = tarfile.XHDTYPE
    content = make_special_tar(*[long] * 1500)
    refused(tmp_path, "a.tar", content, DamagedArchive)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.7z"])
def test_many_members_in_little_are_refused_before_minutes_are_spent_on_them(tmp_path: Path, name: str) -> None:
    files: Members = [(f"{n:x}", b"") for n in range(300)]
    pack: dict[str, Callable[[], bytes]] = {
        "a.zip": lambda: make_zip(files, zipfile.ZIP_STORED),
        "a.tar.gz": lambda: gzip.compress(make_tar(files), 9, mtime=0),
        "a.7z": lambda: make_seven_zip(dict(files)),
    }
    (tmp_path / name).write_bytes(pack[name]())
    limits = Limits(per_member_from=100, packed_per_member=64 if name != "a.zip" else 500)
    with pytest.raises(ArchiveLimit, match="too many members"):
        unpack(tmp_path / name, tmp_path / "out", limits)
    unpack(tmp_path / name, tmp_path / "out")
    assert len(tree(tmp_path / "out")) == 300


def test_a_zip_with_too_many_members_is_refused_before_any_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip([(f"{n:x}", b"") for n in range(300)], zipfile.ZIP_STORED))
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ArchiveLimit, match="too many members"):
        unpack(tmp_path / "a.zip", tmp_path / "out", Limits(members=299, per_member_from=100))


def test_a_zip_behind_another_is_refused_since_members_would_be_lost(tmp_path: Path) -> None:
    refused(
        tmp_path, "a.zip", make_zip({"a": b"1"}) + make_zip({"b": b"2"}), DamagedArchive, "does not list all members"
    )


def seven_zip_of(header: bytes) -> bytes:
    start = struct.pack("<QQI", 0, len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start + header


def test_a_7z_header_cannot_ask_for_more_parts_than_the_archive_has_bytes_for(tmp_path: Path) -> None:
    million = b"\xff" + struct.pack("<Q", 1_000_000)
    copy = b"\x01\x01\x00" * 100
    header = b"\x01\x04\x07\x0b\x64\x00" + copy + b"\x0c" + bytes(100) + b"\x00"
    header += b"\x08\x0d" + million * 100 + b"\x0a\x01" + bytes(100)
    refused(tmp_path, "a.7z", seven_zip_of(header), ArchiveLimit, "too many members")


def test_a_7z_folder_without_coders_is_damage(tmp_path: Path) -> None:
    refused(tmp_path, "a.7z", seven_zip_of(b"\x01\x04\x07\x0b\x01\x00\x00\x0c\x00\x00\x00"), DamagedArchive)


@pytest.mark.parametrize("declared", [1, 3, 9999])
def test_a_zip_that_declares_another_number_of_members_is_refused(tmp_path: Path, declared: int) -> None:
    content = bytearray(make_zip({"a": b"1", "b": b"2"}))
    struct.pack_into("<HH", content, content.rindex(b"PK\x05\x06") + 8, declared, declared)
    refused(tmp_path, "a.zip", bytes(content), DamagedArchive, "does not list all members")


def test_an_archive_of_nothing_but_padding_is_no_success(tmp_path: Path) -> None:
    refused(tmp_path, "a.tar.xz", lzma.compress(BOMB, preset=1), ArchiveError, "padding|holds no file|not the archive")


def test_a_lying_size_is_found(tmp_path: Path) -> None:
    content = bytearray(make_zip({"a": b"x" * 5000}, zipfile.ZIP_DEFLATED))
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 100)
    refused(tmp_path, "a.zip", bytes(content), DamagedArchive)


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    content = bytearray(make_zip({"a": RANDOM.randbytes(1000), "b": RANDOM.randbytes(1000)}))
    second = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, second + 42, 0)
    refused(tmp_path, "a.zip", bytes(content), UnsafeArchive, "share the same bytes")


@pytest.mark.parametrize("limits", [{"members": 2}, {"total_bytes": 1000}, {"member_bytes": 1000}])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.7z"])
def test_each_bound_holds_and_is_named(tmp_path: Path, name: str, limits: dict[str, int]) -> None:
    (tmp_path / name).write_bytes(GOOD[name]())
    with pytest.raises(ArchiveLimit, match=r"expected at most [0-9,]+"):
        unpack(tmp_path / name, tmp_path / "out", Limits(**limits))
    assert not (tmp_path / "out").exists()


def test_an_extended_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    long = tarfile.TarInfo("pax")
    long.type, long.size = tarfile.XHDTYPE, 5 << 20
    refused(tmp_path, "a.tar", make_special_tar(long), ArchiveLimit, "extended header")


@pytest.mark.parametrize("name", [n for n in GOOD if n not in ("no_suffix", "prefixed.zip")])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.9999])
def test_an_archive_that_was_cut_short_is_found(tmp_path: Path, name: str, part: float) -> None:
    content = GOOD[name]()
    # a tar ends in more padding than it needs: what matters is a cut before its end mark is whole
    end = len(content.rstrip(b"\0")) + 900 if name.endswith(".tar") else len(content)
    refused(tmp_path, name, content[: min(int(end * part), end - 2)], ArchiveError)


def test_a_tar_cut_at_a_header_or_after_one_end_block_is_found(tmp_path: Path) -> None:
    content = make_tar({"a": b"1", "b": b"2"})
    for size in (1024, 2048, 2560):
        (tmp_path / str(size)).mkdir()
        refused(tmp_path / str(size), "a.tar", content[:size], DamagedArchive)


def test_a_flipped_bit_in_a_header_does_not_lose_members(tmp_path: Path) -> None:
    content = bytearray(make_tar({"a": b"1", "b": b"2"}))
    content[1024 + 5] ^= 1
    refused(tmp_path, "a.tar", bytes(content), DamagedArchive, "header is damaged")


def test_a_second_archive_behind_the_end_mark_is_not_lost_in_silence(tmp_path: Path) -> None:
    refused(tmp_path, "a.tar", make_tar({"a": b"1"}) + make_tar({"b": b"2"}), DamagedArchive, "after the end mark")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.tar.zst", "a.zip", "a.7z"])
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, name: str) -> None:
    content = GOOD[name]()
    checksum_at = {"a.tar.gz": len(content) - 6}.get(name, len(content) - 12)
    for index, at in enumerate((len(content) // 3, checksum_at if name != "a.zip" else len(content) // 2)):
        flipped = bytearray(content)
        flipped[at] ^= 4
        (tmp_path / str(index)).mkdir()
        refused(tmp_path / str(index), name, bytes(flipped), ArchiveError)


def test_an_encrypted_zip_is_named_as_such(tmp_path: Path) -> None:
    content = bytearray(make_zip({"a": b"secret"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    refused(tmp_path, "a.zip", bytes(content), UnsupportedArchive, "encrypted")


def test_an_encrypted_7z_is_named_as_such(tmp_path: Path) -> None:
    refused(tmp_path, "a.7z", make_seven_zip({"a": b"secret"}, password="p"), UnsupportedArchive, "encrypted")


def test_rar_without_a_tool_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused(tmp_path, "a.rar", b"Rar!\x1a\x07\x01\x00" + bytes(100), UnsupportedArchive, "install unrar")


def fake_tool(folder: Path, script: str) -> None:
    tool = folder / "bin" / "unrar"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_rar_with_a_tool_is_judged_like_any_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, "mkdir d; echo one > d/a; echo two > b")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    unpack(tmp_path / "a.rar", tmp_path / "out")
    assert tree(tmp_path / "out") == {"d/a": b"one\n", "b": b"two\n"}


@pytest.mark.parametrize("script", ["ln -s /etc/passwd a", "echo x > a; exit 3", "mkfifo a"])
def test_rar_with_a_tool_that_leaves_links_or_fails_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    fake_tool(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    with pytest.raises(ArchiveError, match=r"a\.rar"):
        unpack(tmp_path / "a.rar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cut_at", [50_000, 75_000, 200_000])
@pytest.mark.parametrize("last", ["a.zip", "a.change2zip"])
def test_a_split_zip_is_joined(tmp_path: Path, cut_at: int, last: str) -> None:
    first_part, last_part = make_split_zip(TREE, cut_at)
    (tmp_path / "a.z01").write_bytes(first_part)
    (tmp_path / last).write_bytes(last_part)
    unpack(tmp_path / last, tmp_path / "out")
    assert tree(tmp_path / "out") == TREE
    (tmp_path / "a.z01").unlink()
    with pytest.raises(DamagedArchive, match=r"a part of the split archive is missing; expected a\.z01"):
        unpack(tmp_path / last, tmp_path / "again")


def test_numbered_parts_are_joined(tmp_path: Path) -> None:
    content = make_zip(TREE)
    for index in range(3):
        (tmp_path / f"a.zip.{index + 1:03d}").write_bytes(
            content[index * 150_000 : (index + 1) * 150_000 if index < 2 else None]
        )
    unpack(tmp_path / "a.zip.001", tmp_path / "out")
    assert tree(tmp_path / "out") == TREE


def test_a_numbered_part_that_is_missing_is_named(tmp_path: Path) -> None:
    content = make_zip(TREE)
    (tmp_path / "a.zip.001").write_bytes(content[:1000])
    (tmp_path / "a.zip.003").write_bytes(content[1000:])
    with pytest.raises(DamagedArchive, match=r"part of the split archive is missing; expected a\.zip\.002"):
        unpack(tmp_path / "a.zip.001", tmp_path / "out")


def test_a_split_7z_is_no_damage(tmp_path: Path) -> None:
    refused(tmp_path, "a.7z.001", make_seven_zip(TREE)[:1000], UnsupportedArchive, "join its parts")


def test_a_folder_that_holds_bytes_of_its_own_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "a.zip", make_zip({"a": b"1", "d/": b"data"}), DamagedArchive, "a folder with content")


def test_an_archive_in_an_archive_is_unpacked_where_it_lies(tmp_path: Path) -> None:
    sink_root = tmp_path / "root"
    sink_root.mkdir()
    sink = Sink(sink_root, Limits())
    sink.file("sub/inner.zip", [make_zip({"x/a": b"1"})])
    unpack_inner(sink_root, "sub/inner.zip", sink)
    assert tree(sink_root) == {"sub/x/a": b"1"}


def test_an_inner_archive_cannot_climb(tmp_path: Path) -> None:
    sink = Sink(tmp_path, Limits())
    for index, name in enumerate(("/x", "../x")):
        sink.file(f"sub/{index}.zip", [make_zip({name: b"1"})])
        with pytest.raises(UnsafeArchive):
            unpack_inner(tmp_path, f"sub/{index}.zip", sink)
    assert sorted(tree(tmp_path)) == ["sub/0.zip", "sub/1.zip"]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip(TREE))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == {"mine": b"mine"}
    with pytest.raises(UsageError, match="no such archive"):
        unpack(tmp_path / "b.zip", tmp_path / "new")


def test_a_killed_unpacking_leaves_a_part_that_the_next_one_replaces(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip(TREE))
    (tmp_path / "out.part" / "set").mkdir(parents=True)
    (tmp_path / "out.part" / "set" / "a.png").write_text("torn")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == TREE
    assert not (tmp_path / "out.part").exists()


def test_two_unpackings_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    from openus_data.archive import staging

    with staging(tmp_path / "out"), pytest.raises(LockedError), staging(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("table.xlsx", make_zip({"a": b"1"}), False),
        ("volume.nii.gz", gzip.compress(b"x" * 1000, mtime=0), False),
        ("notes.gz", gzip.compress(b"x" * 1000, mtime=0), False),
        ("array.npz", make_zip({"a": b"1"}), False),
        ("a.z01", make_zip({"a": b"1"}), False),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(1000), False),
        ("zeros.bin", bytes(2000), False),
        ("download", make_zip({"a": b"1"}), True),
        ("cut.zip", b"<html>", True),
        ("a.tar", make_tar({"a": b"1"}), True),
    ],
)
def test_what_counts_as_an_archive(tmp_path: Path, name: str, content: bytes, expected: bool) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_archive(tmp_path / name) is expected


@given(st.text(max_size=60))
def test_a_name_either_stays_below_the_folder_or_is_refused(name: str) -> None:
    try:
        parts = safe_parts(name)
    except UnsafeArchive as error:
        assert str(error).isprintable()
        return
    joined = os.path.normpath("/".join(["/root/folder", *parts]))
    assert joined == "/root/folder" or joined.startswith("/root/folder/")
    assert all(p not in ("", ".", "..") and "/" not in p for p in parts)


@given(st.text(max_size=300))
def test_a_shown_name_is_one_printable_line(name: str) -> None:
    assert shown(name).isprintable()
    assert len(shown(name)) <= 80


@given(st.binary(max_size=400), st.sampled_from(["a.zip", "a.tar", "a.7z", "a.tar.gz", "a.tar.xz", "a"]))
def test_rubbish_is_an_archive_error_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("rubbish")
    magic = {
        "a.zip": b"PK\x03\x04",
        "a.7z": b"7z\xbc\xaf\x27\x1c\x00\x04",
        "a.tar.gz": b"\x1f\x8b",
        "a.tar.xz": b"\xfd7zXZ\x00",
    }
    (folder / name).write_bytes(magic.get(name, b"") + content)
    with pytest.raises(ArchiveError):
        unpack(folder / name, folder / "out")
