"""Why a session with a mail server cannot be opened, a refused log-in apart, and the command that mends it. Pure.

The errors of `smtp` know neither the profile's name nor what else it might be set to, so the fix is made here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.sending_profile_rules import checked_host
from tocsin_workers.classification import classify
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.smtp.errors import SmtpDeadline, SmtpDisconnected, SmtpSessionError, SmtpTlsError, Trouble
from tocsin_workers.smtp.tls import TlsMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_workers.diagnosis.certificate import Certificate

BY_TROUBLE: Mapping[Trouble, Cause] = MappingProxyType(
    {
        Trouble.UNKNOWN_HOST: Cause.UNKNOWN_HOST,
        Trouble.CONNECTION_REFUSED: Cause.CONNECTION_REFUSED,
        Trouble.UNREACHABLE: Cause.UNREACHABLE,
        Trouble.NO_ANSWER: Cause.FIREWALL,
        Trouble.NO_GREETING: Cause.NO_GREETING,
        Trouble.NOT_SMTP: Cause.NOT_SMTP,
        Trouble.STARTTLS_NOT_OFFERED: Cause.STARTTLS_NOT_OFFERED,
        Trouble.CERTIFICATE_FOR_ANOTHER_NAME: Cause.CERTIFICATE_FOR_ANOTHER_NAME,
        Trouble.CERTIFICATE_EXPIRED: Cause.CERTIFICATE_EXPIRED,
        Trouble.CERTIFICATE_NOT_YET_VALID: Cause.CERTIFICATE_NOT_YET_VALID,
        Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY: Cause.CERTIFICATE_OF_UNKNOWN_AUTHORITY,
        Trouble.CERTIFICATE_NOT_TRUSTED: Cause.CERTIFICATE_NOT_TRUSTED,
        Trouble.HANDSHAKE_FAILED: Cause.TLS_FAILED,
        Trouble.AUTH_NOT_OFFERED: Cause.AUTH_NOT_OFFERED,
        Trouble.MECHANISM_NOT_OFFERED: Cause.MECHANISM_NOT_OFFERED,
        Trouble.PLAINTEXT: Cause.PLAINTEXT,
    }
)
WAIT = "Try again in a while."


def explain_failed_session(
    error: SmtpSessionError,
    *,
    profile_name: str,
    tls: TlsMode = TlsMode.STARTTLS,
    uses_oauth: bool = False,
    certificate: Certificate | None = None,
) -> Verdict:
    """Say why a session could not be opened, a refused log-in apart.

    `profile_name` is the sending profile's; `tls` is how it secures its connections, `uses_oauth` whether it logs in
    with tokens. `certificate` is the one that was refused.
    """
    said = "" if certificate is None else f" It is {certificate}."
    if error.trouble is not None:
        fix = _way_out(error.trouble, profile_name, tls, uses_oauth=uses_oauth, certificate=certificate)
        return Verdict(BY_TROUBLE[error.trouble], f"{error.problem}{said}", fix)
    show = f"look at host and port: `tocsin profile show {profile_name}`"
    match error:
        case SmtpDeadline():
            return Verdict(Cause.TOO_SLOW, error.problem, f"Try again in a while; if it stays so, {show}.")
        case SmtpDisconnected():
            return Verdict(Cause.CONNECTION_LOST, error.problem, f"Try again; if it stays so, {show}.")
        case SmtpTlsError():
            return Verdict(Cause.TLS_FAILED, error.problem, _other_mode(profile_name, tls))
        case _ if error.reply is None or not classify(error.phase, error.reply).permanent:
            return Verdict(Cause.SERVER_BUSY, error.problem, error.fix or WAIT)
        case _:
            own = "Ask whoever runs the server whether it serves this machine's network address."
            return Verdict(Cause.SERVER_REFUSES_US, error.problem, error.fix or own)


def unknown_host(profile_name: str) -> str:
    """Say what to do about a name that leads nowhere."""
    return f"Correct the name (`tocsin profile set {profile_name} --host HOST`), or this machine's DNS."


def bad_ca_file(profile_name: str) -> str:
    """Say what to do about a CA file that holds no certificate."""
    return (
        f"Give a file with -----BEGIN CERTIFICATE----- blocks: `tocsin profile set {profile_name} --ca-file FILE`, or "
        f"trust the system's authorities: `tocsin profile set {profile_name} --no-ca-file`."
    )


def use_oauth(profile_name: str) -> str:
    """Say how a profile comes to log in by OAuth: words without a full stop."""
    return f"`tocsin profile set {profile_name} --oauth OAUTH` (`tocsin oauth list` shows which there are)"


def _way_out(  # noqa: PLR0911, PLR0912, C901  # one answer a trouble
    trouble: Trouble, name: str, tls: TlsMode, *, uses_oauth: bool, certificate: Certificate | None
) -> str:
    change = f"tocsin profile set {name}"
    match trouble:
        case Trouble.UNKNOWN_HOST:
            return unknown_host(name)
        case Trouble.CONNECTION_REFUSED | Trouble.UNREACHABLE:
            return (
                "The mail server may be down: ask whoever runs it, or wait. If this profile has never worked, correct "
                f"host and port (`{change} --host HOST --port PORT`), or let a firewall pass connections from this "
                "machine to them."
            )
        case Trouble.NOT_SMTP:
            return (
                f"Correct host and port (`{change} --host HOST --port PORT`), or let a firewall pass connections from "
                "this machine to them."
            )
        case Trouble.NO_ANSWER:
            return (
                "Nothing answers, not even with a refusal: let a firewall pass connections from this machine to that "
                f"port, or correct host and port: `{change} --host HOST --port PORT`. Many networks block port 25; "
                "587 is the one for sending."
            )
        case Trouble.NO_GREETING | Trouble.STARTTLS_NOT_OFFERED | Trouble.HANDSHAKE_FAILED:
            return _other_mode(name, tls)
        case Trouble.CERTIFICATE_FOR_ANOTHER_NAME:
            return _host_of(certificate, change)
        case Trouble.CERTIFICATE_EXPIRED:
            return "Have the server's certificate renewed, and check this machine's clock."
        case Trouble.CERTIFICATE_NOT_YET_VALID:
            return "Check this machine's clock, then the server's certificate."
        case Trouble.CERTIFICATE_OF_UNKNOWN_AUTHORITY:
            return (
                f"If the server belongs to you, trust its authority: `{change} --ca-file FILE`; "
                "if not, somebody may be in between: do not send."
            )
        case Trouble.CERTIFICATE_NOT_TRUSTED:
            return f"Have the server's certificate put right, or trust its authority: `{change} --ca-file FILE`."
        case Trouble.AUTH_NOT_OFFERED:
            return (
                f"Look at host, port and TLS (`tocsin profile show {name}`); if the server knows this machine by its "
                f"network address: `{change} --auth none`."
            )
        case Trouble.MECHANISM_NOT_OFFERED:
            other = f"`{change} --auth basic --password-file FILE`" if uses_oauth else use_oauth(name)
            return f"Look at host and port (`tocsin profile show {name}`), or log in otherwise: {other}."
        case Trouble.PLAINTEXT:
            return f"Let the connection be encrypted: `{change} --tls starttls`, or `{change} --tls implicit`."


def _other_mode(name: str, tls: TlsMode) -> str:
    """Say how to try the other way to TLS, at the port where it is usual (RFC 6409, RFC 8314)."""
    other = "--port 587 --tls starttls" if tls is TlsMode.IMPLICIT else "--port 465 --tls implicit"
    return (
        f"Try the other way to TLS: `tocsin profile set {name} {other}`; or look at host and port: "
        f"`tocsin profile show {name}`."
    )


def _host_of(certificate: Certificate | None, change: str) -> str:
    """Name a host that the certificate holds. Its names are somebody else's text, and a wildcard is no host."""
    hosts = [host for host in (() if certificate is None else certificate.names) if _is_host(host)]
    if not hosts:
        held = "" if certificate is None or not certificate.names else f" ({certificate.listed})"
        return f"Set the host to a name that the certificate holds{held}: `{change} --host HOST`."
    others = f" (or another of {', '.join(hosts)})" if len(hosts) > 1 else ""
    return f"If the server belongs to you, use a name that its certificate holds: `{change} --host {hosts[0]}`{others}."


def _is_host(name: str) -> bool:
    try:
        return checked_host(name) == name.lower()
    except UsageError:
        return False
