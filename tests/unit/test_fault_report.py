"""The fault suite's own judgement: it has to see what is lost, doubled or recorded wrongly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.servers.faults.campus import CONNECTIONS
from tests.servers.faults.kinds import Fault, Part, most_doubled, needs_rabbitmq, part_of
from tests.servers.faults.mail_events import Accepted, Dropped, MailPhase, Refused
from tests.servers.faults.plan import SECONDS, SHORT_SECONDS, Form, rounds_of
from tests.servers.faults.report import Allowance, CopyRow, LedgerJob, Published, RecipientRow, Report, compare
from tests.servers.faults.table import Line, render, replace_table
from tocsin_workers.sender.windows import WINDOW

ADA, ALAN, GRACE = (f"{name}@campus.example" for name in ("ada", "alan", "grace"))
NOTHING = Allowance(duplicates=0)
DOUBT = Allowance(duplicates=0, doubt=True)
REFUSALS = Allowance(duplicates=0, refusals=True)


def job(*addresses: str, holds: bool = False) -> Published:
    return Published("job-1", holds, addresses)


def accepted(*recipients: str, message_id: str = "<1@x>", sha256: str = "aa", answered: bool = True) -> Accepted:
    return Accepted(recipients, message_id, sha256, 0.0, answered=answered)


def refused(*recipients: str, text: str = "no") -> Refused:
    return Refused(MailPhase.RCPT, 554, "5.7.1", text, recipients)


def copied(*recipients: str, message_id: str = "<1@x>", sha256: str = "aa") -> CopyRow:
    return CopyRow(message_id, sha256, frozenset(recipients))


def failed(address: str, reply: str = "no") -> RecipientRow:
    return RecipientRow(address, "failed", 554, "5.7.1", reply)


def kept(*rows: RecipientRow, copies: tuple[CopyRow, ...] = ()) -> dict[str, LedgerJob]:
    return {"job-1": LedgerJob("finished", 0, rows, copies)}


def only_problem(report: Report) -> str:
    [problem] = report.problems
    return problem


def test_a_round_in_which_all_went_well_has_no_problem() -> None:
    report = compare(
        [job(ADA, ALAN)],
        kept(RecipientRow(ADA, "sent"), RecipientRow(ALAN, "sent"), copies=(copied(ADA, ALAN),)),
        [Dropped((ADA, ALAN)), accepted(ADA, ALAN)],
        NOTHING,
    )
    assert report == Report(
        jobs=1, recipients=2, sent=2, failed=0, unknown=0, lost=0, duplicates=0, allowed=0, problems=()
    )


def test_a_recipient_that_the_ledger_never_heard_of_is_lost() -> None:
    report = compare([job(ADA, ALAN)], kept(RecipientRow(ADA, "sent"), copies=(copied(ADA),)), [accepted(ADA)], NOTHING)
    assert report.lost == 1
    assert f"lost: {ALAN} of job job-1 is not in the ledger" in only_problem(report)


def test_a_job_whose_publishing_returned_and_that_is_not_there_is_lost_with_everybody_in_it() -> None:
    report = compare([job(ADA)], {}, [], NOTHING)
    assert report.lost == 1
    assert any("although publishing it returned" in problem for problem in report.problems)


def test_a_recipient_that_is_sent_and_never_reached_the_mail_server_is_lost() -> None:
    report = compare([job(ADA)], kept(RecipientRow(ADA, "sent")), [], NOTHING)
    assert report.lost == 1
    assert "the mail server never took it" in only_problem(report)


@pytest.mark.parametrize("state", ["pending", "in_flight", "expired", "cancelled", "suppressed"])
def test_a_recipient_without_a_final_state_is_lost(state: str) -> None:
    report = compare([job(ADA)], kept(RecipientRow(ADA, state)), [], NOTHING)
    assert report.lost == 1
    assert f"is left {state}" in only_problem(report)


def test_unknown_is_final_under_hold_only() -> None:
    rows = kept(RecipientRow(ADA, "unknown"))
    assert compare([job(ADA, holds=True)], rows, [], DOUBT).problems == ()
    assert compare([job(ADA)], rows, [], DOUBT).lost == 1


def test_nobody_may_be_unknown_where_no_fault_leaves_doubt() -> None:
    report = compare([job(ADA, holds=True)], kept(RecipientRow(ADA, "unknown")), [], NOTHING)
    assert "which no fault of this round accounts for" in only_problem(report)


def test_a_job_that_has_not_finished_is_told_even_if_everybody_was_sent_to() -> None:
    there = kept(RecipientRow(ADA, "sent"), copies=(copied(ADA),))
    running = {"job-1": replace(there["job-1"], state="running", open_batches=1)}
    assert "is running, with 1 batches" in only_problem(compare([job(ADA)], running, [accepted(ADA)], NOTHING))


def test_a_message_accepted_twice_is_one_duplicate_however_many_it_is_for() -> None:
    report = compare(
        [job(ADA, ALAN)],
        kept(
            RecipientRow(ADA, "sent"),
            RecipientRow(ALAN, "sent"),
            copies=(copied(ADA, ALAN), copied(ADA, ALAN, sha256="bb")),
        ),
        [accepted(ADA, ALAN), accepted(ADA, ALAN, sha256="bb")],
        Allowance(duplicates=1),
    )
    assert report.duplicates == 1
    assert report.problems == ()


def test_more_duplicates_than_the_faults_account_for_are_told() -> None:
    twice = [accepted(ADA, sha256="aa"), accepted(ADA, sha256="bb")]
    rows = kept(RecipientRow(ADA, "sent"), copies=(copied(ADA, sha256="bb"),))
    assert compare([job(ADA)], rows, twice, Allowance(duplicates=1)).problems == ()
    assert "1 messages were accepted twice, and at most 0" in only_problem(compare([job(ADA)], rows, twice, NOTHING))


def test_a_duplicate_of_a_job_that_holds_is_told_whatever_is_allowed() -> None:
    report = compare(
        [job(ADA, holds=True)],
        kept(RecipientRow(ADA, "sent"), copies=(copied(ADA), copied(ADA, sha256="bb"))),
        [accepted(ADA), accepted(ADA, sha256="bb")],
        Allowance(duplicates=100, doubt=True),
    )
    assert "which holds, was accepted twice" in only_problem(report)


def test_a_recipient_sent_to_again_under_another_message_id_is_told() -> None:
    report = compare(
        [job(ADA)],
        kept(RecipientRow(ADA, "sent"), copies=(copied(ADA), copied(ADA, message_id="<2@x>"))),
        [accepted(ADA), accepted(ADA, message_id="<2@x>")],
        Allowance(duplicates=1),
    )
    assert "as another message" in only_problem(report)


def test_mail_to_somebody_whom_nobody_published_is_told() -> None:
    report = compare(
        [job(ADA)],
        kept(RecipientRow(ADA, "sent"), copies=(copied(ADA, GRACE),)),
        [accepted(ADA, GRACE)],
        NOTHING,
    )
    assert any(f"for {GRACE}, whom nobody had published" in problem for problem in report.problems)


@pytest.mark.parametrize(
    "copy",
    [copied(ADA, sha256="bb"), copied(ADA, message_id="<2@x>"), copied(ADA, ALAN)],
    ids=["other bytes", "another Message-ID", "other recipients"],
)
def test_a_copy_that_is_not_what_the_mail_server_took_is_told(copy: CopyRow) -> None:
    report = compare([job(ADA)], kept(RecipientRow(ADA, "sent"), copies=(copy,)), [accepted(ADA)], NOTHING)
    assert any("did not take like that" in problem for problem in report.problems)
    assert any("there is no copy of it" in problem for problem in report.problems)


def test_two_copies_of_one_acceptance_are_one_too_many() -> None:
    rows = kept(RecipientRow(ADA, "sent"), copies=(copied(ADA), copied(ADA)))
    assert "did not take like that" in only_problem(compare([job(ADA)], rows, [accepted(ADA)], NOTHING))


def test_an_acceptance_without_copy_is_in_order_if_it_is_in_doubt_or_was_followed_by_another() -> None:
    in_doubt = kept(RecipientRow(ADA, "unknown"))
    assert compare([job(ADA, holds=True)], in_doubt, [accepted(ADA)], DOUBT).problems == ()
    again = kept(RecipientRow(ADA, "sent"), copies=(copied(ADA, sha256="bb"),))
    events = [accepted(ADA), accepted(ADA, sha256="bb")]
    assert compare([job(ADA)], again, events, Allowance(duplicates=1, doubt=True)).problems == ()


def test_a_failure_has_the_words_that_the_server_said_to_that_recipient() -> None:
    rows = kept(failed(ADA))
    assert compare([job(ADA)], rows, [refused(ADA)], REFUSALS).problems == ()
    assert "which nobody said" in only_problem(compare([job(ADA)], rows, [refused(ADA, text="other")], REFUSALS))
    assert "what was said to" in only_problem(compare([job(ADA)], rows, [refused(ALAN)], REFUSALS))


def test_nobody_may_fail_where_nobody_is_refused_for_good() -> None:
    report = compare([job(ADA)], kept(failed(ADA)), [refused(ADA)], NOTHING)
    assert "which no fault of this round accounts for" in only_problem(report)


def test_nobody_fails_whom_the_mail_server_has_accepted() -> None:
    report = compare([job(ADA)], kept(failed(ADA)), [accepted(ADA), refused(ADA)], REFUSALS)
    assert any(f"{ADA} failed, and the mail server has taken" in problem for problem in report.problems)


def test_many_problems_of_one_sort_are_told_in_short() -> None:
    report = compare([job(*(f"{number}@x.example" for number in range(100)))], kept(), [], NOTHING)
    assert report.lost == 100
    assert len(report.problems) == 6
    assert report.problems[-1] == "… and 95 more like these"


@pytest.mark.parametrize(
    ("fault", "most"),
    [
        (Fault.WORKER_KILLED, 3 * 5 * 20),
        (Fault.MAIL_SERVER_AWAY, 3 * 5),
        (Fault.DROP_AFTER_DOT, 3),
        (Fault.DROP_BEFORE_DOT, 0),
        (Fault.POSTGRES_STOPPED, 0),
        (Fault.RABBITMQ_KILLED, 0),
        (Fault.PERMANENT_REFUSALS, 0),
    ],
)
def test_a_fault_may_double_what_was_in_doubt_when_it_struck_and_no_more(fault: Fault, most: int) -> None:
    assert most_doubled(fault, 3, window=20, connections=5) == most


@pytest.mark.parametrize("has_rabbitmq", [True, False])
def test_the_same_seed_gives_the_same_rounds(has_rabbitmq: bool) -> None:
    for form in Form:
        assert rounds_of(7, form, has_rabbitmq=has_rabbitmq) == rounds_of(7, form, has_rabbitmq=has_rabbitmq)
    assert rounds_of(7, Form.LONG, has_rabbitmq=has_rabbitmq) != rounds_of(8, Form.LONG, has_rabbitmq=has_rabbitmq)


@pytest.mark.parametrize("has_rabbitmq", [True, False])
def test_the_long_form_has_every_fault_once_alone_and_one_of_every_part_together(has_rabbitmq: bool) -> None:
    *alone, together = rounds_of(7, Form.LONG, has_rabbitmq=has_rabbitmq)
    expected = {fault for fault in Fault if has_rabbitmq or not needs_rabbitmq(fault)}
    assert sorted(fault for one in alone for fault in one.faults) == sorted(expected)
    assert all(len(one.faults) == 1 for one in alone)
    assert {part_of(fault) for fault in together.faults} == set(Part)


def test_refusals_come_at_every_phase_in_the_long_form() -> None:
    for one in rounds_of(7, Form.LONG, has_rabbitmq=False):
        if one.faults in ((Fault.TEMPORARY_REFUSALS,), (Fault.PERMANENT_REFUSALS,)):
            assert one.waves == len(MailPhase)
            assert set(one.phases) == set(MailPhase)


@pytest.mark.parametrize("has_rabbitmq", [True, False])
def test_the_short_form_is_short_with_every_seed_and_comes_to_every_quick_fault(has_rabbitmq: bool) -> None:
    met: set[Fault] = set()
    for seed in range(200):
        *alone, together = rounds_of(seed, Form.SHORT, has_rabbitmq=has_rabbitmq)
        assert alone
        assert len(together.faults) == 2
        seconds = sum(SECONDS[one.faults[0]] for one in alone) + max(SECONDS[fault] for fault in together.faults)
        assert seconds <= SHORT_SECONDS
        met |= {fault for one in (*alone, together) for fault in one.faults}
    assert met == {fault for fault in Fault if has_rabbitmq or not needs_rabbitmq(fault)} - {Fault.TOKENS_HANG}


def test_the_table_goes_between_its_markers_and_nowhere_else() -> None:
    report = compare([job(ADA)], kept(RecipientRow(ADA, "sent"), copies=(copied(ADA),)), [accepted(ADA)], NOTHING)
    table = render([Line((Fault.TREE_KILLED, Fault.TOKENS_FAIL), 1234, report)])
    page = "before\n<!-- postgres begins -->\nold\n<!-- postgres ends -->\nafter\n"
    written = replace_table(page, "postgres", table)
    assert written.startswith("before\n<!-- postgres begins -->\n\n| fault |")
    assert written.endswith("|\n\n<!-- postgres ends -->\nafter\n")
    assert "old" not in written
    assert (
        "| supervisor and all workers killed + token endpoint answers 500 | 1,234 | 1 | 1 | 1 | 0 | 0 | 0 | 0 | 0 "
        in written
    )
    with pytest.raises(ValueError, match="no markers"):
        replace_table(page, "rabbitmq", table)


def test_the_page_has_a_place_for_each_message_brokers_table_and_tells_the_bounds_in_force() -> None:
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    for name in ("rabbitmq", "postgres"):
        assert "| new |" in replace_table(page, name, "| new |")
    assert f"a *window* of messages ({WINDOW}) for each connection ({sum(CONNECTIONS.values())})" in page
