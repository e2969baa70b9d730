"""A server's answer: its head, its body piece by piece, and what went wrong on the way in one of our errors."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

import requests
import urllib3

from openus_data.errors import ChecksumMismatch, SourceError, SourceRefused, SourceUnavailable
from openus_data.transfer.tls import tls_refusal

READ_BYTES: Final = 1 << 20
_LINE_END: Final = b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The head of a response whose body is still to be read.

    Args:
        status: 200, 206 or 416.
        headers: of the last hop.
        url: of the last hop. Never shown.
        response: the open response.
        where: how messages name it.
    """

    status: int
    headers: Mapping[str, str]
    url: str
    response: urllib3.BaseHTTPResponse
    where: str

    @property
    def length(self) -> int | None:
        """Content-Length, or None where the body is chunked or ends with the connection.

        Raises:
            SourceUnavailable: it is not a number, or stands there twice with two values.
        """
        values = {v.strip() for v in self.headers.get("Content-Length", "").split(",") if v.strip()}
        if not values or "Transfer-Encoding" in self.headers:
            return None
        if len(values) > 1 or not re.fullmatch(r"[0-9]{1,18}", text := values.pop()):
            raise SourceUnavailable("the server's Content-Length makes no sense", where=self.where)
        return int(text)

    def chunks(self, *, judge_end: bool = False) -> Iterator[bytes]:
        """The body as it arrives, without any decoding, in pieces of at most READ_BYTES.

        Args:
            judge_end: where no digest will tell, see whether the server goes on behind the length that it stated.

        Raises:
            SourceUnavailable: reset, silence, or an end before the stated length.
            ChecksumMismatch: no end at the stated length.
        """
        response = cast(urllib3.HTTPResponse, self.response)
        with _Behind(response, self.length if judge_end else None, self.where) as behind:
            while True:
                try:
                    piece = response.read1(READ_BYTES, decode_content=False)
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise transport_error(error, self.where) from error
                if not piece:
                    break
                yield piece
            if behind.is_more():
                raise ChecksumMismatch(
                    "the body goes on beyond its stated length", where=self.where, expected=f"{self.length} bytes"
                )


class _Behind:
    """What a server sends behind a body of stated length: nothing, or the length was wrong and the body is cut.

    The reader below stops at the length, so this looks at the connection itself, through a descriptor of its own.
    Behind TLS only what came together with the head can be seen.
    """

    def __init__(self, response: urllib3.HTTPResponse, length: int | None, where: str) -> None:
        self._response, self._length, self._where = response, length, where
        self._socket: socket.socket | None = None
        self._is_more = False

    def __enter__(self) -> _Behind:
        buffered = getattr(getattr(self._response, "_fp", None), "fp", None)
        if self._length and buffered is not None:
            try:
                self._is_more = len(buffered.peek(1)) > self._length + len(_LINE_END)
            except OSError as error:
                raise transport_error(error, self._where) from error
            connection = getattr(buffered.raw, "_sock", None)
            if isinstance(connection, socket.socket) and not isinstance(connection, ssl.SSLSocket):
                self._socket = socket.socket(fileno=os.dup(self._response.fileno()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def is_more(self) -> bool:
        """Whether more than a line's end stands behind the body."""
        if self._socket is None or self._is_more:
            return self._is_more
        try:
            seen = self._socket.recv(len(_LINE_END) + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return bool(seen.strip(_LINE_END))


def transport_error(error: BaseException, where: str) -> SourceError:
    """What went wrong below HTTP; the library's own text is dropped, since it quotes the URL."""
    causes = list(_causes(error))
    if (refusal := tls_refusal(causes, where)) is not None:
        return refusal
    if any(isinstance(c, requests.exceptions.InvalidURL | urllib3.exceptions.LocationParseError) for c in causes):
        return SourceRefused("not a web address", where=where)
    for kind, words in (
        (requests.exceptions.ConnectTimeout, "no connection in time"),
        (urllib3.exceptions.ConnectTimeoutError, "no connection in time"),
        (urllib3.exceptions.NameResolutionError, "the host's name is not known"),
        (urllib3.exceptions.NewConnectionError, "no connection"),
        (TimeoutError, "the server went silent"),
        (requests.exceptions.ReadTimeout, "the server went silent"),
        (urllib3.exceptions.ReadTimeoutError, "the server went silent"),
        (ConnectionResetError, "the connection was reset"),
        (urllib3.exceptions.IncompleteRead, "the body ended early"),
    ):
        if any(isinstance(c, kind) for c in causes):
            return SourceUnavailable(words, where=where)
    return SourceUnavailable("the connection broke", where=where, got=type(causes[-1]).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting:
        current = waiting.pop()
        if any(current is s for s in seen):
            continue
        seen.append(current)
        yield current
        linked = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        waiting += [c for c in linked if isinstance(c, BaseException)]
