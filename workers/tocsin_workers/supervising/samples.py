"""What a supervisor tells at a scrape beside its children's counts: the ledger, the queues, itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tocsin_schema.ledger.pausing import PauseCause
from tocsin_workers import metrics
from tocsin_workers.metrics import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tocsin_schema.ledger.credential_expiry import CredentialEnd
    from tocsin_schema.ledger.depths import Backlog
    from tocsin_schema.ledger.measuring import ProfileGauges, TokenTimes, Watch
    from tocsin_workers.metrics import Metric

Families: TypeAlias = list[Family]

_PAUSE_REASONS = {
    PauseCause.CREDENTIALS: "credentials",
    PauseCause.BY_HAND: "operator",
    PauseCause.SENDER: "sender",
}


@dataclass(frozen=True, slots=True)
class BacklogCounts:
    """What is counted over all batches of open jobs, and who waits for a person in those that ended."""

    backlog: Backlog
    unknown_of_ended_jobs: int


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """All that is counted in the ledger. No `backlog`: counting that took too long."""

    backlog: BacklogCounts | None
    watch: Watch
    profiles: Sequence[ProfileGauges]
    tokens: Sequence[TokenTimes]
    credential_ends: Sequence[CredentialEnd]


def ledger_families(counted: LedgerCounts | None) -> Families:
    """Turn a count of the ledger into metrics; None says that the ledger did not answer."""
    up = _single(metrics.LEDGER_UP, float(counted is not None))
    if counted is None:
        return [up]
    watch = counted.watch
    return [
        up,
        *([] if counted.backlog is None else _backlog_families(counted.backlog)),
        _single(metrics.DEAD_LETTERS, watch.dead_letters),
        _single(metrics.SENDING_HALTED, watch.is_halted),
        *((_single(metrics.SWEEPER_LAST_PASS, watch.swept_at.timestamp()),) if watch.swept_at is not None else ()),
        *_profile_families(counted.profiles),
        metrics.TOKEN_OBTAINED.family(((one.oauth_profile,), one.obtained_at.timestamp()) for one in counted.tokens),
        metrics.TOKEN_EXPIRY.family(((one.oauth_profile,), one.expires_at.timestamp()) for one in counted.tokens),
        _credential_ends(counted.credential_ends),
    ]


def _backlog_families(counted: BacklogCounts) -> Families:
    backlog = counted.backlog
    return [
        _by_label(
            metrics.LEDGER_BATCHES,
            {"due": backlog.due_batches, "waiting": backlog.waiting_batches, "leased": backlog.leased_batches},
        ),
        _by_label(
            metrics.LEDGER_JOBS,
            {"receiving": backlog.receiving_jobs, "running": backlog.running_jobs, "paused": backlog.paused_jobs},
        ),
        _by_label(
            metrics.LEDGER_RECIPIENTS,
            {
                "pending": backlog.pending,
                "in_flight": backlog.in_flight,
                "sent": backlog.sent,
                "failed": backlog.failed,
                "unknown": backlog.unknown + counted.unknown_of_ended_jobs,
                "suppressed": backlog.suppressed,
            },
        ),
    ]


def _profile_families(profiles: Sequence[ProfileGauges]) -> Families:
    def budget(metric: Metric, values: Iterable[tuple[str, str, float | None]]) -> Family:
        return metric.family(((profile, state), value) for profile, state, value in values if value is not None)

    return [
        metrics.PROFILE_PAUSED.family(
            ((one.name, reason), float(one.pause_cause == cause))
            for one in profiles
            for cause, reason in _PAUSE_REASONS.items()
        ),
        metrics.MAILBOX_RESTING.family(((one.name,), float(one.is_resting)) for one in profiles),
        budget(
            metrics.BUDGET_CONNECTIONS,
            (
                sample
                for one in profiles
                if one.connections_limit is not None
                for sample in (
                    (one.name, "open", one.connections_open),
                    (one.name, "limit", one.connections_limit),
                    (one.name, "wanted", float(one.wants_connection)),
                )
            ),
        ),
        budget(
            metrics.BUDGET_MESSAGES,
            (
                sample
                for one in profiles
                for sample in ((one.name, "used", one.messages_last_minute), (one.name, "limit", one.messages_limit))
            ),
        ),
        budget(
            metrics.BUDGET_RECIPIENTS,
            (
                sample
                for one in profiles
                if one.recipients_limit is not None
                for sample in ((one.name, "used", one.recipients_used), (one.name, "limit", one.recipients_limit))
            ),
        ),
    ]


def _credential_ends(ends: Sequence[CredentialEnd]) -> Family:
    """Tell the end of each credential; of several refresh tokens of a profile, the first to end."""
    first: dict[tuple[str, str], float] = {}
    for end in ends:
        key = (end.oauth_profile, end.credential)
        first[key] = min(first.get(key, float("inf")), end.expires_at.timestamp())
    return metrics.CREDENTIAL_EXPIRY.family(first.items())


def queue_families(messages: Mapping[str, int] | None) -> Families:
    """Turn a count of the queues into metrics; None says that the message broker did not answer."""
    up = _single(metrics.MESSAGE_BROKER_UP, float(messages is not None))
    return [up] if messages is None else [up, _by_label(metrics.QUEUE_MESSAGES, messages)]


def supervisor_families(*, version: str, role: str, processes: int, restarts: int) -> Families:
    """Tell what a supervisor knows of itself and its children."""
    return [
        metrics.BUILD_INFO.family([((version,), 1.0)]),
        _by_label(metrics.WORKER_PROCESSES, {role: processes}),
        _single(metrics.WORKER_RESTARTS, restarts),
    ]


def _single(metric: Metric, value: float) -> Family:
    return metric.family([((), value)])


def _by_label(metric: Metric, values: Mapping[str, int]) -> Family:
    return metric.family(((value,), count) for value, count in values.items())
