"""Servers that hang up, fall silent or do not speak SMTP: what is told of the message, and that the session ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.servers.smtp import (
    Cut,
    ScriptedMailServer,
    ThenCut,
    Wait,
    on_both_loops,
    scripted_mail_server,
)
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.connection import SmtpServer, open_session
from tocsin_workers.smtp.credentials import NoCredentials
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.dialogue import CutKind
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.tls import TlsMode

if TYPE_CHECKING:
    from tocsin_workers.smtp.session import Session

BODY = to_wire(b"Subject: x\r\n\r\n.dot\r\nhello\r\n")
PLAIN = ("8BITMIME", "ENHANCEDSTATUSCODES")


async def open_to(port: int, **options) -> Session:
    return await open_session(
        SmtpServer("127.0.0.1", port, TlsMode.NONE),
        NoCredentials(),
        local_hostname="client.test",
        **options,
    )


def envelope(count: int = 1) -> Envelope:
    return Envelope("sender@x.test", tuple(f"user{i}@y.test" for i in range(count)))


def verdicts(transaction) -> list[Verdict]:
    return [recipient.verdict for recipient in judge(transaction).recipients]


@on_both_loops
@pytest.mark.parametrize(
    ("step", "phase", "body_written", "verdict"),
    [
        ("MAIL", Phase.MAIL, False, Verdict.DEFERRED),
        ("RCPT", Phase.RCPT, False, Verdict.DEFERRED),
        ("DATA", Phase.DATA, False, Verdict.DEFERRED),
        ("dot", Phase.FINAL, True, Verdict.UNKNOWN),
    ],
)
async def test_a_drop_before_the_dot_is_told_from_one_after_it(step, phase, body_written, verdict):
    async with scripted_mail_server(ScriptedMailServer(answers={step: Cut()})) as server:
        session = await open_to(server.port)
        transaction = await session.transact(envelope(2), BODY)
        assert transaction.cut is not None
        assert transaction.cut.kind is CutKind.LOST
        assert transaction.cut.phase is phase
        assert transaction.body_written is body_written
        assert verdicts(transaction) == [verdict] * 2
        assert not session.is_open


@on_both_loops
async def test_a_drop_in_the_middle_of_a_big_body_is_before_the_dot():
    # Far more than kernel and transport can hold for a server that stops reading.
    big = to_wire(b"x" * 76 + b"\r\n" + (b"y" * 76 + b"\r\n") * 400_000)
    never = asyncio.Event()
    hold = Wait(never, Cut())
    async with scripted_mail_server(ScriptedMailServer(answers={"DATA": ThenCut("354 go ahead")})) as server:
        session = await open_to(server.port)
        transaction = await session.transact(envelope(2), big)
        assert not transaction.body_written
        assert verdicts(transaction) == [Verdict.DEFERRED] * 2
    assert not hold.reached.is_set()


@on_both_loops
async def test_a_server_that_takes_too_long_is_cut_off():
    event = asyncio.Event()
    async with scripted_mail_server(ScriptedMailServer(answers={"dot": Wait(event)})) as server:
        session = await open_to(server.port, deadlines=Deadlines(final=0.05))
        transaction = await session.transact(envelope(), BODY)
        assert transaction.cut is not None
        assert transaction.cut.kind is CutKind.DEADLINE
        assert "0.05 s" in transaction.cut.detail
        assert verdicts(transaction) == [Verdict.UNKNOWN]
        assert not session.is_open
        event.set()


@on_both_loops
async def test_each_phase_has_its_own_deadline_also_on_a_used_session():
    event = asyncio.Event()
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server.port, deadlines=Deadlines(mail=0.05))
        assert verdicts(await session.transact(envelope(), BODY)) == [Verdict.SENT]
        server.answers["MAIL"] = Wait(event)
        transaction = await session.transact(envelope(), BODY)
        assert transaction.cut is not None
        assert (transaction.cut.kind, transaction.cut.phase) == (CutKind.DEADLINE, Phase.MAIL)
        event.set()


@on_both_loops
@pytest.mark.parametrize(
    "said",
    ["garbage", "250-first\n250-second\n" + "250-x\n" * 9000 + "250 end", "250 " + "x" * 9000],
    ids=["no reply", "endless reply", "endless line"],
)
async def test_a_server_that_does_not_speak_smtp_ends_the_session(said):
    async with scripted_mail_server(ScriptedMailServer(answers={"MAIL": said})) as server:
        session = await open_to(server.port)
        transaction = await session.transact(envelope(2), BODY)
        assert transaction.cut is not None
        assert transaction.cut.kind is CutKind.PROTOCOL
        assert verdicts(transaction) == [Verdict.DEFERRED] * 2


@on_both_loops
async def test_what_a_server_said_before_it_stopped_speaking_smtp_counts():
    async with scripted_mail_server(ScriptedMailServer(answers={"DATA": "550 5.7.1 Spam\ngarbage"})) as server:
        session = await open_to(server.port)
        transaction = await session.transact(envelope(), BODY)
        assert transaction.cut is not None
        assert transaction.cut.kind is CutKind.PROTOCOL
        assert verdicts(transaction) == [Verdict.FAILED]


@on_both_loops
@pytest.mark.parametrize(
    "answer",
    [
        "garbage",
        "250 " + "x" * 9000,
        ThenCut("250-2.0.0 Ok"),
        ThenCut("421 4.3.2 Shutting down"),
        "334 What?",
    ],
    ids=["no reply", "endless line", "half a reply", "421", "neither yes nor no"],
)
async def test_no_clear_answer_to_the_dot_leaves_a_doubt(answer):
    async with scripted_mail_server(ScriptedMailServer(answers={"dot": answer})) as server:
        session = await open_to(server.port)
        assert verdicts(await session.transact(envelope(2), BODY)) == [Verdict.UNKNOWN] * 2
        assert not session.is_open


@on_both_loops
async def test_a_250_that_came_before_the_body_is_not_taken_for_its_reply_and_no_body_is_written():
    async with scripted_mail_server(ScriptedMailServer(answers={"DATA": "354 go\n250 2.0.0 Ok"})) as server:
        session = await open_to(server.port)
        transaction = await session.transact(envelope(), BODY)
        assert transaction.final is None
        assert verdicts(transaction) == [Verdict.DEFERRED]
        assert not session.is_open
        await server.all_gone.wait()
        assert server.body_bytes == 0
