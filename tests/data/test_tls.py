"""TLS on loopback: a bad certificate is refused at once, in one line; a trusted authority is all it takes."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from openus_data.errors import SourceRefused
from openus_data.transfer import Engine, Job, Policy

CERTIFICATES = Path(__file__).parent / "certificates"
CONTENT = b"tls" * 1000
QUICK = Policy(connect_timeout_s=5, silence_timeout_s=5, attempts=3, backoff_s=0.01, backoff_cap_s=0.02)


@contextmanager
def secure(certificate: str) -> Iterator[FaultyServer]:
    """The faulty server behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
    with FaultyServer({"a.bin": CONTENT}) as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        server._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        yield server


def https(server: FaultyServer) -> str:
    return server.url("a.bin").replace("http://", "https://")


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def trust(monkeypatch: pytest.MonkeyPatch, certificate: str, variable: str = "REQUESTS_CA_BUNDLE") -> None:
    monkeypatch.setenv(variable, str(CERTIFICATES / f"{certificate}.pem"))


def fetch(url: str, folder: Path) -> None:
    Engine(QUICK, threading.Event()).download(Job(url=url, target=folder / "a.bin"))


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_authority_that_the_user_names_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    trust(monkeypatch, "valid", variable)
    with secure("valid") as server:
        fetch(https(server), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("certificate", "trusted", "words"),
    [
        ("valid", False, r"no authority that this machine trusts; .*REQUESTS_CA_BUNDLE"),
        ("expired", False, r"a\.bin: the server's certificate"),
        ("expired", True, r"certificate has expired; check this machine's clock"),
        ("early", True, r"certificate is not valid yet; check this machine's clock"),
        ("other_host", True, r"certificate is for another host; check the address"),
    ],
)
def test_a_bad_certificate_is_refused_at_once_and_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: str, trusted: bool, words: str
) -> None:
    if trusted:
        trust(monkeypatch, certificate)
    with secure(certificate) as server:
        with pytest.raises(SourceRefused, match=words) as caught:
            fetch(https(server), tmp_path)
        assert server.log == []
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch, "valid")
    with FaultyServer({"a.bin": CONTENT}) as plain, secure("valid") as server:
        server.redirects["a.bin"] = plain.url("a.bin")
        with pytest.raises(SourceRefused, match="redirected from https to http"):
            fetch(https(server), tmp_path)
        assert plain.log == []


def test_a_server_without_tls_is_named_as_such(tmp_path: Path) -> None:
    refused = pytest.raises(SourceRefused, match="does not speak TLS; is it http, not https")
    with FaultyServer({"a.bin": CONTENT}) as server, refused:
        fetch(https(server), tmp_path)


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), ("no certificate", "holds none")])
def test_a_wrong_file_of_authorities_is_named_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, words: str
) -> None:
    bundle = tmp_path / "private-name.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with secure("valid") as server, pytest.raises(SourceRefused, match=words) as caught:
        fetch(https(server), tmp_path)
    assert "REQUESTS_CA_BUNDLE" in str(caught.value)
    assert "private-name" not in str(caught.value)
