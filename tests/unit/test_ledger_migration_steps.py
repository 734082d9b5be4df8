from __future__ import annotations

import pytest

from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.migrate import Migration, migrations, missing

STEPS = [Migration("0001_one", "SELECT 1"), Migration("0002_two", "SELECT 2"), Migration("0003_three", "SELECT 3")]


def applied(*steps: Migration) -> dict[str, str]:
    return {step.name: step.digest for step in steps}


def test_an_empty_ledger_lacks_every_step_in_order() -> None:
    assert missing(STEPS, {}) == STEPS


def test_only_what_was_not_applied_is_missing() -> None:
    assert missing(STEPS, applied(STEPS[0])) == STEPS[1:]
    assert missing(STEPS, applied(*STEPS)) == []


def test_a_step_that_came_in_between_is_still_applied() -> None:
    assert missing(STEPS, applied(STEPS[0], STEPS[2])) == [STEPS[1]]


def test_a_changed_step_is_refused_by_name() -> None:
    with pytest.raises(LedgerError, match="0002_two was applied in another form"):
        missing(STEPS, {**applied(STEPS[0]), "0002_two": "0" * 64})


def test_a_ledger_ahead_is_refused_with_its_newest_step() -> None:
    with pytest.raises(LedgerError, match=r"newer release \(it has 0009_later\)"):
        missing(STEPS, {**applied(*STEPS), "0008_soon": "", "0009_later": ""})


def test_a_digest_tells_texts_apart() -> None:
    assert Migration("a", "SELECT 1").digest != Migration("a", "SELECT 1 ").digest


def test_steps_are_numbered_from_one_without_a_gap() -> None:
    assert [int(step.name[:4]) for step in migrations()] == list(range(1, len(migrations()) + 1))
