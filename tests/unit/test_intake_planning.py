"""A part becomes rows: numbers that never collide, batches that never cross parts, nobody left out."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.contract.part import MAX_PART_NUMBER, MAX_RECIPIENTS, JobPart, PartPosition, Recipient
from tocsin_schema.contract.recipient_list import RejectedRecipient, ValidPart, ValidRecipient, screen_recipients
from tocsin_workers.intake.planning import PartRows, plan_rows

LARGEST_INTEGER = 2**31 - 1
"""Postgres's `integer`, which ordinals and batch numbers are."""


def part_of(addresses: list[str], *, number: int = 1) -> ValidPart:
    """Screen a part as intake does: whatever is not an address is rejected, whatever stands there twice dropped."""
    return screen_recipients(
        JobPart(
            profile="p",
            part=PartPosition(number=number, last=False),
            recipients=tuple(Recipient(address) for address in addresses),
        )
    )


def shape(rows: PartRows) -> list[tuple[int, int, int, int, str]]:
    return [(batch.number, batch.first_ordinal, batch.size, batch.failed, batch.state) for batch in rows.batches]


def people(count: int, *, prefix: str = "r") -> list[str]:
    return [f"{prefix}{index}@example.org" for index in range(count)]


ENTRIES = st.lists(
    st.sampled_from([*people(40), "no address", "two@example.org, more@example.org"]), min_size=1, max_size=60
)


def test_a_part_is_cut_into_full_batches_and_a_rest():
    assert shape(plan_rows(part_of(people(7)), 3)) == [
        (0, 0, 3, 0, "due"),
        (1, 3, 3, 0, "due"),
        (2, 6, 1, 0, "due"),
    ]


def test_the_second_part_begins_where_a_full_first_one_would_have_ended():
    rows = plan_rows(part_of(people(4), number=2), 3)
    assert [row.ordinal for row in rows.recipients] == [1000, 1001, 1002, 1003]
    assert shape(rows) == [(1000, 1000, 3, 0, "due"), (1001, 1003, 1, 0, "due")]


def test_a_full_part_in_batches_of_one_stays_within_its_own_numbers():
    rows = plan_rows(part_of(people(MAX_RECIPIENTS), number=3), 1)
    assert [batch.number for batch in rows.batches] == list(range(2000, 3000))
    assert [row.ordinal for row in rows.recipients] == list(range(2000, 3000))


def test_a_batch_as_large_as_a_part_holds_it_all():
    assert shape(plan_rows(part_of(people(MAX_RECIPIENTS)), MAX_RECIPIENTS)) == [(0, 0, MAX_RECIPIENTS, 0, "due")]


def test_a_malformed_recipient_keeps_its_place_and_says_why():
    rows = plan_rows(part_of(["a@example.org", "nonsense", "b@example.org"]), 2)
    assert [(row.ordinal, row.address) for row in rows.recipients] == [
        (0, "a@example.org"),
        (1, "nonsense"),
        (2, "b@example.org"),
    ]
    assert [(row.ordinal, row.batch_number) for row in rows.unusable] == [(1, 0)]
    assert "has no @" in rows.unusable[0].reason
    assert shape(rows) == [(0, 0, 2, 1, "due"), (1, 2, 1, 0, "due")]


def test_a_batch_of_nothing_but_malformed_recipients_is_done():
    rows = plan_rows(part_of(["x", "y", "a@example.org"]), 2)
    assert shape(rows) == [(0, 0, 2, 2, "done"), (1, 2, 1, 0, "due")]


def test_a_dropped_duplicate_leaves_no_gap():
    rows = plan_rows(part_of(["a@example.org", "a@EXAMPLE.org", "b@example.org", "a@example.org", "nonsense"]), 10)
    assert [(row.ordinal, row.address) for row in rows.recipients] == [
        (0, "a@example.org"),
        (1, "b@example.org"),
        (2, "nonsense"),
    ]
    assert shape(rows) == [(0, 0, 3, 1, "due")]


def test_recipients_keep_the_order_of_the_part_however_they_were_screened():
    valid = [ValidRecipient(4, "b@example.org", "b@example.org", needs_smtputf8=False, name=None, data={})]
    rejected = [RejectedRecipient(7, "z", "no"), RejectedRecipient(1, "y", "no")]
    rows = plan_rows(ValidPart(JobPart(profile="p", recipients=()), valid, rejected, 0), 10)
    assert [row.address for row in rows.recipients] == ["y", "b@example.org", "z"]


def test_a_recipients_own_data_is_stored_as_json_and_nothing_where_there_is_none():
    valid = [
        ValidRecipient(0, "a@example.org", "a@example.org", needs_smtputf8=False, name="Ä", data={"stadt": "Köln"}),
        ValidRecipient(1, "b@example.org", "b@example.org", needs_smtputf8=False, name=None, data={}),
    ]
    first, second = plan_rows(ValidPart(JobPart(profile="p", recipients=()), valid, [], 0), 10).recipients
    assert (first.name, json.loads(first.data or "")) == ("Ä", {"stadt": "Köln"})
    assert (second.name, second.data) == (None, None)


def test_a_number_in_a_recipients_data_comes_out_of_the_ledger_as_it_went_in():
    data: dict[str, object] = {"large": 2**64 - 1, "small": -(2**63), "float": 0.1, "tiny": 5e-324, "huge": 1.7e308}
    valid = [ValidRecipient(0, "a@example.org", "a@example.org", needs_smtputf8=False, name=None, data=data)]
    (row,) = plan_rows(ValidPart(JobPart(profile="p", recipients=()), valid, [], 0), 10).recipients
    assert json.loads(row.data or "") == data


@given(st.permutations([1, 2, 3]), st.lists(ENTRIES, min_size=3, max_size=3), st.integers(1, 60))
def test_parts_in_any_order_never_share_an_ordinal_or_a_batch(
    order: list[int], entries: list[list[str]], batch_size: int
):
    ordinals: list[int] = []
    batches: list[int] = []
    for number in order:
        rows = plan_rows(part_of(entries[number - 1], number=number), batch_size)
        ordinals += [row.ordinal for row in rows.recipients]
        batches += [batch.number for batch in rows.batches]
        own = range((number - 1) * MAX_RECIPIENTS, number * MAX_RECIPIENTS)
        assert all(row.ordinal in own and row.batch_number in own for row in rows.recipients)
    assert len(set(ordinals)) == len(ordinals)
    assert len(set(batches)) == len(batches)


@given(ENTRIES, st.integers(1, 70), st.integers(1, 5))
def test_every_recipient_is_in_exactly_one_batch_and_every_batch_knows_its_own(
    addresses: list[str], batch_size: int, number: int
):
    part = part_of(addresses, number=number)
    rows = plan_rows(part, batch_size)
    assert len(rows.recipients) == len(part.recipients) + len(part.rejected) == len(addresses) - part.duplicates
    unusable = {row.ordinal for row in rows.unusable}
    told: list[int] = []
    for batch in rows.batches:
        own = list(range(batch.first_ordinal, batch.first_ordinal + batch.size))
        told += own
        assert 1 <= batch.size <= batch_size
        assert [row.ordinal for row in rows.recipients if row.batch_number == batch.number] == own
        assert batch.failed == len(unusable.intersection(own))
        assert (batch.state == "done") == (batch.failed == batch.size)
    assert told == [row.ordinal for row in rows.recipients]


def test_the_highest_part_number_still_gives_numbers_that_the_ledger_can_hold():
    last = plan_rows(part_of(people(1), number=MAX_PART_NUMBER), 1).recipients[-1]
    assert last.ordinal + MAX_RECIPIENTS <= LARGEST_INTEGER
