"""A template that was cut fills in to what the uncut one renders to, or fails with the same words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.errors import RenderingError
from tocsin_workers.rendering.cutting import LEAST_CONSTANT, cut
from tocsin_workers.rendering.filling import MessageFiller
from tocsin_workers.rendering.headers import Mailbox
from tocsin_workers.rendering.message import FilledMessage, MessageSources, RenderedMessage, filled
from tocsin_workers.rendering.mime import ComposedMessage, Composer
from tocsin_workers.rendering.tag_values import TagList, TagObject, recipient_tags, recipient_values, tag_object
from tocsin_workers.rendering.templates import bounded_environment, compile_message

DESK = parse_address("desk@example.org")
ADA = Mailbox(parse_address("ada@example.org"), "Ada")
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LONG = "All of this is the same for everybody, on and on.\n" * 3


def composed(message: FilledMessage) -> ComposedMessage:
    return Composer(DESK).compose(message, to=ADA, message_id="<1.r1-1@example.org>", date=NOON)


def made_or_refused(make) -> ComposedMessage | str:
    try:
        return composed(make())
    except RenderingError as error:
        return str(error)


def is_template(source: str) -> bool:
    try:
        bounded_environment().undeclared_variables_in_str(source)
    except RuntimeError:
        return False
    return True


def pieces(source: str, *, may_set: bool = True) -> list[str] | None:
    return cut(source, is_template, may_set=may_set)


# Where it is cut


def test_long_text_between_tags_is_cut_out_with_its_lines():
    assert pieces(f"Dear {{{{ recipient.name }}}},\n{LONG}so {{{{ data.a }}}} it is\n{LONG}") == [
        "",
        "Dear {{ recipient.name }},\n",
        LONG,
        "so {{ data.a }} it is\n",
        LONG,
    ]
    assert pieces(f"{LONG}{{{{ data.a }}}}") == [LONG, "{{ data.a }}", ""]


def test_short_text_is_not_worth_a_cut():
    source = "{{ data.a }}\n" + "x" * (LEAST_CONSTANT - 2) + "\n{{ data.b }}\n"
    assert pieces(source) == ["", source, ""]


@pytest.mark.parametrize(
    "middle",
    [
        f"{{% if data.a %}}\n{LONG}{{% endif %}}",
        f"{{% for x in data.rows %}}\n{LONG}{{% endfor %}}",
        f"{{{{ data.a -}}}}\n{LONG}{{{{ data.a }}}}",
        f"{{{{ data.a -}}}}\n{LONG}{{{{- data.a }}}}",
        f"{{{{ data.a }}}}\n{LONG}{{%- if 1 %}}x{{% endif %}}",
        f"{{# comment -#}}\n{LONG}{{#- comment #}}",
        f"{{{{ '\n{LONG}' }}}}",
        f"{{# \n{LONG} #}}",
        f"{{{{ data.a }}}} {LONG.replace(chr(10), chr(13))}{{{{ data.a }}}}",
    ],
)
def test_what_is_not_always_there_as_it_stands_is_not_cut_out(middle):
    found = pieces(f"{LONG}{middle}\n{LONG}")
    assert found is not None
    assert all(found[place] in ("", LONG) for place in range(0, len(found), 2))
    assert any(LONG.strip("\n") in piece or LONG.replace("\n", "\r") in piece for piece in found[1::2])


@pytest.mark.parametrize(
    "source",
    [
        "{% extends 'html' %}",
        "{% include 'html' %}",
        "{% block a %}x{% endblock %}",
        "{% macro m() %}x{% endmacro %}",
        "{% set a %}x{% endset %}",
        "{% filter upper %}x{% endfilter %}",
        "{% with a = 1 %}{{ a }}{% endwith %}",
        f"{{% set a | replace('=', '') %}}\n{LONG}{{% endset %}}{{{{ a }}}}",
        "{{ data.a }}\0",
    ],
)
def test_what_may_reach_further_is_left_whole(source):
    assert pieces(f"{LONG}{source}\n{LONG}") is None


def test_nothing_is_cut_that_is_no_template_for_itself():
    assert cut(f"{LONG}{{{{ data.a }}}}\n{LONG}", lambda _piece: False, may_set=True) is None


def test_a_header_may_not_set_a_name_that_another_would_read():
    assert pieces("{% set data = {'a': 1} %}", may_set=False) is None
    sources = MessageSources(subject="{% set data = {'a': 'S'} %}{{ data.a }}", text="{{ data.a }}", from_name="n")
    filler = MessageFiller(compile_message(sources), {"a": "A"})
    assert composed(filler.fill({"address": "a@x.org"})).octets.endswith(b"\r\n\r\nA\r\n")


# What it becomes

A = "{{ data.a }}"
PIECES = st.sampled_from(
    [
        *(
            "{{ recipient.name }}",
            "{{ data.a }}",
            "{{ recipient.c }}\n",
            "{{ data.rows[0].k|upper }}\n",
            "{{ recipient }}",
        ),
        *("{{- data.a }}", "{{ data.a -}}", "{#- c -#}", "{# c\n #}", "{{ '\n}}' }}", "{{ data.items }}", "{{ q }}"),
        *("{{ data['a'] }}", "{{ data.a|length }}\n", "{{ recipient.missing }}", "{{ data.clear() }}", "{{ data.zz }}"),
        *("{% set q = data.a %}", "{% set data = {'a': 'S'} %}\n", "{% else %}", "{% include 'subject' %}"),
        *("{% if data.a %}", "{% endif %}", "{%- if 1 -%}", "{% for r in data.rows %}", "{{ r.k }}", "{% endfor -%}"),
        *(LONG, LONG, LONG.replace("\n", "\r\n"), "消防演習" * 30 + "\n", "é " * 150 + "\n", "x" * 990 + "\n"),
        *("\n", ".\n", "\r", "..dots\n", "no line end ", "{", "%}", " \t\n", "data\n"),
    ]
)
SOURCES = st.lists(PIECES, max_size=9).map("".join)
HEADERS = st.sampled_from(
    [
        "Plain",
        "{{ data.a }}",
        "ü {{ recipient.c }}",
        "{% if 1 %}x{% endif %}",
        "{{- data.a -}}",
        "{% set q = 1 %}{{ q }}",
    ]
)
VALUES = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\n", "\r", ".\n.", "x" * 995, "ü", "\0", "<b>&", "{{ data.a }}", "a\r\nb"]
)


@settings(max_examples=400)
@given(text=SOURCES, html=st.none() | SOURCES, subject=HEADERS, header=st.none() | HEADERS, value=VALUES, column=VALUES)
@example(text=f"{LONG}{A}\n{LONG}{{{{ recipient.c }}}}", html=None, subject="s", header=None, value="\r", column=".\r")
@example(text=f"{A}\n{LONG}{{{{ data.zz }}}}", html=None, subject="s", header=None, value="a", column="b")
@example(text="{% set data = {'a': 'S'} %}", html=A, subject=A, header=A, value="a", column="b")
@example(text=A, html=f"{LONG}{A}\n{LONG}", subject=A, header=A, value="<&>", column="b")
def test_a_message_that_is_filled_in_is_the_message_that_is_rendered(*, text, html, subject, header, value, column):
    sources = MessageSources(
        subject=subject,
        text=text,
        html=html,
        from_name="{{ data.a }}",
        headers={} if header is None else {"X-A": header},
    )
    try:
        template = compile_message(sources)
    except RenderingError:
        return
    data = {"a": value, "rows": [{"k": value}, {"k": column}]}
    person = ("ada@example.org", "Ada", {"c": column, "n": None})
    filler = MessageFiller(template, data)
    for _ in range(2):
        found = made_or_refused(lambda: filler.fill(recipient_values(*person)))
        assert found == made_or_refused(lambda: filled(template.render(data, recipient_tags(*person))))


def test_many_tags_are_no_trouble():
    source = "".join(f"{{{{ recipient.c }}}} {number}\n{LONG}" for number in range(200))
    template = compile_message(MessageSources(subject="s", text=source))
    found = composed(MessageFiller(template, {}).fill(recipient_values("a@x.org", None, {"c": "ü"})))
    assert found == composed(filled(template.render({}, recipient_tags("a@x.org", None, {"c": "ü"}))))


def test_work_that_two_fields_can_bear_only_apart_is_done():
    loop = "{% for i in range(20000) %}{% if i == 5 %}x{% endif %}{% endfor %}"
    filler = MessageFiller(compile_message(MessageSources(subject=loop, text=loop, from_name=loop)), {})
    assert filler._cut is not None
    with pytest.raises(RuntimeError, match="fuel"):
        filler._cut.fill({})
    assert composed(filler.fill({})).octets.count(b"x\r\n") == 2


def test_an_ordinary_message_is_rendered_once(monkeypatch):
    template = compile_message(
        MessageSources(
            subject="{{ data.a }} for {{ recipient.name }}",
            text=f"{LONG}{{% for row in data.rows %}}{{{{ row.k }}}}\n{{% endfor %}}\n{LONG}{{{{ recipient.c }}}}",
            html=f"<p>{LONG}{{{{ recipient.name }}}}</p>\n{LONG}",
        )
    )
    monkeypatch.setattr(template, "render", pytest.fail)
    filler = MessageFiller(template, {"a": "A", "rows": [{"k": "1"}, {"k": "2"}]})
    message = filler.fill(recipient_values("a@x.org", "<Ada>", {"c": "end"}))
    assert message.subject == "A for <Ada>"
    assert message.text is not None
    assert message.html is not None
    assert message.text.own == "1\n2\n\n\0end"
    assert message.html.own.endswith("&lt;Ada&gt;</p>\n")


def test_a_body_that_becomes_too_long_says_how_long():
    template = compile_message(MessageSources(subject="s", text=f"{LONG}{{{{ recipient.c }}}}\n{LONG}"))
    filler = MessageFiller(template, {})
    with pytest.raises(RenderingError, match="text becomes 1048877 characters long"):
        filler.fill(recipient_values("a@x.org", None, {"c": "x" * 1024 * 1024}))


# What a template can reach


@pytest.mark.parametrize(
    "source",
    ["{{ data.clear() }}", "{{ data.items }}", "{{ data['clear'] }}", "{{ data[data.c] }}", "{{ (data).pop('c') }}"],
)
def test_a_template_that_is_cut_can_neither_change_data_nor_print_a_method(source):
    filler = MessageFiller(compile_message(MessageSources(text=source)), {"c": "clear"})
    for _ in range(2):
        with pytest.raises(RenderingError):
            filler.fill({})


@pytest.mark.parametrize(("shown", "base"), [(TagObject({"a": 1}), dict), (TagList([1]), list)])
def test_no_attribute_of_a_tag_value_can_be_used_but_four_ways_of_reading(shown, base):
    usable = {name for name in dir(base) if not name.startswith("__") and hasattr(shown, name)}
    assert usable == ({"items", "keys", "values", "get"} if base is dict else set())


def test_tag_values_are_read_in_python_as_in_a_template():
    tags = tag_object({"a": {"b": [1, None]}, "n": None})
    assert list(tags.items()) == [("a", {"b": [1, ""]}), ("n", "")]
    assert (tags.get("a"), tags.get("z", 3), list(tags)) == ({"b": [1, ""]}, 3, ["a", "n"])


# What is remembered


def test_what_a_composer_wrote_before_changes_nothing():
    composer = Composer(DESK)
    messages = [
        RenderedMessage(subject=subject, text="x", from_name=name, headers=headers)
        for subject in ("a", "ü", None, "a")
        for name in (None, "Desk")
        for headers in ({}, {"X-A": "1", "X-B": "2"}, {"X-B": "2", "X-A": "1"})
    ]
    for number, message in enumerate(messages):
        date = NOON + timedelta(seconds=number // 3)
        given = {"to": ADA, "message_id": f"<{number}@x.org>", "date": date}
        assert composer.compose(filled(message), **given) == Composer(DESK).compose(filled(message), **given)


def test_a_date_is_shown_in_utc_wherever_it_was_read():
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    octets = Composer(DESK).compose(filled(RenderedMessage(text="x")), to=ADA, message_id="<1@x>", date=there).octets
    assert octets.startswith(b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\n")
