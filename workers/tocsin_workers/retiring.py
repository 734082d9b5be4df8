"""Removing the months that are older than RetentionDays, while everything else goes on. Safe in every pod."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, assert_never

import structlog
from psycopg import errors
from psycopg.pq import TransactionStatus

from tocsin_schema.ledger import retention
from tocsin_schema.ledger.installation_settings import read_in_force
from tocsin_schema.ledger.retention import Attach, Detach, Drop, Finalize, Month, Step, months_due, next_step
from tocsin_schema.ledger.sending_halt import read_halt

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection, Pool

_log = structlog.get_logger(__name__)

#: How long a detachment waits for whoever is using the table. What it began is ended next time.
PATIENCE_SECONDS = 60.0

#: What says that another pod was faster, or that somebody uses the table: the rest is left for the next time.
_NOT_NOW = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.ObjectNotInPrerequisiteState,  # it is being detached already
    errors.UndefinedTable,  # it is not there, or not a partition, any more
    errors.WrongObjectType,
    errors.DuplicateTable,
    TimeoutError,
)


class Retirement:
    """Removes old months; tells once where it is not allowed to."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._has_told = False

    async def retire_months(self) -> list[Month]:
        """Remove every month that is due and in which nothing is unfinished; give those that are gone.

        Nothing is removed while all sending is halted: somebody is just looking at what there is. Then a month that is
        on its way out comes back.
        """
        gone: list[Month] = []
        try:
            async with self._pool.connection() as connection:
                is_halted = await read_halt(connection) is not None
                days = (await read_in_force(connection)).retention_days
                now = await retention.read_now(connection)
                months = await retention.read_month_tables(connection)
            due = [] if is_halted else months_due(months, now=now, retention_days=days)
            for month in sorted(months):
                if await self._is_gone(month, is_due=month in due):
                    gone.append(month)
                    _log.info("a month's jobs were removed", month=month.suffix, retention_days=days)
        except errors.InsufficientPrivilege as error:
            if not self._has_told:
                _log.error(
                    "old jobs are not removed: the ledger's user does not own its tables; give them to it, or set "
                    "RetentionDays to 0",
                    reason=str(error).splitlines()[0],
                )
            self._has_told = True
        return gone

    async def _is_gone(self, month: Month, *, is_due: bool) -> bool:
        """Do whatever can be done about a month now; whether it is gone."""
        try:
            while (step := await self._next_step(month, is_due=is_due)) is not None:
                if not await self._take(step, month):
                    return False
                if isinstance(step, Drop):
                    return True
        except _NOT_NOW as error:
            _log.info("removing a month goes on later", month=month.suffix, because=type(error).__name__)
        return False

    async def _next_step(self, month: Month, *, is_due: bool) -> Step | None:
        async with self._pool.connection() as connection:
            tables = (await retention.read_month_tables(connection)).get(month, {})
            if not is_due or not tables:
                return next_step(tables, is_to_go=False)
            return next_step(tables, is_to_go=not await retention.is_held(connection, month))

    async def _take(self, step: Step, month: Month) -> bool:
        """Take a step; False where another pod is at one."""
        match step:
            case Detach(parent):
                await self._detach(month, parent)
                return True
            case Finalize(parent):
                async with self._pool.connection() as connection:
                    is_ours = await retention.try_lock_step(connection)
                    if is_ours:
                        await retention.finalize(connection, month, parent)
                return is_ours
            case Attach(parent):
                async with self._pool.connection() as connection:
                    is_ours = await retention.try_lock_step(connection)
                    if is_ours:
                        await retention.attach(connection, month, parent)
                return is_ours
            case Drop(parents):
                return await self._drop(month, parents)
            case _:
                assert_never(step)

    async def _detach(self, month: Month, parent: str) -> None:
        async with self._pool.connection() as connection:
            await connection.set_autocommit(True)
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await retention.detach(connection, month, parent)
            finally:
                await _end_autocommit(connection)

    async def _drop(self, month: Month, parents: tuple[str, ...]) -> bool:
        while True:
            async with self._pool.connection() as connection:
                if not await retention.try_lock_step(connection):
                    return False
                if not await retention.forget_job_ids(connection, month):
                    break
        async with self._pool.connection() as connection:
            # An id that somebody has locked just now is left for the next time.
            if not await retention.try_lock_step(connection) or await retention.has_job_ids(connection, month):
                return False
            await retention.drop(connection, month, parents)
        return True


async def _end_autocommit(connection: Connection) -> None:
    """Give a connection back as the pool lends it; one that still runs our statement is given up."""
    if connection.info.transaction_status is TransactionStatus.IDLE:
        await connection.set_autocommit(False)
    else:
        await connection.close()
