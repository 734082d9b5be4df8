"""Which parts belong together, and which only claim to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid5

import pytest
from msgspec.structs import replace

from tocsin_schema.contract.digest import job_digest, part_digest
from tocsin_schema.contract.encoding import encode_part
from tocsin_schema.contract.identity import JOB_NAMESPACE, id_from_key, job_id
from tocsin_schema.contract.part import Attachment, JobPart, PartPosition, Priority, Recipient
from tocsin_schema.contract.validation import decode_part
from tocsin_schema.errors import ContractError

ID = UUID("0190b3c2-0000-7000-8000-000000000001")
BASE = {"id": str(ID), "profile": "p", "template": "t", "recipients": [{"address": "a@example.org"}]}


def decoded(**changes) -> JobPart:
    return decode_part(json.dumps({**BASE, **changes}).encode()).part


def test_an_id_is_used_as_it_is():
    assert job_id(decoded()) == ID


def test_source_and_key_give_the_uuid_that_the_contract_fixes():
    assert str(JOB_NAMESPACE) == "8c5f2f8e-5a0b-5c0e-9d57-6b1f0a4d3e21"
    assert id_from_key("board", "incident-7") == uuid5(JOB_NAMESPACE, "board\x1fincident-7")
    assert id_from_key("board", "incident-7") == UUID("af11f08e-f284-5507-b2c0-43b212896afe")


def test_no_two_pairs_of_source_and_key_share_an_id():
    assert id_from_key("ab", "c") != id_from_key("a", "bc")
    with pytest.raises(ContractError):
        id_from_key("a\x1fb", "c")


def test_the_order_of_keys_and_written_out_defaults_do_not_change_a_digest():
    plain = decoded(data={"a": 1, "b": {"c": 2, "d": 3}})
    same = decode_part(
        json.dumps(
            {
                "attachments": [],
                "data": {"b": {"d": 3, "c": 2}, "a": 1},
                "part": {"last": True, "number": 1},
                "recipients": [{"data": {}, "name": None, "address": "a@example.org"}],
                "on_unknown": "resend",
                "priority": "normal",
                "mode": "shared",
                "headers": {},
                "event": None,
                "version": 1,
                "template": "t",
                "profile": "p",
                "id": str(ID).upper(),
            }
        ).encode()
    ).part
    assert job_digest(plain) == job_digest(same)
    assert part_digest(plain) == part_digest(same)
    assert len(job_digest(plain)) == 32


def test_a_time_in_another_zone_is_the_same_time():
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    there = noon.astimezone(timezone(timedelta(hours=5)))
    assert job_digest(replace(decoded(), send_after=noon)) == job_digest(replace(decoded(), send_after=there))


@pytest.mark.parametrize(
    "changes",
    [
        {"profile": "q"},
        {"template": "u"},
        {"data": {"a": 1}},
        {"priority": "bulk"},
        {"mode": "individual"},
        {"event": "e"},
        {"headers": {"X-A": "1"}},
        {"on_unknown": "hold"},
        {"send_after": "2026-11-21T12:00:00Z"},
    ],
)
def test_another_job_field_gives_another_job_digest_and_the_same_part_digest(changes):
    assert job_digest(decoded(**changes)) != job_digest(decoded())
    assert part_digest(decoded(**changes)) == part_digest(decoded())


@pytest.mark.parametrize(
    "changes",
    [
        {"recipients": (Recipient("b@example.org"),)},
        {"recipients": (Recipient("a@example.org", name="Ada"),)},
        {"part": PartPosition(number=2, last=True)},
        {"part": PartPosition(number=1, last=False)},
        {"attachments": (Attachment("a", "text/plain", b"x"),)},
    ],
)
def test_another_part_of_the_same_job_has_the_same_job_digest(changes):
    other = replace(decoded(), **changes)
    assert job_digest(other) == job_digest(decoded())
    assert part_digest(other) != part_digest(decoded())


def test_an_encoded_part_comes_back_as_it_was():
    part = JobPart(
        id=ID,
        profile="p",
        template="t",
        priority=Priority.URGENT,
        data={"z": [1, None, "ü"], "a": {"y": 1.5}},
        send_after=datetime(2026, 11, 21, tzinfo=UTC),
        recipients=(Recipient("a@example.org", name="Ada"),),
        attachments=(Attachment("a.bin", "application/octet-stream", b"\0\xff"),),
        part=PartPosition(number=1, last=False),
    )
    raw = encode_part(part)
    assert decode_part(raw).part == part
    assert b"on_unknown" not in raw
