"""Does a recipient of a very large job cost what one of a small job costs, also in a ledger that is already full?

    .venv/bin/python -m bench.linear [--mode shared|individual] [--sizes 10000,100000,1000000] [--filled 10000000]
                                     [--rounds 3] [--processes N]

Jobs of each size, in turn, in an empty ledger; then the same after so many recipients of finished jobs were put into
it. `--filled 0` leaves that out.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Final

import psycopg

from bench.contestants.tocsin import Tocsin, publish
from bench.filled_ledger import multiply
from bench.mail import Load, Mode
from bench.routes import Route, mail_server
from bench.servers import Servers
from bench.throughput import WARM_UP, Turn, take_turn
from tocsin_producers import Publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Recipients of the job that is multiplied.
MODEL_RECIPIENTS: Final = 10_000

_SIZE: Final = "SELECT pg_size_pretty(pg_database_size(current_database())), (SELECT count(*) FROM recipients)"


@dataclass(frozen=True, slots=True)
class Figure:
    """The medians of the turns of one size."""

    filled: int
    size: int
    rate: float
    cpu_a_thousand: float
    """CPU seconds of workers, Postgres and RabbitMQ for a thousand recipients."""
    memory: float


def fill(tocsin: Tocsin, database_url: str, recipients: int, mode: Mode) -> None:
    """Put finished jobs with so many recipients into the ledger."""
    load = Load(mode, MODEL_RECIPIENTS, "model")
    try:
        tocsin.start()
        with Publisher(broker_url=tocsin.broker_url) as publisher:
            model = publish(publisher, load)
        tocsin.wait(model, load)
    finally:
        tocsin.stop()
    with psycopg.connect(database_url, autocommit=True) as connection:
        begun = perf_counter()
        multiply(connection, model, recipients // MODEL_RECIPIENTS)
        row = connection.execute(_SIZE).fetchone()
        assert row is not None
        print(f"filled in {perf_counter() - begun:.0f} s: {row[1]:,} recipients, {row[0]}", flush=True)


def figure(turns: Sequence[Turn], *, filled: int) -> Figure:
    size = turns[0].recipients
    spent = [sum(turn.cost.cpu.get(name, 0.0) for name in ("workers", "postgres", "rabbitmq")) for turn in turns]
    rate = median(turn.rate for turn in turns)
    return Figure(filled, size, rate, 1_000 * median(spent) / size, max(turn.memory for turn in turns))


def print_figure(one: Figure, turns: Sequence[Turn]) -> None:
    stolen = median(turn.cost.stolen for turn in turns)
    print(
        f"{one.filled:>11,} {one.size:>10,} {one.rate:>10,.0f}/s {one.cpu_a_thousand:>10.4f} s"
        f" {one.memory:>8.0f} MiB {stolen:>7.1%}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.SHARED)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--filled", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    with Servers() as servers:
        database_url = servers.postgres.create_database()
        tocsin = Tocsin(
            servers.directory, database_url, servers.rabbitmq.create_vhost(), mail_server(servers, Route.SINK),
            processes=arguments.processes,
        )  # fmt: skip
        print(f"{'in ledger':>11} {'job':>10} {'rate':>12} {'CPU/1000':>12} {'memory':>12} {'stolen':>7}")
        for filled in (0, arguments.filled) if arguments.filled else (0,):
            if filled:
                fill(tocsin, database_url, filled, arguments.mode)
            turns: dict[int, list[Turn]] = {size: [] for size in sizes}
            for number in range(arguments.rounds):
                for size in sizes if number % 2 == 0 else reversed(sizes):
                    load = Load(arguments.mode, size, f"{filled}-{number}-{size}")
                    turns[size].append(take_turn(tocsin, load, warm_up=WARM_UP, shared_groups=servers.groups))
            for size in sizes:
                print_figure(figure(turns[size], filled=filled), turns[size])
    return 0


if __name__ == "__main__":
    sys.exit(main())
