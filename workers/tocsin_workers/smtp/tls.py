"""TLS towards a mail server: contexts, and plain words for a certificate that is not to be trusted."""

from __future__ import annotations

import ssl
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from tocsin_schema.errors import ConfigurationError, Scope
from tocsin_workers.smtp.errors import SmtpTlsError, Trouble
from tocsin_workers.smtp.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping


class TlsMode(StrEnum):
    """How a connection becomes private."""

    STARTTLS = "starttls"
    """Plain at first, then upgraded (RFC 3207); mandatory, never opportunistic. Port 587."""
    IMPLICIT = "implicit"
    """TLS from the first octet (RFC 8314). Port 465."""
    NONE = "none"


@lru_cache(maxsize=64)
def client_context(ca_pem: str | None) -> ssl.SSLContext:
    """Give the one shared context for these certificate authorities; None: the system's.

    It takes about 50 ms to build. Raises `ConfigurationError` where the text holds no certificate.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            "The profile's CA file holds no certificate in PEM form.",
            fix="Give a file with -----BEGIN CERTIFICATE----- blocks to --ca-file.",
            scope=Scope.PROFILE,
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def unverified_context() -> ssl.SSLContext:
    """Give a context that takes any certificate, to look at one that is refused. Nothing is ever sent over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNTRUSTED = {2, 18, 19, 20, 21, 27}
_WRONG_NAME = {62, 64}


def certificate_trouble(error: ssl.SSLCertVerificationError) -> Trouble:
    """Tell why a certificate is not to be trusted."""
    if error.verify_code in _WRONG_NAME:
        return Trouble.CERTIFICATE_FOR_ANOTHER_NAME
    if error.verify_code == _EXPIRED:
        return Trouble.CERTIFICATE_EXPIRED
    if error.verify_code == _NOT_YET_VALID:
        return Trouble.CERTIFICATE_NOT_YET_VALID
    if error.verify_code in _UNTRUSTED:
        return Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY
    return Trouble.CERTIFICATE_NOT_TRUSTED


CERTIFICATE_WORDS: Mapping[Trouble, str] = MappingProxyType(
    {
        Trouble.CERTIFICATE_FOR_ANOTHER_NAME: "is for another name",
        Trouble.CERTIFICATE_EXPIRED: "has expired",
        Trouble.CERTIFICATE_NOT_YET_VALID: "is not valid yet",
        Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY: "is not signed by an authority that we trust",
        Trouble.CERTIFICATE_NOT_TRUSTED: "is not to be trusted",
    }
)
"""What is wrong with a certificate, after the words that name it."""


def tls_error(error: ssl.SSLError, host: str, port: int, mode: TlsMode) -> SmtpTlsError:
    """Say in plain words why there is no TLS, and what to do."""
    where = f"{host}:{port}"
    if not isinstance(error, ssl.SSLCertVerificationError):
        reason = error.reason or "the handshake failed"
        return SmtpTlsError(
            f"TLS with {where} failed: {reason.replace('_', ' ').lower()}.",
            phase=Phase.TLS,
            trouble=Trouble.HANDSHAKE_FAILED,
            fix=_other_mode(mode),
        )
    said = error.verify_message.rstrip(".")
    trouble = certificate_trouble(error)
    return SmtpTlsError(
        f"The certificate of {where} {CERTIFICATE_WORDS[trouble]} ({said}).",
        phase=Phase.TLS,
        trouble=trouble,
        fix=_certificate_fix(trouble, host),
    )


def _certificate_fix(trouble: Trouble, host: str) -> str:
    match trouble:
        case Trouble.CERTIFICATE_FOR_ANOTHER_NAME:
            return f"Set the profile's host to a name that the certificate holds; it does not hold {host!r}."
        case Trouble.CERTIFICATE_EXPIRED:
            return "Have the server's certificate renewed, and check this machine's clock."
        case Trouble.CERTIFICATE_NOT_YET_VALID:
            return "Check this machine's clock, then the server's certificate."
        case Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY:
            return (
                "If the server belongs to you, give its authority's certificate with --ca-file; "
                "if not, somebody may be in between: do not send."
            )
        case _:
            return "Have the server's certificate put right, or give its authority with --ca-file."


def no_starttls(host: str, port: int) -> SmtpTlsError:
    """Say that a server does not offer STARTTLS."""
    return SmtpTlsError(
        f"{host}:{port} does not offer STARTTLS, so nothing was sent to it.",
        phase=Phase.TLS,
        trouble=Trouble.STARTTLS_NOT_OFFERED,
        fix=_other_mode(TlsMode.STARTTLS),
    )


def _other_mode(mode: TlsMode) -> str:
    if mode is TlsMode.IMPLICIT:
        return "Check host and port; --tls implicit belongs to port 465, --tls starttls to port 587."
    return "Check host and port; --tls starttls belongs to port 587, --tls implicit to port 465."
