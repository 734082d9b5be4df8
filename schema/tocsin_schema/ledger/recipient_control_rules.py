"""Which recipients may be tried again or settled, and what is said of the others. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from tocsin_schema.contract.addresses import parse_address, shorten
from tocsin_schema.errors import AddressError, Scope, UsageError
from tocsin_schema.ledger.job_states import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.job_controls import LockedJob

_NAMED_AT_MOST = 10


class Settlement(StrEnum):
    """What a person says of recipients whose fate is unknown."""

    SENT = "sent"
    FAILED = "failed"
    PENDING = "pending"
    """To be sent again at once, though they may get the message twice."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a recipient stands who was called by address.

    `is_malformed` says that intake refused the address, `is_suppressed` that the job must not write to it now.
    """

    ordinal: int
    batch_number: int
    address: str
    state: str
    is_malformed: bool
    is_suppressed: bool


def check_retry(job: LockedJob, expires_at: datetime | None) -> None:
    """Raise UsageError where nobody of the job can be tried again."""
    if job.state == JobState.CANCELLED:
        raise UsageError(
            f"Job {job.id} is cancelled, and nothing more of it is sent.",
            fix="Send to those whom it left out with a job of their own.",
            scope=Scope.JOB,
        )
    if expires_at is None and job.time_is_over:
        raise UsageError(
            f"The time of job {job.id} was over at {job.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}.",
            fix="Give it another one with --expires-at; then who expired is tried again as well as who failed.",
            scope=Scope.JOB,
        )
    if expires_at is not None and expires_at <= job.read_at:
        raise UsageError("--expires-at has gone by.", fix="Give a time to come.", scope=Scope.JOB)


def check_settle(job: LockedJob, settlement: Settlement) -> None:
    """Raise UsageError where the job's unknown recipients cannot be settled in that way."""
    match settlement:
        case Settlement.SENT | Settlement.FAILED:
            return
        case Settlement.PENDING:
            if job.state != JobState.CANCELLED and not job.time_is_over:
                return
            over = "is cancelled" if job.state == JobState.CANCELLED else "has expired"
            raise UsageError(
                f"Job {job.id} {over}, and nothing more of it is sent.",
                fix="Settle them as sent or failed."
                if job.state == JobState.CANCELLED
                else f"Settle them as failed, then `tocsin job retry {job.id} --expires-at TIME`.",
                scope=Scope.JOB,
            )
        case _:
            assert_never(settlement)


def check_none_left_over(job: LockedJob, expired: int) -> None:
    """Raise UsageError where some are called by address and others had expired, who come back with the job."""
    if expired:
        raise UsageError(
            f"Everybody of job {job.id} who had expired ({expired:,}) comes back with it, so that nobody can be chosen"
            " with --address.",
            fix="Leave --address out, or send to the one you mean with a job of its own.",
            scope=Scope.JOB,
        )


def check_called(
    job: LockedJob, addresses: Iterable[str], found: Collection[Standing], wanted: Collection[str]
) -> list[Standing]:
    """Give the recipients in a wanted state. Raises UsageError that names each address of which there is none.

    Who is suppressed could not be sent to, and is named too.
    """
    by_address: dict[str, list[Standing]] = {}
    for standing in found:
        by_address.setdefault(standing.address, []).append(standing)
    meant: list[Standing] = []
    wrong: list[str] = []
    suppressed: list[str] = []
    for address in dict.fromkeys(addresses):
        known = [one for form in forms(address) for one in by_address.get(form, [])]
        in_state = [one for one in known if one.state in wanted and not one.is_malformed]
        fitting = [one for one in in_state if not one.is_suppressed]
        meant += fitting
        if in_state and not fitting:
            suppressed.append(address)
        if not fitting:
            wrong.append(f"{shorten(address)} {_why_not(known, wanted)}")
    if wrong:
        more = f"; and {len(wrong) - _NAMED_AT_MOST:,} more" if len(wrong) > _NAMED_AT_MOST else ""
        raise UsageError(
            f"{'; '.join(wrong[:_NAMED_AT_MOST])}{more}. Nothing was changed.",
            fix=f"`tocsin suppression remove {suppressed[0]}` first, then try it again."
            if suppressed
            else f"See `tocsin job recipients {job.id}`.",
            scope=Scope.RECIPIENT,
        )
    return meant


def forms(address: str) -> tuple[str, ...]:
    """Give the forms in which an address may stand in the ledger: as it was given, and in its canonical form."""
    try:
        return tuple(dict.fromkeys((parse_address(address).key, address)))
    except AddressError:
        return (address,)


def _why_not(known: Sequence[Standing], wanted: Collection[str]) -> str:
    if not known:
        return "is not in this job"
    first = known[0]
    if first.is_malformed:
        return "is malformed and was never tried"
    if first.state not in wanted:
        return f"is {first.state}, not {' or '.join(wanted)}"
    return "is suppressed and would not be sent to"
