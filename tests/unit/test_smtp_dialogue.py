"""The dialogue of one transaction, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.dialogue import Cut, CutKind, Dialogue, Transaction
from tocsin_workers.smtp.envelope import Commands, Envelope, commands
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply
from tocsin_workers.smtp.single_command import SingleCommand

OK, NO, LATER = Reply(250, "2.1.0", "Ok"), Reply(550, "5.1.1", "No"), Reply(451, "4.3.0", "Later")
GO, BYE, ODD = Reply(354, None, "Go"), Reply(421, "4.3.2", "Bye"), Reply(334, None, "What?")
BOTH = pytest.mark.parametrize("pipelined", [True, False], ids=["pipelined", "step by step"])


def dialogue(count: int, *, pipelined: bool, addresses: tuple[str, ...] = ()) -> Dialogue:
    envelope = Envelope("s@x", addresses or tuple(f"u{i}@y" for i in range(count)))
    built = commands(envelope, Capabilities())
    assert isinstance(built, Commands)
    return Dialogue(built, pipelined=pipelined)


def play(talk: Dialogue, *replies: Reply) -> list[bytes]:
    """Give the replies in order, write the body when it is owed, and give what was written."""
    written = [talk.start()]
    for reply in replies:
        answer = talk.receive(reply)
        if answer:
            written.append(answer)
        if talk.owes_body:
            talk.body_written()
            written.append(b"<body>")
    return written


def test_pipelined_the_envelope_goes_in_one_flight():
    talk = dialogue(2, pipelined=True)
    assert play(talk, OK, OK, OK, GO, OK) == [
        b"MAIL FROM:<s@x>\r\nRCPT TO:<u0@y>\r\nRCPT TO:<u1@y>\r\nDATA\r\n",
        b"<body>",
    ]
    assert talk.done
    assert talk.result.final == OK
    assert talk.result.body_written


def test_step_by_step_each_command_waits_for_its_reply():
    talk = dialogue(2, pipelined=False)
    assert play(talk, OK, NO, OK, GO, OK) == [
        b"MAIL FROM:<s@x>\r\n",
        b"RCPT TO:<u0@y>\r\n",
        b"RCPT TO:<u1@y>\r\n",
        b"DATA\r\n",
        b"<body>",
    ]
    assert talk.done
    assert talk.result.recipients == (NO, OK)


def test_all_refused_and_asked_for_the_body_a_lone_dot_is_sent():
    talk = dialogue(2, pipelined=True)
    assert play(talk, OK, NO, NO, GO, NO)[1:] == [b".\r\n"]
    assert talk.done
    assert not talk.result.body_written
    assert talk.result.final is None


@BOTH
def test_all_refused_the_session_is_reset(pipelined):
    talk = dialogue(2, pipelined=pipelined)
    replies = (OK, NO, NO, Reply(554, None, "nobody"), OK) if pipelined else (OK, NO, NO, OK)
    assert play(talk, *replies)[-1] == b"RSET\r\n"
    assert talk.done
    assert talk.cut is None


@BOTH
def test_refused_data_is_followed_by_a_reset(pipelined):
    talk = dialogue(1, pipelined=pipelined)
    assert play(talk, OK, OK, LATER)[-1] == b"RSET\r\n"
    assert not talk.done
    talk.receive(OK)
    assert talk.done
    assert talk.result.data == LATER


@BOTH
def test_a_server_that_does_not_reset_is_not_used_again(pipelined):
    talk = dialogue(1, pipelined=pipelined)
    play(talk, OK, OK, LATER, NO)
    assert talk.done
    assert talk.cut is not None
    assert (talk.cut.kind, talk.cut.phase) == (CutKind.PROTOCOL, Phase.RSET)
    assert judge(talk.result).recipients[0].reply == LATER


@BOTH
def test_a_server_that_sees_mail_out_of_sequence_is_not_used_again(pipelined):
    talk = dialogue(2, pipelined=pipelined)
    play(talk, Reply(503, "5.5.1", "Nested MAIL command"))
    assert talk.done
    assert talk.cut is not None
    assert (talk.cut.kind, talk.cut.phase) == (CutKind.PROTOCOL, Phase.MAIL)
    assert {(r.verdict, r.costs_attempt) for r in judge(talk.result).recipients} == {(Verdict.DEFERRED, False)}


def test_a_sender_refused_and_a_recipient_taken_the_session_is_reset():
    talk = dialogue(1, pipelined=True)
    assert play(talk, NO, OK, LATER, OK)[1:] == [b"RSET\r\n"]
    assert talk.done
    assert talk.cut is None


def test_a_cut_during_the_reset_changes_nothing_that_is_known():
    talk = dialogue(1, pipelined=True)
    play(talk, OK, NO, NO)
    talk.interrupt(Cut(CutKind.LOST, talk.phase, "gone"))
    assert talk.result.recipients == (NO,)
    assert judge(talk.result).recipients[0].verdict is Verdict.FAILED


def test_a_refused_sender_step_by_step_asks_nothing_more():
    talk = dialogue(2, pipelined=False)
    assert play(talk, NO) == [b"MAIL FROM:<s@x>\r\n"]
    assert talk.done
    assert talk.result.recipients == (None, None)


def test_a_refused_sender_pipelined_reads_every_reply_and_sends_nothing_more():
    talk = dialogue(2, pipelined=True)
    assert len(play(talk, NO, NO, NO, NO)) == 1
    assert talk.done
    assert talk.cut is None


def test_no_lone_dot_where_it_could_send_an_empty_message():
    talk = dialogue(1, pipelined=True)
    assert len(play(talk, NO, OK, GO)) == 1
    assert talk.cut is not None
    assert talk.cut.kind is CutKind.PROTOCOL


@BOTH
@pytest.mark.parametrize("after", range(4))
def test_a_421_keeps_the_replies_that_had_come(pipelined, after):
    talk = dialogue(2, pipelined=pipelined)
    play(talk, *[OK] * after, BYE)
    assert talk.done
    result = talk.result
    assert result.cut is not None
    assert (result.cut.kind, result.cut.reply) == (CutKind.CLOSING, BYE)
    assert [result.mail, *result.recipients, result.data][:after] == [OK] * after
    assert [result.mail, *result.recipients, result.data][after] == BYE
    assert not result.body_written


def test_recipients_that_cannot_be_asked_are_left_out():
    talk = dialogue(0, pipelined=True, addresses=("a@y", "ä@y", "b@y"))
    assert play(talk, OK, OK, NO, GO, OK)[0].count(b"RCPT") == 2
    result = talk.result
    assert (result.recipients[0], result.recipients[2]) == (OK, NO)
    assert [r.verdict for r in judge(result).recipients] == [Verdict.SENT, Verdict.FAILED, Verdict.FAILED]


@pytest.mark.parametrize("position", [0, 1, 2, 4])
def test_a_reply_that_is_neither_yes_nor_no_ends_the_session(position):
    talk = dialogue(1, pipelined=True)
    replies = [OK, OK, GO, OK]
    play(talk, *(replies[:position] if position < 4 else replies[:3]), ODD)
    assert talk.cut is not None
    assert talk.cut.kind is CutKind.PROTOCOL
    assert talk.result.final is None


@pytest.mark.parametrize(("reply", "final"), [(NO, NO), (OK, None)])
def test_a_reply_in_the_middle_of_the_body_may_refuse_it_but_not_accept_it(reply, final):
    talk = dialogue(1, pipelined=True)
    talk.start()
    for early in (OK, OK, GO, reply):
        talk.receive(early)
    assert talk.cut is not None
    assert talk.result.final == final
    assert not talk.result.body_written


def test_a_single_command_has_one_reply():
    command = SingleCommand(b"QUIT\r\n", Phase.QUIT)
    assert command.flight() == b"QUIT\r\n"
    assert command.flight() == b""
    assert not command.is_finished
    command.hear([OK])
    assert command.is_finished
    assert (command.reply, command.cut) == (OK, None)


ANY_REPLY = st.sampled_from([OK, OK, OK, NO, LATER, GO, GO, BYE, ODD])


@given(st.integers(1, 5), st.booleans(), st.lists(ANY_REPLY, max_size=12), st.booleans())
def test_whatever_the_server_says_the_invariants_hold(count, pipelined, replies, cut_at_end):
    talk = dialogue(count, pipelined=pipelined)
    commands_out = talk.start().count(b"\r\n")
    used = 0
    for reply in replies:
        if talk.done:
            break
        if talk.owes_body:
            talk.body_written()
            commands_out += 1
        assert used < commands_out, "a reply is expected that nothing was written for"
        commands_out += talk.receive(reply).count(b"\r\n")
        used += 1
    if cut_at_end and not talk.done:
        talk.interrupt(Cut(CutKind.LOST, talk.phase, "gone"))
    result = talk.result
    welcome = isinstance(result.mail, Reply) and result.mail.accepted
    somebody = any(isinstance(r, Reply) and r.accepted for r in result.recipients)
    if result.body_written:
        assert welcome
        assert somebody
        assert result.data == GO
    if talk.done and talk.cut is None:
        assert used == commands_out, "a reply is still to come"
    check_judgement(result, count)


def check_judgement(result: Transaction, count: int) -> None:
    welcome = isinstance(result.mail, Reply) and result.mail.accepted
    recipients = judge(result).recipients
    assert [recipient.position for recipient in recipients] == list(range(count))
    for recipient, own in zip(recipients, result.recipients, strict=True):
        if recipient.verdict is Verdict.SENT:
            assert result.body_written
            assert result.final == own == OK
        if recipient.verdict is Verdict.UNKNOWN:
            assert result.body_written
            assert result.final in {None, BYE}
        if own == NO and welcome:
            assert recipient.verdict is Verdict.FAILED
