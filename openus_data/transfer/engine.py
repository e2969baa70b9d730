"""The download of one file: ask for what is missing, append only what is proven to belong, verify, give it its name.

engine = Engine(Policy(), stop)
got = engine.download(Job(url="https://...", target=folder / "a.zip", checksums=("md5:...",)))
"""

from __future__ import annotations

import logging
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openus_data.errors import ChecksumMismatch, SourceRefused, SourceUnavailable
from openus_data.store import BLOCK_BYTES
from openus_data.transfer.answer import Answer
from openus_data.transfer.client import Client
from openus_data.transfer.disk import SpaceWatch
from openus_data.transfer.pages import first_piece, is_page, page_text
from openus_data.transfer.part import Part
from openus_data.transfer.policy import Policy, Stopped, pause
from openus_data.transfer.version import Version

logger = logging.getLogger(__name__)

_CONTENT_RANGE: Final = re.compile(r"bytes\s+(?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")
_DECODED: Final = ("gzip", "x-gzip", "deflate")
_PACKED: Final = ("gzip", "deflate", "br", "zstd", "compress")
_ENCODED_BYTES: Final = 1 << 16
_STRIKES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to download.

    Args:
        url: where from. Never shown, since it may be signed.
        target: final path; its name is what messages show.
        source: the URL as it may be written down; the key of a resume.
        size_bytes: if published.
        checksums: "<algorithm>:<hex>", every one of which must hold; empty if none is published.
        pinned: the checksums are those of our own first download, not the host's.
        credentials: headers for the first host alone.
        through_page: given a web page and its URL, the URL behind it (a confirm form); None if there is no way through.
    """

    url: str = field(repr=False)
    target: Path
    source: str = ""
    size_bytes: int | None = None
    checksums: tuple[str, ...] = ()
    pinned: bool = False
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    through_page: Callable[[str, str], str] | None = None

    @property
    def name(self) -> str:
        """How messages name the file."""
        return self.target.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """A file that now has its final name.

    Args:
        size_bytes: its length.
        sha256: of its bytes.
        received_bytes: what came over the wire in this call.
    """

    size_bytes: int
    sha256: str
    received_bytes: int


class Watcher:
    """Looks on while files come, from any thread; this one does nothing."""

    def hold(self, size: int) -> None:
        """So many bytes are held from an earlier run."""

    def expect(self, size: int) -> None:
        """So many bytes are to come or held that nobody had announced."""

    def add(self, size: int) -> None:
        """So many bytes arrived; negative where held ones had to be dropped."""


class Engine:
    """Downloads files; may be used from several threads.

    Args:
        policy: the bounds.
        stop: when set, every download ends with Stopped at its next block.
        watcher: told of what is known and what arrives.
    """

    def __init__(self, policy: Policy, stop: threading.Event, watcher: Watcher | None = None) -> None:
        self.policy = policy
        self.client = Client(policy, stop)
        self._stop = stop
        self._watcher = watcher or Watcher()
        self._space = SpaceWatch(policy.reserve_bytes)
        self._strikes: Counter[str] = Counter()

    def download(self, job: Job) -> Downloaded:
        """Bring one file to its final name, or leave its `.part` for the next run.

        Raises:
            SourceUnavailable: every try failed; what was received is kept.
            SourceRefused: the host said no, or sent a web page.
            ChecksumMismatch: twice the whole file came, twice it was not the published one; kept as `.bad`.
            NoSpace: the disk is full; what was received is kept.
            Stopped: on demand.
        """
        part = Part(job.target, {c.partition(":")[0] for c in job.checksums}, self._space)
        self._watcher.hold(part.held)
        try:
            return self._until_right(job, part)
        finally:
            part.close()

    def _until_right(self, job: Job, part: Part) -> Downloaded:
        received = 0
        for attempt in (1, 2):
            try:
                received += self._until_whole(job, part)
                digests = self._verify(job, part)
                break
            except ChecksumMismatch as error:
                self._watcher.add(-part.held)
                if attempt == 2:
                    if part.held:
                        part.quarantine()
                    raise
                logger.warning("%s; starting again from the first byte", error)
                part.start_over()
        size = part.held
        part.publish()
        return Downloaded(size_bytes=size, sha256=digests["sha256"], received_bytes=received)

    def _until_whole(self, job: Job, part: Part) -> int:
        """Receive until the body is complete; returns the bytes that came over the wire."""
        failures, best, received = 0, part.held, 0
        if part.held and job.checksums and part.held == _known_total(job, part):
            return 0  # an earlier run was stopped between the last byte and the check
        for attempt in range(1, self.policy.total_attempts + 1):
            try:
                for size in self._receive(job, part, job.url):
                    received += size
                if self._strikes:
                    self._strikes.pop(_host(job), None)
                return received
            except SourceUnavailable as error:
                failures = 1 if part.held >= best + self.policy.progress_bytes else failures + 1
                best = max(best, part.held)
                allowed = 2 if self._strikes[_host(job)] >= _STRIKES else self.policy.attempts
                if failures >= allowed or attempt == self.policy.total_attempts:
                    self._strikes[_host(job)] += 1
                    raise
                wait_s = self.policy.wait_s(failures, error.retry_after_s)
                logger.warning("%s; trying again in %.0f s, %d bytes held", error, wait_s, part.held)
                pause(wait_s, self._stop)
        raise AssertionError("unreachable: the last attempt raises")

    def _receive(self, job: Job, part: Part, url: str, *, behind_page: bool = False) -> Iterator[int]:
        """One request; yields the size of each piece after it was written."""
        headers = {"Accept-Encoding": "identity", **_range_headers(job, part)}
        with self.client.open(url, where=job.name, headers=headers, credentials=job.credentials) as answer:
            if answer.status == 416:
                self._judge_416(answer, part)
                return
            body = answer.chunks(judge_end=not job.checksums)
            head, kind = first_piece(body), answer.headers.get("Content-Type", "")
            if answer.status == 200 and is_page(head, kind, job.name, is_proven=bool(job.checksums)):
                yield from self._receive(job, part, _behind(job, answer, head, body, behind_page), behind_page=True)
                return
            end = self._judge_start(job, part, answer)
            yield from self._append(job, part, chain((head,), body), end)
        total = _known_total(job, part)
        if total is not None and part.held < total:
            raise SourceUnavailable(
                "the body ended early", where=job.name, expected=f"{total} bytes", got=str(part.held)
            )

    def _judge_start(self, job: Job, part: Part, answer: Answer) -> int:
        """Decide where the body belongs; returns the offset at which it must have ended."""
        if answer.status == 206:
            start, end, total = _parse_content_range(answer)
            if total is None and part.version is not None:
                total = part.version.total  # "*" says nothing new; it must not pass a piece for the whole
            version = Version.of(answer.headers, source=job.source, total=total)
            wrong = start != part.held or (part.version is not None and not part.version.agrees_with(version))
            wrong = wrong or not part.held or end < start or (total is not None and end >= total)
            if wrong or answer.length not in (None, end - start + 1):
                self._drop(part)
                raise SourceUnavailable("the server sent another range than was asked for", where=job.name)
        else:
            self._drop(part)
            total = answer.length
            version = Version.of(answer.headers, source=job.source, total=total)
            end = (total if total is not None else self._cap(job)) - 1
        if job.size_bytes is not None and not version.encoding and total not in (None, job.size_bytes):
            raise ChecksumMismatch(
                "the server's file has another size than the published one",
                where=job.name,
                expected=f"{job.size_bytes} bytes",
                got=str(total),
                next_step="see whether the dataset has a new version",
            )
        if job.size_bytes is None and total is not None and not part.is_announced:
            part.is_announced = True
            self._watcher.expect(total)
        part.begin(version)
        return end + 1

    def _cap(self, job: Job) -> int:
        return int(job.size_bytes * 1.1) + 4096 if job.size_bytes is not None else self.policy.max_unknown_bytes

    def _append(self, job: Job, part: Part, body: Iterator[bytes], end: int) -> Iterator[int]:
        window_start, window_bytes = time.monotonic(), 0
        for piece in body:
            if self._stop.is_set():
                raise Stopped
            if part.held + len(piece) > end:
                if _known_total(job, part) is None:  # another try would fill the disk once more
                    self._drop(part)
                    raise SourceRefused("the body has no end", where=job.name, expected=f"at most {end} bytes")
                raise ChecksumMismatch(
                    "the body goes on beyond its stated length", where=job.name, expected=f"{end} bytes"
                )
            part.append(piece)
            self._watcher.add(len(piece))
            yield len(piece)
            window_bytes += len(piece)
            seconds = time.monotonic() - window_start
            if seconds >= self.policy.slow_window_s:
                if window_bytes < self.policy.min_bytes_per_s * seconds:
                    raise SourceUnavailable(f"only {window_bytes / seconds:.0f} bytes/s came", where=job.name)
                window_start, window_bytes = time.monotonic(), 0

    def _judge_416(self, answer: Answer, part: Part) -> None:
        """The held bytes are the whole file, or not of this file at all."""
        match = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        known = part.version.total if part.version else None
        if match and part.held and match[3] == str(part.held) and known in (None, part.held):
            return
        self._drop(part)
        raise SourceUnavailable("the server has less than is held here", where=answer.where)

    def _drop(self, part: Part) -> None:
        if part.held:
            self._watcher.add(-part.held)
        part.start_over()

    def _verify(self, job: Job, part: Part) -> dict[str, str]:
        """Digests of the whole file, if they are the published ones.

        A body that the server encoded though it was asked not to is taken as it came where that is the published
        file (a .tar.gz that the server labels gzip), and decoded otherwise.
        """
        digests = part.digests()
        encoding = part.version.encoding if part.version is not None else ""
        encoded = encoding in _DECODED
        gzip_by_name = job.name.lower().endswith((".gz", ".tgz"))
        fault = self._fault(job, part, digests)
        if encoded and (fault is not None or not (job.checksums or gzip_by_name)):
            part.replace_content(self._decode(job, part))
            digests = part.digests()
            fault = self._fault(job, part, digests)
        if fault is not None:
            raise fault
        if not (encoded or job.checksums) and any(e in encoding for e in _PACKED):
            raise SourceRefused(
                "the server encoded the file in a way that is not read here", where=job.name, got=encoding[:40]
            )
        return digests

    @staticmethod
    def _fault(job: Job, part: Part, digests: Mapping[str, str]) -> ChecksumMismatch | None:
        checksums = job.checksums
        if part.version is not None and part.version.md5 and "md5" in digests and not part.version.encoding:
            checksums = (*checksums, f"md5:{part.version.md5}")
        return find_fault(job.name, part.held, digests, job.size_bytes, checksums, pinned=job.pinned)

    def _decode(self, job: Job, part: Part) -> Path:
        decoded = part.decoded_path
        part.write()
        expand, left = _new_expander(), self._cap(job)
        try:
            decoded.unlink(missing_ok=True)
            with part.path.open("rb") as source, decoded.open("xb") as out:
                while piece := expand.unconsumed_tail or expand.unused_data or source.read(_ENCODED_BYTES):
                    if expand.eof:
                        expand = _new_expander()  # gzip may be several members, one after the other
                    plain = expand.decompress(piece, BLOCK_BYTES)
                    left -= len(plain)
                    if left < 0 or self._stop.is_set():
                        raise zlib.error("no end in sight")
                    out.write(plain)
                if not expand.eof:
                    raise zlib.error("cut short")
        except BaseException as error:
            decoded.unlink(missing_ok=True)
            if isinstance(error, zlib.error):
                raise ChecksumMismatch("the server's encoding of the body is damaged", where=job.name) from error
            raise
        return decoded


def _host(job: Job) -> str:
    return urlsplit(job.url).hostname or ""


def _range_headers(job: Job, part: Part) -> dict[str, str]:
    """Ask for the rest where it can be proven to belong to what is held: by a strong validator, or by a checksum."""
    version = part.version
    if not part.held or (version is None and not job.checksums) or (version and version.source != job.source):
        return {}
    if version is not None and version.validator:
        return {"Range": f"bytes={part.held}-", "If-Range": version.validator}
    return {"Range": f"bytes={part.held}-"} if job.checksums else {}


def _known_total(job: Job, part: Part) -> int | None:
    """Bytes of the whole body, as the server or else the publisher states it."""
    if part.version is not None and (part.version.total is not None or part.version.encoding):
        return part.version.total
    return job.size_bytes


def _parse_content_range(answer: Answer) -> tuple[int, int, int | None]:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if match is None or match[1] is None:
        return -1, -1, None
    return int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])


def _new_expander() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)


def _behind(job: Job, answer: Answer, head: bytes, body: Iterator[bytes], behind_page: bool) -> str:
    """The URL behind a web page that came in place of the file."""
    if job.through_page is None or behind_page:
        raise SourceRefused(
            "a web page came, not an archive",
            where=job.name,
            next_step="is a login or a licence needed? See the dataset's page; fetch it by hand and use --from",
        )
    return job.through_page(page_text(head, body), answer.url)


def find_fault(
    name: str, size: int, digests: Mapping[str, str], size_bytes: int | None, checksums: Iterable[str], *, pinned: bool
) -> ChecksumMismatch | None:
    """Why a whole file is not the published one; None if it is.

    Args:
        name: how messages name the file.
        size, digests: what was found.
        size_bytes, checksums: what is published, or pinned.
        pinned: the checksums are those of our own first download.
    """
    if size == 0 and size_bytes != 0:
        return ChecksumMismatch("the file is empty", where=name)
    if size_bytes is not None and size != size_bytes:
        return ChecksumMismatch(
            "the file has another size than the published one",
            where=name,
            expected=f"{size_bytes} bytes",
            got=str(size),
        )
    for checksum in checksums:
        algorithm, _, expected = checksum.partition(":")
        if digests[algorithm] != expected.lower():
            first = "the one pinned at the first download" if pinned else "the published one"
            return ChecksumMismatch(
                f"the file's {algorithm} is not {first}",
                where=name,
                expected=expected.lower(),
                got=digests[algorithm],
                next_step="the host changed the file, or the way here damages it" if pinned else "",
            )
    return None
