"""Templates and their versions. Every change makes a version; a job keeps the one that it was taken in with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from psycopg import errors
from psycopg.rows import class_row

from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger.sql import named_queries

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection

_QUERIES = named_queries("templates")


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSource:
    """What an operator writes: texts with tags. One body at least is there."""

    subject: str
    text_body: str | None = None
    html_body: str | None = None
    from_name: str | None = None
    reply_to_address: str | None = None


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """One version of a template. `updated_at` is when this version was made."""

    id: UUID
    name: str
    version: int
    subject: str
    text_body: str | None
    html_body: str | None
    from_name: str | None
    reply_to_address: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def source(self) -> TemplateSource:
        """What an operator wrote."""
        return TemplateSource(
            subject=self.subject,
            text_body=self.text_body,
            html_body=self.html_body,
            from_name=self.from_name,
            reply_to_address=self.reply_to_address,
        )


async def add_template(connection: Connection, name: str, source: TemplateSource) -> None:
    """Write version 1 of a new template. Raises UsageError where the name is taken."""
    try:
        await connection.execute(_QUERIES["insert_template"], {"name": name, **asdict(source)})
    except errors.UniqueViolation:
        raise UsageError(
            f"There is already a template {name!r}.",
            fix=f"Take another name, or make a new version of it with `tocsin template set {name}`.",
            scope=Scope.TEMPLATE,
        ) from None


async def read_templates(connection: Connection) -> list[StoredTemplate]:
    """Read the newest version of every template, by name."""
    async with connection.cursor(row_factory=class_row(StoredTemplate)) as cursor:
        await cursor.execute(_QUERIES["list_templates"])
        return await cursor.fetchall()


async def read_template(connection: Connection, name: str, version: int | None = None) -> StoredTemplate:
    """Read a version of a template, by default the newest. Raises UsageError where there is none."""
    query = "read_template" if version is None else "read_template_version"
    async with connection.cursor(row_factory=class_row(StoredTemplate)) as cursor:
        await cursor.execute(_QUERIES[query], {"name": name, "version": version})
        template = await cursor.fetchone()
    if template is not None:
        return template
    if version is not None:
        newest = await read_template(connection, name)
        raise UsageError(
            f"The template {name!r} has no version {version}.",
            fix=f"Its versions are 1 to {newest.version}.",
            scope=Scope.TEMPLATE,
        )
    raise UsageError(f"There is no template {name!r}.", fix="See `tocsin template list`.", scope=Scope.TEMPLATE)


async def lock_template(connection: Connection, name: str) -> StoredTemplate:
    """Read the newest version and keep others from changing it until the transaction ends. Raises UsageError."""
    await connection.execute(_QUERIES["lock_template"], {"name": name})
    return await read_template(connection, name)


async def write_template(connection: Connection, template: StoredTemplate, source: TemplateSource) -> int:
    """Write the next version of a template that `lock_template` gave; give its number."""
    cursor = await connection.execute(_QUERIES["write_template"], {"id": template.id, **asdict(source)})
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def remove_template(connection: Connection, name: str) -> None:
    """Remove a template with all its versions.

    Raises UsageError where there is none, or while unfinished jobs name it: their parts may still come.
    """
    template = await lock_template(connection, name)
    cursor = await connection.execute(_QUERIES["count_unfinished_jobs"], {"id": template.id})
    row = await cursor.fetchone()
    unfinished = int(row[0]) if row is not None else 0
    if unfinished:
        raise UsageError(
            f"The template {name!r} is still used by {unfinished} unfinished {'job' if unfinished == 1 else 'jobs'}.",
            fix="Wait until they are finished (`tocsin job list --open`).",
            scope=Scope.TEMPLATE,
        )
    await connection.execute(_QUERIES["delete_template"], {"id": template.id})
