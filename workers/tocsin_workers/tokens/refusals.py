"""What a token endpoint's answer means: pure functions from an answer to a `TokenError`.

Error codes: RFC 6749 section 5.2. AADSTS codes: Microsoft's list of Entra authentication error codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from tocsin_schema.errors import TokenError
from tocsin_workers.tokens.endpoint import endpoint_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile

#: A longer wish than this is not obeyed to the letter: we ask again after it.
MAX_RETRY_AFTER = timedelta(hours=1)

_MAX_DESCRIPTION = 300
_AADSTS = re.compile(r"AADSTS\d{3,9}")
_TRACES = re.compile(r"(Trace ID|Correlation ID|Timestamp|trace_id|correlation_id):", re.IGNORECASE)
#: Errors by which the endpoint blames itself or the moment, also in the form of a refusal.
_PASSING = frozenset(
    {"temporarily_unavailable", "server_error", "slow_down", "AADSTS90033", "AADSTS90024", "AADSTS50196"}
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The `error` and `error_description` of an endpoint's answer, as they came."""

    error: str
    description: str


def read_refusal(answer: Mapping[str, object]) -> Refusal:
    """Read an error answer; what is missing or of another type becomes text."""
    return Refusal(str(answer.get("error") or "unknown error"), str(answer.get("error_description") or ""))


def refused(profile: OAuthProfile, refusal: Refusal, secrets: Iterable[str]) -> TokenError:
    """Say what a refusal means and how to mend it. Trace ids are dropped, an echoed secret is masked."""
    hidden = tuple(secrets)
    code = _plain(refusal.error, hidden)[:80]
    description = _plain(_TRACES.split(refusal.description)[0], hidden)
    described = f" ({_shortened(description)})" if description else ""
    aadsts = _AADSTS.search(refusal.description)
    permanent = code not in _PASSING and (aadsts is None or aadsts.group() not in _PASSING)
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} gave no token: {code}{described}.",
        fix=_fix(profile.name, code, aadsts.group() if aadsts else None) if permanent else None,
        permanent=permanent,
        code=code,
    )


def unavailable(profile: OAuthProfile, status: int, retry_after: float | None) -> TokenError:
    """Say that the endpoint is overloaded or broken (408, 429, 5xx): worth asking again."""
    what = "asks us to slow down" if status == 429 else "is not available"  # noqa: PLR2004  # RFC 6585 section 4
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} {what} (HTTP {status}).", retry_after=retry_after
    )


def not_an_answer(profile: OAuthProfile, status: int) -> TokenError:
    """Say that what came is not an OAuth answer: permanent where the endpoint plainly said no (3xx, 4xx)."""
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} does not answer like a token endpoint"
        f" (HTTP {status}, not a JSON object).",
        fix=f"Check the address: `tocsin oauth show {profile.name}`.",
        permanent=300 <= status < 500,  # noqa: PLR2004  # RFC 9110 section 15
    )


def unusable_token(profile: OAuthProfile, why: str) -> TokenError:
    """Say that a token came and cannot be used."""
    return TokenError(f"OAuth profile {profile.name}: the token from {endpoint_host(profile)} {why}.")


def unreachable(profile: OAuthProfile, reason: str) -> TokenError:
    """Say why the endpoint could not be spoken to: worth asking again."""
    reason = " ".join(reason.split())
    untrusted = "certificate verify failed" in reason.lower()
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} cannot be reached: {_shortened(reason)}.",
        fix=f"If it has a certificate of your own: `tocsin oauth set {profile.name} --ca-file FILE`."
        if untrusted
        else None,
    )


def too_late(profile: OAuthProfile, deadline_seconds: float) -> TokenError:
    """Say that the whole answer was not there in time."""
    return TokenError(
        f"OAuth profile {profile.name}: {endpoint_host(profile)} did not answer within {deadline_seconds:g} s."
    )


def nobody_signed_in(profile: OAuthProfile, mailbox: str) -> TokenError:
    """Say that the grant lives on a sign-in, and nobody has signed in for this mailbox."""
    return TokenError(
        f"OAuth profile {profile.name}: nobody has signed in for {mailbox}.",
        fix=f"Sign in: `tocsin oauth acquire {profile.name} --user {mailbox}`.",
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


def _fix(name: str, code: str, aadsts: str | None) -> str:
    match aadsts or code:
        case "AADSTS700016":
            return (
                "The application is not known in this tenant: correct client or tenant id"
                f" (`tocsin oauth set {name} --client-id ID --tenant-id ID`), or grant it consent there."
            )
        case "AADSTS90002" | "AADSTS900023" | "invalid_tenant":
            return f"Correct the tenant id: `tocsin oauth set {name} --tenant-id ID`."
        case "AADSTS70011" | "AADSTS1002012" | "AADSTS500011" | "invalid_scope" | "invalid_resource":
            return f"Correct the scope: `tocsin oauth set {name} --scope SCOPE`."
        case _ if code == "invalid_client":
            return f"Replace the secret: `tocsin oauth replace-secret {name}`."
        case _:
            return f"Check the profile (`tocsin oauth show {name}`) against what the provider has registered."


def _plain(text: str, secrets: tuple[str, ...]) -> str:
    """Give a foreign text in one printable line, without the secrets."""
    for secret in filter(None, secrets):
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            text = text.replace(form, "**********")
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _shortened(text: str) -> str:
    text = text.rstrip(". ")
    return text if len(text) <= _MAX_DESCRIPTION else text[:_MAX_DESCRIPTION] + "…"
