"""Cutting a long list of recipients into parts, in flat memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.encoding import encode_part, encoded_recipient_size
from tocsin_schema.contract.part import (
    MAX_OCTETS,
    MAX_PART_NUMBER,
    MAX_RECIPIENTS,
    JobPart,
    PartPosition,
    Recipient,
)
from tocsin_schema.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def split_job(
    job: JobPart,
    recipients: Iterable[Recipient],
    *,
    max_recipients: int = MAX_RECIPIENTS,
    max_octets: int = MAX_OCTETS,
) -> Iterator[JobPart]:
    """Yield the parts of a job, each within both limits; attachments travel in part 1 only.

    `job` carries the fields that every part repeats; its own `recipients` and `part` are not looked at.
    `recipients` is read once, one entry ahead of the part that is handed out, since the last part says so.
    Raises ContractError (no_recipients, too_large) while it is iterated.
    """
    later_room = _room(replace(job, attachments=()), max_octets)
    number, room = 1, _room(job, max_octets)
    gathered: list[Recipient] = []
    for index, recipient in enumerate(recipients):
        size = encoded_recipient_size(recipient)
        if gathered and (size > room or len(gathered) == max_recipients):
            yield _part(job, number, gathered, last=False)
            number, room, gathered = number + 1, later_room, []
        if size > room:
            raise _recipient_too_large(index, max_octets)
        gathered.append(recipient)
        room -= size
    if not gathered:
        raise ContractError(
            ContractCode.NO_RECIPIENTS,
            "The job has no recipients.",
            field="recipients",
            fix="Give at least one.",
        )
    yield _part(job, number, gathered, last=True)


def _part(job: JobPart, number: int, recipients: list[Recipient], *, last: bool) -> JobPart:
    return replace(
        job,
        part=PartPosition(number=number, last=last),
        recipients=tuple(recipients),
        attachments=job.attachments if number == 1 else (),
    )


def _room(job: JobPart, max_octets: int) -> int:
    """Return the octets that are left for recipients beside the job's own fields."""
    empty = replace(job, recipients=(), part=PartPosition(number=MAX_PART_NUMBER, last=False))
    room = max_octets - len(encode_part(empty))
    if room <= 0:
        raise ContractError(
            ContractCode.TOO_LARGE,
            f"The job without its recipients is larger than the {max_octets} octets of a part.",
            fix="Make the attachments, the content or the data smaller.",
        )
    return room


def _recipient_too_large(index: int, max_octets: int) -> ContractError:
    return ContractError(
        ContractCode.TOO_LARGE,
        f"Recipient {index} and the job's own fields do not fit into the {max_octets} octets of a part.",
        field=f"recipients[{index}]",
        fix="Make this recipient's data smaller.",
    )
