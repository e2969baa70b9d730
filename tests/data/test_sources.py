"""Sources against answers of the documented form: names, sizes, checksums; and the contract that all of them keep."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from openus_data.card import Download
from openus_data.card_fields import SourceKind
from openus_data.errors import NeedsPerson, OpenUSDataError, SourceError, SourceRefused
from openus_data.sources import SOURCES, RemoteFile, source_of

MD5, SHA = "0" * 32, "1" * 64


class Answers:
    """Answers listing calls from a table of URL starts; what is not there is refused, as a host would."""

    def __init__(self, table: Mapping[str, object]) -> None:
        self.table = table
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def text(self, url: str, *, where: str, credentials: Mapping[str, str] | None = None) -> str:
        self.asked.append((url, credentials or {}))
        for start in sorted(self.table, key=len, reverse=True):
            if url.startswith(start):
                answer = self.table[start]
                return answer if isinstance(answer, str) else json.dumps(answer)
        raise SourceRefused("answered 404", where=where)

    def json(self, url: str, *, where: str, credentials: Mapping[str, str] | None = None) -> object:
        try:
            parsed: object = json.loads(self.text(url, where=where, credentials=credentials))
        except ValueError as error:
            raise SourceRefused("not JSON", where=where) from error
        return parsed


def listed(kind: str, locator: str, table: Mapping[str, object], filename: str | None = None) -> tuple[RemoteFile, ...]:
    download = Download(source=kind, locator=locator, filename=filename)  # type: ignore[arg-type]
    return source_of(kind).list(download, Answers(table))


def test_there_is_one_source_for_each_word_of_the_card() -> None:
    assert sorted(s.kind for s in SOURCES) == sorted(get_args(SourceKind))


LOCATORS = ("", "x", "a/b", "a@b", "a:b", "https://h|doi:1", "https://h/f.zip", "../..", "?&#%00")
ANSWERS: tuple[object, ...] = ({}, [], "", "<html>", {"files": 3}, {"files": [{}]}, {"data": {"files": [{}]}}, [3])


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.kind)
def test_whatever_a_host_answers_a_source_lists_or_raises_one_of_our_errors(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "t")
    for locator, answer in itertools.product(LOCATORS, ANSWERS):
        try:
            files = source.list(Download(source=source.kind, locator=locator), Answers({"http": answer}))
        except OpenUSDataError as error:
            assert "\n" not in str(error)
        else:
            assert all(isinstance(f, RemoteFile) for f in files)


def test_zenodo_lists_sizes_and_md5_sums() -> None:
    record = {
        "files": [{"key": "b c.zip", "size": 5, "checksum": f"md5:{MD5}"}, {"key": "a.zip", "size": 3, "checksum": MD5}]
    }
    first, second = listed("zenodo", "123", {"https://zenodo.org/api/records/123": record})
    assert (first.filename, first.size_bytes, first.checksums) == ("a.zip", 3, (f"md5:{MD5}",))
    assert second.url == "https://zenodo.org/api/records/123/files/b%20c.zip/content"
    old = {"files": [{"filename": "a.zip", "filesize": 3, "checksum": MD5}]}
    assert listed("zenodo", "123", {"https://zenodo.org/api/records/123": old})[0].checksums == (f"md5:{MD5}",)


def test_a_file_that_the_host_no_longer_lists_is_named() -> None:
    record = {"files": [{"key": "a.zip"}]}
    with pytest.raises(SourceRefused, match=r"no such file; expected b\.zip"):
        listed("zenodo", "123", {"https://zenodo.org/api/records/123": record}, "b.zip")


FOLDERS = "https://data.mendeley.com/public-api/datasets/abc/folders/2"
MENDELEY = "https://data.mendeley.com/public-api/datasets/abc/files?folder_id=root&version=2"


def test_mendeley_lists_sha256_sums_or_gives_the_zip_of_the_whole() -> None:
    entry = {
        "filename": "a.zip",
        "size": 3,
        "content_details": {"download_url": "https://h/x?sig=c0ffee", "sha256_hash": SHA},
    }
    (found,) = listed("mendeley", "abc/2", {MENDELEY: [entry], FOLDERS: []})
    assert (found.size_bytes, found.checksums, found.source) == (3, (f"sha256:{SHA}",), "https://h/x")
    assert "c0ffee" not in repr(found)
    for answer, name in (([entry] * 1000, None), ([], None), ([entry], "abc-2.zip")):
        (whole,) = listed("mendeley", "abc/2", {MENDELEY: answer, FOLDERS: []}, name)
        assert whole.url.endswith("amazonaws.com/abc-2.zip")


def test_mendeley_loses_no_folder_beside_the_files_of_the_root() -> None:
    entry = {"filename": "README.txt", "content_details": {"download_url": "https://h/x"}}
    for folders in ({FOLDERS: [{"id": "f1", "name": "images"}]}, {}):  # there are some, or the host does not say
        (whole,) = listed("mendeley", "abc/2", {MENDELEY: [entry], **folders})
        assert whole.filename == "abc-2.zip"
    (named,) = listed("mendeley", "abc/2", {MENDELEY: [entry]}, "README.txt")
    assert named.url == "https://h/x"


FIGSHARE = "https://api.figshare.com/v2/articles/7/versions/2/files?page_size=1000&page="


def test_figshare_lists_md5_sums_and_says_when_it_only_links() -> None:
    entry = {"name": "a.zip", "size": 3, "computed_md5": MD5, "download_url": "https://ndownloader/1"}
    (found,) = listed("figshare", "7/2", {f"{FIGSHARE}1": [entry]})
    assert (found.url, found.checksums) == ("https://ndownloader/1", (f"md5:{MD5}",))
    with pytest.raises(NeedsPerson, match="links to another site"):
        listed("figshare", "7/2", {f"{FIGSHARE}1": [{"is_link_only": True}]})


def test_figshare_lists_all_pages_and_no_listing_without_end() -> None:
    first = [{"name": f"{n:04d}.png", "download_url": f"https://ndownloader/{n}"} for n in range(1000)]
    last = [{"name": "last.png", "download_url": "https://ndownloader/1000"}]
    found = listed("figshare", "7/2", {f"{FIGSHARE}1": first, f"{FIGSHARE}2": last})
    assert [f.filename for f in found] == [f"{n:04d}.png" for n in range(1000)] + ["last.png"]
    with pytest.raises(SourceRefused, match="no end"):
        listed("figshare", "7/2", {FIGSHARE: first})


def test_github_pins_a_commit() -> None:
    (found,) = listed("github", "owner/repo@0123abc", {})
    assert found.url == "https://codeload.github.com/owner/repo/zip/0123abc"
    assert found.filename == "repo-0123abc.zip"
    with pytest.raises(SourceRefused, match="owner/repository@commit"):
        listed("github", "owner/repo", {})


KAGGLE = {"https://www.kaggle.com/api/v1/datasets/view/o/n": {"currentVersionNumber": 4}}


def no_kaggle(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(folder))


def test_kaggle_without_a_token_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_kaggle(monkeypatch, tmp_path)
    for kind, locator in (("kaggle_dataset", "o/n"), ("kaggle_competition", "c")):
        with pytest.raises(NeedsPerson, match="KAGGLE_API_TOKEN"):
            listed(kind, locator, KAGGLE)


@pytest.mark.parametrize("way", ["variable", "file", "pair", "json"])
def test_kaggle_takes_its_token_from_where_its_own_clients_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    no_kaggle(monkeypatch, tmp_path)
    if way == "variable":
        monkeypatch.setenv("KAGGLE_API_TOKEN", "c0ffee")
    elif way == "file":
        (tmp_path / "access_token").write_text("c0ffee\n")
    elif way == "pair":
        monkeypatch.setenv("KAGGLE_USERNAME", "u")
        monkeypatch.setenv("KAGGLE_KEY", "k")
    else:
        (tmp_path / "kaggle.json").write_text('{"username": "u", "key": "k"}')
    (found,) = listed("kaggle_dataset", "o/n", KAGGLE)
    expected = "Basic dTpr" if way in ("pair", "json") else "Bearer c0ffee"
    assert found.credentials == {"Authorization": expected}
    assert found.url.endswith("/datasets/download/o/n?datasetVersionNumber=4")
    assert expected not in repr(found)


def test_a_google_drive_folder_is_walked() -> None:
    def page(*entries: tuple[str, str, str]) -> str:
        return "".join(
            f'<div class="flip-entry" id="entry-{i}" tabindex="0"><div class="flip-entry-info"><a href="{link}" '
            f'target="_blank"><div class="x"></div><div class="flip-entry-title">{title}</div></a></div></div>'
            for i, link, title in entries
        )

    view = "https://drive.google.com/embeddedfolderview?id="
    table = {
        f"{view}top": page(
            ("f1", "https://drive.google.com/file/d/f1/view", "b &amp; c.png"),
            ("d1", "https://drive.google.com/drive/folders/d1", "sub"),
        ),
        f"{view}d1": page(("f2", "https://drive.google.com/file/d/f2/view", "a.png")),
    }
    found = listed("gdrive_folder", "top", table)
    assert [(f.filename, f.source) for f in found] == [
        ("b & c.png", "https://drive.google.com/uc?id=f1"),
        ("sub/a.png", "https://drive.google.com/uc?id=f2"),
    ]
    with pytest.raises(SourceError, match="without end"):
        listed("gdrive_folder", "loop", {f"{view}loop": page(("loop", "https://x/drive/folders/loop", "again"))})


def test_google_drives_confirm_form_is_filled_in() -> None:
    (found,) = listed("gdrive_file", "abc", {}, "a.zip")
    assert found.through_page is not None
    form = (
        '<html><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
        '<input type="submit" value="Download"/><input type="hidden" name="id" value="abc">'
        '<input type="hidden" name="confirm" value="t&amp;u"></form>'
    )
    url = found.through_page(form, "https://drive.google.com/uc?id=abc")
    assert url == "https://drive.usercontent.google.com/download?id=abc&confirm=t%26u"
    old = '<a id="uc-download-link" href="/uc?export=download&amp;confirm=x&amp;id=abc">'
    assert found.through_page(old, url).endswith("/uc?export=download&confirm=x&id=abc")
    with pytest.raises(SourceRefused, match="quota"):
        found.through_page('<p class="uc-error-subcaption">Too many users have viewed</p>', url)
    with pytest.raises(SourceRefused, match="got You need access"):
        found.through_page('<p class="uc-error-subcaption">You <b>need</b> access</p>', url)
    with pytest.raises(SourceError, match="unknown form"):
        found.through_page("<html></html>", url)


def test_dataverse_lists_folders_and_checksums() -> None:
    files = [
        {"dataFile": {"id": 1, "filename": "a.zip", "filesize": 3, "md5": MD5}},
        {"directoryLabel": "d", "dataFile": {"id": 2, "filename": "b", "checksum": {"type": "SHA-256", "value": SHA}}},
    ]
    first, second = listed("dataverse", "https://h|doi:10.1/x", {"https://h/api/datasets": {"data": {"files": files}}})
    assert (first.checksums, first.url) == ((f"md5:{MD5}",), "https://h/api/access/datafile/1")
    assert (second.filename, second.checksums) == ("d/b", (f"sha256:{SHA}",))


def test_dataverse_gives_a_table_as_it_was_uploaded_and_trusts_no_checksum_of_it() -> None:
    data = {"id": 3, "filename": "a.tab", "filesize": 9, "md5": MD5, "originalFileFormat": "text/csv"}
    answer = {"data": {"files": [{"dataFile": data | {"originalFileName": "a.csv", "originalFileSize": 7}}]}}
    (found,) = listed("dataverse", "https://h|doi:10.1/x", {"https://h/api/datasets": answer})
    assert found.url == "https://h/api/access/datafile/3?format=original"
    assert (found.filename, found.size_bytes, found.checksums) == ("a.csv", 7, ())


def test_tcia_lists_the_plain_files_of_a_collection() -> None:
    base = "https://www.cancerimagingarchive.net/api/v1"
    table = {
        f"{base}/collections/?slug=breast-lesions-usg": [{"collection_downloads": [1, 2]}],
        f"{base}/downloads/1": {"download_url": "https://h/uploads/a%20b.zip"},
        f"{base}/downloads/2": {"download_url": "https://h/x.tcia"},
    }
    assert [f.filename for f in listed("tcia", "Breast_Lesions-USG", table)] == ["a b.zip"]


def test_girder_and_http_are_their_url() -> None:
    assert listed("girder", "https://h/api/v1/collection/1/download", {})[0].filename == "girder.zip"
    (found,) = listed("http", "https://u:p@h:8/d/a%20b.zip?token=c0ffee", {})
    assert (found.filename, found.source) == ("a b.zip", "https://h:8/d/a%20b.zip")
    assert listed("http", "http://[::1]:8/a.zip", {})[0].source == "http://[::1]:8/a.zip"
    with pytest.raises(SourceRefused):
        listed("http", "file:///etc/passwd", {})


def test_a_package_gives_its_files_and_nothing_outside_it() -> None:
    (found,) = listed("python_package", "pydicom:data/test_files/ExplVR_BigEnd.dcm", {})
    assert found.local is not None
    assert found.size_bytes == found.local.stat().st_size
    for locator, match in (
        ("pydicom:../requests/__init__.py", "no such file"),
        ("pydicom:nothing", "no such file"),
        ("not_installed_at_all:x", "pip install not_installed_at_all"),
        ("os.path:x", "not installed"),
    ):
        with pytest.raises(SourceRefused, match=match):
            listed("python_package", locator, {})


def test_manual_names_where_a_person_begins() -> None:
    with pytest.raises(NeedsPerson, match=r"begin at https://h/form"):
        listed("manual", "https://h/form", {})
