"""A series of messages over a real connection, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.servers.smtp import Cut, ScriptedMailServer, Wait, on_both_loops, scripted_mail_server
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.connection import SmtpServer, open_session
from tocsin_workers.smtp.credentials import NoCredentials
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.dialogue import CutKind
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.pipelining import Pipelining, Strain
from tocsin_workers.smtp.tls import TlsMode

if TYPE_CHECKING:
    from tocsin_workers.smtp.dialogue import Transaction
    from tocsin_workers.smtp.session import Session


class Message:
    def __init__(self, number: int, *, may_begin: bool = True) -> None:
        self.envelope = Envelope("s@x.test", (f"u{number}@y.test",))
        self.body = b"Subject: %d\r\n\r\n.dot\r\n" % number
        self.transaction: Transaction | None = None
        self._may_begin = may_begin

    def begin_body(self) -> bytes:
        if not self._may_begin:
            raise LookupError("the lease has lapsed")
        return to_wire(self.body)

    def may_end_body(self) -> None:
        pass

    def done(self, transaction: Transaction) -> None:
        self.transaction = transaction

    @property
    def verdict(self) -> Verdict | None:
        return None if self.transaction is None else judge(self.transaction).recipients[0].verdict


SENT, UNKNOWN, DEFERRED = Verdict.SENT, Verdict.UNKNOWN, Verdict.DEFERRED
in_every_form = pytest.mark.parametrize("form", list(Pipelining))


async def open_to(server: ScriptedMailServer, form: Pipelining, deadlines: Deadlines | None = None) -> Session:
    where = SmtpServer("127.0.0.1", server.port, TlsMode.NONE)
    return await open_session(
        where, NoCredentials(), local_hostname="client.test", pipelining=form, deadlines=deadlines
    )


def verdicts(messages: list[Message]) -> list[Verdict | None]:
    return [message.verdict for message in messages]


@on_both_loops
@in_every_form
async def test_many_messages_go_one_behind_the_other_and_come_out_whole(form):
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server, form)
        messages = [Message(number) for number in range(20)]
        await session.deliver(iter(messages[:15]))
        await session.deliver(iter(messages[15:]))
        await session.quit()
        assert verdicts(messages) == [SENT] * 20
        assert [message.body for message in server.messages] == [message.body for message in messages]
        assert (session.counters.transactions, session.counters.bodies, session.counters.recipients) == (20, 20, 20)
        assert session.pipelining.has_worked or form is Pipelining.OFF


@on_both_loops
@in_every_form
async def test_a_server_that_hangs_up_after_the_dot_leaves_one_doubt_only(form):
    async with scripted_mail_server(ScriptedMailServer(answers={"dot": Cut()})) as server:
        session = await open_to(server, form)
        messages = [Message(number) for number in range(3)]
        await session.deliver(iter(messages))
        assert verdicts(messages) == [UNKNOWN, DEFERRED if form is Pipelining.FULL else None, None]
        assert not session.is_open
        strained = session.pipelining.strained
        assert (strained and strained.strain) == (Strain.FINAL_REPLY_LOST if form is Pipelining.FULL else None)


@on_both_loops
async def test_a_series_on_a_session_that_has_ended_asks_for_nothing():
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server, Pipelining.FULL)
        session.abort()
        left = iter([Message(1)])
        await session.deliver(left)
        assert next(left).transaction is None


@on_both_loops
@pytest.mark.parametrize(("slow", "place"), [("final", 0), ("mail", 1)])
async def test_the_final_reply_has_its_own_deadline_while_the_next_envelope_is_out(slow, place):
    event = asyncio.Event()
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server, Pipelining.FULL, Deadlines(**{slow: 0.05}))
        server.answers["dot" if slow == "final" else "MAIL"] = lambda line: (
            Wait(event) if slow == "final" or "second" in line else None
        )
        messages = [Message(0), Message(1)]
        messages[1].envelope = Envelope("second@x.test", ("u1@y.test",))
        await session.deliver(iter(messages))
        transaction = messages[place].transaction
        assert transaction is not None
        assert transaction.cut is not None
        phase = Phase.FINAL if slow == "final" else Phase.MAIL
        assert (transaction.cut.kind, transaction.cut.phase) == (CutKind.DEADLINE, phase)
        assert verdicts(messages) == [UNKNOWN if slow == "final" else SENT, DEFERRED]
        event.set()


@on_both_loops
async def test_whoever_cancels_a_series_has_been_told_of_all_that_was_begun():
    wait = Wait(asyncio.Event())
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server, Pipelining.FULL)
        server.answers["dot"] = lambda _line: wait if server.messages else None
        messages = [Message(number) for number in range(4)]
        task = asyncio.create_task(session.deliver(iter(messages)))
        await wait.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert verdicts(messages) == [SENT, UNKNOWN, DEFERRED, None]
        for message in messages[1:3]:
            assert message.transaction is not None
            assert message.transaction.cut is not None
            assert message.transaction.cut.kind is CutKind.ABORTED
        assert not session.is_open
        wait.event.set()
        await server.all_gone.wait()


@on_both_loops
@in_every_form
async def test_a_body_that_must_not_be_begun_ends_the_series_and_the_ones_before_are_sent(form):
    async with scripted_mail_server(ScriptedMailServer()) as server:
        session = await open_to(server, form)
        messages = [Message(0), Message(1, may_begin=False), Message(2)]
        with pytest.raises(LookupError, match="lapsed"):
            await session.deliver(iter(messages))
        assert verdicts(messages) == [SENT, DEFERRED, None]
        assert not session.is_open
        await server.all_gone.wait()
        assert [message.body for message in server.messages] == [messages[0].body]


@on_both_loops
async def test_a_session_that_is_aborted_meanwhile_tells_what_is_known():
    wait = Wait(asyncio.Event())
    async with scripted_mail_server(ScriptedMailServer(answers={"dot": wait})) as server:
        session = await open_to(server, Pipelining.FULL)
        messages = [Message(0), Message(1)]
        task = asyncio.create_task(session.deliver(iter(messages)))
        await wait.reached.wait()
        session.abort()
        await task
        assert verdicts(messages) == [UNKNOWN, DEFERRED]
        wait.event.set()
        await server.all_gone.wait()


@on_both_loops
@in_every_form
async def test_a_session_carries_no_more_messages_than_its_server_allows_one(form):
    server = ScriptedMailServer()
    server.extensions = (*server.extensions, "LIMITS MAILMAX=3")
    async with scripted_mail_server(server):
        session = await open_to(server, form)
        messages = [Message(number) for number in range(5)]
        await session.deliver(iter(messages))
        assert verdicts(messages) == [SENT, SENT, SENT, None, None]
        assert not session.is_open
        await session.quit()
        assert server.verbs()[-1] == "QUIT"
