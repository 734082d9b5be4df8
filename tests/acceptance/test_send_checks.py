"""`tocsin send` before anything is sent: what is refused, what a dry run shows, and what is put on the queue."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.message_broker.encoder import message_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.command_line import CommandLine


#: A year in which a job may still be scheduled.
LATER = datetime.now(UTC).year + 2
INLINE = ("--subject", "Hello", "--text-file", "-")
TO_ANN = ("--to", "ann@example.org")


@pytest.fixture
def ready(tocsin: CommandLine) -> CommandLine:
    """A ledger with a sending profile and two templates, and nobody who works."""
    tocsin.ok(
        "profile", "add", "news", "--provider", "custom", "--host", "127.0.0.1", "--tls", "none", "--auth", "none",
        "--from", "news@example.org",
    )  # fmt: skip
    tocsin.ok(
        "template", "add", "outage", "--subject", "Outage: {{ data.service }}", "--text-file", "-", stdin=b"Sorry."
    )
    tocsin.ok("template", "add", "loan", "--subject", "Due: {{ recipient.title }}", "--text-file", "-", stdin=b"Soon.")
    return tocsin


def queued(tocsin: CommandLine) -> list[dict[str, Any]]:
    """What lies on the intake queues of the message broker in Postgres."""
    with psycopg.connect(tocsin.database_url) as connection:
        if connection.execute("SELECT to_regclass('dramatiq.queue')").fetchone() == (None,):
            return []
        rows = connection.execute("SELECT queue_name, message::text FROM dramatiq.queue ORDER BY position").fetchall()
    messages = [message_for(queue, envelope.encode()) for queue, envelope in rows]
    return [json.loads(message.args[0]) for message in messages if message is not None]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((*TO_ANN,), "nothing to send"),
        (("--subject", "x", *TO_ANN), "nothing to send"),
        (("--text-file", "-", *TO_ANN), "nothing to send"),
        (("--template", "outage", "--subject", "x", *TO_ANN), "exclude each other"),
        ((*INLINE,), "nobody to send to"),
        ((*INLINE, *TO_ANN, "--recipients", "staff.csv"), "exclude each other"),
        ((*INLINE, "--recipients", "-"), "one thing only"),
        ((*INLINE, *TO_ANN, "--source", "board"), "belong together"),
        ((*INLINE, *TO_ANN, "--key", "4711"), "belong together"),
        ((*INLINE, *TO_ANN, "--id", str(uuid4()), "--source", "s", "--key", "k"), "exclude each other"),
        ((*INLINE, *TO_ANN, "--timeout", "3"), "--wait"),
        ((*INLINE, *TO_ANN, "--dry-run", "--wait"), "exclude each other"),
        ((*INLINE, *TO_ANN, "--send-after", "tomorrow"), "no time with a time zone"),
        ((*INLINE, *TO_ANN, "--send-after", f"{LATER}-01-01T08:00:00"), "no time with a time zone"),
        ((*INLINE, *TO_ANN, "--expires-at", "2020-01-01T08:00:00Z"), "has passed"),
        (
            (*INLINE, *TO_ANN, "--send-after", f"{LATER}-01-02T00:00:00Z", "--expires-at", f"{LATER}-01-01T00:00:00Z"),
            "not later than --send-after",
        ),
        ((*INLINE, *TO_ANN, "--data", "nonsense"), "name=value"),
        ((*INLINE, "--to", "a@example.org, b@example.org"), "more than one address"),
        ((*INLINE, "--recipients", "no-such-file.csv"), "No such file"),
        ((*INLINE, *TO_ANN, "--attach", "no-such-file.pdf"), "No such file"),
        ((*INLINE, *TO_ANN, "--profile", "nobody"), "no sending profile 'nobody'"),
        (("--template", "nothing", *TO_ANN), "no template 'nothing'"),
    ],
)
def test_what_cannot_be_sent_is_wrong_usage_and_nothing_is_published(
    ready: CommandLine, flags: tuple[str, ...], told: str
) -> None:
    profile = () if "--profile" in flags else ("--profile", "news")
    outcome = ready("send", *profile, *flags, stdin=b"Text")
    assert outcome.code == 2, outcome.errors
    assert told in outcome.errors
    assert outcome.raw == b""
    assert queued(ready) == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--template", "outage", *TO_ANN), "service"),
        (("--template", "loan", *TO_ANN), "recipient"),
        (("--template", "loan", "--mode", "individual", *TO_ANN), "title"),
        (("--subject", "{{ data.x", "--text-file", "-", *TO_ANN), "subject"),
    ],
)
def test_a_message_that_cannot_be_made_fails_now_and_not_as_a_dead_letter(
    ready: CommandLine, flags: tuple[str, ...], told: str
) -> None:
    outcome = ready("send", "--profile", "news", *flags, stdin=b"Text")
    assert outcome.code == 1
    assert told in outcome.errors
    assert queued(ready) == []


def test_a_job_is_stored_and_the_command_says_that_nobody_works(ready: CommandLine) -> None:
    outcome = ready.ok("send", "--profile", "news", *INLINE, *TO_ANN, "--to", "ann@EXAMPLE.org", stdin=b"Text")
    assert "nothing is sending now" in outcome.errors
    (part,) = queued(ready)
    assert part["recipients"] == [{"address": "ann@example.org"}]
    assert part["content"] == {"subject": "Hello", "text": "Text"}
    assert part["id"] in outcome.out


def test_all_flags_reach_the_job(ready: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "plan.pdf").write_bytes(b"%PDF")
    (tmp_path / "mail.eml").write_bytes(b"From: x")
    outcome = ready.ok(
        "send", "--profile", "news", "--template", "outage", "--data", "service=E-mail", *TO_ANN, "--mode", "shared",
        "--priority", "urgent", "--source", "board", "--key", "4711", "--attach", str(tmp_path / "plan.pdf"),
        "--attach", str(tmp_path / "mail.eml"), "--send-after", f"{LATER}-01-01T09:00:00+01:00", "--on-unknown", "hold",
        "--json",
    )  # fmt: skip
    (part,) = queued(ready)
    assert part["data"] == {"service": "E-mail"}
    assert [(one["filename"], one["content_type"]) for one in part["attachments"]] == [
        ("plan.pdf", "application/pdf"),
        ("mail.eml", "application/octet-stream"),
    ]
    assert (part["source"], part["key"], part["on_unknown"]) == ("board", "4711", "hold")
    assert part["send_after"].startswith(f"{LATER}-01-01T09:00:00")
    assert outcome.json["priority"] == part["priority"] == "urgent"


def test_a_list_with_a_header_only_is_named(ready: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("address,name\n")
    outcome = ready("send", "--profile", "news", *INLINE, "--recipients", str(tmp_path / "empty.csv"), stdin=b"Text")
    assert outcome.code == 2
    assert f"There is no recipient in {tmp_path / 'empty.csv'}." in outcome.errors
    assert queued(ready) == []


@pytest.mark.parametrize(
    ("csv", "mode"), [(b"address\na@x.org\n", "shared"), (b"address,name\na@x.org,A\n", "individual")]
)
def test_bare_addresses_make_shared_mail_and_a_csv_with_more_makes_individual_mail(
    ready: CommandLine, csv: bytes, mode: str
) -> None:
    template = ("--template", "outage", "--data", "service=E-mail")
    answer = ready.ok("send", "--profile", "news", *template, "--recipients", "-", "--json", stdin=csv).json
    assert answer["mode"] == mode


def test_the_answer_counts_parts_recipients_duplicates_and_malformed_addresses(
    ready: CommandLine, tmp_path: Path
) -> None:
    rows = [f"r{number}@example.org;T{number}" for number in range(10_000)]
    (tmp_path / "loans.csv").write_text("\n".join(["address;title", *rows, "nonsense;T", *rows[:50]]))
    arguments = ("--profile", "news", "--template", "loan", "--recipients", str(tmp_path / "loans.csv"))
    answer = ready.ok("send", *arguments, "--json").json
    counts = {name: answer[name] for name in ("parts", "recipients", "duplicates", "invalid", "mode", "published")}
    assert counts == {
        "parts": 11, "recipients": 10_001, "duplicates": 50, "invalid": 1, "mode": "individual", "published": True,
    }  # fmt: skip
    parts = queued(ready)
    assert [part["part"]["last"] for part in parts] == [False] * 10 + [True]
    assert parts[0]["recipients"][0] == {"address": "r0@example.org", "data": {"title": "T0"}}


def test_an_error_in_the_last_line_of_a_file_leaves_no_half_job(ready: CommandLine) -> None:
    rows = "\n".join(f"r{number}@example.org,T" for number in range(3000))
    outcome = ready(
        "send", "--profile", "news", "--template", "loan", "--recipients", "-",
        stdin=f"address,title\n{rows}\nlast@example.org\n".encode(),
    )  # fmt: skip
    assert outcome.code == 2
    assert "standard input, line 3002" in outcome.errors
    assert queued(ready) == []


def test_in_shared_mode_data_columns_are_left_out_and_named(ready: CommandLine) -> None:
    outcome = ready.ok(
        "send", "--profile", "news", "--template", "outage", "--data", "service=E-mail", "--mode", "shared",
        "--recipients", "-", stdin=b"address,name,room\nann@example.org,Ann,12\n",
    )  # fmt: skip
    assert "not used: room" in outcome.errors
    assert queued(ready)[0]["recipients"] == [{"address": "ann@example.org", "name": "Ann"}]


def test_a_dry_run_shows_the_first_message_and_publishes_nothing(ready: CommandLine) -> None:
    arguments = ("send", "--profile", "news", "--template", "loan", "--recipients", "-", "--dry-run")
    csv = b"address,title\nnonsense,X\nann@example.org,Dune\nbob@example.org,Emma\n"
    outcome = ready.ok(*arguments, stdin=csv)
    assert "Due: Dune" in outcome.out
    assert "news@example.org" in outcome.out
    assert "Nothing was published" in outcome.errors
    answer = ready.ok(*arguments, "--json", stdin=csv).json
    assert answer["published"] is False
    assert (answer["recipients"], answer["invalid"]) == (3, 1)
    assert (answer["preview"]["subject"], answer["preview"]["recipient"]) == ("Due: Dune", "ann@example.org")
    assert queued(ready) == []


def test_a_value_that_breaks_the_first_message_fails_a_dry_run_and_not_the_job(ready: CommandLine) -> None:
    arguments = ("send", "--profile", "news", "--template", "loan", "--recipients", "-")
    csv = b'address,title\nann@example.org,"Dune\nBcc: victim@example.org"\nbob@example.org,Emma\n'
    outcome = ready(*arguments, "--dry-run", stdin=csv)
    assert outcome.code == 1
    assert "the first recipient, ann@example.org" in outcome.errors
    ready.ok(*arguments, stdin=csv)
    assert len(queued(ready)) == 1


def test_the_same_key_puts_the_same_job_on_the_queue(ready: CommandLine) -> None:
    arguments = ("send", "--profile", "news", *INLINE, *TO_ANN, "--source", "board", "--key", "4711", "--json")
    first, second = ready.ok(*arguments, stdin=b"Text").json, ready.ok(*arguments, stdin=b"Text").json
    assert first == second
    one, other = queued(ready)
    assert one == other


def test_without_a_message_broker_the_error_names_it_and_nothing_is_half_done(
    ready: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOCSIN_BROKER_URL", "amqp://tocsin:sesame@127.0.0.1:1/")
    outcome = ready("send", "--profile", "news", *INLINE, *TO_ANN, stdin=b"Text")
    assert outcome.code == 1
    assert "RabbitMQ at 127.0.0.1:1" in outcome.errors
    assert "sesame" not in outcome.errors


def test_a_broker_that_fails_in_the_middle_tells_how_to_go_on_without_doubling_anything(
    ready: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "all.csv").write_text("address\n" + "\n".join(f"r{number}@example.org" for number in range(2500)))
    arguments = ("send", "--profile", "news", *INLINE, "--recipients", str(tmp_path / "all.csv"))
    ready.ok("send", "--profile", "news", *INLINE, *TO_ANN, stdin=b"Text")  # makes the queue's tables
    ready.rows(
        "CREATE FUNCTION refuse_the_fourth() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF (SELECT count(*) FROM dramatiq.queue) >= 3 THEN RAISE 'the disk is full'; END IF; RETURN NEW; END $$"
    )
    ready.rows(
        "CREATE TRIGGER refuse BEFORE INSERT ON dramatiq.queue FOR EACH ROW EXECUTE FUNCTION refuse_the_fourth()"
    )
    failed = ready(*arguments, stdin=b"Text")
    assert failed.code == 1
    kept = queued(ready)[1:]
    assert [part["part"] for part in kept] == [{"number": 1, "last": False}, {"number": 2, "last": False}]
    again = f"--id {kept[0]['id']}"
    assert f"Run the same command again with {again}" in failed.errors
    ready.rows("DROP TRIGGER refuse ON dramatiq.queue")
    ready.ok(*arguments, *again.split(), stdin=b"Text")
    assert queued(ready)[3:5] == kept
    assert queued(ready)[5]["part"] == {"number": 3, "last": True}


def test_to_wait_needs_the_ledger(ready: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOCSIN_BROKER_URL", "amqp://tocsin:sesame@127.0.0.1:1/")
    monkeypatch.setenv("TOCSIN_DATABASE_URL", "")
    outcome = ready("send", "--profile", "news", *INLINE, *TO_ANN, "--wait", stdin=b"Text")
    assert outcome.code == 2
    assert "TOCSIN_DATABASE_URL" in outcome.errors


def at_a_terminal(answer: bytes, *arguments: str) -> tuple[int, str]:
    """Run a command whose standard input and error are a terminal, and type an answer."""
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tocsin_console", *arguments],
        stdin=side, stderr=side, stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    os.close(side)
    os.write(terminal, answer)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:
        pass  # so Linux tells that the other side is closed
    finally:
        os.close(terminal)
    return process.wait(PATIENCE_SECONDS), shown.decode()


def test_many_recipients_are_confirmed_on_a_terminal(ready: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("address\n" + "\n".join(f"r{number}@example.org" for number in range(1001)))
    arguments = (
        "send", "--profile", "news", "--template", "outage", "--data", "service=x",
        "--recipients", str(tmp_path / "all.csv"),
    )  # fmt: skip
    code, shown = at_a_terminal(b"n\n", *arguments)
    assert code == 1
    assert "Send to 1,001 recipients, as shared mail?" in shown
    assert queued(ready) == []
    code, shown = at_a_terminal(b"y\n", *arguments)
    assert code == 0, shown
    assert len(queued(ready)) == 2
    code, shown = at_a_terminal(b"", *arguments, "--yes")
    assert code == 0
    assert "Send to" not in shown
