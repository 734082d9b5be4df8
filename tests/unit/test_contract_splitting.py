"""A list of any length becomes parts within the limits, in flat memory."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.contract.encoding import encode_part
from tocsin_schema.contract.part import MAX_RECIPIENTS, Attachment, JobPart, Mode, Recipient
from tocsin_schema.contract.splitting import split_job
from tocsin_schema.errors import ContractError

JOB = JobPart(id=UUID(int=1), profile="p", template="t", mode=Mode.INDIVIDUAL, recipients=())


def people(count: int) -> list[Recipient]:
    return [Recipient(f"user{number}@example.org") for number in range(count)]


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (999, [999]), (1000, [1000]), (1001, [1000, 1]), (2500, [1000, 1000, 500])]
)
def test_parts_are_filled_in_order_and_only_the_last_says_so(count, sizes):
    parts = list(split_job(JOB, people(count)))
    assert [len(part.recipients) for part in parts] == sizes
    assert [part.part.number for part in parts] == list(range(1, len(sizes) + 1))
    assert [part.part.last for part in parts] == [False] * (len(sizes) - 1) + [True]


def test_the_list_is_read_no_further_than_one_recipient_ahead():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Recipient(f"user{taken}@example.org")

    parts = split_job(JOB, endless())
    next(parts)
    assert taken == MAX_RECIPIENTS + 1
    next(parts)
    assert taken == 2 * MAX_RECIPIENTS + 1


def test_attachments_travel_in_part_1_only():
    job = JobPart(
        id=UUID(int=1), profile="p", template="t", recipients=(), attachments=(Attachment("a", "text/plain", b"x"),)
    )
    parts = list(split_job(job, people(1500)))
    assert [len(part.attachments) for part in parts] == [1, 0]


def test_a_job_without_recipients_is_refused():
    with pytest.raises(ContractError) as caught:
        list(split_job(JOB, []))
    assert caught.value.code == "no_recipients"


def test_a_recipient_that_fits_into_no_part_is_named():
    with pytest.raises(ContractError) as caught:
        list(split_job(JOB, [*people(3), Recipient("b@example.org", data={"a": "x" * 5000})], max_octets=4000))
    assert (caught.value.code, caught.value.field) == ("too_large", "recipients[3]")


def test_a_job_that_leaves_no_room_for_recipients_is_refused():
    with pytest.raises(ContractError) as caught:
        list(split_job(JOB, people(1), max_octets=20))
    assert caught.value.code == "too_large"


@given(
    st.lists(
        st.builds(
            Recipient,
            st.just("a@example.org"),
            st.none() | st.text(max_size=50),
            st.dictionaries(st.text(max_size=5), st.text(max_size=100), max_size=3),
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 20),
    st.integers(1500, 4000),
)
def test_every_part_keeps_both_limits_and_nobody_is_lost(recipients, most, octets):
    try:
        parts = list(split_job(JOB, recipients, max_recipients=most, max_octets=octets))
    except ContractError as error:
        parts, code = [], error.code
    else:
        code = None
    if code is not None:
        assert code == "too_large"
        return
    assert [found for part in parts for found in part.recipients] == recipients
    assert all(1 <= len(part.recipients) <= most for part in parts)
    assert all(len(encode_part(part)) <= octets for part in parts)
