"""Bringing the ledger to this release's schema: numbered migrations, applied once, under a lock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_QUERIES = named_queries("migrations")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step. `digest` is the SHA-256 of its text, so that a changed step is noticed."""

    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the step's text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All steps of this release, in order."""
    folder = resources.files("tocsin_schema.ledger").joinpath("migrations")
    steps = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(step.name.removesuffix(".sql"), step.read_text(encoding="utf-8")) for step in steps]


def missing(steps: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """Decide which steps are still to be applied; `applied` maps names to digests.

    Raises LedgerError where an applied step reads otherwise today, or where the ledger is ahead of this release.
    """
    known = {step.name for step in steps}
    if newer := sorted(applied.keys() - known):
        raise LedgerError(
            f"The ledger was set up by a newer release (it has {newer[-1]}).", fix="Run this command from that release."
        )
    for step in steps:
        if step.name in applied and applied[step.name] != step.digest:
            raise LedgerError(
                f"Migration {step.name} was applied in another form than this release has.",
                fix="Restore the released file; a change needs a migration of its own.",
            )
    return [step for step in steps if step.name not in applied]


async def migrate(url: str) -> list[str]:
    """Apply what is missing, in one transaction under a lock; give the names of the steps applied.

    Safe when many pods start at once: one applies, the others wait and find nothing left to do.
    Raises LedgerError.
    """
    async with connect(url) as connection:
        await connection.execute(_QUERIES["lock_migrations"])
        await connection.execute(_QUERIES["create_schema_migrations"])
        rows = await (await connection.execute(_QUERIES["applied_migrations"])).fetchall()
        todo = missing(migrations(), {str(name): str(digest) for name, digest in rows})
        for step in todo:
            await connection.execute(step.sql.encode())
            await connection.execute(_QUERIES["note_migration"], {"name": step.name, "digest": step.digest})
    return [step.name for step in todo]


async def pending_migrations(url: str) -> list[str]:
    """Give the names of the steps that the ledger still lacks; an empty list means that it fits this release.

    Raises LedgerError.
    """
    async with connect(url) as connection:
        known = await (await connection.execute(_QUERIES["has_schema_migrations"])).fetchone()
        if known is None or not known[0]:
            return [step.name for step in migrations()]
        rows = await (await connection.execute(_QUERIES["applied_migrations"])).fetchall()
    return [step.name for step in missing(migrations(), {str(name): str(digest) for name, digest in rows})]
