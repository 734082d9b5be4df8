"""Which form should the recipients' states have in the ledger? A micro-benchmark, in turns within one run.

    .venv/bin/python bench/storage_forms.py [--recipients N] [--url URL]

Three forms take the same marks and outcomes, once as a shared job makes them (a message a batch) and once as an
individual one does (a message a recipient, marked in windows). Absolute rates depend on the machine and its mood;
the ratios are what counts. Commits do not wait for the disk here, since they would in every form alike: what a form
asks of the disk is its WAL bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
from psycopg import sql

from tocsin_console.embedded import EmbeddedPostgres
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sql import split_queries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TURNS = 5
BATCH_SIZE = 50
WINDOW = 20
"""Messages that one commit marks, and whose outcomes one commit settles; as in the sender."""
REFUSED_EVERY = 20
"""Every so many recipients one is refused, so that what was sent has holes."""
WORKER_ID = UUID(int=1)

PENDING, IN_FLIGHT, SENT, FAILED = range(4)

QUERIES = split_queries((Path(__file__).parent / "storage_forms.sql").read_text(encoding="utf-8"))

FORMS = {
    "column": "(a) a state column a recipient",
    "multirange": "(b) int4multirange on the batch",
    "bit_string": "(c) bit strings on the batch",
}
CHOSEN = "bit_string"

#: One statement's worth: the messages of a window as (batch number, first index, recipients).
Window = list[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one form took."""

    seconds: float
    wal_bytes: float
    table_bytes: float
    count_seconds: float


def shared_windows(recipients: int) -> list[Window]:
    """Windows of a shared job: every message is a whole batch."""
    batches = [(number, 0, BATCH_SIZE) for number in range(recipients // BATCH_SIZE)]
    return [batches[start : start + WINDOW] for start in range(0, len(batches), WINDOW)]


def individual_windows(recipients: int) -> list[Window]:
    """Windows of an individual job: up to 20 recipients of one batch, marked and settled together."""
    return [
        [(number, first, min(WINDOW, BATCH_SIZE - first))]
        for number in range(recipients // BATCH_SIZE)
        for first in range(0, BATCH_SIZE, WINDOW)
    ]


def is_sent(ordinal: int) -> bool:
    return ordinal % REFUSED_EVERY != 0


def column_parameters(window: Window) -> dict[str, object]:
    ordinals = [number * BATCH_SIZE + first + i for number, first, size in window for i in range(size)]
    return {
        "worker_id": WORKER_ID,
        "ordinals": ordinals,
        "states": [SENT if is_sent(ordinal) else FAILED for ordinal in ordinals],
    }


def multirange_parameters(window: Window) -> dict[str, object]:
    masks: list[str] = []
    sents: list[str] = []
    for number, first, size in window:
        start = number * BATCH_SIZE + first
        masks.append(f"{{[{start},{start + size})}}")
        sent = (f"[{ordinal},{ordinal}]" for ordinal in range(start, start + size) if is_sent(ordinal))
        sents.append("{" + ",".join(sent) + "}")
    return _batch_parameters(window, masks, sents)


def bit_string_parameters(window: Window) -> dict[str, object]:
    masks: list[str] = []
    sents: list[str] = []
    for number, first, size in window:
        indexes = range(first, first + size)
        masks.append(bit_string(sum(1 << i for i in indexes), BATCH_SIZE))
        sents.append(bit_string(sum(1 << i for i in indexes if is_sent(number * BATCH_SIZE + i)), BATCH_SIZE))
    return _batch_parameters(window, masks, sents)


def _batch_parameters(window: Window, masks: list[str], sents: list[str]) -> dict[str, object]:
    numbers = [number for number, _, _ in window]
    return {"worker_id": WORKER_ID, "numbers": numbers, "masks": masks, "sents": sents, "settleds": masks}


PARAMETERS = {
    "column": column_parameters,
    "multirange": multirange_parameters,
    "bit_string": bit_string_parameters,
}


def number_of(connection: psycopg.Connection, query: str) -> float:
    row = connection.execute(QUERIES[query]).fetchone()
    assert row is not None
    return float(row[0])


@contextmanager
def own_schema(connection: psycopg.Connection) -> Iterator[None]:
    """A schema for one turn, dropped afterwards."""
    schema = f"tocsin_bench_{os.getpid()}"
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    try:
        connection.execute(QUERIES["create_schema"], {"schema": schema})
        yield
    finally:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def run_turn(connection: psycopg.Connection, form: str, windows: list[Window], recipients: int) -> Turn:
    """Fill the form's tables, mark and settle every window in two commits, and count."""
    prepared = [PARAMETERS[form](window) for window in windows]
    mark, settle = QUERIES[f"{form}_mark"], QUERIES[f"{form}_settle"]
    with own_schema(connection):
        connection.execute(QUERIES[f"{form}_tables"])
        filling = {"recipients": recipients, "batch_size": BATCH_SIZE, "worker_id": WORKER_ID}
        connection.execute(QUERIES[f"{form}_fill"], filling)
        connection.execute("ANALYZE recipients, batches")
        wal_before = number_of(connection, "wal_position")
        started = perf_counter()
        for parameters in prepared:
            connection.execute(mark, parameters)
            connection.execute(settle, parameters)
        seconds = perf_counter() - started
        wal_bytes = number_of(connection, "wal_position") - wal_before
        started = perf_counter()
        counted = connection.execute(QUERIES[f"{form}_count"]).fetchone()
        count_seconds = perf_counter() - started
        # A form that loses marks would be fast.
        assert counted is not None
        assert tuple(map(int, counted)) == (sum(map(is_sent, range(recipients))), 0), (form, counted)
        table_bytes = number_of(connection, "size_of_tables")
    return Turn(seconds, wal_bytes, table_bytes, count_seconds)


def copy_rows(recipients: int) -> bytes:
    rows = (f"1\t{o}\t{o // BATCH_SIZE}\trecipient{o * 7919 % recipients}@campus.example\n" for o in range(recipients))
    return "".join(rows).encode()


def copy_turn(connection: psycopg.Connection, data: bytes, *, second_index: bool) -> float:
    """Seconds that a COPY of all recipients takes."""
    with own_schema(connection):
        connection.execute(QUERIES["copy_tables"])
        if second_index:
            connection.execute(QUERIES["copy_second_index"])
        started = perf_counter()
        with connection.cursor() as cursor, cursor.copy(QUERIES["copy_recipients"]) as copy:
            copy.write(data)
        return perf_counter() - started


def measure(connection: psycopg.Connection, windows: list[Window], recipients: int) -> dict[str, Turn]:
    """Run every form in turns; give the medians of each."""
    turns: Mapping[str, list[Turn]] = {form: [] for form in FORMS}
    for _ in range(TURNS):
        for form, taken in turns.items():
            taken.append(run_turn(connection, form, windows, recipients))
    return {
        form: Turn(
            median(turn.seconds for turn in taken),
            median(turn.wal_bytes for turn in taken),
            median(turn.table_bytes for turn in taken),
            median(turn.count_seconds for turn in taken),
        )
        for form, taken in turns.items()
    }


def show_pattern(title: str, medians: dict[str, Turn], recipients: int) -> None:
    chosen = medians[CHOSEN]
    print(f"\n{title}")
    print(f"  {'form':<34}{'recipients/s':>13}{'ratio':>7}{'WAL B/rcpt':>12}{'table B/rcpt':>14}{'count ms':>10}")
    for form, turn in medians.items():
        print(
            f"  {FORMS[form]:<34}{recipients / turn.seconds:>13,.0f}{chosen.seconds / turn.seconds:>7.2f}"
            f"{turn.wal_bytes / recipients:>12.1f}{turn.table_bytes / recipients:>14.1f}"
            f"{turn.count_seconds * 1000:>10.2f}"
        )


def conclude(shared: dict[str, Turn], individual: dict[str, Turn], copies: tuple[float, float]) -> None:
    column, ranges, bits = (shared[form] for form in FORMS)
    column1, ranges1, bits1 = (individual[form] for form in FORMS)
    alone, second = copies
    print(
        f"""
Chosen: {FORMS[CHOSEN]} (schema/tocsin_schema/ledger/migrations/0004_jobs.sql).
  A state column costs {column.seconds / bits.seconds:.1f} times the time and {column.wal_bytes / bits.wal_bytes:.0f} \
times the WAL in shared mode,
  {column1.seconds / bits1.seconds:.1f} and {column1.wal_bytes / bits1.wal_bytes:.1f} times in individual mode, and \
{column.count_seconds / bits.count_seconds:.0f} times as long to count.
  Multiranges take {ranges.seconds / bits.seconds:.2f} (shared) and {ranges1.seconds / bits1.seconds:.2f} (individual) \
times the time of bit strings and
  {ranges.wal_bytes / bits.wal_bytes:.1f} and {ranges1.wal_bytes / bits1.wal_bytes:.1f} times the WAL: they grow with \
every hole, a bit string never does.
  One recipient's state is one get_bit; a count is one bit_count.
  No unique index on (job, address): COPY takes {second / alone:.1f} times as long with it."""
    )


def benchmark(url: str, recipients: int) -> None:
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        version = connection.info.server_version // 10000
        print(f"PostgreSQL {version}, {recipients:,} recipients, batches of {BATCH_SIZE}, medians of {TURNS} turns.")
        print("The ratio is the rate against bit strings. Each recipient is marked and settled; each 20th is refused.")
        shared = measure(connection, shared_windows(recipients), recipients)
        show_pattern(f"Shared: {BATCH_SIZE} recipients a message, {WINDOW} messages a commit", shared, recipients)
        individual = measure(connection, individual_windows(recipients), recipients)
        show_pattern(f"Individual: one recipient a message, {WINDOW} messages a commit", individual, recipients)
        data = copy_rows(recipients)
        times = [
            (copy_turn(connection, data, second_index=False), copy_turn(connection, data, second_index=True))
            for _ in range(TURNS)
        ]
        alone, second = median(one for one, _ in times), median(two for _, two in times)
        print("\nCOPY of recipients")
        print(f"  {'primary key only':<34}{recipients / alone:>13,.0f}{1:>7.2f}")
        print(f"  {'and unique (job_number, address)':<34}{recipients / second:>13,.0f}{alone / second:>7.2f}")
    conclude(shared, individual, (alone, second))


@contextmanager
def embedded_server() -> Iterator[str]:
    """An embedded Postgres of its own, as Tocsin starts it, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # under root the server runs as another user, who must pass through
        embedded = EmbeddedPostgres(directory)
        try:
            yield embedded.start()
        finally:
            embedded.destroy()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the storage forms of recipients' states.")
    parser.add_argument("--recipients", type=int, default=20_000, help="how many, a multiple of 1000 (default 20000)")
    parser.add_argument("--url", help="a postgresql:// URL where a schema may be made; default: an embedded server")
    options = parser.parse_args()
    if options.recipients < BATCH_SIZE * WINDOW or options.recipients % (BATCH_SIZE * WINDOW):
        parser.error(f"--recipients must be a multiple of {BATCH_SIZE * WINDOW}")
    if options.url:
        benchmark(options.url, options.recipients)
    else:
        with embedded_server() as url:
            benchmark(url, options.recipients)
    return 0


if __name__ == "__main__":
    sys.exit(main())
