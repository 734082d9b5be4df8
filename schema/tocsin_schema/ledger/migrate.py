"""Bringing the ledger to this release's schema: numbered steps, applied once, in order, under a lock.

An empty database is set up in one transaction. A ledger that may be in use gets each step in a transaction of its own,
and no step waits long for a lock that others then wait behind: it is undone, and tried again a little later.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from psycopg import errors

from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.migration_steps import (
    LivingWorkers,
    OlderWorkersError,
    Stage,
    migrations,
    missing,
    needed,
    next_step,
    older_workers,
    refuse_unfit,
    wait_for,
)
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.migration_steps import Migration

_QUERIES = named_queries("migrations")

#: How long a step is tried again that does not get its locks.
LOCKS_WITHIN_SECONDS = 60.0
#: Between two tries, so that all who waited behind the first get on with their work.
_REST_SECONDS = (0.5, 1.5)
#: How often it is looked whether older workers are still alive.
_LOOK_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What the ledger still lacks of this release's schema, by name, and who holds up the rest."""

    before: tuple[str, ...]
    """Needed before this release's code can run."""
    after: tuple[str, ...]
    """To be applied once no worker of an older release is alive."""
    held_up_by: tuple[LivingWorkers, ...]
    """Workers that the first of `after` waits for."""


async def migrate(
    url: str,
    stage: Stage | None = None,
    *,
    wait_seconds: float = 0.0,
    locks_within_seconds: float = LOCKS_WITHIN_SECONDS,
) -> list[str]:
    """Apply what is missing of a stage, or of both as far as that is safe (None); give the names of the steps applied.

    Workers of an older release hold up the steps after the code. They are waited for `wait_seconds`; then, where both
    stages are asked for, those steps are left for later, unless others come behind them.

    Safe when many pods start at once, and with everything at work. Raises OlderWorkersError, LedgerError.
    """
    patience_ends_at = monotonic() + wait_seconds
    applied: list[str] = []
    async with connect(url) as connection:
        while True:
            try:
                names = await _apply_patiently(connection, stage, locks_within_seconds)
            except OlderWorkersError:
                if monotonic() < patience_ends_at:
                    await asyncio.sleep(_LOOK_EVERY_SECONDS)
                    continue
                if stage is None and not needed(await _read_missing(connection)):
                    return applied
                raise
            if not names:
                return applied
            applied += names


async def read_schema_state(url: str) -> SchemaState:
    """Give what the ledger lacks, in both stages.

    Raises LedgerError, also where the ledger has gone on to a newer release that this one cannot work beside.
    """
    async with connect(url) as connection:
        pending = await _read_missing(connection)
        before = needed(pending)
        after = pending[len(before) :]
        # Before its first steps a ledger has no workers, and no table of them.
        older = older_workers(after[0], await _read_living(connection)) if after and not before else []
    return SchemaState(tuple(step.name for step in before), tuple(step.name for step in after), tuple(older))


async def check_schema(connection: Connection) -> None:
    """Raise LedgerError where this release's code cannot run on the ledger."""
    refuse_unfit(await _read_missing(connection))


async def _apply_patiently(connection: Connection, stage: Stage | None, within_seconds: float) -> list[str]:
    """Apply the next step as soon as it gets its locks; give the names of what was applied. Raises LedgerError."""
    give_up_at = monotonic() + within_seconds
    while True:
        try:
            return await _apply_next(connection, stage)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if monotonic() > give_up_at:
                raise await _explain_lock(connection, within_seconds) from error
        await asyncio.sleep(random.uniform(*_REST_SECONDS))  # noqa: S311 - spreads tries, and keeps no secret


async def _apply_next(connection: Connection, stage: Stage | None) -> list[str]:
    """Apply the next step, in an empty database all steps, in one transaction; give their names."""
    done: list[str] = []
    async with connection.transaction():
        await connection.execute(_QUERIES["lock_migrations"])
        await connection.execute(_QUERIES["create_schema_migrations"])
        await connection.execute(_QUERIES["take_short_locks"])
        applied = await _read_applied(connection)
        is_new = not applied
        while (step := next_step(missing(migrations(), applied), stage)) is not None:
            if step.stage is Stage.AFTER:
                await _refuse_beside_older_workers(connection, step)
            await connection.execute(step.sql.encode())
            await connection.execute(_QUERIES["note_migration"], {"name": step.name, "digest": step.digest})
            applied[step.name] = step.digest
            done.append(step.name)
            if not is_new:
                break
    return done


async def _refuse_beside_older_workers(connection: Connection, step: Migration) -> None:
    """Raise OlderWorkersError where a worker is alive that may need what the step takes away.

    No worker registers between this and the step's commit; whoever does afterwards checks the schema then.
    """
    await connection.execute(_QUERIES["hold_workers"])
    if older := older_workers(step, await _read_living(connection)):
        raise wait_for(step, older)


async def _explain_lock(connection: Connection, waited_seconds: float) -> LedgerError:
    """Say that no lock was to be had, and who has most likely held it."""
    async with connection.transaction():
        row = await (await connection.execute(_QUERIES["oldest_transaction"])).fetchone()
    holder = "" if row is None else f" The oldest transaction is of process {row[0]} ({row[1]}), {row[2]:.0f} s old."
    return LedgerError(
        f"A migration did not get its locks within {waited_seconds:.0f} s, and was undone.{holder}",
        fix="End what holds them (a backup, a session that was left open), then run `tocsin migrate` again.",
    )


async def _read_missing(connection: Connection) -> list[Migration]:
    known = await (await connection.execute(_QUERIES["has_schema_migrations"])).fetchone()
    if known is None or not known[0]:
        return migrations()
    return missing(migrations(), await _read_applied(connection))


async def _read_applied(connection: Connection) -> dict[str, str]:
    rows = await (await connection.execute(_QUERIES["applied_migrations"])).fetchall()
    return {str(name): str(digest) for name, digest in rows}


async def _read_living(connection: Connection) -> list[LivingWorkers]:
    rows = await (await connection.execute(_QUERIES["living_workers"])).fetchall()
    return [LivingWorkers(*row) for row in rows]
