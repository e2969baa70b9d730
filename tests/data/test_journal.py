"""A journal loses nothing that was whole and trusts nothing that was not."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openus_data.errors import CorpusError
from openus_data.first_stage import journal
from openus_data.first_stage.journal import Journal, read_records


def header(name: str, *blobs: bytes) -> journal.Header:
    return {"item": name, "blobs": [[len(b), zlib.crc32(b)] for b in blobs]}


def filled(path: Path) -> list[int]:
    """Write three records; returns where each ends."""
    with Journal(path) as book:
        return [book.append(header(n, b"x" * 50, b"y"), [b"x" * 50, b"y"]).end for n in "abc"]


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
            book.append(header(name) | {"text": text})
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
        book.append(header("d", b"z"), [b"z"])
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
        monkeypatch.setattr(book, "_copy", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space"):
            book.append(header("d", b"1"), [b"1", tmp_path / "big"])
        monkeypatch.undo()
        book.append(header("e"))
    assert [r.header["item"] for r in read_records(tmp_path / "j")] == ["a", "b", "c", "e"]


def test_bytes_of_a_file_are_copied_in(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"q" * 3_000_000)
    with Journal(tmp_path / "j") as book:
        record = book.append(header("a", b"q" * 3_000_000), [tmp_path / "big"])
    assert record.blobs()[0].read() == b"q" * 3_000_000


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "none")) == []
