"""From a job and its recipients to parts: cut, validated, and refused as intake would do it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tocsin_producers.parts import AnyRecipient, JobFields, job_of, prepare_parts
from tocsin_schema.contract.part import Content, JobPart, Mode, Priority, Recipient
from tocsin_schema.contract.validation import decode_part
from tocsin_schema.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = UUID("7d3c1f0a-7a53-4f7e-9a65-2f7f1f4f1f10")


def job(**fields: Any) -> JobPart:
    given: JobFields = {"id": ID, "profile": "news", "content": Content("Hello", "Text"), **fields}  # type: ignore[typeddict-item]
    return job_of(None, given)


def addresses(count: int) -> Iterator[str]:
    return (f"r{number}@example.org" for number in range(count))


def refused(recipients: list[Any], **fields: Any) -> ContractError:
    with pytest.raises(ContractError) as caught:
        list(prepare_parts(job(**fields), recipients))
    return caught.value


def test_a_long_list_becomes_parts_of_which_only_the_last_says_so() -> None:
    positions = [part.valid.part.part for part in prepare_parts(job(), addresses(2500))]
    assert [(position.number, position.last) for position in positions] == [(1, False), (2, False), (3, True)]


def test_the_body_of_a_part_is_what_intake_decodes() -> None:
    for part in prepare_parts(job(), addresses(1001)):
        assert decode_part(part.body) == part.valid


def test_recipients_may_be_addresses_objects_or_typed() -> None:
    given: list[AnyRecipient] = [
        "a@example.org",
        {"address": "b@example.org", "name": "B", "data": {"room": 12}},
        Recipient("c@example.org"),
    ]
    (part,) = prepare_parts(job(mode="individual"), given)
    assert [(one.address, one.name, one.data) for one in part.valid.recipients] == [
        ("a@example.org", None, {}),
        ("b@example.org", "B", {"room": 12}),
        ("c@example.org", None, {}),
    ]


def test_words_and_enums_mean_the_same() -> None:
    (by_word,) = prepare_parts(job(mode="individual", priority="urgent"), ["a@example.org"])
    (by_enum,) = prepare_parts(job(mode=Mode.INDIVIDUAL, priority=Priority.URGENT), ["a@example.org"])
    assert by_word.body == by_enum.body
    assert by_word.rank == "urgent"


def test_a_job_without_id_and_key_gets_a_new_id() -> None:
    fields: JobFields = {"profile": "news", "template": "t"}
    first, second = job_of(None, fields), job_of(None, fields)
    assert first.id is not None
    assert first.id != second.id
    assert job_of(None, {**fields, "source": "board"}).id is not None


def test_a_job_with_source_and_key_keeps_its_identity() -> None:
    fields: JobFields = {"profile": "news", "template": "t", "source": "board", "key": "4711"}
    assert job_of(None, fields).id is None
    bodies = [[part.body for part in prepare_parts(job_of(None, fields), addresses(1200))] for _ in range(2)]
    assert bodies[0] == bodies[1]


def test_fields_replace_those_of_a_given_job() -> None:
    changed = job_of(job(), {"profile": "alerts"})
    assert (changed.profile, changed.id, changed.content) == ("alerts", ID, Content("Hello", "Text"))


def test_an_exception_of_the_recipients_goes_through_and_no_part_is_the_last() -> None:
    def breaking() -> Iterator[str]:
        yield from addresses(1500)
        raise RuntimeError("the database went away")

    parts = prepare_parts(job(), breaking())
    assert not next(parts).valid.part.part.last
    with pytest.raises(RuntimeError, match="the database went away"):
        next(parts)


def test_recipients_are_read_no_further_than_one_part_ahead() -> None:
    read = 0

    def counting() -> Iterator[str]:
        nonlocal read
        for address in addresses(5000):
            read += 1
            yield address

    next(prepare_parts(job(), counting()))
    assert read == 1001


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"subjct": "x"}, "unknown_field"),
        ({"data": {"when": object()}}, "wrong_type"),
        ({"data": {"text": "\ud800"}}, "lone_surrogate"),
        ({"data": {"big": 2**70}}, "wrong_value"),
        ({"profile": ""}, "wrong_value"),
        ({"mode": "personal"}, "wrong_value"),
        ({"priority": "soon"}, "wrong_value"),
        ({"id": "no uuid"}, "bad_id"),
        ({"key": "k"}, "bad_id"),
        ({"send_after": datetime(2026, 1, 1)}, "bad_time"),  # noqa: DTZ001
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC), "send_after": datetime(2026, 1, 2, tzinfo=UTC)}, "bad_time"),
        ({"template": "t"}, "both_template_and_content"),
        ({"reply_to": "a@example.org, b@example.org"}, "bad_address"),
        ({"headers": {"Bcc": "x"}}, "bad_header"),
        ({"data": {"text": "x" * 9_000_000}}, "too_large"),
    ],
)
def test_a_job_that_intake_would_refuse_is_refused_with_the_same_code(fields: dict[str, Any], code: str) -> None:
    assert refused(["a@example.org"], **fields).code == code


def test_a_loop_in_the_data_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    assert refused(["a@example.org"], data=loop).code == "too_deep"


@pytest.mark.parametrize(
    ("recipient", "code", "field"),
    [
        ({"adress": "a@example.org"}, "unknown_field", "recipients[1].adress"),
        ({"name": "A"}, "missing_field", "recipients[1].address"),
        ({"address": 5}, "wrong_type", "recipients[1].address"),
        ({"address": "a@example.org", "data": {"x": {1: 2}}}, "wrong_type", "recipients[1]"),
        ({"address": "\ud800@example.org"}, "lone_surrogate", "recipients[1]"),
        ({"address": "a@example.org", "data": {"room": "1"}}, "data_in_shared", "recipients[1].data"),
        (b"a@example.org", "wrong_type", "recipients[1]"),
        (None, "wrong_type", "recipients[1]"),
    ],
)
def test_a_broken_recipient_is_refused_and_named(recipient: object, code: str, field: str) -> None:
    error = refused(["first@example.org", recipient])
    assert (error.code, error.field) == (code, field)


def test_a_fault_in_a_later_part_says_where_that_part_begins() -> None:
    recipients: list[Any] = [*addresses(1500), {"address": "x@example.org", "data": {"room": 1}}]
    error = refused(recipients)
    assert error.code == "data_in_shared"
    assert "part 2, which begins with recipient 1000" in error.problem


def test_a_malformed_address_is_not_refused_but_counted() -> None:
    (part,) = prepare_parts(job(), ["nonsense", "a@example.org", "a@EXAMPLE.org"])
    assert [len(part.valid.recipients), len(part.valid.rejected), part.valid.duplicates] == [1, 1, 1]


def test_a_job_without_recipients_is_refused() -> None:
    assert refused([]).code == "no_recipients"
