"""What becomes of each recipient of a transaction."""

from __future__ import annotations

import pytest

from tocsin_schema.errors import Scope
from tocsin_workers.classification import Kind
from tocsin_workers.outcomes import RecipientOutcome, Verdict, judge
from tocsin_workers.smtp.dialogue import Cut, CutKind, Transaction
from tocsin_workers.smtp.envelope import LocalReason, LocalRefusal
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.replies import Reply

OK = Reply(250, "2.1.5", "Ok")
GO = Reply(354, None, "Go ahead")
UNKNOWN_USER = Reply(550, "5.1.1", "No such user")
TOO_MANY = Reply(452, "4.5.3", "Too many recipients")
SPAM = Reply(554, "5.7.1", "Message rejected as spam")
BYE = Reply(421, "4.3.2", "Service shutting down")


def lost(phase: Phase) -> Cut:
    return Cut(CutKind.LOST, phase, "the connection was lost")


def verdicts(transaction: Transaction) -> list[Verdict]:
    return [recipient.verdict for recipient in judge(transaction).recipients]


def everybody(transaction: Transaction) -> RecipientOutcome:
    """Give the outcome that all recipients share."""
    recipients = judge(transaction).recipients
    assert {r._replace(position=0) for r in recipients} == {recipients[0]}
    return recipients[0]


def after_the_dot(final: Reply, count: int = 3) -> Transaction:
    return Transaction(OK, (OK,) * count, GO, final, body_written=True)


def test_a_refused_recipient_does_not_sink_its_batch():
    judgement = judge(Transaction(OK, (OK, UNKNOWN_USER, OK), GO, OK, body_written=True))
    assert [r.verdict for r in judgement.recipients] == [Verdict.SENT, Verdict.FAILED, Verdict.SENT]
    failed = judgement.recipients[1]
    assert (failed.position, failed.phase, failed.reply) == (1, Phase.RCPT, UNKNOWN_USER)
    assert failed.outcome is not None
    assert failed.outcome.dead_address
    assert "No such user" in failed.reason
    assert judgement.signals == ()


def test_a_greylisted_recipient_comes_back_alone():
    judgement = judge(Transaction(OK, (OK, Reply(450, "4.2.0", "Greylisted")), GO, OK, body_written=True))
    assert [r.verdict for r in judgement.recipients] == [Verdict.SENT, Verdict.DEFERRED]
    assert judgement.recipients[1].costs_attempt


def test_too_many_recipients_costs_no_attempt_and_teaches_the_cap():
    judgement = judge(Transaction(OK, (OK, OK, TOO_MANY, TOO_MANY), GO, OK, body_written=True))
    assert [r.verdict for r in judgement.recipients] == [Verdict.SENT] * 2 + [Verdict.DEFERRED] * 2
    assert not any(r.costs_attempt for r in judgement.recipients[2:])
    assert judgement.recipients_cap == 2


def test_too_many_recipients_for_the_very_first_does_not_go_round_for_ever():
    judgement = judge(Transaction(OK, (TOO_MANY, TOO_MANY), Reply(554, None, "nobody")))
    assert all(r.verdict is Verdict.DEFERRED and r.costs_attempt for r in judgement.recipients)
    assert judgement.recipients_cap is None


def test_a_good_bye_to_the_very_first_as_one_too_many_does_not_go_round_for_ever():
    bye = Reply(421, "4.5.3", "Too many recipients")
    judgement = judge(Transaction(OK, (bye, None, None), cut=Cut(CutKind.CLOSING, Phase.RCPT, str(bye), bye)))
    assert all(r.verdict is Verdict.DEFERRED and r.costs_attempt for r in judgement.recipients)
    assert judgement.recipients_cap is None


def test_a_good_bye_to_the_third_as_one_too_many_teaches_the_cap():
    bye = Reply(421, "4.5.3", "Too many recipients")
    judgement = judge(Transaction(OK, (OK, OK, bye, None), cut=Cut(CutKind.CLOSING, Phase.RCPT, str(bye), bye)))
    assert not any(r.costs_attempt for r in judgement.recipients)
    assert {r.verdict for r in judgement.recipients} == {Verdict.DEFERRED}
    assert judgement.recipients_cap == 2


def test_one_too_many_after_nothing_but_refusals_goes_on_at_once():
    judgement = judge(Transaction(OK, (UNKNOWN_USER, TOO_MANY, TOO_MANY), Reply(554, None, "nobody")))
    assert [r.verdict for r in judgement.recipients] == [Verdict.FAILED, Verdict.DEFERRED, Verdict.DEFERRED]
    assert [r.costs_attempt for r in judgement.recipients[1:]] == [False, False]


def test_recipients_that_were_refused_count_towards_the_cap():
    judgement = judge(Transaction(OK, (UNKNOWN_USER, OK, UNKNOWN_USER, TOO_MANY), GO, OK, body_written=True))
    assert judgement.recipients_cap == 3


def test_too_many_of_one_domain_only_teach_no_cap():
    domains = Reply(451, "4.3.0", "Multiple destination domains per transaction is unsupported")
    judgement = judge(Transaction(OK, (OK, domains, OK), GO, OK, body_written=True))
    assert [r.verdict for r in judgement.recipients] == [Verdict.SENT, Verdict.DEFERRED, Verdict.SENT]
    assert not judgement.recipients[1].costs_attempt
    assert judgement.recipients_cap is None


@pytest.mark.parametrize(
    "transaction",
    [
        Transaction(OK, (TOO_MANY, OK, OK), GO, Reply(452, "4.5.3", "Too many recipients"), body_written=True),
        Transaction(OK, (TOO_MANY, OK, OK), Reply(552, None, "Too many recipients")),
    ],
)
def test_too_many_before_and_after_the_dot_make_the_next_transaction_smaller(transaction):
    judgement = judge(transaction)
    assert not any(r.costs_attempt for r in judgement.recipients)
    assert judgement.recipients_cap == 1


def test_too_many_for_one_and_a_good_bye_for_another_do_not_go_round_for_ever():
    bye = Reply(421, "4.5.3", "Too many recipients")
    judgement = judge(Transaction(OK, (TOO_MANY, OK, bye), cut=Cut(CutKind.CLOSING, Phase.RCPT, str(bye), bye)))
    assert all(r.verdict is Verdict.DEFERRED and r.costs_attempt for r in judgement.recipients)


def test_insufficient_storage_is_not_too_many_recipients():
    full = Reply(452, "4.3.1", "Insufficient system storage")
    judgement = judge(Transaction(OK, (OK, full), GO, OK, body_written=True))
    assert [r.verdict for r in judgement.recipients] == [Verdict.SENT, Verdict.DEFERRED]
    assert judgement.recipients[1].costs_attempt
    assert judgement.recipients_cap is None


def test_a_limit_that_was_kept_to_and_refused_all_the_same_is_halved():
    judgement = judge(after_the_dot(Reply(554, None, "Transaction failed: Recipient count exceeds 50"), 40))
    assert judgement.recipients_cap == 20


def test_one_recipient_who_is_one_too_many_after_the_dot_costs_an_attempt():
    outcome = everybody(after_the_dot(Reply(554, None, "Transaction failed: Recipient count exceeds 50"), 1))
    assert (outcome.verdict, outcome.costs_attempt) == (Verdict.DEFERRED, True)


def test_a_count_refused_after_the_dot_teaches_the_cap_that_the_server_names():
    judgement = judge(after_the_dot(Reply(554, None, "Transaction failed: Recipient count exceeds 50"), 60))
    assert {r.verdict for r in judgement.recipients} == {Verdict.DEFERRED}
    assert not judgement.recipients[0].costs_attempt
    assert judgement.recipients_cap == 50


def test_a_refused_sender_is_everybodys_outcome():
    refusal = Reply(550, "5.7.60", "Client does not have permissions to send as this sender")
    transaction = Transaction(refusal, (Reply(503, None, "Need MAIL first"),) * 2, Reply(503, None, "No"))
    outcome = everybody(transaction)
    assert (outcome.verdict, outcome.phase, outcome.reply) == (Verdict.FAILED, Phase.MAIL, refusal)
    assert [signal.kind for signal in judge(transaction).signals] == [Kind.SENDER_REFUSED]


def test_a_blocked_mailbox_fails_nobody():
    outcome = everybody(after_the_dot(Reply(550, "5.1.8", "Access denied, bad outbound sender")))
    assert outcome.verdict is Verdict.DEFERRED
    assert not outcome.costs_attempt


@pytest.mark.parametrize("reply", [Reply(530, "5.7.0", "Authentication required"), Reply(550, "5.7.30", "Basic")])
def test_a_lost_log_in_fails_nobody(reply):
    outcome = everybody(Transaction(reply, (None, None)))
    assert outcome.verdict is Verdict.DEFERRED
    assert not outcome.costs_attempt
    assert outcome.outcome is not None
    assert outcome.outcome.kind is Kind.NOT_AUTHENTICATED


def test_refused_data_applies_to_all_who_were_accepted_and_to_nobody_else():
    throttle = Reply(432, "4.3.2", "Concurrent connections limit exceeded")
    judgement = judge(Transaction(OK, (OK, UNKNOWN_USER, OK), throttle))
    assert [r.verdict for r in judgement.recipients] == [Verdict.DEFERRED, Verdict.FAILED, Verdict.DEFERRED]
    assert not judgement.recipients[0].costs_attempt
    assert [signal.kind for signal in judgement.signals] == [Kind.TOO_MANY_CONNECTIONS]


def test_a_message_refused_for_good_fails_all_who_were_accepted():
    assert everybody(after_the_dot(SPAM)).verdict is Verdict.FAILED
    assert not everybody(after_the_dot(SPAM)).alone


def test_an_address_blamed_after_the_dot_sends_everybody_again_alone():
    outcome = everybody(after_the_dot(Reply(550, "5.1.1", "<b@y> User unknown")))
    assert (outcome.verdict, outcome.alone, outcome.costs_attempt) == (Verdict.DEFERRED, True, False)


@pytest.mark.parametrize(
    "said",
    [
        Reply(451, "4.2.2", "<b@y> mailbox full"),
        Reply(450, "4.2.1", "The user you are trying to contact is receiving mail too quickly"),
        Reply(550, "5.2.121", "Recipient has exceeded their limit"),
    ],
    ids=str,
)
def test_an_address_held_back_after_the_dot_holds_nobody_else_back(said):
    outcome = everybody(after_the_dot(said))
    assert (outcome.verdict, outcome.alone, outcome.costs_attempt) == (Verdict.DEFERRED, True, False)
    outcome = everybody(after_the_dot(said, count=1))
    assert (outcome.verdict, outcome.alone, outcome.costs_attempt) == (Verdict.DEFERRED, False, True)


def test_an_address_blamed_in_reply_to_data_sends_everybody_again_alone():
    judgement = judge(Transaction(OK, (OK, UNKNOWN_USER, OK), Reply(550, "5.1.1", "<b@y> User unknown")))
    assert [r.verdict for r in judgement.recipients] == [Verdict.DEFERRED, Verdict.FAILED, Verdict.DEFERRED]
    assert [r.alone for r in judgement.recipients] == [True, False, True]


@pytest.mark.parametrize(
    "said",
    [
        SPAM,
        Reply(550, "5.1.1", "Message refused as spam"),
        Reply(550, "5.1.1", "This looks like phishing"),
        Reply(550, "5.2.0", "Junk mail rejected"),
        Reply(550, "5.2.1", "Your network is on our block list (S3150)"),
        Reply(554, "5.2.0", "STOREDRV.Submission.Exception:OutboundSpamException; WASCL verdict is Suspend"),
        Reply(451, "4.7.1", "Suspected spam, try again later"),
    ],
    ids=str,
)
def test_a_spam_verdict_never_sends_a_batch_again_one_by_one(said):
    assert not everybody(after_the_dot(said)).alone


def test_an_address_blamed_after_the_dot_of_its_own_message_fails():
    outcome = everybody(after_the_dot(Reply(550, "5.1.1", "<b@y> User unknown"), count=1))
    assert (outcome.verdict, outcome.alone) == (Verdict.FAILED, False)


@pytest.mark.parametrize(
    ("phase", "transaction"),
    [
        (Phase.RCPT, Transaction(OK, (OK, None), cut=lost(Phase.RCPT))),
        (Phase.DATA, Transaction(OK, (OK, OK), cut=lost(Phase.DATA))),
        (Phase.BODY, Transaction(OK, (OK, OK), GO, cut=lost(Phase.BODY))),
    ],
)
def test_a_connection_lost_before_the_dot_sent_nothing(phase, transaction):
    outcome = everybody(transaction)
    assert (outcome.verdict, outcome.phase, outcome.reply) == (Verdict.DEFERRED, phase, None)
    assert outcome.costs_attempt


def test_a_connection_lost_before_anything_was_asked_costs_no_attempt():
    assert not everybody(Transaction(None, (None, None), cut=lost(Phase.MAIL))).costs_attempt
    assert not everybody(Transaction(BYE, (None, None), cut=Cut(CutKind.CLOSING, Phase.MAIL, "bye", BYE))).costs_attempt


def test_a_connection_lost_after_the_dot_leaves_a_doubt_about_those_accepted():
    transaction = Transaction(OK, (OK, UNKNOWN_USER), GO, None, body_written=True, cut=lost(Phase.FINAL))
    assert verdicts(transaction) == [Verdict.UNKNOWN, Verdict.FAILED]


def test_a_421_after_the_dot_leaves_a_doubt():
    assert everybody(after_the_dot(BYE)).verdict is Verdict.UNKNOWN


def test_a_421_after_the_dot_leaves_a_doubt_whatever_its_enhanced_code():
    assert everybody(after_the_dot(Reply(421, "4.2.1", "Bye"))).verdict is Verdict.UNKNOWN
    assert everybody(after_the_dot(Reply(421, "4.1.0", "Bye"))).verdict is Verdict.UNKNOWN


def test_a_421_in_the_middle_of_the_body_leaves_none():
    transaction = Transaction(OK, (OK, OK), GO, BYE, cut=Cut(CutKind.CLOSING, Phase.BODY, "bye", BYE))
    assert everybody(transaction).verdict is Verdict.DEFERRED


def test_a_250_to_data_has_sent_nothing():
    cut = Cut(CutKind.PROTOCOL, Phase.DATA, "unexpected reply")
    assert everybody(Transaction(OK, (OK, OK), OK, cut=cut)).verdict is Verdict.DEFERRED


def test_a_421_after_the_dot_that_names_a_throttle_leaves_none():
    throttle = Reply(421, "4.4.2", "Message submission rate for this client has exceeded the configured limit")
    outcome = everybody(after_the_dot(throttle))
    assert outcome.verdict is Verdict.DEFERRED
    assert not outcome.costs_attempt


def test_a_421_half_way_through_keeps_the_refusals_before_it():
    cut = Cut(CutKind.CLOSING, Phase.RCPT, str(BYE), BYE)
    judgement = judge(Transaction(OK, (OK, UNKNOWN_USER, BYE, None), cut=cut))
    assert [r.verdict for r in judgement.recipients] == [
        Verdict.DEFERRED,
        Verdict.FAILED,
        Verdict.DEFERRED,
        Verdict.DEFERRED,
    ]
    assert judgement.cut == cut
    assert [signal.scope for signal in judgement.signals] == [Scope.SESSION]


def test_what_this_server_cannot_take_fails_with_our_own_reason():
    refusal = LocalRefusal(LocalReason.TOO_BIG, "the message is too big")
    outcome = everybody(Transaction(refusal, (refusal, refusal)))
    assert (outcome.verdict, outcome.reply, outcome.reason) == (Verdict.FAILED, None, "the message is too big")
