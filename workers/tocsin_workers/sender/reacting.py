"""What a refusal of more than one message means for the mailbox and the profile. Decides, does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from tocsin_schema.errors import Scope
from tocsin_schema.ledger.learned_limits import CountedBy
from tocsin_schema.ledger.pausing import PauseCause, Probe
from tocsin_workers.classification import Kind, classify
from tocsin_workers.smtp.errors import SmtpAuthError, SmtpSessionError, SmtpTlsError

if TYPE_CHECKING:
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.classification import Outcome


@dataclass(frozen=True, slots=True)
class Park:
    """Let the mailbox rest: its mail waits in the ledger and goes on by itself."""

    seconds: float
    reason: str
    is_tenants: bool = False
    """Whether it is the tenant's limit, where the mailbox is in one: then all its mailboxes rest."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Lower the rate for the whole fleet, once for all who are refused now, and let the mailbox rest for a moment."""

    reason: str
    counted_by: CountedBy = CountedBy.MINUTE


@dataclass(frozen=True, slots=True)
class FewerConnections:
    """Lower the number of connections for the whole fleet, once for all who are refused now.

    `at_greeting` says that it was a new connection that was refused: those that are open may stay.
    """

    reason: str
    at_greeting: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause the profile: a person has to act. Its mail waits, all other profiles go on.

    `wish_seconds` is how long a token endpoint wants to be left alone before it is asked again.
    """

    reason: str
    cause: PauseCause = PauseCause.CREDENTIALS
    wish_seconds: float = 0.0


Reaction = Park | Pause | Slow | FewerConnections | None

THROTTLED_SECONDS = 60.0
CONNECTIONS_SECONDS = 15.0
QUOTA_SECONDS = 3600.0
FIRST_TROUBLE_SECONDS = 5.0
LONGEST_TROUBLE_SECONDS = 300.0
FIRST_PROBE_SECONDS = 60.0
LONGEST_PROBE_SECONDS = 3600.0
#: Credentials that are refused again so soon after they were taken are the same trouble.
SAME_TROUBLE = timedelta(hours=1)


def to_refusal(outcome: Outcome, said: str) -> Reaction:  # noqa: PLR0911 - one answer a kind
    """Answer an outcome that concerns the mailbox, the session or the sender; `said` is the server's reply."""
    reason = said if outcome.advice is None else f"{said} {outcome.advice}"
    match outcome.kind:
        case Kind.TOO_FAST:
            return Slow(reason, CountedBy.SECOND if outcome.per_second else CountedBy.MINUTE)
        case Kind.TOO_MANY_CONNECTIONS:
            return FewerConnections(reason)
        case Kind.QUOTA:
            return Park(QUOTA_SECONDS, reason)
        case Kind.TENANT_QUOTA:
            return Park(QUOTA_SECONDS, reason, is_tenants=True)
        case Kind.NOT_AUTHENTICATED:
            return Pause(reason)
        case Kind.SENDER_REFUSED:
            return Pause(reason, PauseCause.SENDER) if outcome.permanent else Park(THROTTLED_SECONDS, reason)
        case Kind.TRANSIENT if outcome.scope is Scope.MAILBOX:
            return Park(THROTTLED_SECONDS, reason)
        case Kind.ACCEPTED | Kind.REFUSED | Kind.TRANSIENT | Kind.TOO_MANY_RECIPIENTS | Kind.DOUBTFUL:
            return None
        case _:
            assert_never(outcome.kind)


def to_failed_session(error: SmtpSessionError, failures_in_a_row: int) -> Park | Pause | FewerConnections:
    """Answer a session that could not be opened, for the n-th time in a row (from 1).

    Refused credentials need a person; whatever else is wrong may pass, also a certificate that was not renewed.
    """
    match error:
        case SmtpAuthError(reply=None):
            return Pause(str(error))
        case SmtpAuthError(reply=reply) if reply is not None and classify(error.phase, reply).permanent:
            return Pause(str(error))
        case SmtpTlsError():
            return Park(THROTTLED_SECONDS, str(error))
        case SmtpSessionError(reply=reply) if (
            reply is not None and classify(error.phase, reply).kind is Kind.TOO_MANY_CONNECTIONS
        ):
            return FewerConnections(str(error), at_greeting=True)
        case _:
            return Park(trouble_seconds(failures_in_a_row), str(error))


def next_probe(profile: SenderProfile, *, wish_seconds: float = 0.0) -> Probe:
    """Say when refused credentials are tried again by ourselves: after 1, 2, 4 … 60 minutes."""
    is_paused = profile.paused_reason is not None
    resumed_lately = profile.resumed_at is not None and profile.read_at - profile.resumed_at < SAME_TROUBLE
    count = profile.probes + 1 if is_paused or resumed_lately else 1
    wait = min(LONGEST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(count - 1, 30))
    return Probe(max(wait, wish_seconds), count)


def trouble_seconds(failures_in_a_row: int) -> float:
    """Give the seconds to rest after so many failures in a row: 5, 10, 20 … 300."""
    return min(LONGEST_TROUBLE_SECONDS, FIRST_TROUBLE_SECONDS * 2.0 ** min(failures_in_a_row - 1, 30))
