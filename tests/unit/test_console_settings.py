"""The settings are a closed set, and each says what it may hold."""

from __future__ import annotations

import pytest

from tocsin_console.commands.dead_letter import priority_of
from tocsin_schema.contract.part import Priority
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.installation_settings import (
    DEFINITIONS,
    Kind,
    checked_value,
    definition_of,
    in_force,
)

NUMBERS = [definition for definition in DEFINITIONS.values() if definition.kind is Kind.NUMBER]


def test_an_unknown_setting_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(UsageError, match=r"RetryFirstDelaySeconds.*BulkExpiryHours"):
        definition_of("RetryFirstDelay")


@pytest.mark.parametrize("definition", NUMBERS, ids=lambda definition: definition.key)
def test_every_default_fits_its_own_bounds(definition) -> None:
    assert checked_value(definition, str(definition.default)) == str(definition.default)
    for text in (str(definition.lowest - 1), str(definition.highest + 1), "", "x", "1.5", "-1", "²", "9" * 30):
        with pytest.raises(UsageError, match=definition.key):
            checked_value(definition, text)


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = in_force({})
    assert (settings.retry_first_delay_seconds, settings.retry_maximum_delay_seconds) == (30, 3600)
    assert (settings.urgent_expiry_hours, settings.normal_expiry_hours, settings.bulk_expiry_hours) == (6, 72, 168)


def test_a_stored_number_wins_over_its_default() -> None:
    assert in_force({"UrgentExpiryHours": "12"}).urgent_expiry_hours == 12


def test_a_read_only_setting_takes_no_value() -> None:
    with pytest.raises(UsageError, match="read-only"):
        checked_value(definition_of("DatabaseUniqueID"), "x")


def test_a_refused_secret_is_not_repeated() -> None:
    with pytest.raises(UsageError) as refused:
        checked_value(definition_of("EmailPassword"), "hunter2\nhunter2")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("queue", "body", "priority"),
    [
        ("tocsin.intake.urgent", b"{}", Priority.URGENT),
        ("tocsin.intake.bulk", b'{"priority": "urgent"}', Priority.BULK),
        ("tocsin.intake.dead", b'{"priority": "bulk"}', Priority.BULK),
        ("tocsin.intake.dead", b'{"priority": "soon"}', Priority.NORMAL),
        ("tocsin.intake.dead", b"\xff\x00", Priority.NORMAL),
        ("tocsin.intake.dead", b"[" * 100_000, Priority.NORMAL),
        ("tocsin.intake.dead", b'["priority"]', Priority.NORMAL),
        ("tocsin.intake.dead", b"null", Priority.NORMAL),
    ],
)
def test_a_dead_letter_goes_back_where_it_came_from(queue: str, body: bytes, priority: Priority) -> None:
    assert priority_of(queue, body) is priority
