"""What was published, what the ledger says of it and what the mail server took, compared. Pure.

    lost        published, and in no final state; or `sent`, and never accepted by the mail server
    duplicates  messages accepted again: an acceptance counts where somebody of it had been accepted before

A message is one SMTP transaction: a shared message that goes out twice is one duplicate, however many it is for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.servers.faults.mail_events import Accepted, MailEvent, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Problems of one sort that are told; more would say no more.
_MOST_TOLD = 5


class Published(NamedTuple):
    """A job that was published without error."""

    id: str
    holds: bool
    addresses: tuple[str, ...]


class RecipientRow(NamedTuple):
    """A recipient as the ledger has it."""

    address: str
    state: str
    code: int | None = None
    enhanced_code: str | None = None
    reply: str | None = None


class CopyRow(NamedTuple):
    """An email copy as the ledger has it; `sha256` in hex."""

    message_id: str
    sha256: str
    recipients: frozenset[str]


@dataclass(frozen=True, slots=True)
class LedgerJob:
    """A job as the ledger has it; `open_batches` are those that are not done."""

    state: str
    open_batches: int
    recipients: tuple[RecipientRow, ...]
    copies: tuple[CopyRow, ...]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the faults of a round may do."""

    duplicates: int
    doubt: bool = False
    """Whether recipients of jobs that hold may be left unknown."""
    refusals: bool = False
    """Whether recipients may have failed."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a round."""

    jobs: int
    recipients: int
    sent: int
    failed: int
    unknown: int
    lost: int
    duplicates: int
    allowed: int
    problems: tuple[str, ...]
    """What should not be; none where all promises were kept."""


def compare(
    published: Sequence[Published],
    ledger: dict[str, LedgerJob],
    events: Iterable[MailEvent],
    allowance: Allowance,
) -> Report:
    """Compare, and say what is wrong."""
    happened = list(events)
    accepted = [event for event in happened if isinstance(event, Accepted)]
    refused = [event for event in happened if isinstance(event, Refused)]
    rows = {row.address: row for job in ledger.values() for row in job.recipients}
    wanted = {address: job for job in published for address in job.addresses}
    states = Counter(row.state for address, row in rows.items() if address in wanted)
    doubled = list(_doubled(accepted))
    lost = list(_lost(published, rows, accepted))
    problems = [
        *_some(lost),
        *_some(_unfinished(published, ledger)),
        *_some(_strangers(wanted, rows, accepted)),
        *_some(_twins_with_other_ids(accepted)),
        *_some(_held_twice(doubled, wanted)),
        *_too_many(len(doubled), allowance),
        *_some(_undue_states(wanted, rows, allowance)),
        *_some(_failed_without_refusal(rows, refused)),
        *_some(_failed_and_accepted(rows, accepted, allowance)),
        *_some(_copies_that_disagree(ledger, accepted)),
        *_some(_acceptances_without_copy(ledger, accepted, rows, allowance)),
    ]
    return Report(
        jobs=len(published),
        recipients=len(wanted),
        sent=states["sent"],
        failed=states["failed"],
        unknown=states["unknown"],
        lost=len(lost),
        duplicates=len(doubled),
        allowed=allowance.duplicates,
        problems=tuple(problems),
    )


def _some(problems: Iterable[str]) -> list[str]:
    found = list(problems)
    told = found[:_MOST_TOLD]
    return told if len(found) <= _MOST_TOLD else [*told, f"… and {len(found) - _MOST_TOLD} more like these"]


def _lost(published: Sequence[Published], rows: dict[str, RecipientRow], accepted: Sequence[Accepted]) -> Iterator[str]:
    reached = {address for message in accepted for address in message.recipients}
    for job in published:
        for address in job.addresses:
            row = rows.get(address)
            if row is None:
                yield f"lost: {address} of job {job.id} is not in the ledger"
            elif row.state not in _FINAL or (row.state == "unknown" and not job.holds):
                yield f"lost: {address} of job {job.id} is left {row.state}"
            elif row.state == "sent" and address not in reached:
                yield f"lost: {address} of job {job.id} is sent, and the mail server never took it"


_FINAL = frozenset({"sent", "failed", "unknown"})
"""`unknown` under hold only. Nobody is cancelled, expired or suppressed here."""


def _unfinished(published: Sequence[Published], ledger: dict[str, LedgerJob]) -> Iterator[str]:
    for job in published:
        kept = ledger.get(job.id)
        if kept is None:
            yield f"job {job.id} is not in the ledger, although publishing it returned"
        elif kept.state != "finished" or kept.open_batches:
            yield f"job {job.id} is {kept.state}, with {kept.open_batches} batches that are not done"


def _strangers(
    wanted: dict[str, Published], rows: dict[str, RecipientRow], accepted: Sequence[Accepted]
) -> Iterator[str]:
    for message in accepted:
        for address in message.recipients:
            if address not in wanted:
                yield f"the mail server took a message for {address}, whom nobody had published"
    for address in rows.keys() - wanted.keys():
        yield f"{address} is in the ledger, whom nobody had published"


def _doubled(accepted: Sequence[Accepted]) -> Iterator[Accepted]:
    """Give the acceptances of which somebody had been accepted before."""
    seen: set[str] = set()
    for message in accepted:
        if not seen.isdisjoint(message.recipients):
            yield message
        seen.update(message.recipients)


def _twins_with_other_ids(accepted: Sequence[Accepted]) -> Iterator[str]:
    """A receiving system discards a twin by its Message-ID."""
    ids: dict[str, str] = {}
    for message in accepted:
        for address in message.recipients:
            first = ids.setdefault(address, message.message_id)
            if first != message.message_id:
                yield f"{address} was sent {first} and then, as another message, {message.message_id}"


def _held_twice(doubled: Sequence[Accepted], wanted: dict[str, Published]) -> Iterator[str]:
    for message in doubled:
        job = wanted.get(message.recipients[0])
        if job is not None and job.holds:
            yield f"{message.message_id} of job {job.id}, which holds, was accepted twice"


def _too_many(doubled: int, allowance: Allowance) -> Iterator[str]:
    if doubled > allowance.duplicates:
        yield f"{doubled} messages were accepted twice, and at most {allowance.duplicates} may be"


def _undue_states(wanted: dict[str, Published], rows: dict[str, RecipientRow], allowance: Allowance) -> Iterator[str]:
    undue = {
        *(() if allowance.doubt else ("unknown",)),
        *(() if allowance.refusals else ("failed",)),
    }
    for address in wanted:
        row = rows.get(address)
        if row is not None and row.state in undue:
            yield f"{address} is {row.state} ({row.code} {row.reply}), which no fault of this round accounts for"


def _failed_without_refusal(rows: dict[str, RecipientRow], refused: Sequence[Refused]) -> Iterator[str]:
    """What the ledger says of a failure is what the server said, to this recipient if it named any."""
    said = {(one.code, one.enhanced_code, one.text): one for one in refused}
    for row in rows.values():
        if row.state != "failed":
            continue
        reply = said.get((row.code or 0, row.enhanced_code or "", row.reply or ""))
        if reply is None:
            yield f"{row.address} failed with {row.code} {row.enhanced_code} {row.reply!r}, which nobody said"
        elif reply.recipients and row.address not in reply.recipients:
            yield f"{row.address} failed with what was said to {reply.recipients}: {reply.text}"


def _failed_and_accepted(
    rows: dict[str, RecipientRow], accepted: Sequence[Accepted], allowance: Allowance
) -> Iterator[str]:
    """Where nothing can be in doubt, nobody fails who was accepted."""
    if allowance.doubt:
        return
    for message in accepted:
        for address in message.recipients:
            row = rows.get(address)
            if row is not None and row.state == "failed":
                yield f"{address} failed, and the mail server has taken {message.message_id} for it"


def _copies_that_disagree(ledger: dict[str, LedgerJob], accepted: Sequence[Accepted]) -> Iterator[str]:
    """Each copy is of an acceptance: the same Message-ID, the same bytes, the same recipients."""
    left = Counter(_as_copied(message) for message in accepted)
    for job in ledger.values():
        for copy in job.copies:
            left[copy] -= 1
            if left[copy] < 0:
                yield f"the copy of {copy.message_id} is of a message that the mail server did not take like that"


def _acceptances_without_copy(
    ledger: dict[str, LedgerJob],
    accepted: Sequence[Accepted],
    rows: dict[str, RecipientRow],
    allowance: Allowance,
) -> Iterator[str]:
    """An acceptance that left no copy is in doubt: its recipients are unknown, or were tried again afterwards."""
    copies = Counter(copy for job in ledger.values() for copy in job.copies)
    last = {address: place for place, message in enumerate(accepted) for address in message.recipients}
    doubtful = {"unknown", "failed"} if allowance.doubt else {"unknown"}
    for place, message in enumerate(accepted):
        copies[_as_copied(message)] -= 1
        if copies[_as_copied(message)] >= 0:
            continue
        for address in message.recipients:
            row = rows.get(address)
            state = "not in the ledger" if row is None else row.state
            if last[address] == place and state not in doubtful:
                yield f"{message.message_id} was taken for {address}, who is {state}; there is no copy of it"


def _as_copied(message: Accepted) -> CopyRow:
    return CopyRow(message.message_id, message.sha256, frozenset(message.recipients))
