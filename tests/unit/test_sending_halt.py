"""What it means where a ledger lives."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tocsin_schema.ledger.sending_halt import FAILOVER_WITHIN, SEEN_EVERY, Origin, Place, Whereabouts, whereabouts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOME = Origin(system_identifier=7710836546356409515, database_oid=16385, timeline=3)
A_MOMENT_AGO = NOW - timedelta(seconds=15)
LONG_AGO = NOW - FAILOVER_WITHIN - timedelta(seconds=1)


@pytest.mark.parametrize("seen_at", [A_MOMENT_AGO, LONG_AGO])
def test_a_ledger_that_was_only_away_is_the_same(seen_at: datetime) -> None:
    assert whereabouts(HOME, seen_at, HOME, NOW) is Whereabouts.SAME


@pytest.mark.parametrize("elsewhere", [replace(HOME, system_identifier=1), replace(HOME, database_oid=1)])
def test_another_server_or_database_is_a_restored_ledger_however_fresh(elsewhere: Origin) -> None:
    assert whereabouts(HOME, NOW, elsewhere, NOW) is Whereabouts.RESTORED


@pytest.mark.parametrize(
    ("seen_at", "meaning"),
    [
        (A_MOMENT_AGO, Whereabouts.FAILED_OVER),
        (NOW - FAILOVER_WITHIN, Whereabouts.FAILED_OVER),
        (LONG_AGO, Whereabouts.RESTORED),
        # A clock that disagrees by so much proves nothing.
        (NOW + FAILOVER_WITHIN + timedelta(seconds=1), Whereabouts.RESTORED),
    ],
)
def test_a_later_timeline_is_a_standby_only_if_the_ledger_was_alive_a_moment_ago(
    seen_at: datetime, meaning: Whereabouts
) -> None:
    assert whereabouts(HOME, seen_at, replace(HOME, timeline=4), NOW) is meaning


def test_an_earlier_timeline_is_a_restored_ledger() -> None:
    assert whereabouts(HOME, NOW, replace(HOME, timeline=2), NOW) is Whereabouts.RESTORED


def test_a_ledger_that_does_not_know_where_it_lived_is_taken_for_restored() -> None:
    assert whereabouts(None, None, HOME, NOW) is Whereabouts.RESTORED


@pytest.mark.parametrize(
    ("age", "is_due"),
    [(timedelta(0), False), (SEEN_EVERY - timedelta(seconds=1), False), (SEEN_EVERY, True), (-SEEN_EVERY, True)],
)
def test_that_it_is_alive_is_not_written_at_every_sweep(age: timedelta, is_due: bool) -> None:
    assert Place(HOME, HOME, NOW - age, None, NOW).is_to_be_noted is is_due
