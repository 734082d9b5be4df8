"""Due recipients become messages: who goes together, and that the same inputs give the same bytes."""

from __future__ import annotations

import email.policy
import json
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from hashlib import sha256
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.contract.part import Attachment, Content, JobPart, Mode, Recipient
from tocsin_schema.contract.recipient_list import screen_recipients
from tocsin_schema.errors import AddressError
from tocsin_schema.ledger.attachments import StoredAttachment
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.intake import MessageContent
from tocsin_schema.ledger.sending import ClaimedBatch, ClaimedRecipient, JobContent
from tocsin_workers.intake.content import content_of, sources_of
from tocsin_workers.rendering.mime import compose, encode_attachment, shown_to
from tocsin_workers.rendering.templates import compile_message
from tocsin_workers.sender.preparing import (
    JobMessages,
    PreparedMessage,
    UnrenderableRecipient,
    prepare,
    render_octets,
)
from tocsin_workers.sender.screening import DueRecipient, ScreenedBatch

FROM = "news@campus.example"
JOB = UUID("3f0e1c1e-8a3f-4c52-9d57-6b1f0a4d3e21")
NOON = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC)
ROOM_PLAN = StoredAttachment("Raumplan ü.pdf", "application/pdf", bytes(range(256)) * 9)


def job(*, individual: bool = False, stored: MessageContent | None = None, **given: Any) -> JobContent:
    """Give a job as the ledger would: what intake stored, its JSON columns written and read once."""
    content = stored or MessageContent(
        rendered=not individual,
        subject=given.pop("subject", "Übung um zwölf"),
        text_body=given.pop("text", "Hallo {{ recipient.name }}, Raum {{ recipient.raum }}" if individual else "Hallo"),
        html_body=given.pop("html", None),
        from_name=given.pop("from_name", "Léitstelle"),
        reply_to=given.pop("reply_to", None),
        visible_to=given.pop("visible_to", None),
        headers=given.pop("headers", {}),
        data=given.pop("data", {}),
    )
    assert not given
    return JobContent(
        number=1,
        id=JOB,
        mode="individual" if individual else "shared",
        on_unknown="resend",
        rendered=content.rendered,
        subject=content.subject,
        text_body=content.text_body,
        html_body=content.html_body,
        from_name=content.from_name,
        reply_to=content.reply_to,
        visible_to=content.visible_to,
        headers=json.loads(json.dumps(dict(content.headers))),
        data=json.loads(json.dumps(dict(content.data))),
    )


def messages_of(content: JobContent, *attachments: StoredAttachment, sender: str = FROM) -> JobMessages:
    return JobMessages.of(content, sender, attachments)


def screened(*people: ClaimedRecipient | str, alone: frozenset[int] = frozenset(), number: int = 0) -> ScreenedBatch:
    due = tuple(
        DueRecipient(
            index,
            ClaimedRecipient(1, number, number + index, person, None, None) if isinstance(person, str) else person,
            attempts=0,
            alone=index in alone,
        )
        for index, person in enumerate(people)
    )
    return ScreenedBatch(ClaimedBatch(1, number, number, len(due), 1, bit_string(0, len(due))), due, None)


def prepared(messages: JobMessages, batch: ScreenedBatch, *, largest: int = 50) -> list[PreparedMessage]:
    items = list(prepare(messages, batch, NOON, largest=largest))
    assert all(isinstance(item, PreparedMessage) for item in items), items
    return cast("list[PreparedMessage]", items)


def groups(items: list[PreparedMessage]) -> list[list[int]]:
    return [[one.index for one in item.recipients] for item in items]


def parsed(message: PreparedMessage) -> EmailMessage:
    read = message_from_bytes(message.octets, policy=email.policy.default.clone(utf8=True))
    assert isinstance(read, EmailMessage)
    return read


def person(ordinal: int, address: str, name: str | None = None, **data: object) -> ClaimedRecipient:
    return ClaimedRecipient(1, 0, ordinal, address, name, data or None)


# Who goes together


def test_a_shared_batch_is_one_message():
    (only,) = prepared(messages_of(job()), screened("a@x.org", "b@x.org", "c@x.org"))
    assert only.envelope.recipients == ("a@x.org", "b@x.org", "c@x.org")
    assert only.mask == 0b111
    assert only.visible_to == FROM


def test_the_largest_transaction_is_respected():
    items = prepared(messages_of(job()), screened(*(f"r{i}@x.org" for i in range(7))), largest=3)
    assert groups(items) == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_address_that_needs_smtputf8_goes_alone():
    items = prepared(messages_of(job()), screened("a@x.org", "jürgen@x.org", "b@x.org"))
    assert groups(items) == [[0, 2], [1]]


def test_a_domain_in_letters_of_its_own_goes_with_the_others():
    address = parse_address("a@bücher.example").address
    assert groups(prepared(messages_of(job()), screened("b@x.org", address))) == [[0, 1]]


def test_who_has_to_go_alone_goes_alone():
    items = prepared(messages_of(job()), screened("a@x.org", "b@x.org", "c@x.org", alone=frozenset({0, 2})))
    assert groups(items) == [[1], [0], [2]]


def test_individual_mode_has_one_message_a_recipient():
    items = prepared(
        messages_of(job(individual=True, text="{{ recipient.address }}")), screened("a@x.org", "b@x.org", "c@x.org")
    )
    assert groups(items) == [[0], [1], [2]]
    assert [parsed(item)["To"] for item in items] == ["a@x.org", "b@x.org", "c@x.org"]


def test_a_batch_with_nobody_due_makes_no_message():
    assert prepared(messages_of(job()), screened()) == []


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40),
    st.integers(1, 60),
    st.booleans(),
)
@settings(max_examples=50)
def test_every_due_recipient_is_in_exactly_one_message(people: list[tuple[bool, bool]], largest: int, individual: bool):
    batch = screened(
        *(f"{'ü' if international else 'u'}{index}@x.org" for index, (international, _) in enumerate(people)),
        alone=frozenset(index for index, (_, alone) in enumerate(people) if alone),
    )
    messages = messages_of(job(individual=individual, text="hello"))
    items = prepared(messages, batch, largest=largest)
    assert sorted(index for group in groups(items) for index in group) == list(range(len(people)))
    assert sum(item.mask for item in items) == (1 << len(people)) - 1
    for group in groups(items):
        assert len(group) <= (1 if individual else largest)
        assert len(group) == 1 or not any(any(people[index]) for index in group)


# The same inputs give the same bytes


def made_again(content: JobContent, batch: ScreenedBatch, *attachments: StoredAttachment) -> list[bytes]:
    """Make a batch's messages in a process that has never seen the job."""
    return [item.octets for item in prepared(messages_of(content, *attachments), batch)]


def test_a_shared_message_is_made_again_octet_by_octet():
    content = job(html="<p>Grüße</p>", headers={"X-Event": "Übung", "List-Id": "<a.b>"}, reply_to="help@x.org")
    batch = screened("a@x.org", "b@x.org")
    (first,) = prepared(messages_of(content, ROOM_PLAN), batch)
    assert made_again(content, batch, ROOM_PLAN) == [first.octets]
    assert first.digest == sha256(first.octets).digest()


def test_individual_messages_with_attachments_and_umlauts_are_made_again_octet_by_octet():
    content = job(
        individual=True,
        subject="Für {{ recipient.name }}: {{ data.was }}",
        html="<b>{{ recipient.raum }}</b> – {{ data.was }}",
        data={"was": "Löschübung & mehr"},
    )
    batch = screened(
        person(0, "jörg@x.org", "Jörg Ä.", raum="Süd 7"),
        person(1, "b@x.org", "李雷", raum=None),
    )
    shared = messages_of(content, ROOM_PLAN)
    items = prepared(shared, batch)
    assert [item.octets for item in items] == made_again(content, batch, ROOM_PLAN)
    again = [render_octets(messages_of(content, ROOM_PLAN), 0, one, NOON).composed.octets for one in batch.due]
    assert [sha256(octets).digest() for octets in again] == [item.digest for item in items]
    assert len({item.digest for item in items}) == 2


def test_the_order_in_which_recipients_are_rendered_changes_nothing():
    content = job(individual=True, text="{{ recipient.name }} {{ data.list|join(', ') }}", data={"list": [1, 2]})
    batch = screened(person(0, "a@x.org", "A"), person(1, "b@x.org", "B"))
    forwards = prepared(messages_of(content), batch)
    backwards = prepared(messages_of(content), replace(batch, due=batch.due[::-1]))
    assert [item.octets for item in forwards] == [item.octets for item in backwards[::-1]]


def test_a_batch_that_comes_back_in_smaller_groups_keeps_its_message_id():
    messages = messages_of(job())
    (whole,) = prepared(messages, screened("a@x.org", "b@x.org", number=7))
    rest = prepared(messages, screened("a@x.org", "b@x.org", alone=frozenset({1}), number=7))
    assert {item.message_id for item in rest} == {whole.message_id}
    assert {item.octets for item in rest} == {whole.octets}


def test_a_message_id_is_shared_by_nobody_elses_message():
    messages = messages_of(job(individual=True, text="hello"))
    ordinals = [0, 1, 999, 1000, 1001, 2000, 10_000]
    batch = screened(*(person(ordinal, f"r{ordinal}@x.org") for ordinal in ordinals))
    ids = [item.message_id for item in prepared(messages, batch)]
    assert len(set(ids)) == len(ordinals)
    assert all(JOB.hex in one and one.endswith("@campus.example>") for one in ids)


# From intake to the wire


SHARED_PART = JobPart(
    profile="p",
    content=Content(
        "{{ data.was }} – ☎", "Raum {{ data.raum }}\r\n.\r\nEnde", "<p>{{ data.was }} & {{ data.raum }}</p>"
    ),
    from_name="{{ data.wer }}, Leitung",
    reply_to="{{ data.wer|lower }}@Campus.Example",
    to="alle@campus.example",
    headers={"X-Was": "{{ data.was }}", "List-Unsubscribe": "<mailto:{{ data.wer|lower }}@campus.example>"},
    data={"was": "Übung <jetzt>", "raum": 7.50, "wer": "Leitstelle"},
    recipients=(Recipient("a@x.org"), Recipient("b@x.org")),
)


def test_what_intake_rendered_is_what_the_sender_composes():
    stored = content_of(screen_recipients(SHARED_PART), None, FROM)
    (sent,) = prepared(messages_of(job(stored=stored), ROOM_PLAN), screened("a@x.org", "b@x.org"))
    rendered = compile_message(sources_of(SHARED_PART, None)).render(SHARED_PART.data)
    sender = parse_address(FROM)
    assert sent.octets == compose(
        rendered,
        from_address=sender,
        to=shown_to(rendered, sender),
        message_id=sent.message_id,
        date=NOON,
        attachments=[encode_attachment(Attachment(ROOM_PLAN.filename, ROOM_PLAN.content_type, ROOM_PLAN.content))],
    )


def test_a_reader_finds_what_the_job_said():
    stored = content_of(screen_recipients(SHARED_PART), None, FROM)
    (sent,) = prepared(messages_of(job(stored=stored), ROOM_PLAN), screened("a@x.org", "b@x.org"))
    read = parsed(sent)
    assert read["Subject"] == "Übung <jetzt> – ☎" == sent.subject
    assert read["From"].addresses[0].display_name == "Leitstelle, Leitung"
    assert (read["Reply-To"], read["To"]) == ("leitstelle@campus.example", "alle@campus.example")
    assert sent.reply_to == "leitstelle@Campus.Example"
    assert sent.visible_to == "alle@campus.example"
    assert read["X-Was"] == "Übung <jetzt>"
    assert read["Message-ID"] == sent.message_id
    text, html = read.get_body(("plain",)), read.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().splitlines() == ["Raum 7.5", ".", "Ende"]
    assert html.get_content().strip() == "<p>Übung &lt;jetzt&gt; & 7.5</p>"
    (attached,) = read.iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == (ROOM_PLAN.filename, ROOM_PLAN.content)


def test_an_individual_job_sends_what_its_sources_say_of_each_recipient():
    part = JobPart(
        profile="p",
        mode=Mode.INDIVIDUAL,
        content=Content("{{ data.was }} für {{ recipient.name }}", "{{ recipient.raum }}"),
        data={"was": "Übung"},
        recipients=(Recipient("a@x.org", name="Zoë", data={"raum": "☎"}),),
    )
    stored = content_of(screen_recipients(part), None, FROM)
    (sent,) = prepared(
        messages_of(job(individual=True, stored=stored)), screened(person(0, "a@x.org", "Zoë", raum="☎"))
    )
    assert sent.subject == "Übung für Zoë" == parsed(sent)["Subject"]
    assert parsed(sent).get_content().strip() == "☎"


# What goes over the wire


def test_the_size_is_that_of_the_message_and_the_wire_ends_in_the_final_dot():
    (only,) = prepared(messages_of(job(text=".\nx")), screened("a@x.org"))
    assert only.envelope.size == len(only.octets)
    assert only.wire.endswith(b"\r\n.\r\n")
    assert b"\r\n..\r\n" in only.wire


def test_an_ordinary_message_needs_no_extension_of_the_server():
    (only,) = prepared(messages_of(job(html="<p>Grüße</p>"), ROOM_PLAN), screened("a@x.org"))
    assert only.octets.isascii()
    assert (only.envelope.smtputf8, only.envelope.eight_bit) == (False, False)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(messages_of(job(visible_to="jürgen@x.org")), id="visible to"),
        pytest.param(messages_of(job(), sender="jürgen@x.org"), id="sender"),
        pytest.param(
            messages_of(job(reply_to="jürgen@x.org")),
            id="reply to",
        ),
    ],
)
def test_raw_utf8_in_a_header_asks_for_smtputf8(messages: JobMessages):
    (only,) = prepared(messages, screened("a@x.org"))
    assert not only.octets.isascii()
    assert only.envelope.smtputf8
    assert only.envelope.eight_bit


def test_an_individual_message_to_an_international_address_asks_for_smtputf8():
    (only,) = prepared(messages_of(job(individual=True, text="x")), screened("jürgen@x.org"))
    assert only.envelope.smtputf8


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=300)
def test_whatever_intake_takes_for_an_address_can_stand_in_an_envelope(local: str):
    try:
        address = parse_address(f"{local}@x.org").address
    except AddressError:
        return
    (only,) = prepared(messages_of(job(individual=True, text="x")), screened(address))
    assert only.envelope.recipients == (address,)


# Who cannot be sent to


def test_a_recipient_whose_message_cannot_be_made_does_not_stop_the_others():
    items = list(
        prepare(
            messages_of(job(individual=True, text="{{ recipient.raum }}")),
            screened(person(0, "a@x.org", raum=1), person(1, "b@x.org"), person(2, "c@x.org", raum=3)),
            NOON,
            largest=50,
        )
    )
    assert [type(item) for item in items] == [PreparedMessage, UnrenderableRecipient, PreparedMessage]
    failed = items[1]
    assert isinstance(failed, UnrenderableRecipient)
    assert failed.recipient.index == 1
    assert "recipient.raum" in str(failed.error)


def test_a_line_break_in_a_recipients_data_fails_that_recipient_only():
    items = list(
        prepare(
            messages_of(job(individual=True, subject="{{ recipient.s }}", text="x")),
            screened(person(0, "a@x.org", s="x\r\nBcc: all@x.org"), person(1, "b@x.org", s="fine")),
            NOON,
            largest=50,
        )
    )
    assert [type(item) for item in items] == [UnrenderableRecipient, PreparedMessage]
