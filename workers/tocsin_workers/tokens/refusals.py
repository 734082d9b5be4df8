"""What a token endpoint's answer means: pure functions from an answer to a `TokenError`.

Error codes: RFC 6749 section 5.2. Why an endpoint refuses stands in `refusal_causes`, what then helps in
`refusal_fixes`.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, quote_plus

from tocsin_schema.errors import TokenError
from tocsin_schema.ledger.oauth_providers import GrantType
from tocsin_workers.smtp.errors import Trouble
from tocsin_workers.smtp.tls import CERTIFICATE_WORDS, certificate_trouble
from tocsin_workers.tokens.endpoint import endpoint_host
from tocsin_workers.tokens.refusal_causes import PASSING, find_row
from tocsin_workers.tokens.refusal_fixes import another_grant, explain, how_to_sign_in, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.refusal_causes import Cause

#: A longer wish than this is not obeyed to the letter: we ask again after it.
MAX_RETRY_AFTER = timedelta(hours=1)

#: Where machines of Azure's ask, unless their environment names another address.
_METADATA_SERVICE = "169.254.169.254 (or what the environment names in its place)"
_MAX_ERROR = 80
_MAX_DESCRIPTION = 300
_AADSTS = re.compile(r"AADSTS\d{3,9}")
_OAUTH_ERROR = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_TRACES = re.compile(r"(Trace ID|Correlation ID|Timestamp|trace_id|correlation_id):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The `error` and `error_description` of an endpoint's answer, as they came.

    `subtype` is what Microsoft (`suberror`) and Google (`error_subtype`) say beside them.
    """

    error: str
    description: str
    subtype: str = ""


def read_refusal(answer: Mapping[str, object]) -> Refusal:
    """Read an error answer; what is missing or of another type becomes text."""
    return Refusal(
        str(answer.get("error") or "unknown error"),
        str(answer.get("error_description") or ""),
        str(answer.get("error_subtype") or answer.get("suberror") or ""),
    )


def refused(
    profile: OAuthProfile, refusal: Refusal, secrets: Iterable[str], *, mailbox: str | None = None
) -> TokenError:
    """Say what a refusal means and how to mend it. Trace ids are dropped, an echoed secret is masked.

    `mailbox` is whom the token was to be for, where it was for one. The error's `code` is Microsoft's AADSTS code
    where there is one, else the OAuth error.
    """
    hidden = tuple(secrets)
    error = _plain(refusal.error, hidden)[:_MAX_ERROR]
    description = _plain(_TRACES.split(refusal.description)[0], hidden)
    codes = tuple(dict.fromkeys(_AADSTS.findall(refusal.description)))
    row = find_row(profile, (error, *codes), f"{description} {refusal.subtype}")
    # Where there are several, the one that decided.
    aadsts = next((code for code in codes if row.codes and code in row.codes), next(iter(codes), None))
    told = explain(row.cause, profile, mailbox=mailbox or None, aadsts=aadsts)
    described = f": {_shortened(description)}" if description else ""
    return TokenError(
        f"OAuth profile {profile.name}: {told.meaning} ({endpoint_host(profile)} says {error}{described}).",
        fix=told.fix,
        permanent=row.cause not in PASSING,
        code=aadsts or error,
        cause=row.cause,
    )


def cause_of(profile: OAuthProfile, code: str, problem: str) -> Cause:
    """Give the cause of a failure that the ledger kept: the code and the problem of what `refused` gave.

    UNKNOWN where it was no refusal, or one that the table does not know.
    """
    return find_row(profile, {code, *_AADSTS.findall(problem), *_OAUTH_ERROR.findall(problem)}, problem).cause


def unavailable(profile: OAuthProfile, status: int, retry_after: float | None) -> TokenError:
    """Say that the endpoint is overloaded or broken (408, 429, 5xx): worth asking again."""
    what = "asks us to slow down" if status == 429 else "is not available"  # noqa: PLR2004  # RFC 6585 section 4
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} {what} (HTTP {status}).",
        # 404 and 410 pass where Azure is renewing the endpoint; elsewhere nobody knows such an address.
        fix=another_grant(profile) if _is_of_machine(profile) and status < 429 else None,  # noqa: PLR2004  # RFC 6585 section 4
        retry_after=retry_after,
    )


def not_an_answer(profile: OAuthProfile, status: int, *, asked: str = _METADATA_SERVICE) -> TokenError:
    """Say that what came is not an OAuth answer: permanent where the endpoint plainly said no (3xx, 4xx).

    `asked` is the address that a managed identity's token was asked for at.
    """
    permanent = 300 <= status < 500  # noqa: PLR2004  # RFC 9110 section 15
    if _is_of_machine(profile):
        return TokenError(
            f"OAuth profile {profile.name}: this machine seems to have no managed identity: {asked} does not answer"
            f" like Azure's endpoint (HTTP {status}, not a JSON object).",
            fix=another_grant(profile),
            permanent=permanent,
        )
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} does not answer like a token endpoint"
        f" (HTTP {status}, not a JSON object).",
        fix=f"Correct the address: `tocsin oauth set {profile.name} --token-endpoint URL`.",
        permanent=permanent,
    )


def unusable_token(profile: OAuthProfile, why: str) -> TokenError:
    """Say that a token came and cannot be used."""
    return TokenError(f"OAuth profile {profile.name}: the token from {endpoint_host(profile)} {why}.")


def reason_of(error: BaseException) -> str:
    """Say in plain words why a connection failed, from the error behind an HTTP client's own."""
    behind = tuple(_behind(error))
    for cause in behind:
        if isinstance(cause, ssl.SSLCertVerificationError):
            said = cause.verify_message.rstrip(".")
            what = CERTIFICATE_WORDS[certificate_trouble(cause)]
            return f"its certificate {what} (certificate verify failed: {said})"
        if isinstance(cause, ssl.SSLError):
            # Only those that OpenSSL raises have one.
            said = str(getattr(cause, "reason", None) or "the handshake failed")
            return f"TLS failed ({said.replace('_', ' ').lower()})"
        if isinstance(cause, socket.gaierror):
            return f"its name is not known here ({cause.strerror})"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
    # The innermost knows best: what wraps it only says that every attempt failed.
    told = (cause.strerror for cause in reversed(behind) if isinstance(cause, OSError) and cause.strerror)
    return next(told, None) or str(error) or type(error).__name__


def unreachable(profile: OAuthProfile, reason: str) -> TokenError:
    """Say why the endpoint could not be spoken to: worth asking again."""
    reason = " ".join(reason.split())
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} cannot be reached: {_shortened(reason)}.",
        fix=another_grant(profile) if _is_of_machine(profile) else _reachable(profile, reason),
    )


def _reachable(profile: OAuthProfile, reason: str) -> str:
    """Say what to do for a reason that `reason_of` gave."""
    address = f"`tocsin oauth set {profile.name} --token-endpoint URL`"
    if CERTIFICATE_WORDS[Trouble.CERTIFICATE_FOR_ANOTHER_NAME] in reason:
        return f"Ask at a name that the certificate holds: {address}."
    if any(CERTIFICATE_WORDS[trouble] in reason for trouble in _TIMES):
        return "Have the endpoint's certificate renewed, and check this machine's clock."
    if "certificate" in reason:
        return (
            f"If the endpoint is yours, trust its authority: `tocsin oauth set {profile.name} --ca-file FILE`; if not,"
            " somebody may be in between."
        )
    return f"Let this machine reach it (firewall, DNS), or correct the address: {address}."


_TIMES = (Trouble.CERTIFICATE_EXPIRED, Trouble.CERTIFICATE_NOT_YET_VALID)


def _is_of_machine(profile: OAuthProfile) -> bool:
    return profile.grant_type == GrantType.MANAGED_IDENTITY


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and those that led to it; several attempts come as a group."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, BaseExceptionGroup):
            waiting.extend(cast("BaseExceptionGroup[BaseException]", cause).exceptions)
        waiting.append(cause.__cause__ or cause.__context__)


def too_late(profile: OAuthProfile, deadline_seconds: float) -> TokenError:
    """Say that the whole answer was not there in time."""
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} did not answer within {deadline_seconds:g} s.",
        fix=another_grant(profile) if _is_of_machine(profile) else None,
    )


def nobody_signed_in(profile: OAuthProfile, mailbox: str) -> TokenError:
    """Say that the grant lives on a sign-in, and nobody has signed in for this mailbox."""
    return TokenError(
        f"OAuth profile {profile.name}: nobody has signed in for {mailbox}.",
        fix=f"{sentence(how_to_sign_in(profile, mailbox, again=False))}.",
        permanent=True,
        code="not_signed_in",
    )


def misconfigured(profile: OAuthProfile, what: str, option: str) -> TokenError:
    """Say which field the profile lacks, and the option that sets it."""
    return TokenError(f"OAuth profile {profile.name}: {what}.", fix=f"Set it: `tocsin oauth {option}`.", permanent=True)


def read_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110 section 10.2.3): seconds or a date; None where it is neither."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}\s*", value, re.ASCII):
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER.total_seconds())


def _plain(text: str, secrets: tuple[str, ...]) -> str:
    """Give a foreign text in one printable line, without the secrets."""
    for secret in filter(None, secrets):
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "**********")
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _shortened(text: str) -> str:
    text = text.rstrip(". ")
    return text if len(text) <= _MAX_DESCRIPTION else text[:_MAX_DESCRIPTION] + "…"
