"""A web server on loopback that misbehaves on demand and keeps a log of what it was asked.

with FaultyServer({"a.bin": content}) as server:
    server.faults["a.bin"] = ["reset:0.5", "status:503"]   # one per request, then it behaves
    requests.get(server.url("a.bin"))
    server.log[0].range
"""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Asked:
    """One request, as the server saw it, and how many body bytes it sent."""

    path: str
    headers: dict[str, str]
    sent: int = 0

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass
class FaultyServer:
    """Serves `files` by path; `faults[path]` is a list of steps, one used up per request, the last one for ever if it
    starts with `*`. `redirects[path]` answers 302."""

    files: dict[str, bytes]
    faults: dict[str, list[str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    redirect_headers: dict[str, str] = field(default_factory=dict)
    etag: str = "strong"  # strong, weak, none
    ranges: bool = True
    block_bytes: int = 1 << 16
    delay_s: float = 0.0  # between blocks
    last_modified: str | None = None
    headers: dict[str, str] = field(default_factory=dict)  # sent with every whole body
    log: list[Asked] = field(default_factory=list)

    def __enter__(self) -> FaultyServer:
        outer = self

        class Handler(_Handler):
            owner = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def url(self, path: str) -> str:
        return f"{self.base}/{path}"

    def next_fault(self, path: str) -> str:
        steps = self.faults.get(path, [])
        if not steps:
            return ""
        return steps[0][1:] if steps[0].startswith("*") else steps.pop(0)

    def asked(self, path: str) -> list[Asked]:
        return [a for a in self.log if a.path == path]

    def sent_bytes(self, path: str) -> int:
        return sum(a.sent for a in self.asked(path))

    def tag(self, content: bytes) -> str | None:
        digest = hashlib.md5(content).hexdigest()
        return {"strong": f'"{digest}"', "weak": f'W/"{digest}"', "none": None}[self.etag]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        asked = Asked(path, {k.lower(): v for k, v in self.headers.items()})
        self.owner.log.append(asked)
        if path in self.owner.redirects:
            return self._head(
                302, {"Location": self.owner.redirects[path], "Content-Length": "0", **self.owner.redirect_headers}
            )
        fault, _, argument = self.owner.next_fault(path).partition(":")
        content = self.owner.files.get(path)
        if content is None:
            return self._short(404)
        if fault == "status":
            status, _, retry_after = argument.partition(":")
            return self._short(int(status), {"Retry-After": retry_after} if retry_after else {})
        if fault == "date":
            when = email.utils.formatdate(time.time() + float(argument), usegmt=True)
            return self._short(429, {"Retry-After": when})
        with contextlib.suppress(ConnectionError):
            self._serve(asked, path, content, fault, argument)
        return None

    def do_HEAD(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        content = self.owner.files.get(path)
        self._head(404 if content is None else 200, {"Content-Length": str(len(content or b""))})

    def _serve(self, asked: Asked, path: str, content: bytes, fault: str, argument: str) -> None:
        if fault == "changed":  # the file changed for good
            content = self.owner.files[path] = argument.encode() * (len(content) // len(argument))
        if fault in ("html", "garbage", "bitflip", "dup", "empty"):
            content = {
                "html": b"<!DOCTYPE html>\n<html><body>Please log in</body></html>",
                "garbage": hashlib.sha256(content).digest() * (len(content) // 32 + 1),
                "bitflip": bytes([content[0] ^ 1]) + content[1:],
                "dup": content * 2,
                "empty": b"",
            }[fault][: None if fault in ("html", "dup") else len(content)]
        headers = {"Content-Type": "text/html" if fault == "html" else "application/octet-stream"}
        tag = self.owner.tag(content)
        if fault == "evil206same":  # the file changed, and its tag did not
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "hugehdr":
            headers["X-Long"] = "x" * 200_000
        if tag:
            headers["ETag"] = tag
        if self.owner.last_modified:
            headers["Last-Modified"] = self.owner.last_modified
        headers |= self.owner.headers
        if fault == "gzipenc":
            content, headers["Content-Encoding"] = gzip.compress(content, mtime=0), "gzip"
        start, status = self._range(content, headers, fault, argument)
        if status == 416:
            return self._short(416, {"Content-Range": f"bytes */{len(content)}"})
        body = content[start:]
        if status == 206 and fault == "range_short":
            body = body[: max(1, len(body) // 2)]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        if status == 206 and fault == "range_star":  # a piece that does not say of what
            body = body[:1000]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/*"
        if status == 206 and fault == "range_beyond":
            body += b"more"
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        self._send(asked, body, status, headers, fault, argument)
        return None

    def _range(self, content: bytes, headers: dict[str, str], fault: str, argument: str) -> tuple[int, int]:
        wanted = self.headers.get("Range")
        if not self.owner.ranges or not wanted or fault == "norange":
            return 0, 200
        start = int(wanted.removeprefix("bytes=").split("-")[0])
        condition = self.headers.get("If-Range")
        if condition and fault != "evil206" and condition not in (headers.get("ETag"), headers.get("Last-Modified")):
            return 0, 200
        if start >= len(content):
            return 0, 416
        if fault in ("range_off", "range_ahead"):
            start = max(0, start - 7) if fault == "range_off" else start + 7
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return start, 206

    def _send(self, asked: Asked, body: bytes, status: int, headers: dict[str, str], fault: str, argument: str) -> None:
        declared = {"clhigh": len(body) + 100, "cllow": max(0, len(body) - 100)}.get(fault, len(body))
        chunked = fault in ("chunked", "chunkcut", "infinite")
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif fault != "noclcut":
            headers["Content-Length"] = str(declared)
        if fault in ("noclcut", "clhigh", "cllow"):
            headers["Connection"] = "close"
            self.close_connection = True
        self._head(status, headers)
        cut = fault in ("reset", "fin", "stall", "chunkcut", "noclcut")
        end = int(len(body) * float(argument.partition(":")[0] or 1)) if cut else len(body)
        for at in range(0, end, step := 1 if fault == "drip" else self.owner.block_bytes):
            self._write(asked, body[at : min(at + step, end)], chunked)
            if pause_s := float(argument or 0.05) if fault == "drip" else self.owner.delay_s:
                time.sleep(pause_s)
        while fault == "infinite":
            self._write(asked, body or b"x" * 1000, chunked)
        self._end(fault, argument, chunked)

    def _end(self, fault: str, argument: str, chunked: bool) -> None:
        if fault == "stall":
            time.sleep(float(argument.partition(":")[2] or 5))
        if fault == "reset":
            time.sleep(0.05)  # a reset throws away what the other side has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("reset", "fin", "stall", "chunkcut", "noclcut"):
            self.close_connection = True
            self.wfile.flush()
            self.connection.close() if fault == "reset" else self.connection.shutdown(socket.SHUT_RDWR)
        elif chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, asked: Asked, piece: bytes, chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        asked.sent += len(piece)

    def _short(self, status: int, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": "2", **(headers or {})})
        self.wfile.write(b"no")

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
