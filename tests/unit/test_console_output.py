"""What is printed never steers a terminal, and JSON is always one line of ASCII."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from tocsin_console.output import (
    brief_state,
    examples,
    harmless,
    harmless_lines,
    moment,
    print_facts,
    print_json,
    print_table,
    print_whole_states,
)


def test_ordinary_text_is_shown_as_it_stands() -> None:
    assert harmless("Störung: Netz – 日本語 [bold]x[/bold] 👩‍🚒") == "Störung: Netz – 日本語 [bold]x[/bold] 👩‍🚒"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("\x9b2J", "\\x9b2J"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("\u2028\u2066\ufeff", "\\u2028\\u2066\\ufeff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_and_direction_characters_are_escaped(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_block_keeps_its_lines_and_nothing_else() -> None:
    assert harmless_lines("one\r\ntwo\n\x1b]0;title\x07") == "one\ntwo\n\\x1b]0;title\\x07"


def test_json_is_one_line_of_ascii_that_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "\x1b[2J\u202e\nä", "at": datetime(2026, 11, 21, 12, tzinfo=UTC), "id": UUID(int=7), "n": None}
    print_json(value)
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert "\x1b" not in out
    assert json.loads(out) == {
        "text": "\x1b[2J\u202e\nä",
        "at": "2026-11-21T12:00:00Z",
        "id": str(UUID(int=7)),
        "n": None,
    }


def test_times_are_shown_in_utc() -> None:
    assert moment(datetime(2026, 11, 21, 12, 30, tzinfo=timezone(timedelta(hours=2)))) == "2026-11-21T10:30:00Z"


def test_a_table_is_tab_separated_lines_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("x\ty", None), ("", 3)])
    assert capsys.readouterr().out == "A\tB\nx\\ty\t-\n-\t3\n"


def test_rich_markup_of_others_is_text_in_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(("A",), [("[red]x[/red]\x1b[0m",)])
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "\\x1b[0m" in out


def test_facts_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("Name", "a"), ("Long label", 1)])
    assert capsys.readouterr().out == "Name:       a\nLong label: 1\n"


def test_examples_keep_their_lines() -> None:
    assert examples("tocsin a") == "\b\nExample:\n  tocsin a"
    assert examples("tocsin a", "tocsin b") == "\b\nExamples:\n  tocsin a\n  tocsin b"


def test_a_narrow_terminal_cuts_nothing_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(("ID", "WHAT"), [(UUID(int=2**127 + 7), "something")])
    out = capsys.readouterr().out
    assert "…" not in out
    assert out.count("0") > 25


def test_a_state_has_its_beginning_in_the_table_and_the_whole_below(capsys: pytest.CaptureFixture[str]) -> None:
    assert brief_state("sending") == ("sending", None)
    assert brief_state("paused: the secret: expired")[0] == "paused"
    print_whole_states({"news": "sending", "alerts": "resting until 2026-11-21T12:00:00Z: too\nfast"})
    assert capsys.readouterr().out == "alerts: resting until 2026-11-21T12:00:00Z: too\\nfast\n"


def test_a_long_example_is_broken_before_its_options_and_stays_one_command() -> None:
    long = "tocsin oauth replace-secret m365 --client-secret-file - --secret-expires 2028-11-20 < secret.txt"
    shown = examples(long)
    assert max(len(line) for line in shown.splitlines()) <= 78
    assert " ".join(shown.replace("\\\n", " ").split()).endswith(f"Example: {long}")
