"""The job's id is read out of parts that are broken in any way, and reading it never raises."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tocsin_schema.contract.identity import id_from_key
from tocsin_workers.intake.reading_ids import job_id_in, part_number_in

ID = UUID("3f0e1c1e-8a3f-4c52-9d57-6b1f0a4d3e21")


def test_the_id_is_read_out_of_a_part_that_breaks_the_contract_elsewhere():
    body = {"id": str(ID), "profil": "typing error", "recipients": 7, "part": None}
    assert job_id_in(json.dumps(body).encode()) == ID


def test_source_and_key_name_the_job_as_the_contract_does():
    assert job_id_in(b'{"key": "42", "source": "library", "recipients": []}') == id_from_key("library", "42")


def test_the_id_wins_over_source_and_key():
    assert job_id_in(json.dumps({"id": str(ID), "source": "library", "key": "42"}).encode()) == ID


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"id": "not a uuid"}',
        b'{"id": 7}',
        b'{"source": "library"}',
        b'{"key": "42"}',
        b'{"source": "li\\u001fbrary", "key": "42"}',
        b'{"source": "\\ud800", "key": "42"}',
        b'{"id": "3f0e1c1e-8a3f-4c52-9d57-6b1f0a4d3e21"',
        b'\xff\xfe{"source": "a", "key": "b"}',
        b'{"source": "\xff", "key": "b"}',
        b'{"x": ' + b"[" * 100_000,
    ],
    ids=repr,
)
def test_a_part_that_does_not_say_its_id_has_none(body: bytes):
    assert job_id_in(body) is None


@given(st.binary(max_size=200))
@example(b'{"id":"\x00"}')
def test_no_octets_make_it_raise(body: bytes):
    job_id_in(body)
    part_number_in(body)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_json_makes_it_raise(value: object):
    for field in ("id", "source", "key"):
        job_id_in(json.dumps({"source": "a", "key": "b", field: value}).encode())
    part_number_in(json.dumps({"part": value}).encode())
    part_number_in(json.dumps({"part": {"number": value}}).encode())


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (b'{"part": {"number": 7, "last": true}, "profil": "typing error"}', 7),
        (b"{}", 1),
        (b'{"part": {}}', None),
        (b'{"part": null}', None),
        (b'{"part": {"number": "7"}}', None),
        (b"not JSON", None),
    ],
    ids=["a number", "the whole job", "no number", "no part", "no integer", "no JSON"],
)
def test_the_parts_number_is_read_and_a_part_without_one_is_the_first(body: bytes, number: int | None):
    assert part_number_in(body) == number


def test_a_wrong_type_in_source_does_not_hide_the_id():
    assert job_id_in(json.dumps({"id": str(ID), "source": 7}).encode()) == ID


def test_the_nil_id_names_no_job():
    assert job_id_in(b'{"id": "00000000-0000-0000-0000-000000000000"}') is None
