"""Sessions against real servers on loopback, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.servers.smtp import (
    ScriptedMailServer,
    ThenCut,
    Wait,
    aiosmtpd_server,
    authority_pem,
    on_both_loops,
    scripted_mail_server,
    server_context,
)
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.connection import SmtpServer, open_session
from tocsin_workers.smtp.credentials import NoCredentials
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.dialogue import CutKind
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.phases import TimedPhase
from tocsin_workers.smtp.pipelining import Pipelining
from tocsin_workers.smtp.replies import Reply
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
async def test_many_messages_go_over_one_session():
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server.port)
        for _ in range(5):
            assert verdicts(await session.transact(envelope(3), BODY)) == [Verdict.SENT] * 3
        await session.quit()
        assert server.connections == 1
        assert len(server.messages) == 5
        assert server.messages[0].body == b"Subject: x\r\n\r\n.dot\r\nhello\r\n"
        assert server.lines[-1] == "QUIT"
        assert session.counters.bodies == 5
        assert session.counters.recipients == 15
        assert not session.is_open


@on_both_loops
async def test_aiosmtpd_takes_our_mail_over_starttls():
    async with aiosmtpd_server(tls_context=server_context(), require_starttls=True) as (port, kept):
        session = await open_session(
            SmtpServer("localhost", port, TlsMode.STARTTLS, authority_pem()),
            NoCredentials(),
            local_hostname="client.test",
        )
        recipients = ("a@y.test", "refused@y.test", "b@y.test")
        transaction = await session.transact(Envelope("s@x.test", recipients, size=20), BODY)
        assert verdicts(transaction) == [Verdict.SENT, Verdict.FAILED, Verdict.SENT]
        await session.quit()
    assert [message.recipients for message in kept.envelopes] == [("a@y.test", "b@y.test")]
    assert kept.envelopes[0].body == b"Subject: x\r\n\r\n.dot\r\nhello\r\n"


@on_both_loops
async def test_nothing_is_sent_ahead_of_a_server_that_does_not_offer_pipelining():
    async with scripted_mail_server(ScriptedMailServer(extensions=PLAIN)) as server:
        session = await open_to(server.port)
        await session.transact(envelope(3), BODY)
        await session.transact(envelope(3), BODY)
        await session.quit()
        assert not server.sent_ahead
        assert len(server.messages) == 2


@on_both_loops
async def test_a_profile_can_switch_pipelining_off():
    async with scripted_mail_server(ScriptedMailServer()) as server:
        server.extensions = ("PIPELINING",)
        session = await open_to(server.port, pipelining=Pipelining.OFF)
        server.extensions = ()  # from now on the server notes what comes ahead
        await session.transact(envelope(3), BODY)
        assert not server.sent_ahead
        session.abort()


@on_both_loops
@pytest.mark.parametrize("extensions", [PLAIN, (*PLAIN, "PIPELINING")], ids=["step by step", "pipelined"])
async def test_the_session_goes_on_after_everybody_was_refused(extensions):
    refuse = {"RCPT": "550 5.1.1 No such user"}
    async with scripted_mail_server(ScriptedMailServer(extensions, answers=dict(refuse))) as server:
        session = await open_to(server.port)
        assert verdicts(await session.transact(envelope(3), BODY)) == [Verdict.FAILED] * 3
        server.answers.clear()
        assert verdicts(await session.transact(envelope(3), BODY)) == [Verdict.SENT] * 3
        assert len(server.messages) == 1
        await session.quit()


@on_both_loops
async def test_a_server_that_wants_the_body_for_nobody_gets_a_lone_dot():
    answers = {"RCPT": "550 5.1.1 No such user", "DATA": "354 go ahead"}
    async with scripted_mail_server(ScriptedMailServer(answers=dict(answers))) as server:
        session = await open_to(server.port)
        assert verdicts(await session.transact(envelope(2), BODY)) == [Verdict.FAILED] * 2
        assert server.body_bytes == len(b".\r\n")
        server.answers.clear()
        assert verdicts(await session.transact(envelope(2), BODY)) == [Verdict.SENT] * 2
        await session.quit()


@on_both_loops
async def test_refused_data_leaves_the_session_usable():
    answers = {"DATA": "432 4.3.2 Concurrent connections limit exceeded"}
    async with scripted_mail_server(ScriptedMailServer(answers=dict(answers))) as server:
        session = await open_to(server.port)
        assert verdicts(await session.transact(envelope(2), BODY)) == [Verdict.DEFERRED] * 2
        server.answers.clear()
        assert verdicts(await session.transact(envelope(2), BODY)) == [Verdict.SENT] * 2
        assert server.verbs().count("RSET") == 1
        await session.quit()


@on_both_loops
async def test_replies_that_came_before_a_421_are_kept():
    def rcpt(line: str):
        if "user1" in line:
            return "550 5.1.1 No such user"
        return ThenCut("421 4.3.2 Shutting down") if "user2" in line else None

    async with scripted_mail_server(ScriptedMailServer(answers={"RCPT": rcpt})) as server:
        session = await open_to(server.port)
        transaction = await session.transact(envelope(4), BODY)
        codes = [reply.code if isinstance(reply, Reply) else None for reply in transaction.recipients]
        assert codes == [250, 550, 421, None]
        assert verdicts(transaction) == [Verdict.DEFERRED, Verdict.FAILED, Verdict.DEFERRED, Verdict.DEFERRED]
        assert transaction.cut is not None
        assert transaction.cut.kind is CutKind.CLOSING
        assert not transaction.body_written
        assert not session.is_open


@on_both_loops
@pytest.mark.parametrize("extensions", [PLAIN, (*PLAIN, "PIPELINING")], ids=["step by step", "pipelined"])
async def test_who_is_one_too_many_goes_in_the_next_transaction_at_once(extensions):
    def rcpt(_line: str):
        return "452 4.5.3 Too many recipients" if server.verbs()[::-1].index("MAIL") > 3 else None

    async with scripted_mail_server(ScriptedMailServer(extensions, answers={"RCPT": rcpt})) as server:
        session = await open_to(server.port)
        left = list(envelope(8).recipients)
        while left:
            judgement = judge(await session.transact(Envelope("sender@x.test", tuple(left)), BODY))
            assert judgement.recipients_cap == (3 if len(left) > 3 else None)
            assert not any(r.costs_attempt for r in judgement.recipients if r.verdict is Verdict.DEFERRED)
            left = [left[r.position] for r in judgement.recipients if r.verdict is Verdict.DEFERRED]
        assert [len(message.recipients) for message in server.messages] == [3, 3, 2]
        await session.quit()


@on_both_loops
async def test_an_address_blamed_only_after_the_dot_costs_nobody_else_the_message():
    def dot(_line: str):
        last = server.verbs()[::-1].index("MAIL")
        return (
            "550 5.1.1 <user1@y.test> User unknown" if any("user1@" in line for line in server.lines[-last:]) else None
        )

    async with scripted_mail_server(ScriptedMailServer(answers={"dot": dot})) as server:
        session = await open_to(server.port)
        people = envelope(3).recipients
        together = judge(await session.transact(envelope(3), BODY)).recipients
        assert {(r.verdict, r.alone) for r in together} == {(Verdict.DEFERRED, True)}
        each = [verdicts(await session.transact(Envelope("sender@x.test", (one,)), BODY)) for one in people]
        assert each == [[Verdict.SENT], [Verdict.FAILED], [Verdict.SENT]]
        assert [message.recipients for message in server.messages] == [(people[0],), (people[2],)]
        await session.quit()


@on_both_loops
async def test_a_server_that_does_not_reset_gets_no_second_envelope():
    answers = {"DATA": "451 4.3.0 Later", "RSET": "502 5.5.1 Command not implemented"}
    async with scripted_mail_server(ScriptedMailServer(answers=dict(answers))) as server:
        session = await open_to(server.port)
        assert verdicts(await session.transact(envelope(), BODY)) == [Verdict.DEFERRED]
        assert not session.is_open


@on_both_loops
async def test_a_recipient_who_needs_smtputf8_is_asked_for_with_it_or_not_at_all():
    alone = Envelope("sender@x.test", ("jörg@y.test",))
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server.port)
        assert verdicts(await session.transact(alone, BODY)) == [Verdict.SENT]
        assert server.lines[1:3] == ["MAIL FROM:<sender@x.test> SMTPUTF8", "RCPT TO:<jörg@y.test>"]
        await session.quit()
    async with scripted_mail_server(ScriptedMailServer(PLAIN)) as server:
        session = await open_to(server.port)
        recipient = judge(await session.transact(alone, BODY)).recipients[0]
        assert (recipient.verdict, recipient.reply) == (Verdict.FAILED, None)
        assert "SMTPUTF8" in recipient.reason
        assert server.verbs() == ["EHLO"]
        await session.quit()


@on_both_loops
@pytest.mark.parametrize("tls", [TlsMode.NONE, TlsMode.IMPLICIT])
async def test_a_big_body_arrives_whole_however_slowly_it_is_read(tls):
    message = (b".y" * 38 + b"\r\n") * 100_000
    marks: list[int] = []
    secure = ScriptedMailServer(tls=server_context(), implicit_tls=True)
    async with scripted_mail_server(secure if tls is TlsMode.IMPLICIT else ScriptedMailServer()) as server:
        session = await open_session(
            SmtpServer("127.0.0.1", server.port, tls, authority_pem()),
            NoCredentials(),
            local_hostname="client.test",
        )
        transaction = await session.transact(
            envelope(), to_wire(message), on_body=lambda: marks.append(server.body_bytes)
        )
        assert verdicts(transaction) == [Verdict.SENT]
        assert server.messages[0].body == message
        # Asked before the first octet, and again before the dot, when much had been read already.
        assert len(marks) == 2
        assert marks[0] == 0 < marks[1]
        await session.quit()


@on_both_loops
async def test_cancelling_closes_the_connection():
    wait = Wait(asyncio.Event())
    async with scripted_mail_server(ScriptedMailServer(answers={"dot": wait})) as server:
        session = await open_to(server.port)
        marked: list[bool] = []
        task = asyncio.create_task(session.transact(envelope(), BODY, lambda: marked.append(True)))
        await wait.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert marked == [True]
        assert not session.is_open
        wait.event.set()
        await server.all_gone.wait()


@on_both_loops
async def test_no_body_is_written_when_the_callback_forbids_it():
    def forbid() -> None:
        raise LookupError("the lease has lapsed")

    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server.port)
        with pytest.raises(LookupError, match="lapsed"):
            await session.transact(envelope(), BODY, forbid)
        assert not session.is_open
        await server.all_gone.wait()
        assert server.messages == []
        assert server.body_bytes == 0


@on_both_loops
async def test_the_callback_is_not_asked_when_nobody_is_accepted():
    async with scripted_mail_server(ScriptedMailServer(answers={"RCPT": "550 no"})) as server:
        session = await open_to(server.port)
        asked: list[bool] = []
        await session.transact(envelope(), BODY, lambda: asked.append(True))
        assert asked == []
        await session.quit()


@on_both_loops
async def test_a_session_that_the_server_closed_while_idle_is_known_to_be_closed():
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server.port)
        server.answers["dot"] = ThenCut("250 2.0.0 Ok\n421 4.4.2 idle too long")
        assert verdicts(await session.transact(envelope(), BODY)) == [Verdict.SENT]
        await server.all_gone.wait()
        assert not session.is_open
        assert session.farewell is not None
        assert session.farewell.code == 421
        transaction = await session.transact(envelope(2), BODY)
        assert transaction.cut is not None
        assert transaction.cut.reply == session.farewell
        judgement = judge(transaction)
        assert [r.verdict for r in judgement.recipients] == [Verdict.DEFERRED] * 2
        assert not any(r.costs_attempt for r in judgement.recipients)
        await session.quit()


@on_both_loops
async def test_two_transactions_at_once_are_a_programming_error():
    wait = Wait(asyncio.Event())
    async with scripted_mail_server(ScriptedMailServer(answers={"dot": wait})) as server:
        session = await open_to(server.port)
        task = asyncio.create_task(session.transact(envelope(), BODY))
        await wait.reached.wait()
        with pytest.raises(RuntimeError, match="one transaction"):
            await session.transact(envelope(), BODY)
        wait.event.set()
        assert verdicts(await task) == [Verdict.SENT]
        await session.quit()


@on_both_loops
async def test_seconds_are_told_by_phase():
    seen: list[TimedPhase] = []
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server.port, observe=lambda phase, _seconds: seen.append(phase))
        assert seen == [TimedPhase.CONNECT, TimedPhase.AUTH]
        seen.clear()
        await session.transact(envelope(), BODY)
        assert seen == [TimedPhase.ENVELOPE, TimedPhase.DATA, TimedPhase.FINAL]
        server.answers["MAIL"] = "550 5.7.1 no"
        seen.clear()
        await session.transact(envelope(), BODY)
        assert seen == [TimedPhase.ENVELOPE]
        await session.quit()


@on_both_loops
async def test_quit_gives_up_on_a_server_that_does_not_answer():
    wait = Wait(asyncio.Event())
    async with scripted_mail_server(ScriptedMailServer(answers={"QUIT": wait})) as server:
        session = await open_to(server.port, deadlines=Deadlines(quit=0.05))
        await session.quit()
        assert not session.is_open
        wait.event.set()
        await server.all_gone.wait()
