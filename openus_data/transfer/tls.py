"""Why a secure connection was refused, in words that lead on. Nothing here makes a connection less secure."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Final

from urllib3.util.ssl_match_hostname import CertificateError

from openus_data.errors import SourceRefused

_TRUST: Final = (
    "the server's certificate comes from no authority that this machine trusts",
    "if you trust it (your own mirror, a filtering proxy), name the file of its authority in REQUESTS_CA_BUNDLE",
)
_HOST: Final = (
    "the server's certificate is for another host",
    "check the address, and whether the network shows a login page",
)
_BY_CODE: Final = {
    9: ("the server's certificate is not valid yet", "check this machine's clock"),
    10: (
        "the server's certificate has expired",
        "check this machine's clock; else wait for the host to renew it, or fetch the file by hand and use --from",
    ),
    62: _HOST,
    64: _HOST,
}
"""By OpenSSL's verify code (x509_vfy.h); every other one is a chain that ends nowhere."""


def tls_refusal(causes: Sequence[BaseException], where: str) -> SourceRefused | None:
    """The refusal behind an error, if TLS is the reason and another try would end in the same way.

    Args:
        causes: the error and those that led to it.
        where: how messages name the file.
    """
    for cause in causes:
        if isinstance(cause, CertificateError):
            return SourceRefused(_HOST[0], where=where, next_step=_HOST[1])
        if isinstance(cause, ssl.SSLCertVerificationError):
            what, next_step = _BY_CODE.get(cause.verify_code, _TRUST)
            return SourceRefused(what, where=where, next_step=next_step)
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return SourceRefused("the server does not speak TLS", where=where, next_step="is it http, not https?")
        if isinstance(cause, ssl.SSLError) and cause.reason in ("NO_CERTIFICATE_OR_CRL_FOUND", "PEM_LIB"):
            return SourceRefused("the file of certificate authorities holds none", where="REQUESTS_CA_BUNDLE")
    return None
