"""When credentials end is read strictly and told in days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.builders import THEN, an_oauth_profile
from tocsin_console.commands.oauth_showing import OAuthLine, as_json_object, as_row
from tocsin_console.reading.credential_ends import (
    Credential,
    credential_of,
    end_in_words,
    read_end_date,
    warning_of_end,
)
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.refresh_tokens import RefreshTokenRow

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
END = datetime(2027, 3, 1, 23, 59, 59, tzinfo=UTC)


def sign_in(**fields: Any) -> RefreshTokenRow:
    usual = {"signed_in_at": THEN, "renewed_at": THEN, "expires_at": None, "account": "a@example.org"}
    return RefreshTokenRow(UUID(int=2), UUID(int=1), "a@example.org", 1, b"sealed", **{**usual, **fields})


def test_a_day_ends_with_itself_and_a_time_when_it_says() -> None:
    assert read_end_date("2027-03-01", "--secret-expires", now=NOW) == END
    assert read_end_date("2027-03-01T12:00:00+02:00", "--secret-expires", now=NOW) == datetime(
        2027, 3, 1, 10, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2027-02-30", "2027-03-01T12:00:00", "1.3.2027", "9999-12-31", "0001-01-01", "２０２７-03-01"],
)
def test_what_is_no_date_is_refused_and_the_flag_named(text: str) -> None:
    with pytest.raises(UsageError, match="--secret-expires"):
        read_end_date(text, "--secret-expires", now=NOW)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (END, "2027-03-01 (in 99 days)"),
        (NOW + timedelta(days=1), "2026-11-23 (in 1 day)"),
        (NOW + timedelta(hours=1), "2026-11-22 (today)"),
        (NOW - timedelta(hours=1), "expired 2026-11-22"),
        (None, "not known"),
    ],
)
def test_an_end_is_told_with_the_days_until_then(end: datetime | None, words: str) -> None:
    assert end_in_words(end, now=NOW) == words


def test_what_ends_soon_or_has_ended_is_warned_of() -> None:
    assert warning_of_end("The certificate", NOW + timedelta(days=31), now=NOW) is None
    assert warning_of_end("The certificate", None, now=NOW) is None
    assert warning_of_end("The certificate", NOW + timedelta(days=29), now=NOW) == (
        "The certificate ends 2026-12-21 (in 29 days)."
    )
    assert warning_of_end("The certificate", NOW - timedelta(days=1), now=NOW) == (
        "The certificate has expired 2026-11-21."
    )


@pytest.mark.parametrize(
    ("fields", "credential"),
    [
        ({"secret_expires_at": END}, Credential("client_secret", "client secret", END)),
        (
            {"private_key_set_at": THEN, "certificate_pem": "x", "certificate_expires_at": END},
            Credential("certificate", "certificate", END),
        ),
        (
            {"private_key_set_at": THEN, "grant_type": "jwt_bearer"},
            Credential("private_key", "private key", can_end=False),
        ),
        ({"grant_type": "managed_identity"}, Credential("managed_identity", "managed identity", can_end=False)),
        ({"secret_set_at": None}, Credential(None, "not set", can_end=False)),
        ({"grant_type": "device_code"}, Credential(None, "sign-ins: 0", can_end=False)),
    ],
    ids=["secret", "certificate", "key", "machine", "nothing", "nobody"],
)
def test_a_profile_stands_or_falls_with_the_credential_in_use(fields: dict[str, Any], credential: Credential) -> None:
    assert credential_of(an_oauth_profile(**fields), []) == credential


def test_microsofts_sign_ins_end_90_days_after_their_last_use_and_the_first_end_counts() -> None:
    person = an_oauth_profile(grant_type="device_code", secret_set_at=None)
    later = sign_in(renewed_at=NOW)
    credential = credential_of(person, [later, sign_in(renewed_at=NOW - timedelta(days=10))])
    assert credential == Credential("refresh_token", "sign-ins: 2", NOW + timedelta(days=80), if_unused=True)
    assert as_row(OAuthLine(person, [later]), now=NOW)[-1] == "2027-02-20 (in 90 days), if not used before"
    elsewhere = an_oauth_profile(provider="custom", grant_type="device_code")
    assert credential_of(elsewhere, [later]) == Credential("refresh_token", "sign-ins: 1")
    told = credential_of(person, [sign_in(expires_at=END)])
    assert told == Credential("refresh_token", "sign-ins: 1", END)


def test_no_sealed_secret_is_among_what_is_shown() -> None:
    shown = as_json_object(OAuthLine(an_oauth_profile(), [sign_in()]))
    assert "sealed" not in repr(shown)
