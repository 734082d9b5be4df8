"""The schema's numbered steps: when each may be applied, and which schemas this release can work with.

A step belongs *before* the new code or *after* it. One before only adds: releases that do not know it work on beside
it. One after takes away what only older releases need; its name ends in `.after`, so that a release that has never
heard of it can tell. From that follows what a release can work with, and what it cannot:

    it has every step before the code that the release has, or it is too old
    it has no step after the code that the release does not know, or it is too new

Nothing here asks the ledger; `migrate` does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, assert_never

from tocsin_schema.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_AFTER = ".after"
#: What a release knows whose workers do not say it: the column came with 0011.
_VERSION_OF_THE_SILENT = 9
_MOST_NAMED = 5


class Stage(StrEnum):
    """When a step is applied, seen from the release that brings it."""

    BEFORE = "before"
    """Before its code runs; the code of the release before works on."""
    AFTER = "after"
    """When no worker of an older release is alive any more."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step. `digest` is the SHA-256 of its text, so that a changed step is noticed."""

    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the step's text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def number(self) -> int:
        """The four digits that its name begins with."""
        return int(self.name[:4])

    @property
    def stage(self) -> Stage:
        """When it is applied."""
        return stage_of(self.name)


@dataclass(frozen=True, slots=True)
class LivingWorkers:
    """Worker processes of a host (in Kubernetes a pod), and the newest migration that their release has."""

    host: str
    role: str
    schema_version: int | None
    """None: a release that does not say it yet."""
    processes: int

    def knows(self, step: Migration) -> bool:
        """Whether their release was written for a ledger that has gone through the step."""
        return (self.schema_version or _VERSION_OF_THE_SILENT) >= step.number

    def __str__(self) -> str:
        return f"{self.host} ({self.role}, {self.processes} {'process' if self.processes == 1 else 'processes'})"


class OlderWorkersError(LedgerError):
    """A step that takes something away waits for workers that may still need it."""


def migrations() -> list[Migration]:
    """All steps of this release, in order."""
    folder = resources.files("tocsin_schema.ledger").joinpath("migrations")
    steps = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(step.name.removesuffix(".sql"), step.read_text(encoding="utf-8")) for step in steps]


@cache
def newest_version() -> int:
    """Give the number of this release's newest step: what its workers tell the ledger that they know."""
    return migrations()[-1].number


def stage_of(name: str) -> Stage:
    """Tell by a step's name when it is applied, also of a release that is not ours."""
    return Stage.AFTER if name.endswith(_AFTER) else Stage.BEFORE


def missing(steps: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """Decide which steps are still to be applied; `applied` maps names to digests.

    Raises LedgerError where an applied step reads otherwise today, or where the ledger has gone through a step that
    took away what this release may need.
    """
    known = {step.name for step in steps}
    if gone := sorted(name for name in applied.keys() - known if stage_of(name) is Stage.AFTER):
        raise LedgerError(
            f"The ledger has gone on to a newer release: {gone[-1]} took away what this one may need.",
            fix="Use that release, or a newer one.",
        )
    for step in steps:
        if step.name in applied and applied[step.name] != step.digest:
            raise LedgerError(
                f"Migration {step.name} was applied in another form than this release has.",
                fix="Restore the released file; a change needs a migration of its own.",
            )
    return [step for step in steps if step.name not in applied]


def needed(pending: Sequence[Migration]) -> list[Migration]:
    """Give what has to be applied before this release's code can run: all but the last ones, if they come after it.

    A step after the code of a release long ago may stand among them; later steps were written on top of it.
    """
    places = [place for place, step in enumerate(pending) if step.stage is Stage.BEFORE]
    return list(pending[: places[-1] + 1]) if places else []


def next_step(pending: Sequence[Migration], stage: Stage | None) -> Migration | None:
    """Decide which step comes next where only one stage is asked for, or both (None); None: nothing is left to do.

    Raises LedgerError where the stage after the code is asked for and the one before it is not done.
    """
    before = needed(pending)
    match stage:
        case Stage.BEFORE:
            return before[0] if before else None
        case Stage.AFTER:
            if before:
                raise LedgerError(
                    f"The ledger lacks {before[-1].name}, which comes before this release's code.",
                    fix="Run `tocsin migrate --before`, and start this release's workers.",
                )
            return pending[0] if pending else None
        case None:
            return pending[0] if pending else None
        case _:
            assert_never(stage)


def older_workers(step: Migration, workers: Sequence[LivingWorkers]) -> list[LivingWorkers]:
    """Give those whose release may still need what the step takes away."""
    return [one for one in workers if not one.knows(step)]


def wait_for(step: Migration, older: Sequence[LivingWorkers]) -> OlderWorkersError:
    """Say what a step after the code waits for, and what to do."""
    named = [str(one) for one in older[:_MOST_NAMED]]
    if len(older) > _MOST_NAMED:
        named.append(f"and {len(older) - _MOST_NAMED} more")
    return OlderWorkersError(
        f"Migration {step.name} waits: workers of an older release are alive on {', '.join(named)}.",
        fix="End them, then run `tocsin migrate --after`.",
    )


def refuse_unfit(pending: Sequence[Migration]) -> None:
    """Raise LedgerError where this release's code cannot run on the ledger yet; `pending` is what `missing` gave."""
    if lacking := needed(pending):
        raise LedgerError(
            f"The ledger lacks {lacking[-1].name}, which this release needs.", fix="Run `tocsin migrate --before`."
        )
