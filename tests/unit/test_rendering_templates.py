"""Tags are filled in, bounded, and an error names the field, the tag and the mend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_schema.errors import RenderingError, Scope
from tocsin_workers.rendering.message import MessageSources
from tocsin_workers.rendering.tag_values import recipient_tags, tag_object
from tocsin_workers.rendering.templates import (
    MAX_BODY_CHARACTERS,
    MAX_HEADER_CHARACTERS,
    compile_message,
)

ADA = recipient_tags("ada@example.org", "Ada", {"room": "12", "name": "hidden", "rows": [{"a": 1}]})


def text_of(source: str, data=None, recipient=None) -> str:
    text = compile_message(MessageSources(text=source)).render(data or {}, recipient).text
    assert text is not None
    return text


def problem_of(data=None, recipient=None, **sources) -> RenderingError:
    with pytest.raises(RenderingError) as caught:
        compile_message(MessageSources(**sources)).render(data or {}, recipient)
    assert caught.value.fix
    return caught.value


def test_every_field_carries_tags():
    sources = MessageSources(
        subject="About {{ data.what }}",
        text="Dear {{ recipient.name }} in {{ recipient.room }},\n",
        html="<p>{{ data.what }}</p>",
        from_name="Desk {{ data.desk }}",
        reply_to="{{ data.desk }}@example.org",
        visible_to="all-{{ data.desk }}@example.org",
        headers={"X-Row": "{{ recipient.address }}", "X-Kind": "alarm"},
    )
    message = compile_message(sources).render({"what": "<Fire>", "desk": "it"}, ADA)
    assert message.subject == "About <Fire>"
    assert message.text == "Dear Ada in 12,\n"
    assert message.html == "<p>&lt;Fire&gt;</p>"
    assert message.from_name == "Desk it"
    assert message.reply_to == "it@example.org"
    assert message.visible_to == "all-it@example.org"
    assert message.headers == {"X-Row": "ada@example.org", "X-Kind": "alarm"}


def test_fields_that_are_not_given_stay_away():
    message = compile_message(MessageSources(subject="s")).render({})
    assert (message.text, message.html, message.from_name, message.headers) == (None, None, None, {})


def test_an_undefined_tag_names_field_tag_and_what_is_defined():
    error = problem_of({"incident": "7", "place": "x"}, ADA, subject="Ü {{ data.incdent|upper }} {{ data.place }}")
    assert "subject uses {{ data.incdent|upper }}, but data.incdent is not defined" in str(error)
    assert "data.incident, data.place, recipient.address, recipient.name" in str(error)
    assert error.fix == "Did you mean data.incident?"
    assert error.scope is Scope.MESSAGE


def test_an_undefined_tag_in_a_header_names_the_header():
    assert "headers.X-A uses {{ data.a }}" in str(problem_of(headers={"X-A": "{{ data.a }}"}))


@pytest.mark.parametrize(
    "source",
    ["{% if data.a %}x{% endif %}", "{% for x in data.a %}{% endfor %}", "{{ data.b.c }}", "{{ data['a'] }}"],
)
def test_undefined_is_an_error_in_conditions_and_loops_too(source):
    assert "is not defined" in str(problem_of({"b": {}}, text=source))


def test_a_name_other_than_data_and_recipient_is_found_when_compiled():
    with pytest.raises(RenderingError, match="text uses incident, which is not defined") as caught:
        compile_message(MessageSources(text="{{ incident }}"))
    assert caught.value.fix == "Write data.incident or recipient.incident."
    assert caught.value.scope is Scope.TEMPLATE


def test_a_syntax_error_names_field_and_line():
    with pytest.raises(RenderingError, match="html has an error in line 2"):
        compile_message(MessageSources(html="<p>\n{{ data.x"))


def test_a_recipient_without_a_name_is_told_by_a_default_or_an_error():
    nameless = recipient_tags("a@example.org", None, {"name": "column"})
    assert text_of('Dear {{ recipient.name|default("colleague") }}', {}, nameless) == "Dear colleague"
    assert "recipient.name is not defined" in str(problem_of(None, nameless, text="{{ recipient.name }}"))


def test_a_null_is_empty_text():
    assert text_of("[{{ data.a }}{{ data.b[0] }}{{ data.c.d }}]", {"a": None, "b": [None], "c": {"d": None}}) == "[]"


def test_recipient_does_not_exist_in_shared_mode():
    assert "recipient is not defined" in str(problem_of({"a": 1}, None, text="{{ recipient.name }}"))


def test_what_is_personal_is_known_before_rendering():
    assert compile_message(MessageSources(subject="x", headers={"X-A": "{{ recipient['x'] }}"})).uses_recipient
    assert not compile_message(MessageSources(subject="{{ data.recipient }}")).uses_recipient
    sources = MessageSources(subject="{{ data.a }}", text="{% for x in data.b %}{{ x }}{% endfor %}")
    assert compile_message(sources).variables == {"data.a", "data.b"}


@pytest.mark.parametrize(
    "source",
    [
        "{{ data.clear() }}",
        "{{ data.update(data) }}",
        "{{ data.rows.append(1) }}",
        "{{ data.rows.sort() }}",
        "{{ data.pop('rows') }}",
        "{{ data.items }}",
        "{{ data.rows.clear }}",
        "{{ data.__class__ }}",
        "{{ data.rows.__class__.__mro__ }}",
        "{{ debug() }}",
        "{% include 'x' %}",
    ],
)
def test_a_template_cannot_change_data_or_reach_into_python(source):
    data = tag_object({"rows": [3, 1]})
    problem_of(data, None, text=source)
    assert dict(data) == {"rows": [3, 1]}


def test_data_can_be_read_in_the_usual_ways():
    data = {"m": {"a": 1, "items": 2}, "l": [3, 1], "s": "x"}
    assert text_of("{% for k, v in data.m|items %}{{ k }}{{ v }} {% endfor %}", data) == "a1 items2 "
    assert text_of("{% for k, v in data.m.items() %}{{ k }}{{ v }} {% endfor %}", data) == "a1 items2 "
    assert text_of("{{ data.m.items }} {{ data.l|sort|join(',') }} {{ data.s.upper() }}", data) == "2 1,3 X"
    assert text_of("{{ data.m.get('zz', 'no') }} {{ data.l|length }} {{ 'a' in data.m }}", data) == "no 2 True"


def test_work_is_bounded():
    error = problem_of(text="{% for i in range(90000) %}{% for j in range(90000) %}{{ j }}{% endfor %}{% endfor %}")
    assert "too much work" in str(error)


@pytest.mark.parametrize("source", ["{{ 'a' * 2000000 }}", "{{ 'a' * 10**15 }}", "{{ '%0999999999d'|format(1) }}"])
def test_output_is_bounded(source):
    problem_of(text=source)


@pytest.mark.parametrize(
    "source",
    [
        "{% if " + "not " * 100_000 + "1 %}{% endif %}",
        "{{ " + "-" * 100_000 + "1 }}",
        "{{ '}}' ~ " + "1 + " * 100_000 + "1 }}",
        '{{ "\\"}}" ~ ' + "-" * 100_000 + "1 }}",
        "{{ {1: {2: {}}} ~ " + "-" * 100_000 + "1 }}",
        "{# {{ ' #}{{ " + "1**" * 100_000 + "1 }}",
        "{% raw %}{# {% endraw %}{{ " + "-" * 100_000 + "1 }}#}",
        "{% if 0 %}" + "{%- elif 1 %}" * 50_000 + "{% endif %}",
        "{% if 1 %}" * 40_000 + "{% endif %}" * 40_000,
        "{{ " + "(" * 100_000 + ")" * 100_000 + " }}",
        "{{ '" + "x" * 100_000,
    ],
)
def test_a_template_that_would_overflow_the_parsers_stack_is_refused(source):
    with pytest.raises(RenderingError) as caught:
        compile_message(MessageSources(html=source))
    assert len(str(caught.value)) < 500


def test_closers_in_strings_styles_and_maps_are_no_trouble():
    source = "<style>@media x{a{b:c}}</style>{{ '}}' }}{{ {'a': {'b': data.x}}['a']['b'] }}{# {{ #}" + "x}}" * 500
    assert text_of(source, {"x": 1}) == "<style>@media x{a{b:c}}</style>}}1" + "x}}" * 500


def test_a_body_that_becomes_too_long_says_how_long():
    data = {"a": "x" * MAX_BODY_CHARACTERS}
    assert len(text_of("{{ data.a }}", data)) == MAX_BODY_CHARACTERS
    assert f"text becomes {MAX_BODY_CHARACTERS + 1} characters" in str(problem_of(data, text="{{ data.a }}."))


def test_a_header_that_becomes_too_long_is_refused():
    assert "subject becomes 2001" in str(problem_of({"a": "x" * MAX_HEADER_CHARACTERS}, subject="{{ data.a }}."))
    assert "subject becomes 2001" in str(problem_of(subject="x" * (MAX_HEADER_CHARACTERS + 1)))


@pytest.mark.parametrize("value", ["a\r\nBcc: b@example.org", "a\n", "\rb", "a\0"])
@pytest.mark.parametrize("field", ["subject", "from_name", "reply_to", "visible_to"])
def test_a_line_break_in_a_rendered_header_is_refused(field, value):
    error = problem_of({"a": value}, **{field: "{{ data.a }}"})
    assert str(error).startswith(field.removeprefix("visible_"))
    assert "line break" in str(error) or "NUL" in str(error)


def test_a_line_break_in_a_callers_header_is_refused():
    assert "headers.X-A contains a line break" in str(problem_of({"a": "x\ny"}, headers={"X-A": "{{ data.a }}"}))


def test_the_line_break_at_the_end_of_a_subject_file_is_dropped():
    assert compile_message(MessageSources(subject="s {{ data.a }}\n")).render({"a": 1}).subject == "s 1"


def test_a_body_keeps_its_last_line_break_with_and_without_tags():
    assert text_of("a\n") == "a\n"
    assert text_of("{{ data.a }}\n", {"a": "a"}) == "a\n"


def test_threads_may_share_a_template():
    template = compile_message(MessageSources(text="{{ data.a }} {{ recipient.address }}"))
    data = tag_object({"a": "x"})

    def render(number: int) -> bool:
        address = f"u{number}@example.org"
        return template.render(data, recipient_tags(address, None, {})).text == f"x {address}"

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(render, range(2000)))


@given(st.text(max_size=60), st.text(max_size=20))
def test_any_template_gives_a_message_or_a_rendering_error(source, value):
    _render_or_refuse(source, value)


@given(
    st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                "{%",
                "%}",
                "data",
                ".a",
                "recipient",
                "|",
                "upper",
                " if ",
                "(",
                ")",
                "'",
                "x",
                "[0]",
                "é",
                "\n",
            ]
        ),
        max_size=14,
    )
)
def test_any_salad_of_tags_gives_a_message_or_a_rendering_error(pieces):
    _render_or_refuse("".join(pieces), "value")


def _render_or_refuse(source: str, value: str) -> None:
    try:
        message = compile_message(MessageSources(subject=source)).render({"a": value}, ADA)
    except RenderingError:
        return
    assert message.subject is not None
    assert "\n" not in message.subject
