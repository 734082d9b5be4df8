"""`tocsin dead-letter`, with the embedded message broker and with RabbitMQ."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING
from uuid import UUID

import pika

from tocsin_schema.message_broker.topology import INTAKE_QUEUES

if TYPE_CHECKING:
    import pytest

    from tests.acceptance.command_line import CommandLine


BROKEN = b'{"profile": "news\x1b]0;evil\x07", \xff\x00'


def keep(tocsin: CommandLine, body: bytes = BROKEN, *, queue: str = INTAKE_QUEUES[2], job: UUID | None = None) -> str:
    ((letter_id,),) = tocsin.rows(
        """INSERT INTO dead_letters (queue, code, reason, job_id, body, digest, details)
           VALUES (%s, 'not_utf8', E'broken \\x1b[2J', %s, %s, %s, '{"attempt": 1}') RETURNING id""",
        queue, job, body, hashlib.sha256(body).digest(),
    )  # fmt: skip
    return str(letter_id)


def state(tocsin: CommandLine, letter: str) -> str:
    return tocsin.ok("dead-letter", "show", letter, "--json").json["state"]


def test_a_dead_letter_is_shown_with_its_reason_and_its_bytes_made_harmless(tocsin: CommandLine) -> None:
    letter = keep(tocsin, job=UUID(int=5))
    out = tocsin.ok("dead-letter", "show", letter).out
    for told in ("not_utf8", str(UUID(int=5)), "\\xff\\x00", "news\\x1b]0;evil\\x07", "broken \\x1b[2J"):
        assert told in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_the_raw_bytes_are_written_as_they_came(tocsin: CommandLine) -> None:
    letter = keep(tocsin)
    assert tocsin.ok("dead-letter", "show", letter, "--raw").raw == BROKEN
    shown = tocsin.ok("dead-letter", "show", letter, "--json").json
    assert base64.b64decode(shown["body_base64"]) == BROKEN
    assert shown["details"] == {"attempt": 1}


def test_a_long_dead_letter_is_cut_for_people_only(tocsin: CommandLine) -> None:
    letter = keep(tocsin, b"x" * 100_000)
    out = tocsin.ok("dead-letter", "show", letter).out
    assert len(out) < 6000
    assert "4,000 of 100,000" in out
    assert len(tocsin.ok("dead-letter", "show", letter, "--raw").raw) == 100_000


def test_only_those_that_nobody_settled_are_listed_unless_asked(tocsin: CommandLine) -> None:
    first, second = keep(tocsin), keep(tocsin, b"another", job=UUID(int=5))
    tocsin.ok("dead-letter", "discard", first)

    def listed(*flags: str) -> list[str]:
        return [str(line["id"]) for line in tocsin.ok("dead-letter", "list", *flags, "--json").lines]

    assert listed() == [second]
    assert listed("--state", "discarded") == [first]
    assert listed("--state", "all") == [second, first]
    assert listed("--job", str(UUID(int=5))) == [second]
    assert "\x1b" not in tocsin.ok("dead-letter", "list").out


def test_one_that_is_settled_or_not_there_is_neither_put_back_nor_discarded(tocsin: CommandLine) -> None:
    letter = keep(tocsin)
    tocsin.ok("dead-letter", "discard", letter)
    for command in ("requeue", "discard"):
        settled = tocsin("dead-letter", command, letter)
        assert settled.code == 2
        assert "discarded before" in settled.errors
        assert tocsin("dead-letter", command, "999").code == 2
    assert tocsin("dead-letter", "show", "999").code == 2


def test_discarding_several_is_all_or_nothing(tocsin: CommandLine) -> None:
    letter = keep(tocsin)
    assert tocsin("dead-letter", "discard", letter, "999").code == 2
    assert state(tocsin, letter) == "kept"


def test_requeue_puts_the_bytes_on_the_embedded_queue_and_marks_the_letter(tocsin: CommandLine) -> None:
    letter = keep(tocsin, queue=INTAKE_QUEUES[0])
    outcome = tocsin.ok("dead-letter", "requeue", letter)
    assert "1 dead letter put back" in outcome.errors
    assert state(tocsin, letter) == "requeued"
    assert tocsin.rows("SELECT requeues, settled_at IS NOT NULL FROM dead_letters") == [(1, True)]


def test_requeue_puts_the_exact_bytes_on_the_rabbitmq_queue_that_they_came_from(
    tocsin: CommandLine, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = keep(tocsin)
    monkeypatch.setenv("TOCSIN_BROKER_URL", broker_url)
    tocsin.ok("dead-letter", "requeue", letter)
    assert state(tocsin, letter) == "requeued"
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        _, _, body = connection.channel().basic_get(INTAKE_QUEUES[2], auto_ack=True)
    finally:
        connection.close()
    assert body == BROKEN


def test_a_letter_stays_kept_when_the_message_broker_is_away(
    tocsin: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = keep(tocsin)
    monkeypatch.setenv("TOCSIN_BROKER_URL", "amqp://guest:hidden-password@127.0.0.1:1/%2F")
    outcome = tocsin("dead-letter", "requeue", letter)
    assert outcome.code == 1
    assert "hidden-password" not in outcome.errors
    assert state(tocsin, letter) == "kept"
