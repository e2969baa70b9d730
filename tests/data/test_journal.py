"""A journal loses nothing that was whole and trusts nothing that was not."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openus_data.errors import CorpusError
from openus_data.first_stage import journal
from openus_data.first_stage.journal import Journal, placed_parts, read_records, record_parts


def header(name: str, *blobs: bytes) -> journal.Header:
    return {"item": name, "blobs": [[len(b), zlib.crc32(b)] for b in blobs]}


def filled(path: Path) -> list[int]:
    """Write three records; returns where each ends."""
    with Journal(path) as book:
        for name in "abc":
            book.append(record_parts(header(name, b"x" * 50, b"y"), [b"x" * 50, b"y"]))
    return [record.end for record in read_records(path)]


def test_records_and_blobs_come_back(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    records = list(read_records(tmp_path / "j"))
    assert [r.header["item"] for r in records] == ["a", "b", "c"]
    assert [b.read() for b in records[1].blobs()] == [b"x" * 50, b"y"]
    with (tmp_path / "j").open("rb", buffering=0) as handle:
        assert journal.read_record(tmp_path / "j", handle, records[2].start) == records[2]


def test_marks_say_what_records_say(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    seen = [(m.item, m.start, m.offset, m.end) for m in journal.read_marks(tmp_path / "j")]
    records = list(read_records(tmp_path / "j"))
    assert seen == [(int(r.header["item"], 16), r.start, r.offset, r.end) for r in records]


def test_a_long_header_comes_back(tmp_path: Path) -> None:
    text = str(list(range(9000)))
    with Journal(tmp_path / "j") as book:
        for name in "ab":
            book.append(record_parts(header(name) | {"text": text}))
    assert [r.header["text"] for r in read_records(tmp_path / "j")] == [text, text]


@given(at=st.integers(0, 400), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_another_header(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "j"
    filled(path)
    whole, data = [r.header for r in read_records(path)], bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)
    found = [r.header for r in read_records(path)]
    assert found == whole[: len(found)]


@given(cut=st.integers(0, 500))
def test_a_cut_at_any_byte_keeps_the_whole_records_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "j"
    ends = filled(path)
    path.write_bytes(path.read_bytes()[:cut])
    whole = sum(end <= cut for end in ends)
    with Journal(path) as book:
        book.append(record_parts(header("d", b"z"), [b"z"]))
    records = list(read_records(path))
    assert [r.header["item"] for r in records] == [*"abc"[:whole], "d"]
    assert records[-1].blobs()[0].read() == b"z"


def test_a_flipped_byte_ends_the_sound_part(tmp_path: Path) -> None:
    ends = filled(tmp_path / "j")
    data = bytearray((tmp_path / "j").read_bytes())
    data[ends[1] - 1] ^= 1
    (tmp_path / "j").write_bytes(data)
    with pytest.raises(CorpusError, match="damaged"):
        list(read_records(tmp_path / "j"))[1].blobs()[1].read()
    with Journal(tmp_path / "j"):
        pass
    assert [r.header["item"] for r in read_records(tmp_path / "j")] == ["a"]


def test_a_full_disk_leaves_what_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "j")
    with Journal(tmp_path / "j") as book:
        head, blob = record_parts(header("d", b"1"), [b"1"])
        with monkeypatch.context() as patch:
            patch.setattr(journal.os, "writev", lambda handle, parts: os.write(handle, parts[0]))
            patch.setattr(book, "_write", lambda rest: full_disk())
            with pytest.raises(OSError, match="No space"):
                book.append((head, blob))
        book.append(record_parts(header("e")))
    assert [r.header["item"] for r in read_records(tmp_path / "j")] == ["a", "b", "c", "e"]


def test_what_one_call_does_not_write_is_written_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [bytes([n % 251]) * n for n in range(1500)]
    with Journal(tmp_path / "j") as book:
        book.append(record_parts(header("a", *blobs), blobs))
        monkeypatch.setattr(journal.os, "writev", lambda handle, parts: os.write(handle, b"".join(parts)[:70]))
        book.append(record_parts(header("b", b"12", b"345" * 60), [b"12", b"345" * 60]))
    first, second = read_records(tmp_path / "j")
    assert [blob.read() for blob in first.blobs()] == blobs
    assert [blob.read() for blob in second.blobs()] == [b"12", b"345" * 60]


def full_disk() -> None:
    raise OSError(28, "No space left")


def test_a_header_that_names_other_bytes_is_refused() -> None:
    with pytest.raises(CorpusError, match="does not hold the bytes"):
        record_parts(header("a", b"12"), [b"1"])


def placed(path: Path) -> list[journal.Place]:
    """Write a record without and one with many samples, as OUT/.records has them; returns the places of the second."""
    places: list[journal.Place] = [{"shard": f"s{n}", "image": [n, 2, 3], "mask": None} for n in range(200)]
    samples = [{"row": {"n": n}} for n in range(len(places))]
    with Journal(path.with_name("journal")) as book:
        book.append(record_parts(header("a") | {"samples": []}))
        book.append(record_parts(header("b", b"123") | {"samples": samples}, [b"123"]))
    with path.with_name("journal").open("rb", buffering=0) as handle, Journal(path) as records:
        for mark, at in zip(journal.read_marks(path.with_name("journal")), ([], places), strict=True):
            records.append(placed_parts(journal.find_record(path, handle, mark.start), at))
    return places


def test_a_record_moves_with_its_header_and_gets_its_places(tmp_path: Path) -> None:
    places = placed(tmp_path / "records")
    first, second = read_records(tmp_path / "records")
    assert (first.header["item"], first.header["samples"], first.end) == ("a", [], second.start)
    assert [sample["at"] for sample in second.header["samples"]] == places
    assert (second.header["blobs"], second.end) == ([], (tmp_path / "records").stat().st_size)


@given(at=st.integers(0, 4000), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_another_place(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    path = tmp_path_factory.mktemp("flip") / "records"
    placed(path)
    whole, data = [r.header for r in read_records(path)], bytearray(path.read_bytes())
    data[-1 - at % len(data)] ^= 1 << bit
    path.write_bytes(data)
    found = [r.header for r in read_records(path)]
    assert found == whole[: len(found)]
    assert len(found) < len(whole)


def test_a_sync_that_fails_beside_the_build_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SYNC_BYTES", 10)
    with pytest.raises(OSError, match="No space"), Journal(tmp_path / "j") as book:
        with monkeypatch.context() as patch:
            patch.setattr(journal.os, "fsync", lambda handle: full_disk())
            book.append(record_parts(header("a")))
            assert book._sync is not None
            assert book._sync.exception() is not None
        book.append(record_parts(header("b")))


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "none")) == []
