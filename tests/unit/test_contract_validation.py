"""What intake accepts from the wire, and the words in which it refuses the rest."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.part import MAX_OCTETS, Mode, OnUnknown, Priority
from tocsin_schema.contract.validation import decode_part
from tocsin_schema.errors import ContractError

ID = "0190b3c2-0000-7000-8000-000000000001"


def job(**changes):
    fields = {
        "id": ID,
        "profile": "campus",
        "template": "outage",
        "recipients": [{"address": "a@example.org"}],
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not ...}


def encoded(**changes) -> bytes:
    return json.dumps(job(**changes)).encode()


def refusal(raw: bytes) -> ContractError:
    with pytest.raises(ContractError) as caught:
        decode_part(raw)
    assert caught.value.fix
    assert caught.value.code in set(ContractCode)
    return caught.value


def test_a_small_job_is_taken_with_its_defaults():
    valid = decode_part(encoded())
    assert valid.part.mode is Mode.SHARED
    assert valid.part.priority is Priority.NORMAL
    assert valid.part.priority.rank == 1
    assert valid.part.on_unknown is OnUnknown.RESEND
    assert valid.part.version == 1
    assert (valid.part.part.number, valid.part.part.last) == (1, True)
    assert [(found.ordinal, found.address) for found in valid.recipients] == [(0, "a@example.org")]
    assert (valid.rejected, valid.duplicates) == ([], 0)


def test_a_full_job_is_taken():
    valid = decode_part(
        encoded(
            id=...,
            source="board",
            key="incident-7",
            event="outage",
            correlation_id="c-1",
            template=...,
            content={"subject": "{{ data.what }}", "text": "Dear {{ recipient.name }}", "html": "<p>x</p>"},
            data={"what": "Fire", "rows": [{"a": 1}, None, 1.5, True]},
            from_name="Desk {{ data.what }}",
            reply_to="{{ data.reply }}",
            headers={"X-Kind": "alarm", "list-id": "<a.example.org>"},
            mode="individual",
            priority="urgent",
            send_after="2026-11-21T10:00:00+02:00",
            expires_at="2026-11-22T00:00:00Z",
            on_unknown="hold",
            part={"number": 1, "last": False},
            recipients=[{"address": "a@example.org", "name": "Ada", "data": {"room": "12"}}],
            attachments=[
                {
                    "filename": "Plan ü.pdf",
                    "content_type": "application/pdf",
                    "content": base64.b64encode(b"%PDF").decode(),
                }
            ],
        )
    )
    assert valid.part.send_after == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert valid.part.attachments[0].content == b"%PDF"
    assert valid.recipients[0].data == {"room": "12"}


@pytest.mark.parametrize(
    ("raw", "code", "field"),
    [
        (b"", "not_json", None),
        (b"{", "not_json", None),
        (b"{} x", "not_json", None),
        (b"\xef\xbb\xbf{}", "not_json", None),
        (b"[]", "wrong_type", None),
        (b'"text"', "wrong_type", None),
        (b'{"profile":"\xff"}', "not_utf8", None),
        (b'{"profile":"\x00"}', "nul", None),
        (b"[" * 100_000, "too_deep", None),
        (b'{"data":{"a":NaN}}', "not_json", None),
        (b'{"data":{"a":' + b"9" * 5000 + b"}}", "wrong_value", None),
        (b'{"profile":"a","profile":"b"}', "duplicate_key", "profile"),
        (b'{"data":{"a":{"b":1,"b":2}}}', "duplicate_key", "b"),
        (b" " * (MAX_OCTETS + 1), "too_large", None),
        (encoded(profile="a\0"), "nul", "profile"),
        (encoded(data={"x": ["a", "b\0"]}), "nul", "data.x[1]"),
        (encoded(data={"k\0": 1}), "nul", "data.k\\0"),
        (encoded(profile="\ud800"), "lone_surrogate", "profile"),
        (encoded(recipients=[{"address": "a@x.org", "name": "\udfff"}]), "lone_surrogate", "recipients[0].name"),
        (encoded(version=2, brand_new=True), "unsupported_version", "version"),
        (encoded(version="1"), "wrong_type", "version"),
        (encoded(recipient=[]), "unknown_field", "recipient"),
        (encoded(recipients=[{"address": "a@x.org"}, {"adress": "b@x.org"}]), "unknown_field", "recipients[1].adress"),
        (encoded(profile=...), "missing_field", "profile"),
        (encoded(recipients=...), "missing_field", "recipients"),
        (encoded(recipients=[{"name": "x"}]), "missing_field", "recipients[0].address"),
        (encoded(recipients=["a@x.org"]), "wrong_type", "recipients[0]"),
        (encoded(recipients=[{"address": 7}]), "wrong_type", "recipients[0].address"),
        (encoded(recipients={}), "wrong_type", "recipients"),
        (encoded(recipients=[]), "no_recipients", "recipients"),
        (encoded(recipients=[{"address": "a@x.org"}] * 1001), "too_many_recipients", "recipients"),
        (encoded(mode="bcc"), "wrong_value", "mode"),
        (encoded(priority="high"), "wrong_value", "priority"),
        (encoded(profile=""), "wrong_value", "profile"),
        (encoded(profile="p" * 201), "too_long", "profile"),
        (encoded(id=..., source="s", key="k" * 501), "too_long", "key"),
        (encoded(id=...), "bad_id", None),
        (encoded(id="not-a-uuid"), "bad_id", "id"),
        (encoded(id="00000000-0000-0000-0000-000000000000"), "bad_id", "id"),
        (encoded(source="s", key="k"), "bad_id", "key"),
        (encoded(id=..., key="k"), "bad_id", "source"),
        (encoded(id=..., source="a\x1fb", key="k"), "bad_id", "source"),
        (encoded(content={"subject": "s", "text": "t"}), "both_template_and_content", "content"),
        (encoded(template=...), "missing_field", "template"),
        (encoded(template=..., content={"subject": "s"}), "missing_field", "content.text"),
        (encoded(template=..., content={"subject": "a\nb", "text": "t"}), "bad_header", "content.subject"),
        (encoded(template=..., content={"subject": "s" * 999, "text": "t"}), "too_long", "content.subject"),
        (encoded(from_name="a\r\nBcc: b"), "bad_header", "from_name"),
        (encoded(headers={"Bcc": "b@x.org"}), "bad_header", "headers"),
        (encoded(headers={"X-A\r\nBcc": "b"}), "bad_header", "headers"),
        (encoded(headers={"X-A": "a\nBcc: b"}), "bad_header", "headers.X-A"),
        (encoded(headers={"X-A": "1", "x-a": "2"}), "bad_header", "headers.x-a"),
        (encoded(headers={f"X-{n}": "1" for n in range(51)}), "too_many", "headers"),
        (encoded(reply_to="a@x.org, b@x.org"), "bad_address", "reply_to"),
        (encoded(to="nobody"), "bad_address", "to"),
        (encoded(to="a@x.org", mode="individual"), "to_in_individual", "to"),
        (encoded(send_after="tomorrow"), "bad_time", "send_after"),
        (encoded(send_after="2026-11-21T10:00:00"), "bad_time", "send_after"),
        (encoded(expires_at="9999-12-31T23:59:59-10:00"), "bad_time", "expires_at"),
        (encoded(expires_at="9999-12-31T23:59:59Z"), "bad_time", "expires_at"),
        (encoded(send_after="0001-01-01T00:00:00Z"), "bad_time", "send_after"),
        (
            encoded(send_after="2026-11-21T10:00:00Z", expires_at="2026-11-21T11:00:00+01:00"),
            "bad_time",
            "expires_at",
        ),
        (encoded(part={"number": 0, "last": True}), "wrong_value", "part.number"),
        (encoded(part={"number": 1}), "missing_field", "part.last"),
        (encoded(data={"a": 2**64}), "wrong_value", "data.a"),
        (encoded(data={"k" * 201: 1}), "too_long", "data"),
        (encoded(data=None), "wrong_type", "data"),
        (encoded(recipients=[{"address": "a@x.org", "data": {"a": "1"}}]), "data_in_shared", "recipients[0].data"),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_refused_with_code_and_place(raw, code, field):
    error = refusal(raw)
    assert (error.code, error.field) == (code, field)


@pytest.mark.parametrize("field", ["send_after", "expires_at"])
@pytest.mark.parametrize(("year", "is_taken"), [(2015, False), (2017, True), (2036, True), (2037, False)])
def test_a_time_may_lie_ten_years_away_and_no_farther(field, year, is_taken):
    raw = encoded(**{field: f"{year}-11-21T12:00:00Z"})
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    if is_taken:
        assert getattr(decode_part(raw, now=now).part, field).year == year
        return
    with pytest.raises(ContractError, match=f"{field} lies more than 10 years away") as caught:
        decode_part(raw, now=now)
    assert caught.value.fix == "Give a time within 10 years, or leave it out."


def test_an_escaped_backslash_before_u0000_is_not_a_nul():
    assert decode_part(encoded(data={"a": "\\u0000"})).part.data == {"a": "\\u0000"}


def test_a_pair_of_surrogates_is_one_character():
    assert decode_part(encoded(data={"a": "😀"})).part.data == {"a": "😀"}


def test_data_nested_too_deep_is_refused():
    deep = {"a": 1}
    for _ in range(40):
        deep = {"a": deep}
    assert refusal(encoded(data=deep)).code == "too_deep"
    rows = []
    for _ in range(40):
        rows = [rows]
    assert refusal(encoded(data={"a": rows})).code == "too_deep"


def test_a_typing_error_gets_a_suggestion():
    assert refusal(encoded(recipents=[])).fix == "Did you mean recipients?"


ATTACHMENT = {"filename": "a.txt", "content_type": "text/plain", "content": "YQ=="}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"filename": "../a.txt"}, "bad_attachment"),
        ({"filename": ""}, "bad_attachment"),
        ({"filename": "a\r\nb"}, "bad_attachment"),
        ({"content_type": "text"}, "bad_attachment"),
        ({"content_type": "text/plain\r\nX: y"}, "bad_attachment"),
        ({"content_type": "message/rfc822"}, "bad_attachment"),
        ({"content": "no base64!"}, "bad_attachment"),
    ],
)
def test_an_attachment_that_cannot_travel_is_refused(changes, code):
    error = refusal(encoded(attachments=[{**ATTACHMENT, **changes}]))
    assert error.code == code
    assert error.field == f"attachments[0].{next(iter(changes))}"


def test_attachments_travel_in_part_1_only():
    decode_part(encoded(attachments=[ATTACHMENT], part={"number": 1, "last": False}))
    error = refusal(encoded(attachments=[ATTACHMENT], part={"number": 2, "last": True}))
    assert error.code == "attachments_outside_part_1"


def test_a_malformed_recipient_does_not_sink_its_part():
    valid = decode_part(
        encoded(
            recipients=[
                {"address": "a@example.org"},
                {"address": "b@example.org, c@example.org"},
                {"address": "d@example.org", "name": "D\r\nBcc: e@example.org"},
                {"address": "f@example.org", "name": "F" * 201},
                {"address": "x" * 1000},
                {"address": "g@example.org", "name": "Gö"},
            ]
        )
    )
    assert [found.ordinal for found in valid.recipients] == [0, 5]
    assert [found.ordinal for found in valid.rejected] == [1, 2, 3, 4]
    reasons = [found.reason for found in valid.rejected]
    assert "more than one address" in reasons[0]
    assert "line break" in reasons[1]
    assert "201 characters" in reasons[2]
    assert valid.rejected[0].address == "b@example.org, c@example.org"
    assert len(valid.rejected[3].address) == 320


def test_a_second_entry_of_an_address_is_dropped_and_counted():
    valid = decode_part(
        encoded(
            recipients=[
                {"address": "a@example.org", "name": "first"},
                {"address": "A@example.org"},
                {"address": "a@EXAMPLE.org", "name": "second"},
                {"address": "bad"},
                {"address": "bad"},
            ]
        )
    )
    assert [(found.ordinal, found.name) for found in valid.recipients] == [(0, "first"), (1, None)]
    assert len(valid.rejected) == 2
    assert valid.duplicates == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)
FIELD_NAMES = st.sampled_from(sorted(job(source=1, key=1, part=1, data=1, content=1, headers=1, to=1, attachments=1)))


@given(st.binary(max_size=200))
def test_any_octets_give_a_part_or_a_contract_error(raw):
    _decode_or_refuse(raw)


@given(st.dictionaries(FIELD_NAMES, JSON, max_size=4))
def test_any_json_in_any_field_gives_a_part_or_a_contract_error(changes):
    _decode_or_refuse(json.dumps(job(**changes)).encode())


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_damaged_part_gives_a_part_or_a_contract_error(at, damage):
    raw = encoded(content={"subject": "ü", "text": "😀"}, template=...)
    _decode_or_refuse(raw[:at] + damage + raw[at + len(damage) :])


def _decode_or_refuse(raw: bytes) -> None:
    try:
        decode_part(raw)
    except ContractError as error:
        refused = error
    else:
        return
    assert refused.code in set(ContractCode)
    assert 0 < len(str(refused)) < 1000
