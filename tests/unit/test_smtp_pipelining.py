"""What a session shows of how its server copes with pipelining, and what is remembered of it."""

from __future__ import annotations

from functools import reduce

import pytest

from tocsin_workers.smtp.dialogue import Cut, CutKind, Transaction
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.pipelining import Pipelining, PipeliningRecord, PipeliningWatch, Strain, Strained, strain_of
from tocsin_workers.smtp.replies import Reply

FULL, ENVELOPE, OFF = Pipelining.FULL, Pipelining.ENVELOPE, Pipelining.OFF
OK, GO, NO = Reply(250, None, ""), Reply(354, None, ""), Reply(550, "5.1.1", "")
BAD, LATER = Reply(503, "5.5.1", ""), Reply(451, "4.3.0", "")
SENT = Transaction(OK, (OK,), GO, OK, body_written=True)


def cut(kind: CutKind, phase: Phase) -> Cut:
    return Cut(kind, phase, "")


def after_the_dot(kind: CutKind) -> Transaction:
    return Transaction(OK, (OK,), GO, None, body_written=True, cut=cut(kind, Phase.FINAL))


def no_reply(kind: CutKind) -> Transaction:
    return Transaction(None, (None,), cut=cut(kind, Phase.MAIL))


@pytest.mark.parametrize(
    ("transaction", "was_behind", "is_followed", "strain"),
    [
        (SENT, True, True, None),
        (after_the_dot(CutKind.LOST), False, True, Strain.FINAL_REPLY_LOST),
        (after_the_dot(CutKind.PROTOCOL), False, True, Strain.FINAL_REPLY_LOST),
        (after_the_dot(CutKind.DEADLINE), False, True, Strain.FINAL_REPLY_LOST),
        (SENT._replace(final=BAD), False, True, Strain.FINAL_REPLY_LOST),
        (SENT._replace(final=NO), False, True, None),
        # It closes in good order, or we did.
        (after_the_dot(CutKind.CLOSING), False, True, None),
        (after_the_dot(CutKind.ABORTED), False, True, None),
        # Nothing was out behind it.
        (after_the_dot(CutKind.LOST), True, False, None),
        (no_reply(CutKind.LOST), True, False, Strain.BEHIND_UNANSWERED),
        (no_reply(CutKind.DEADLINE), True, False, Strain.BEHIND_UNANSWERED),
        (no_reply(CutKind.LOST), False, False, None),
        (Transaction(BAD, (None,), cut=cut(CutKind.PROTOCOL, Phase.MAIL)), True, False, Strain.BEHIND_OUT_OF_STEP),
        (Transaction(BAD, (None,), cut=cut(CutKind.PROTOCOL, Phase.MAIL)), False, False, Strain.ENVELOPE_OUT_OF_STEP),
        (Transaction(OK, (OK, BAD), OK), False, False, Strain.ENVELOPE_OUT_OF_STEP),
        (Transaction(OK, (OK, NO), BAD), False, False, Strain.ENVELOPE_OUT_OF_STEP),
        # One reply too few.
        (Transaction(OK, (None,), cut=cut(CutKind.DEADLINE, Phase.RCPT)), False, False, Strain.ENVELOPE_OUT_OF_STEP),
        # Ordinary refusals: without a sender or a recipient, what follows is out of sequence.
        (Transaction(NO, (BAD,), BAD), False, False, None),
        (Transaction(OK, (NO,), BAD), False, False, None),
        (Transaction(OK, (OK,), LATER), False, False, None),
        # A reset that is refused, and a connection that breaks, happen without pipelining as well.
        (Transaction(OK, (OK,), LATER, cut=cut(CutKind.PROTOCOL, Phase.RSET)), False, False, None),
        (Transaction(OK, (None,), cut=cut(CutKind.LOST, Phase.RCPT)), False, False, None),
    ],
)
def test_what_speaks_against_pipelining_is_told_from_ordinary_trouble(transaction, was_behind, is_followed, strain):
    assert strain_of(transaction, was_behind=was_behind, is_followed=is_followed) is strain


def watch(form: Pipelining, strain: Strain | None, *, had_worked: bool = False) -> PipeliningWatch:
    seen = PipeliningWatch(form)
    seen.strained = None if strain is None else Strained(strain, had_worked)
    return seen


def working(form: Pipelining) -> PipeliningWatch:
    seen = PipeliningWatch(form)
    seen.look(SENT, was_behind=True, is_followed=False)
    return seen


LOST = watch(FULL, Strain.FINAL_REPLY_LOST)
LOST_LATER = watch(FULL, Strain.FINAL_REPLY_LOST, had_worked=True)
UNANSWERED = watch(FULL, Strain.BEHIND_UNANSWERED)
MIXED_UP = watch(ENVELOPE, Strain.ENVELOPE_OUT_OF_STEP)


@pytest.mark.parametrize(
    ("sessions", "boldest"),
    [
        ([working(FULL)], FULL),
        ([LOST], ENVELOPE),
        ([watch(FULL, Strain.BEHIND_OUT_OF_STEP)], ENVELOPE),
        ([LOST_LATER], FULL),
        ([LOST_LATER, LOST_LATER], ENVELOPE),
        ([LOST_LATER, working(FULL), LOST_LATER], FULL),
        ([LOST_LATER, PipeliningWatch(FULL), LOST_LATER], ENVELOPE),
        ([UNANSWERED], FULL),
        ([UNANSWERED, UNANSWERED], ENVELOPE),
        ([watch(FULL, Strain.BEHIND_UNANSWERED, had_worked=True)] * 5, FULL),
        ([MIXED_UP], FULL),
        ([MIXED_UP, MIXED_UP], OFF),
        ([MIXED_UP, working(ENVELOPE), MIXED_UP], FULL),
        ([watch(ENVELOPE, Strain.ENVELOPE_OUT_OF_STEP, had_worked=True)] * 5, FULL),
        # Sessions that were opened before we knew count no more; later ones do.
        ([LOST, LOST, LOST], ENVELOPE),
        ([LOST, MIXED_UP], ENVELOPE),
        ([LOST, MIXED_UP, MIXED_UP], OFF),
        ([LOST, MIXED_UP, MIXED_UP, MIXED_UP], OFF),
    ],
)
def test_a_server_that_breaks_is_spoken_to_more_cautiously_from_then_on(sessions, boldest):
    assert reduce(PipeliningRecord.after, sessions, PipeliningRecord()).boldest is boldest


@pytest.mark.parametrize("wanted", Pipelining)
@pytest.mark.parametrize("boldest", Pipelining)
def test_neither_more_than_is_wanted_nor_more_than_works_is_used(wanted, boldest):
    order = [FULL, ENVELOPE, OFF]
    assert PipeliningRecord(boldest).allowed(wanted) is order[max(order.index(wanted), order.index(boldest))]


def test_the_first_strain_of_a_session_is_kept_and_whether_the_form_had_worked():
    seen = PipeliningWatch(FULL)
    seen.look(SENT, was_behind=False, is_followed=True)
    seen.look(after_the_dot(CutKind.LOST), was_behind=True, is_followed=True)
    seen.look(no_reply(CutKind.LOST), was_behind=True, is_followed=False)
    # An envelope in a flight of its own is no sign that one behind a body works.
    assert seen.strained == Strained(Strain.FINAL_REPLY_LOST, had_worked=False)
    assert not seen.has_worked


def test_one_command_at_a_time_strains_nobody():
    seen = PipeliningWatch(OFF)
    seen.look(Transaction(OK, (OK,), BAD), was_behind=False, is_followed=False)
    assert seen.strained is None
