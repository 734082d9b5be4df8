"""What must be true of a job's recipients whatever happens: the diagram of states and the promise, as checks.

The checks compare three things: the ledger as its own views show it, what it was a move ago, and what the mail server
took. A move is one transaction with the ledger, so that no forbidden state can hide between two looks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeAlias

from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from tests.servers.played_mail import PlayedMailServer
    from tocsin_schema.ledger.connection import Connection

FINAL: Final = frozenset({"sent", "failed", "unknown", "cancelled", "expired", "suppressed"})
STATES: Final = FINAL | {"pending", "in_flight"}
#: What is final while the job goes on: nobody comes back to them by himself.
SETTLED: Final = frozenset({"sent", "failed", "unknown", "suppressed"})

#: Where a recipient may go by itself. A recorded acceptance wins over everything, however late it comes; whoever is
#: neither sent to nor an exception when the job ends is cancelled or expired with it.
MOVES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "pending": frozenset({"in_flight", "cancelled", "expired", "suppressed", "sent"}),
        "in_flight": frozenset({"sent", "failed", "unknown", "pending", "cancelled", "expired"}),
        "unknown": frozenset({"sent", "failed"}),
        "failed": frozenset({"sent"}),
        "cancelled": frozenset({"sent"}),
        "expired": frozenset({"sent"}),
        "suppressed": frozenset({"sent"}),
        "sent": frozenset(),
    }
)
#: What a late part does with a job that was closed as incomplete.
BY_A_LATE_PART: Final = frozenset({("expired", "pending")})

#: Who made the last move: a worker, the sweeper, or neither (a person, intake).
SWEEPER: Final = "sweeper"
Mover: TypeAlias = "UUID | str | None"

_RECIPIENTS: Final = "SELECT ordinal, address, batch_number, state FROM recipient_states WHERE job_number = %s"
_BATCHES: Final = (
    "SELECT b.number, b.state, b.leased_by, b.size, bit_count(b.in_flight) AS in_flight, b.failed, b.unknown,"
    " b.suppressed, (SELECT jsonb_object_agg(state, n) FROM (SELECT e.state, count(*) AS n FROM recipient_exceptions e"
    " WHERE e.job_number = b.job_number AND e.batch_number = b.number"
    " AND get_bit(b.sent, e.ordinal - b.first_ordinal) = 0 GROUP BY e.state) AS x) AS exceptions"
    " FROM batches b WHERE b.job_number = %s"
)
_COUNTS: Final = "SELECT * FROM job_counts WHERE job_number = %s"
_JOB: Final = "SELECT state, state_reason FROM jobs WHERE number = %s"
_COPIES: Final = (
    "SELECT c.message_id, array_agg(r.address) AS addresses"
    " FROM email_copies c JOIN batches b ON b.job_number = c.job_number AND b.number = c.batch_number"
    " JOIN recipients r ON r.job_number = c.job_number AND r.batch_number = c.batch_number"
    " AND get_bit(c.recipients, r.ordinal - b.first_ordinal) = 1"
    " WHERE c.job_number = %s GROUP BY c.id, c.message_id"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job as the ledger shows it: states by address, batches, and sums."""

    states: Mapping[str, str]
    batch_of: Mapping[str, int]
    batches: Mapping[int, Mapping[str, Any]]
    counts: Mapping[str, int]
    job_state: str
    job_reason: str | None

    @property
    def owners(self) -> Mapping[int, UUID | None]:
        """Who leases which batch."""
        return {number: batch["leased_by"] for number, batch in self.batches.items()}

    @property
    def is_over(self) -> bool:
        """Whether nothing more is sent for this job."""
        return self.job_state in {"finished", "cancelled"}


async def take_snapshot(connection: Connection, job_number: int) -> Snapshot:
    """Read everything in one transaction."""

    async def rows(query: LiteralString) -> list[dict[str, Any]]:
        async with connection.cursor(row_factory=dict_row) as cursor:
            return await (await cursor.execute(query, [job_number])).fetchall()

    recipients = await rows(_RECIPIENTS)
    (counts,), (job,) = await rows(_COUNTS), await rows(_JOB)
    return Snapshot(
        states={row["address"]: row["state"] for row in recipients},
        batch_of={row["address"]: row["batch_number"] for row in recipients},
        batches={row["number"]: row for row in await rows(_BATCHES)},
        counts=counts,
        job_state=job["state"],
        job_reason=job["state_reason"],
    )


async def read_copies(connection: Connection, job_number: int) -> Counter[tuple[str, frozenset[str]]]:
    """Read the email copies: their Message-IDs, and for whom they were accepted."""
    rows = await (await connection.execute(_COPIES, [job_number])).fetchall()
    return Counter((str(message_id), frozenset(addresses)) for message_id, addresses in rows)


@dataclass(slots=True)
class StateModel:
    """What must hold of one job. `window` is how many messages of a slice may be in doubt at once."""

    mail: PlayedMailServer
    on_unknown: str
    window: int
    addresses: set[str] = field(default_factory=set[str])
    """Whom the parts name that were taken in."""
    given_again: Counter[str] = field(default_factory=Counter[str])
    """How often a person asked for somebody to be tried again."""
    settled_as_sent: set[str] = field(default_factory=set[str])
    """Of whom a person said that they got it."""
    last: Mapping[str, str] = field(default_factory=dict[str, str])
    owners: Mapping[int, UUID | None] = field(default_factory=dict[int, "UUID | None"])

    def look(self, now: Snapshot, mover: Mover, *, also: frozenset[tuple[str, str]] = frozenset()) -> None:
        """Check what must always be true, and what the last move may have done."""
        self._everybody_has_one_state(now)
        self._batches_are_sound(now)
        self._moves_are_allowed(now, mover, also)
        self._fences_hold(now, mover)
        self._sent_means_taken(now)
        self._doubles_are_bounded()
        self.last = now.states
        self.owners = now.owners

    def look_back(self, now: Snapshot, copies: Counter[tuple[str, frozenset[str]]]) -> None:
        """Check what must be true once everything is worked off."""
        assert now.is_over, f"the job is still {now.job_state}"
        assert set(now.states.values()) <= FINAL
        assert {batch["state"] for batch in now.batches.values()} <= {"done"}
        assert not any(batch["in_flight"] for batch in now.batches.values())
        if now.job_state == "finished" and now.job_reason is None:
            assert set(now.states.values()) <= SETTLED, "somebody was skipped"
        if self.on_unknown == "resend":
            assert "unknown" not in now.states.values()
        self._nobody_taken_is_forgotten(now)
        self._copies_agree(now, copies)

    def _everybody_has_one_state(self, now: Snapshot) -> None:
        assert set(now.states) == self.addresses
        assert set(now.states.values()) <= STATES
        counts = dict(now.counts)
        total, unsettled, unsettled_state = counts["total"], counts["unsettled"], counts["unsettled_state"]
        summed = Counter({state: counts[state] for state in ("sent", "in_flight", "failed", "unknown", "suppressed")})
        summed[str(unsettled_state)] += unsettled
        assert +summed == Counter(now.states.values()), "the sums differ from the states counted one by one"
        assert total == len(now.states)
        assert min(summed.values()) >= 0

    def _batches_are_sound(self, now: Snapshot) -> None:
        for number, batch in now.batches.items():
            states = [state for address, state in now.states.items() if now.batch_of[address] == number]
            exceptions = batch["exceptions"] or {}
            for state in ("failed", "unknown", "suppressed"):
                assert batch[state] == exceptions.get(state, 0), f"batch {number} counts its {state} wrongly"
            assert batch["state"] == "leased" or not batch["in_flight"], f"batch {number} is nobody's, yet in flight"
            if batch["state"] == "done" and not now.is_over:
                assert set(states) <= SETTLED, f"batch {number} is done, but {states}"

    def _moves_are_allowed(self, now: Snapshot, mover: Mover, also: frozenset[tuple[str, str]]) -> None:
        for address, state in now.states.items():
            before = self.last.get(address, "pending" if not now.is_over else state)
            if state == before:
                continue
            is_intake = address not in self.last and state in {"failed", "pending", "expired", "cancelled"}
            allowed = state in MOVES[before] or (before, state) in also or is_intake
            assert allowed, f"{address} went from {before} to {state}"
            batch = now.batch_of[address]
            if state == "in_flight":
                assert now.owners[batch] == mover, f"{address} was put in flight by one who does not own the batch"
                assert now.job_state in {"receiving", "running"}, (
                    f"{address} was begun in a job that is {now.job_state}"
                )
            if before == "in_flight" and state != "sent":
                assert mover in {self.owners[batch], SWEEPER}, f"{address}: its mark was taken away by somebody else"

    def _fences_hold(self, now: Snapshot, mover: Mover) -> None:
        for batch, owner in self.owners.items():
            if now.owners[batch] != owner:
                assert mover in {owner or now.owners[batch], SWEEPER}, f"batch {batch} was taken from its owner"

    def _sent_means_taken(self, now: Snapshot) -> None:
        taken = {address for delivery in self.mail.deliveries for address in delivery.addresses}
        sent = {address for address, state in now.states.items() if state == "sent"}
        assert sent <= taken | self.settled_as_sent, "recorded as sent, but the server did not take it"
        for delivery in self.mail.deliveries:
            assert not delivery.is_committed or delivery.addresses <= sent, "a recorded acceptance is gone"

    def _doubles_are_bounded(self) -> None:
        for address in self.addresses:
            deliveries = self.mail.taken(address)
            allowed = 1 + self.given_again[address]
            if self.on_unknown == "hold":
                assert len(deliveries) <= allowed, f"{address} got it twice under hold"
            sure = [delivery for delivery in deliveries if not delivery.is_in_doubt]
            assert len(sure) <= allowed, f"{address} got it twice, and no death explains it"
            assert len({delivery.message_id for delivery in deliveries}) <= 1, "the Message-ID changed"
        for worker in {delivery.worker for delivery in self.mail.deliveries}:
            assert worker.most_in_doubt <= self.window, "a death put more than a window in doubt"

    def _nobody_taken_is_forgotten(self, now: Snapshot) -> None:
        for delivery in self.mail.deliveries:
            for address in delivery.addresses:
                state = now.states[address]
                # Whoever was in doubt was tried again, by the job's policy or by a person, and may have failed then.
                is_tried_again = self.on_unknown == "resend" or self.given_again[address] > 0
                known = {"sent", "unknown"} if delivery.is_in_doubt else {"sent"}
                explained = delivery.is_in_doubt and is_tried_again
                assert state in known or explained, f"{address} got it and is {state}"

    def _copies_agree(self, now: Snapshot, copies: Counter[tuple[str, frozenset[str]]]) -> None:
        told = Counter((one.message_id, one.addresses) for one in self.mail.deliveries if one.is_told)
        sure = Counter((one.message_id, one.addresses) for one in self.mail.deliveries if one.is_committed)
        assert sure <= copies <= told, "the copies differ from what the server took"
        with_copy = {address for _, addresses in copies for address in addresses}
        sent = {address for address, state in now.states.items() if state == "sent"}
        assert with_copy - sent == set()
        assert sent <= with_copy | self.settled_as_sent
