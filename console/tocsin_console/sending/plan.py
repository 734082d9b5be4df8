"""What a job comes to: everything about it that can be known without a server, found out before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tocsin_producers import PreparedPart, prepare_parts
from tocsin_schema.contract.digest import job_digest, part_digest
from tocsin_schema.contract.identity import job_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from tocsin_schema.contract.part import JobPart, Recipient
    from tocsin_schema.contract.recipient_list import ValidPart


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job that keeps the contract from its first part to its last."""

    id: UUID
    first: ValidPart = field(repr=False)
    digest: bytes
    """Of what all parts repeat, as intake compares it."""
    part_digests: tuple[bytes, ...] = field(repr=False)
    recipients: int
    """Recipients that the ledger will account for, the malformed ones included."""
    duplicates: int
    """Entries that are dropped, since their address stood earlier in the list."""
    invalid: int

    @property
    def parts(self) -> int:
        """How many parts it is cut into."""
        return len(self.part_digests)


def plan_job(job: JobPart, recipients: Iterable[Recipient]) -> JobPlan:
    """Read the whole list and validate every part of the job. Raises ContractError, and what `recipients` raises."""
    first: PreparedPart | None = None
    digests: list[bytes] = []
    accepted = duplicates = invalid = 0
    for part in prepare_parts(job, recipients):
        first = first or part
        digests.append(part_digest(part.valid.part))
        accepted += len(part.valid.recipients) + len(part.valid.rejected)
        duplicates += part.valid.duplicates
        invalid += len(part.valid.rejected)
    assert first is not None
    return JobPlan(
        id=job_id(first.valid.part),
        first=first.valid,
        digest=job_digest(first.valid.part),
        part_digests=tuple(digests),
        recipients=accepted,
        duplicates=duplicates,
        invalid=invalid,
    )
