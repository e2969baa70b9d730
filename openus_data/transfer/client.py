"""One HTTP exchange: redirects followed by hand, and every way to fail turned into one of our errors.

By hand, because a redirect must not carry credentials to another host, step down from https to http, or leave the web.
What a URL's query holds (signatures, tokens) is never shown: messages name a file and a host.

requests prepares what is sent and keeps connections, proxies, logins, cookies and certificates; a request then goes to
its pool directly, since what requests does once more per request is a fifth of the cost of a small file.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Final, cast
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar, get_cookie_header
from requests.structures import CaseInsensitiveDict
from requests.utils import get_auth_from_url, get_environ_proxies, get_netrc_auth, requote_uri

from openus_data.errors import SourceError, SourceRefused, SourceUnavailable
from openus_data.transfer.answer import Answer, transport_error
from openus_data.transfer.policy import Policy, Stopped, parse_retry_after, retry

logger = logging.getLogger(__name__)

LISTING_CAP_BYTES: Final = 64 << 20
_NO_RETRY: Final = urllib3.Retry(False, redirect=False)
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ALWAYS: Final = {"User-Agent": "openus-data (+https://pypi.org/project/openus/)", "Accept": "*/*"}
_CA_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Client:
    """Opens URLs. May be used from several threads; each keeps its own connections.

    Args:
        policy: timeouts and bounds.
        stop: ends waits early.
    """

    def __init__(self, policy: Policy, stop: threading.Event) -> None:
        self.policy = policy
        self._stop = stop
        self._local = threading.local()
        self._timeout = urllib3.Timeout(connect=policy.connect_timeout_s, read=policy.silence_timeout_s)

    @contextmanager
    def open(
        self,
        url: str,
        *,
        where: str,
        headers: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> Iterator[Answer]:
        """Send a request and follow redirects.

        Args:
            url: http or https.
            where: how messages name it.
            headers: sent at every hop.
            credentials: headers sent to the first host alone.
            method: GET or HEAD.

        Yields:
            An answer with status 200, 206 or 416.

        Raises:
            SourceUnavailable: may pass if tried again.
            SourceRefused: will not.
        """
        first = url
        for _ in range(self.policy.max_redirects + 1):
            if self._stop.is_set():
                raise Stopped
            _require_address(url, where)
            secret = credentials if credentials and _origin(url) == _origin(first) else {}
            response = self._send(method, url, {**(headers or {}), **secret}, where)
            try:
                target = _redirect_target(response, url, where)
                if target is None:
                    _raise_for_status(response, url, where)
                    yield Answer(
                        status=response.status, headers=response.headers, url=url, response=response, where=where
                    )
                    return
                url = target
            finally:
                _finish(response)
        raise SourceRefused("too many redirects", where=where, expected=f"at most {self.policy.max_redirects}")

    def size(self, url: str, *, where: str, credentials: Mapping[str, str] | None = None) -> int | None:
        """Bytes of a file by a HEAD request; None where the host does not say, or does not answer such requests."""
        try:
            headers = {"Accept-Encoding": "identity"}
            with self.open(url, where=where, headers=headers, credentials=credentials, method="HEAD") as answer:
                return answer.length if "html" not in answer.headers.get("Content-Type", "") else None
        except SourceError:
            return None

    def text(self, url: str, *, where: str, credentials: Mapping[str, str] | None = None) -> str:
        """The body of a listing as text, tried again as the policy says."""

        def ask() -> str:
            body, began = bytearray(), time.monotonic()
            with self.open(
                url, where=where, headers={"Accept-Encoding": "identity"}, credentials=credentials
            ) as answer:
                for piece in answer.chunks():
                    body += piece
                    seconds = time.monotonic() - began
                    if seconds > self.policy.slow_window_s and len(body) < self.policy.min_bytes_per_s * seconds:
                        raise SourceUnavailable(f"only {len(body) / seconds:.0f} bytes/s came", where=where)
                    if len(body) > LISTING_CAP_BYTES:
                        raise SourceRefused(
                            "the listing has no end", where=where, expected=f"at most {LISTING_CAP_BYTES} bytes"
                        )
                if answer.length not in (None, len(body)):
                    raise SourceUnavailable("the listing was cut short", where=where)
            return body.decode("utf-8", errors="replace")

        return retry(ask, self.policy, self._stop, logger.warning)

    def json(self, url: str, *, where: str, credentials: Mapping[str, str] | None = None) -> object:
        """The body of a listing, parsed.

        Raises:
            SourceRefused: the answer is not JSON.
        """
        body = self.text(url, where=where, credentials=credentials)
        try:
            parsed: object = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise SourceRefused("the listing is not JSON", where=where, got=repr(body[:40])) from error
        return parsed

    def _send(self, method: str, url: str, headers: Mapping[str, str], where: str) -> urllib3.BaseHTTPResponse:
        url, login = _without_login(url)
        proxies, stored_login = _environment(*_origin(url))
        cookies, pools = self._cookies_and_pools(url)
        request = _prepare(method, url, headers, login or stored_login, cookies)
        try:
            pool = pools.of(request, dict(proxies), _certificates())
            response = pool.urlopen(
                method,
                pools.request_url(request, dict(proxies)) if proxies else request.path_url,
                headers=request.headers,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
                retries=_NO_RETRY,
                timeout=self._timeout,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise transport_error(error, where) from error
        if "Set-Cookie" in response.headers:
            extract_cookies_to_jar(cookies, request, response)  # type: ignore[no-untyped-call]
        return response

    def _cookies_and_pools(self, url: str) -> tuple[RequestsCookieJar, _KeptPools]:
        """This thread's own. Cookies do not cross ports, though their own rules let them."""
        held: tuple[defaultdict[object, RequestsCookieJar], _KeptPools] | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = (defaultdict(RequestsCookieJar), _KeptPools())
        jars, pools = held
        scheme, _, port = _origin(url)
        return jars[scheme, port], pools


class _KeptPools(HTTPAdapter):
    """Looks up a host's connections once, not once for each of thousands of files."""

    def __init__(self) -> None:
        super().__init__()
        self._pools: dict[object, urllib3.HTTPConnectionPool] = {}

    def of(
        self, request: requests.PreparedRequest, proxies: dict[str, str], verify: str | bool
    ) -> urllib3.HTTPConnectionPool:
        """The connections to the host of a request."""
        url = str(request.url)
        key = (_origin(url), verify, tuple(proxies.items()))
        if key not in self._pools:
            pool = cast(
                urllib3.HTTPConnectionPool, self.get_connection_with_tls_context(request, verify, proxies=proxies)
            )
            self.cert_verify(pool, url, verify, None)  # type: ignore[no-untyped-call]
            self._pools[key] = pool
        return self._pools[key]


def _prepare(
    method: str, url: str, headers: Mapping[str, str], login: tuple[str, str] | None, cookies: RequestsCookieJar
) -> requests.PreparedRequest:
    """What Session.prepare_request makes of a request, without what it asks anew for each of thousands of files."""
    request = requests.PreparedRequest()
    request.method, request.url, request.hooks = method, requote_uri(url), {}
    request.headers = CaseInsensitiveDict({**_ALWAYS, **headers})
    if login is not None and "Authorization" not in request.headers:
        request.prepare_auth(HTTPBasicAuth(*login), url)
    if cookies and (cookie := get_cookie_header(cookies, request)):  # type: ignore[no-untyped-call]
        request.headers["Cookie"] = cookie
    return request


def _without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without the user and password that may stand in it, and those two."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), get_auth_from_url(url)


def _finish(response: urllib3.BaseHTTPResponse) -> None:
    """Keep the connection for reuse if the body has been read, or there was none; else close it."""
    if not response.closed and cast(urllib3.HTTPResponse, response).length_remaining == 0:
        response.drain_conn()
    response.close()


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


@lru_cache(maxsize=256)
def _environment(scheme: str, host: str, port: int) -> tuple[tuple[tuple[str, str], ...], tuple[str, str] | None]:
    """Proxies and the ~/.netrc login for a host."""
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
    return tuple(sorted(get_environ_proxies(url).items())), get_netrc_auth(url)


def _certificates() -> str | bool:
    """The file or folder of authorities that the user named, or True for those that requests carries.

    Raises:
        SourceRefused: there is no such file.
    """
    for name in _CA_VARIABLES:
        if path := os.environ.get(name):
            if not os.path.exists(path):  # noqa: PTH110 - asked for every request
                raise SourceRefused(
                    "no such file of certificate authorities", where=name, next_step=f"correct or unset {name}"
                )
            return path
    return True


def _require_address(url: str, where: str) -> None:
    """Refuse what no request can go to: another scheme, no host, or a port that is none.

    Raises:
        SourceRefused: not a web address.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise SourceRefused("not a web address", where=where, expected="http or https, a host and a port")


def _redirect_target(response: urllib3.BaseHTTPResponse, url: str, where: str) -> str | None:
    if response.status not in _REDIRECTS or "Location" not in response.headers:
        return None
    # http.client reads headers as Latin-1; what servers send is UTF-8
    location = response.headers["Location"].encode("latin-1", "replace").decode("utf-8", "replace")
    try:
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
    except ValueError as error:
        raise SourceRefused("redirected to what is no web address", where=where) from error
    if scheme not in ("http", "https"):
        raise SourceRefused("redirected away from the web", where=where, expected="http or https", got=scheme[:20])
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise SourceRefused("redirected from https to http", where=where, next_step="report it to the host")
    return target


def _raise_for_status(response: urllib3.BaseHTTPResponse, url: str, where: str) -> None:
    status = response.status
    if status in (200, 206, 416):
        return
    host = urlsplit(url).hostname or "the server"
    asked_s = parse_retry_after(response.headers.get("Retry-After"))
    if status in _BUSY or (status == 403 and asked_s is not None):
        raise SourceUnavailable(f"{host} answered {status}", where=where, retry_after_s=asked_s)
    steps = {
        401: "give the credentials that this host asks for (docs/how-to/fetch-overnight.md)",
        403: "accept the dataset's terms on its page, or fetch it by hand and use --from",
        404: "see the dataset's page; fetch it by hand and use --from",
        410: "see the dataset's page; fetch it by hand and use --from",
    }
    raise SourceRefused(f"{host} answered {status}", where=where, next_step=steps.get(status, "see the dataset's page"))
