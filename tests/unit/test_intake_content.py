"""What is stored of a job's message: whatever can be known to fail fails here, and nothing that could have gone out."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.part import Content, JobPart, Mode, Recipient
from tocsin_schema.contract.recipient_list import screen_recipients
from tocsin_schema.errors import ContractError
from tocsin_schema.ledger.intake import MessageContent, TemplateForIntake
from tocsin_workers.intake.content import content_of, sources_of

FROM = "news@campus.example"


def content(
    text: str | None = "hello",
    *,
    subject: str = "Subject",
    html: str | None = None,
    mode: Mode = Mode.SHARED,
    recipients: tuple[Recipient, ...] = (Recipient("a@example.org"),),
    template: TemplateForIntake | None = None,
    data: dict[str, object] | None = None,
    reply_to: str | None = None,
    to: str | None = None,
    from_name: str | None = None,
    headers: dict[str, str] | None = None,
) -> MessageContent:
    part = JobPart(
        profile="p",
        content=None if template is not None else Content(subject, text, html),
        template=None if template is None else "t",
        mode=mode,
        data=data or {},
        reply_to=reply_to,
        to=to,
        from_name=from_name,
        headers=headers or {},
        recipients=recipients,
    )
    return content_of(screen_recipients(part), template, FROM)


def refused(text: str | None = "hello", **given: object) -> ContractError:
    with pytest.raises(ContractError) as caught:
        content(text, **given)  # pyright: ignore[reportArgumentType]  # each test gives what content takes
    return caught.value


def stored_template(**given: str | None) -> TemplateForIntake:
    fields: dict[str, str | None] = {
        "subject": "Stored",
        "text_body": "stored text",
        "html_body": None,
        "from_name": "Stored name",
        "reply_to_address": "stored@campus.example",
        **given,
    }
    return TemplateForIntake(id=uuid4(), version=3, **fields)  # pyright: ignore[reportArgumentType]  # subject is given


def test_a_shared_message_is_stored_as_rendered():
    stored = content(
        "Room {{ data.room }} & more",
        subject="{{ data.what }}!",
        html="<p>{{ data.what }}</p>",
        data={"what": "Fire <now>", "room": 7, "list": "all"},
        to="{{ data.list }}@campus.example",
        headers={"X-What": "{{ data.what }}"},
    )
    assert stored == MessageContent(
        rendered=True,
        subject="Fire <now>!",
        text_body="Room 7 & more",
        html_body="<p>Fire &lt;now&gt;</p>",
        from_name=None,
        reply_to=None,
        visible_to="all@campus.example",
        headers={"X-What": "Fire <now>"},
        data={},
    )


def test_an_individual_message_keeps_its_sources_and_the_shared_data():
    stored = content("{{ recipient.name }}, {{ data.room }}", mode=Mode.INDIVIDUAL, data={"room": 7})
    assert not stored.rendered
    assert stored.text_body == "{{ recipient.name }}, {{ data.room }}"
    assert stored.data == {"room": 7}


def test_a_stored_template_gives_what_the_job_does_not_say_itself():
    sources = sources_of(
        JobPart(profile="p", template="t", recipients=(), from_name="Own name", to="all@campus.example"),
        stored_template(),
    )
    assert (sources.subject, sources.text, sources.html) == ("Stored", "stored text", None)
    assert (sources.from_name, sources.reply_to) == ("Own name", "stored@campus.example")
    assert sources.visible_to == "all@campus.example"


def test_an_empty_own_value_wins_over_the_templates():
    part = JobPart(profile="p", template="t", recipients=(), from_name="")
    assert sources_of(part, stored_template()).from_name == ""


@pytest.mark.parametrize(
    "text", ["{{ recipient.name }}", "{% set who = recipient %}{{ who.address }}", "{{ recipient|length }}"]
)
def test_a_personal_tag_in_a_shared_message_is_refused(text: str):
    error = refused(text)
    assert (error.code, error.field) == (ContractCode.RECIPIENT_TAG_IN_SHARED, "mode")
    assert "recipient" in error.problem


@pytest.mark.parametrize("place", ["subject", "html", "reply_to", "to", "from_name"])
def test_a_personal_tag_is_refused_wherever_it_stands(place: str):
    assert refused(**{place: "{{ recipient.name }}"}).code == ContractCode.RECIPIENT_TAG_IN_SHARED


def test_the_word_recipient_in_the_text_is_no_tag():
    assert content("Dear recipient.name").text_body == "Dear recipient.name"


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    "text",
    [
        "{{ data.missing }}",
        "{{ data.missing.deeper }}",
        "{% for x in data.missing %}{{ x }}{% endfor %}",
        "{{ broken",
        "{{ other.name }}",
        "{{ name }}",
    ],
)
def test_a_tag_that_fails_for_everybody_is_refused(text: str, mode: Mode):
    error = refused(text, mode=mode)
    assert error.code == ContractCode.BAD_TEMPLATE
    assert error.fix


def test_a_shared_value_that_a_template_asks_for_first_may_be_missing():
    text = "{% if data.extra is defined %}{{ data.extra }}{% endif %}{{ data.more|default('') }}bye"
    assert content(text).text_body == "bye"
    assert content(text, mode=Mode.INDIVIDUAL).text_body == text


@pytest.mark.parametrize("given", [{"subject": "{{ data.bad }}"}, {"from_name": "{{ data.bad }}"}])
def test_a_line_break_in_a_rendered_header_is_refused(given: dict[str, str]):
    error = refused(**given, data={"bad": "x\r\nBcc: everybody@example.org"})
    assert error.code == ContractCode.BAD_TEMPLATE
    assert "line break" in error.problem


@pytest.mark.parametrize("field", ["reply_to", "to"])
@pytest.mark.parametrize("value", ["{{ data.two }}", "{{ data.none }}"])
def test_an_address_that_is_not_exactly_one_is_refused(field: str, value: str):
    error = refused(**{field: value}, data={"two": "a@x.org, b@x.org", "none": "nobody"})
    assert error.code == ContractCode.BAD_TEMPLATE
    assert field in error.problem


def test_a_message_without_any_recipient_that_can_be_written_to_is_stored_all_the_same():
    stored = content("{{ data.missing }}{{ recipient.x }}", mode=Mode.INDIVIDUAL, recipients=(Recipient("nonsense"),))
    assert not stored.rendered


def test_a_refusal_never_shows_the_data():
    error = refused("{{ data.missing }}", data={"pin": "geheim-4711"})
    assert "geheim" not in str(error)


def test_one_recipient_without_a_column_does_not_sink_the_job():
    text = "{% if data.extra is defined %}{{ data.extra }}{% endif %}{{ recipient.code }}"
    people = (Recipient("a@example.org"), Recipient("b@example.org", data={"code": 7}))
    assert content(text, mode=Mode.INDIVIDUAL, recipients=people).text_body == text


def test_a_shared_value_that_is_missing_deeper_down_is_found_at_intake():
    assert refused("{{ data.room.number }}", mode=Mode.INDIVIDUAL, data={"room": {}}).code == ContractCode.BAD_TEMPLATE


def test_a_shared_value_that_is_asked_for_in_brackets_is_found_at_intake():
    assert refused("{{ data['room'] }}", mode=Mode.INDIVIDUAL).code == ContractCode.BAD_TEMPLATE


def test_a_stored_reply_to_that_is_no_address_is_found_at_intake_in_individual_mode():
    error = refused(mode=Mode.INDIVIDUAL, template=stored_template(reply_to_address="help desk"))
    assert "reply_to" in error.problem


def test_a_line_break_from_shared_data_is_found_at_intake_in_individual_mode():
    assert refused(subject="{{ data.bad }}", mode=Mode.INDIVIDUAL, data={"bad": "x\ny"}).fix
