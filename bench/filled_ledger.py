"""Fill a ledger with finished jobs: one that was really sent, multiplied in SQL.

Every row of the model comes again under another job number, in every table that has one, so that the rows are what the
present release writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

if TYPE_CHECKING:
    from uuid import UUID

    import psycopg

#: Copies of the model in one transaction.
AT_A_TIME: Final = 50

# What differs between copies: their number and id. Other columns with values of their own get new ones.
_COPIES: Final = """
CREATE TEMPORARY TABLE copies AS
SELECT j.number AS model, j.number - step AS number, gen_random_uuid() AS id, step
FROM jobs j, generate_series(1, %(copies)s::integer) AS step
WHERE j.id = %(model)s
"""
_TABLES: Final = """
SELECT c.table_name
FROM information_schema.columns c
JOIN pg_class t ON t.relname = c.table_name AND t.relnamespace = 'public'::regnamespace
WHERE c.table_schema = 'public' AND c.column_name = 'job_number' AND t.relkind IN ('r', 'p') AND NOT t.relispartition
  AND c.table_name = ANY (partitioned_tables() || '{job_ids}')
"""
_COLUMNS: Final = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = %s AND is_identity = 'NO' AND column_default IS NULL
   OR table_schema = 'public' AND table_name = %s AND column_default NOT LIKE 'nextval%%'
ORDER BY ordinal_position
"""


def multiply(connection: psycopg.Connection[tuple[object, ...]], model: UUID, copies: int) -> None:
    """Copy a finished job so many times. `connection` has to be in autocommit mode."""
    connection.execute(_COPIES, {"model": model, "copies": copies})
    # The tables' rows are as those of a ledger that had its time to settle: no commit has to wait for the disk.
    connection.execute("SET synchronous_commit = off")
    tables = [("jobs", "number"), *((str(name), "job_number") for (name,) in connection.execute(_TABLES).fetchall())]
    for first in range(1, copies + 1, AT_A_TIME):
        with connection.transaction():
            for table, key in tables:
                connection.execute(_copying(connection, table, key), {"first": first, "last": first + AT_A_TIME - 1})
    connection.execute("DROP TABLE copies")
    connection.execute("RESET synchronous_commit")
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


def _copying(connection: psycopg.Connection[tuple[object, ...]], table: str, key: str) -> sql.Composed:
    columns = [str(name) for (name,) in connection.execute(_COLUMNS, (table, table)).fetchall()]
    new = {key: sql.SQL("copies.number"), **({"id": sql.SQL("copies.id")} if table in {"jobs", "job_ids"} else {})}
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM copies JOIN {table} AS made ON made.{key} = copies.model"
        " WHERE copies.step BETWEEN %(first)s AND %(last)s"
    ).format(
        table=sql.Identifier(table),
        key=sql.Identifier(key),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(new.get(name, sql.Identifier("made", name)) for name in columns),
    )
