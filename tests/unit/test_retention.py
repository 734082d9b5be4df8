"""Which months are to go, and what is to be done next with one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tocsin_schema.ledger.retention import (
    Attach,
    Detach,
    Drop,
    Finalize,
    Month,
    Step,
    TableState,
    months_due,
    next_step,
)

ATTACHED, PENDING, DETACHED = TableState.ATTACHED, TableState.PENDING, TableState.DETACHED
MONTHS = [Month(2026, 2), Month(2025, 12), Month(2026, 1)]


def test_a_month_is_due_when_all_of_it_is_older_than_the_days() -> None:
    end = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=30)
    assert months_due(MONTHS, now=end, retention_days=30) == [Month(2025, 12), Month(2026, 1)]
    assert months_due(MONTHS, now=end - timedelta(milliseconds=1), retention_days=30) == [Month(2025, 12)]


def test_with_no_days_everything_is_kept_for_ever() -> None:
    assert months_due(MONTHS, now=datetime(2999, 1, 1, tzinfo=UTC), retention_days=0) == []


def test_december_ends_with_the_year() -> None:
    assert (Month(2025, 12).first, Month(2025, 12).end) == (
        datetime(2025, 12, 1, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("states", "step"),
    [
        ("AAA", Detach("jobs")),
        ("PAA", Finalize("jobs")),
        ("DAA", Detach("batches")),
        ("DPA", Finalize("batches")),
        ("DDA", Detach("recipients")),
        ("DDD", Drop(("jobs", "batches", "recipients"))),
    ],
)
def test_a_month_that_is_to_go_goes_on_from_wherever_it_was_left(states: str, step: Step) -> None:
    assert next_step(month(states), is_to_go=True) == step


@pytest.mark.parametrize(
    ("states", "step"),
    [
        ("AAA", None),
        ("PAA", Finalize("jobs")),
        ("DPA", Finalize("batches")),
        ("DDD", Attach("recipients")),
        ("DDA", Attach("batches")),
        ("DAA", Attach("jobs")),
    ],
)
def test_a_month_that_is_kept_comes_back_with_its_jobs_last(states: str, step: Step | None) -> None:
    assert next_step(month(states), is_to_go=False) == step


def test_with_a_month_that_is_gone_nothing_is_left_to_do() -> None:
    assert next_step({}, is_to_go=True) is None
    assert next_step({}, is_to_go=False) is None


def month(states: str) -> dict[str, TableState]:
    letters = {"A": ATTACHED, "P": PENDING, "D": DETACHED}
    # The catalog gives them in any order.
    return dict(
        reversed(list(zip(("jobs", "batches", "recipients"), (letters[letter] for letter in states), strict=True)))
    )
