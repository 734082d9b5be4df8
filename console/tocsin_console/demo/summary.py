"""The table at the end of the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_console.output import print_facts, print_table, say

if TYPE_CHECKING:
    from tocsin_console.demo.comparison import Comparison
    from tocsin_console.demo.outcome import Outcome
    from tocsin_schema.ledger.job_reading import RecipientReading

SHOWN_DIFFERENCES = 5


def print_summary(outcome: Outcome) -> None:
    """Print what became of everybody, and whether the mail server says the same."""
    jobs, comparison = outcome.jobs, outcome.comparison
    say("")
    print_table(
        ("NOT QUITE STRAIGHT", "STATE", "TRIES", "WHY"),
        [(one.address, one.state, one.attempts, _story(one)) for one in outcome.awkward],
    )
    say("")
    print_table(
        ("JOB", "MODE", "RECIPIENTS", "SENT", "FAILED", "OTHER"),
        [
            (
                job.key or str(job.id),
                job.mode,
                job.total,
                job.sent,
                job.failed,
                job.total - job.sent - job.failed,
            )
            for job in jobs
        ],
    )
    total = sum(job.total for job in jobs)
    print_facts(
        [
            ("messages", f"{comparison.messages:,}"),
            ("token requests", outcome.token_requests),
            ("seconds", f"{outcome.seconds:.1f}"),
            ("recipients a second", f"{total / outcome.seconds:,.0f}"),
            ("ledger and mail server", _verdict(comparison)),
        ]
    )
    for title, differences in (
        ("only in the ledger", comparison.only_in_ledger),
        ("only received", comparison.only_received),
        ("received more than once", comparison.doubled),
        ("sent without a copy, or the other way round", comparison.without_copy),
    ):
        for difference in differences[:SHOWN_DIFFERENCES]:
            say(f"{title}: {difference}")


def _story(recipient: RecipientReading) -> str:
    if recipient.state == "sent":
        return "refused for now at first, accepted later"
    return recipient.reason or ""


def _verdict(comparison: Comparison) -> str:
    if comparison.agree:
        return f"agree on all {comparison.deliveries:,} deliveries, recipient by recipient"
    return "DIFFER"
