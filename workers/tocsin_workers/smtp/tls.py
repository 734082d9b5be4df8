"""TLS towards a mail server: contexts, and plain words for a certificate that is not to be trusted."""

from __future__ import annotations

import ssl
from enum import StrEnum
from functools import lru_cache

from tocsin_schema.errors import ConfigurationError, Scope
from tocsin_workers.smtp.errors import SmtpTlsError, Trouble
from tocsin_workers.smtp.phases import Phase


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
    if error.verify_code in _WRONG_NAME:
        trouble = Trouble.CERTIFICATE_FOR_ANOTHER_NAME
        problem = f"The certificate of {where} is for another name ({said})."
        fix = f"Set the profile's host to a name that the certificate holds; it does not hold {host!r}."
    elif error.verify_code == _EXPIRED:
        trouble = Trouble.CERTIFICATE_EXPIRED
        problem = f"The certificate of {where} has expired ({said})."
        fix = "Have the server's certificate renewed, and check this machine's clock."
    elif error.verify_code == _NOT_YET_VALID:
        trouble = Trouble.CERTIFICATE_NOT_YET_VALID
        problem = f"The certificate of {where} is not valid yet ({said})."
        fix = "Check this machine's clock, then the server's certificate."
    elif error.verify_code in _UNTRUSTED:
        trouble = Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY
        problem = f"The certificate of {where} is not signed by an authority that we trust ({said})."
        fix = (
            "If the server belongs to you, give its authority's certificate with --ca-file; "
            "if not, somebody may be in between: do not send."
        )
    else:
        trouble = Trouble.CERTIFICATE_NOT_TRUSTED
        problem = f"The certificate of {where} is not to be trusted ({said})."
        fix = "Have the server's certificate put right, or give its authority with --ca-file."
    return SmtpTlsError(problem, phase=Phase.TLS, trouble=trouble, fix=fix)


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
