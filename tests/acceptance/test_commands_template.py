"""`tocsin template`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.command_line import seed_job

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.command_line import CommandLine


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "outage.txt"
    file.write_text("Dear {{ recipient.name }},\n{{ data.service }} is down.\n")
    return file


def add(tocsin: CommandLine, text: Path) -> None:
    tocsin.ok("template", "add", "outage", "--subject", "Outage: {{ data.service }}", "--text-file", str(text))


def test_a_template_is_shown_as_it_was_written(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    shown = tocsin.ok("template", "show", "outage", "--json").json
    assert (shown["version"], shown["subject"]) == (1, "Outage: {{ data.service }}")
    assert shown["text"] == text.read_text()
    out = tocsin.ok("template", "show", "outage").out
    assert "data.service, recipient.name" in out
    assert "Dear {{ recipient.name }}," in out


def test_every_change_makes_a_version_and_the_old_ones_stay(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    assert "version 2" in tocsin.ok("template", "set", "outage", "--subject", "Down").errors
    assert "version 2" in tocsin.ok("template", "set", "outage", "--subject", "Down").errors
    html = ("--html-file", "-", "--reply-to", "help@example.org")
    assert "version 3" in tocsin.ok("template", "set", "outage", *html, stdin=b"<p>{{ data.service }}</p>").errors
    newest = tocsin.ok("template", "show", "outage", "--json").json
    assert (newest["version"], newest["subject"], newest["reply_to"]) == (3, "Down", "help@example.org")
    assert newest["text"] == text.read_text()
    first = tocsin.ok("template", "show", "outage", "--version", "1", "--json").json
    assert (first["subject"], first["html"]) == ("Outage: {{ data.service }}", None)
    missing = tocsin("template", "show", "outage", "--version", "9")
    assert missing.code == 2
    assert "1 to 3" in missing.errors


def test_what_is_taken_away_is_gone_but_never_the_last_body(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    assert "needs a body" in tocsin("template", "set", "outage", "--no-text").errors
    tocsin.ok("template", "set", "outage", "--no-text", "--html-file", "-", "--from-name", "IT", stdin=b"<p>x</p>")
    tocsin.ok("template", "set", "outage", "--from-name", "")
    shown = tocsin.ok("template", "show", "outage", "--json").json
    assert (shown["text"], shown["html"], shown["from_name"]) == (None, "<p>x</p>", None)


def test_an_error_names_field_and_line_and_nothing_is_stored(tocsin: CommandLine) -> None:
    outcome = tocsin("template", "add", "x", "--subject", "s", "--text-file", "-", stdin=b"one\ntwo {{ data.x \nthree")
    assert outcome.code == 1
    assert "text" in outcome.errors
    assert "line 2" in outcome.errors or "line 3" in outcome.errors
    unknown = tocsin("template", "add", "x", "--subject", "{{ service }}", "--text-file", "-", stdin=b"x")
    assert "subject uses service" in unknown.errors
    assert tocsin.rows("SELECT name FROM email_templates") == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--subject", "s"), "body"),
        (("--subject", "a\nb", "--text-file", "-"), "line break"),
        (("--subject", "s", "--text-file", "-", "--reply-to", "a@example.org, b@example.org"), "more than one"),
        (("--subject", "s", "--text-file", "-", "--html-file", "-"), "Standard input"),
        (("--subject", "s", "--text-file", "/nowhere/x.txt"), "/nowhere/x.txt"),
    ],
)
def test_what_cannot_be_a_template_is_refused(tocsin: CommandLine, flags: tuple[str, ...], told: str) -> None:
    outcome = tocsin("template", "add", "x", *flags, stdin=b"text")
    assert outcome.code in (1, 2)
    assert told in outcome.errors


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"x" * 5_000_000], ids=["not UTF-8", "NUL", "too long"])
def test_a_file_that_is_no_text_is_refused(tocsin: CommandLine, content: bytes) -> None:
    outcome = tocsin("template", "add", "x", "--subject", "s", "--text-file", "-", stdin=content)
    assert outcome.code == 2
    assert "standard input" in outcome.errors


def test_a_preview_fills_the_tags_in_and_escapes_html(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    tocsin.ok("template", "set", "outage", "--html-file", "-", stdin=b"<p>{{ data.service }}</p>")
    flags = ("--data", "service=a<b=c", "--recipient", "name=Ann")
    shown = tocsin.ok("template", "preview", "outage", *flags, "--json").json
    assert shown["subject"] == "Outage: a<b=c"
    assert shown["html"] == "<p>a&lt;b=c</p>"
    assert "Dear Ann," in tocsin.ok("template", "preview", "outage", *flags).out


def test_a_preview_says_which_tag_has_no_value(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    outcome = tocsin("template", "preview", "outage", "--data", "servce=x", "--recipient", "name=Ann")
    assert outcome.code == 1
    assert "data.service" in outcome.errors


def test_control_characters_in_a_preview_do_not_reach_the_terminal(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    flags = ("--data", "service=\x1b[2J", "--recipient", "name=\u202eAnn")
    outcome = tocsin.ok("template", "preview", "outage", *flags)
    assert "\x1b" not in outcome.out
    assert "\u202e" not in outcome.out
    assert "\\x1b[2J" in outcome.out


def test_templates_are_listed_and_removed(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    again = tocsin("template", "add", "outage", "--subject", "s", "--text-file", str(text))
    assert again.code == 2
    assert "already a template" in again.errors
    assert [line["name"] for line in tocsin.ok("template", "list", "--json").lines] == ["outage"]
    assert "outage\t1\t" in tocsin.ok("template", "list").out
    tocsin.ok("template", "remove", "outage")
    assert tocsin("template", "show", "outage").code == 2


def test_a_template_of_an_unfinished_job_is_not_removed(tocsin: CommandLine, text: Path) -> None:
    add(tocsin, text)
    tocsin.ok("profile", "add", "news", "--provider", "custom", "--host", "h.example.org", "--from", "a@example.org")
    seed_job(tocsin, "news", batches=["p"])
    tocsin.rows("UPDATE jobs SET template_id = (SELECT id FROM email_templates), template_version = 1")
    refused = tocsin("template", "remove", "outage")
    assert refused.code == 2
    assert "1 unfinished job" in refused.errors
