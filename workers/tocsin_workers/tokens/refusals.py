"""What a token endpoint's answer means: pure functions from an answer to a `TokenError`.

Error codes: RFC 6749 section 5.2. Why an endpoint refuses stands in `refusal_causes`, what then helps in
`refusal_fixes`.
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
from tocsin_workers.tokens.refusal_causes import PASSING, find_row
from tocsin_workers.tokens.refusal_fixes import explain, how_to_sign_in, sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.refusal_causes import Cause

#: A longer wish than this is not obeyed to the letter: we ask again after it.
MAX_RETRY_AFTER = timedelta(hours=1)

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
