"""What is said of credentials whose end is near."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tocsin_console.reading.credential_ends import told
from tocsin_schema.ledger.credential_expiry import CredentialEnd, soon

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def ending(after: timedelta, credential: str = "client_secret", subject: str | None = None) -> CredentialEnd:
    return CredentialEnd("m365", credential, subject, NOW + after)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (ending(12 * DAY), "client secret of OAuth profile m365 ends 2026-12-04 (in 12 days)"),
        (ending(timedelta(hours=3), "certificate"), "certificate of OAuth profile m365 ends 2026-11-22 (today)"),
        (ending(-DAY), "client secret of OAuth profile m365 expired 2026-11-21"),
        (
            ending(20 * DAY, "refresh_token", "news@campus.example"),
            "refresh token of OAuth profile m365 for news@campus.example ends 2026-12-12 (in 20 days)",
        ),
    ],
)
def test_an_end_is_told_with_its_day(end: CredentialEnd, words: str):
    assert told(end, now=NOW) == words


def test_an_operator_is_told_thirty_days_ahead_and_after_the_end():
    near, far, past = ending(30 * DAY), ending(31 * DAY), ending(-100 * DAY)
    assert soon([past, near, far], now=NOW) == [past, near]
