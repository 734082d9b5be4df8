"""Which step of the schema comes next, and which schemas a release can work with."""

from __future__ import annotations

import re

import pytest

from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.migration_steps import (
    LivingWorkers,
    Migration,
    Stage,
    migrations,
    missing,
    needed,
    newest_version,
    next_step,
    older_workers,
    refuse_unfit,
    wait_for,
)

STEPS = [Migration("0001_one", "SELECT 1"), Migration("0002_two", "SELECT 2"), Migration("0003_three", "SELECT 3")]
ADDS, DROPS = Migration("0011_adds", "SELECT 11"), Migration("0012_drops.after", "SELECT 12")
ADDS_LATER = Migration("0013_adds", "SELECT 13")


def applied(*steps: Migration) -> dict[str, str]:
    return {step.name: step.digest for step in steps}


def workers(schema_version: int | None, *, host: str = "pod-1") -> LivingWorkers:
    return LivingWorkers(host, "sender", schema_version, processes=2)


# -- What is missing


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


def test_a_digest_tells_texts_apart() -> None:
    assert Migration("a", "SELECT 1").digest != Migration("a", "SELECT 1 ").digest


# -- Which schemas a release can work with


def test_a_ledger_to_which_a_newer_release_has_only_added_is_worked_with() -> None:
    assert missing(STEPS, {**applied(*STEPS), "0008_soon": "", "0009_later": ""}) == []


def test_a_ledger_from_which_a_newer_release_has_taken_something_away_is_refused_by_name() -> None:
    with pytest.raises(LedgerError, match=r"newer release: 0008_drops\.after took away.*Use that release"):
        missing(STEPS, {**applied(*STEPS), "0008_drops.after": "", "0009_later": ""})


def test_a_release_needs_what_comes_before_its_code_and_not_what_comes_after() -> None:
    assert needed([ADDS, DROPS]) == [ADDS]
    assert needed([DROPS]) == []
    refuse_unfit([DROPS])


def test_what_later_steps_were_written_on_top_of_is_needed_too() -> None:
    assert needed([DROPS, ADDS_LATER]) == [DROPS, ADDS_LATER]


def test_a_ledger_that_lacks_what_the_code_needs_is_met_with_the_command_that_adds_it() -> None:
    with pytest.raises(LedgerError, match=r"lacks 0011_adds, which this release needs. Run `tocsin migrate --before`"):
        refuse_unfit([ADDS, DROPS])


# -- Which step comes next


@pytest.mark.parametrize(
    ("pending", "stage", "comes"),
    [
        ([ADDS, DROPS], Stage.BEFORE, ADDS),
        ([ADDS, DROPS], None, ADDS),
        ([DROPS], Stage.BEFORE, None),
        ([DROPS], Stage.AFTER, DROPS),
        ([DROPS], None, DROPS),
        # Left over from the upgrade before; everybody who is alive may know it by now.
        ([DROPS, ADDS_LATER], Stage.BEFORE, DROPS),
        ([], Stage.BEFORE, None),
        ([], Stage.AFTER, None),
        ([], None, None),
    ],
)
def test_steps_are_applied_in_order_as_far_as_their_stage_is_asked_for(
    pending: list[Migration], stage: Stage | None, comes: Migration | None
) -> None:
    assert next_step(pending, stage) == comes


def test_nothing_is_taken_away_before_the_code_that_can_do_without() -> None:
    with pytest.raises(LedgerError, match=r"lacks 0011_adds, which comes before.*--before"):
        next_step([ADDS, DROPS], Stage.AFTER)


# -- Who holds it up


def test_workers_hold_up_what_their_release_does_not_know() -> None:
    older, same, newer = workers(11), workers(12), workers(13)
    assert older_workers(DROPS, [older, same, newer]) == [older]


def test_workers_that_do_not_say_what_they_know_are_of_a_release_before_they_could() -> None:
    assert older_workers(DROPS, [workers(None)]) == [workers(None)]
    assert workers(None).knows(Migration("0009_hot_statements", ""))


def test_whoever_holds_it_up_is_named_and_of_very_many_the_first() -> None:
    told = str(wait_for(DROPS, [workers(11, host=f"pod-{number}") for number in range(7)]))
    assert "0012_drops.after waits" in told
    assert "pod-0 (sender, 2 processes), pod-1 (sender, 2 processes)" in told
    assert "and 2 more" in told
    assert "pod-5" not in told
    assert "`tocsin migrate --after`" in told


# -- The steps of this release


def test_steps_are_numbered_from_one_without_a_gap() -> None:
    assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))


def test_workers_say_that_they_know_the_newest_step() -> None:
    assert newest_version() == len(migrations())


def test_from_the_tenth_on_an_index_on_a_table_that_was_there_is_a_step_of_its_own() -> None:
    for step in migrations()[9:]:
        statements = set(re.findall(r"^[A-Z]+ [A-Z]+", step.sql, re.MULTILINE))
        new_tables = set(re.findall(r"^CREATE TABLE (\w+)", step.sql, re.MULTILINE))
        indexed = set(re.findall(r"^CREATE (?:UNIQUE )?INDEX \w+ ON (\w+)", step.sql, re.MULTILINE))
        assert indexed <= new_tables or statements <= {"CREATE INDEX", "CREATE UNIQUE"}, step.name


def test_the_first_nine_steps_come_before_the_code() -> None:
    assert {step.stage for step in migrations()[:9]} == {Stage.BEFORE}
