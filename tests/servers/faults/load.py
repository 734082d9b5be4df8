"""The jobs that are published while things break: a seeded mix. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from tocsin_schema.contract.part import Content, JobPart, Mode, OnUnknown, Priority

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

#: Every sort of job is in every wave, before the fault and in its midst.
SORTS = (
    (Mode.INDIVIDUAL, OnUnknown.RESEND),
    (Mode.INDIVIDUAL, OnUnknown.HOLD),
    (Mode.SHARED, OnUnknown.RESEND),
    (Mode.SHARED, OnUnknown.HOLD),
)
#: Of the recipients; shared jobs have more of them, since they go out in batches.
_SHARES = (0.3, 0.2, 0.3, 0.2)
_HEAVY_RECIPIENTS = 6
_HEAVY_OCTETS = 300_000
_RANKS = (Priority.URGENT, Priority.NORMAL, Priority.BULK)


@dataclass(frozen=True, slots=True)
class LoadJob:
    """A job of the load: its fields and its recipients."""

    part: JobPart
    addresses: tuple[str, ...]

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.part.id)

    @property
    def holds(self) -> bool:
        """Whether nobody may be sent to twice, whatever happens."""
        return self.part.on_unknown is OnUnknown.HOLD


@dataclass(frozen=True, slots=True)
class Wave:
    """Jobs that are under way when a fault strikes, and jobs that are published while it lasts."""

    before: tuple[LoadJob, ...]
    amidst: tuple[LoadJob, ...]


def wave(choice: Random, prefix: str, recipients: int, profiles: Sequence[str]) -> Wave:
    """Give a wave of jobs, in any order; one has a body that does not fit into one packet.

    Addresses begin with `prefix`, so that no two waves have one in common.
    """
    before, amidst = (_half(choice, f"{prefix}-{half}", recipients // 2, profiles) for half in "ab")
    profile, sort = choice.choice(list(profiles)), choice.choice(SORTS)
    heavy = _job(choice, f"{prefix}-heavy", _HEAVY_RECIPIENTS, profile, sort, text=_HEAVY_TEXT)
    return Wave(tuple(before), (*amidst, heavy))


def _half(choice: Random, prefix: str, recipients: int, profiles: Sequence[str]) -> list[LoadJob]:
    # Turn about, so that every profile has mail before the fault and in its midst.
    turns = itertools.cycle(choice.sample(list(profiles), len(profiles)))
    jobs = [
        _job(choice, f"{prefix}{place}", max(1, round(recipients * share)), next(turns), sort, text=_TEXT)
        for place, (sort, share) in enumerate(zip(SORTS, _SHARES, strict=True))
    ]
    choice.shuffle(jobs)
    return jobs


_TEXT = "Please leave the building.\r\n.\r\n..and use the stairs.\r\n"
_HEAVY_TEXT = "All about the evacuation of the building.\r\n" * (_HEAVY_OCTETS // 43)


def _job(
    choice: Random,
    prefix: str,
    recipients: int,
    profile: str,
    sort: tuple[Mode, OnUnknown],
    *,
    text: str,
) -> LoadJob:
    mode, on_unknown = sort
    part = JobPart(
        id=UUID(int=choice.getrandbits(128), version=4),
        profile=profile,
        mode=mode,
        on_unknown=on_unknown,
        priority=choice.choice(_RANKS),
        content=Content(subject=f"Evacuation {prefix}", text=text),
        recipients=(),
    )
    return LoadJob(part, tuple(f"{prefix}-{number}@campus.example" for number in range(recipients)))
