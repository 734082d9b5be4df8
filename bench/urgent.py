"""How soon does urgent mail go out while a very large bulk job is taken in and sent at full speed?

    .venv/bin/python -m bench.urgent [--bulk 1000000] [--tries 50] [--recipients 100] [--mode individual|shared]

The bulk job is in shared mode, and when one is finished the next one is published. A try is an urgent job; its times
run from before it is published to the first and the last acceptance by the mail server, as the email copies have them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

import psycopg

from bench.contestants.client_process import ROOT
from bench.contestants.tocsin import Tocsin, publish
from bench.mail import Load, Mode
from bench.measuring import measured, peak_memory
from bench.routes import Route, mail_server
from bench.servers import Servers
from tocsin_producers import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

FIRST_WITHIN: Final = 1.0
LAST_WITHIN: Final = 3.0
#: Seconds, so that tries fall on different moments of a slice and of a checkpoint.
PAUSES: Final = (0.0, 0.13, 0.29, 0.47, 0.71)

_ACCEPTED: Final = """
SELECT min(c.accepted_at), max(c.accepted_at), sum(bit_count(c.recipients))
FROM jobs j JOIN email_copies c ON c.job_number = j.number
WHERE j.id = %s
"""
_BULK: Final = "SELECT state FROM jobs WHERE rank = 2 ORDER BY number DESC LIMIT 1"
_BULK_SENT: Final = (
    "SELECT coalesce(sum(bit_count(b.sent)), 0) FROM batches b JOIN jobs j ON j.number = b.job_number WHERE j.rank = 2"
)


@dataclass(frozen=True, slots=True)
class Try:
    """One urgent job; seconds from before its publishing."""

    first: float
    last: float
    bulk_was: str
    """The bulk job's state: `receiving` while it is still taken in."""


class Bulk:
    """A process that publishes bulk jobs, one whenever it is told to."""

    def __init__(self, broker_url: str, recipients: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.urgent", "produce", broker_url, str(recipients)],
            cwd=ROOT, stdin=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def process_id(self) -> int:
        return self._process.pid

    def publish(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("publish\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def produce(broker_url: str, recipients: int) -> None:
    """Publish a bulk job for every line of standard input."""
    with Publisher(broker_url=broker_url) as publisher:
        for number, _ in enumerate(sys.stdin):
            publish(publisher, Load(Mode.SHARED, recipients, f"bulk-{number}"), priority="bulk")


def tries(
    tocsin: Tocsin,
    bulk: Bulk,
    ledger: psycopg.Connection[tuple[object, ...]],
    *,
    load: Load,
    tell: Callable[[Try], None],
) -> Iterator[Try]:
    """Publish one urgent job after the other, for as long as somebody asks for more."""
    bulk.publish()
    _wait_until(lambda: _bulk_sent(ledger) > 0, "the bulk job begins")
    with Publisher(broker_url=tocsin.broker_url) as publisher:
        for pause in cycle(PAUSES):
            time.sleep(pause)
            if _bulk_state(ledger) == "finished":
                bulk.publish()
                _wait_until(lambda: _bulk_state(ledger) != "finished", "the next bulk job begins")
            done = _try(tocsin, publisher, ledger, load)
            tell(done)
            yield done


def _try(tocsin: Tocsin, publisher: Publisher, ledger: psycopg.Connection[tuple[object, ...]], load: Load) -> Try:
    bulk_was = _bulk_state(ledger)
    begun = datetime.now(UTC)
    job_id: UUID = publish(publisher, load, priority="urgent")
    tocsin.wait(job_id, load)
    row = ledger.execute(_ACCEPTED, (job_id,)).fetchone()
    assert row is not None
    first, last, recipients = row
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    assert recipients == load.recipients
    return Try((first - begun).total_seconds(), (last - begun).total_seconds(), bulk_was)


def _bulk_state(ledger: psycopg.Connection[tuple[object, ...]]) -> str:
    row = ledger.execute(_BULK).fetchone()
    return "" if row is None else str(row[0])


def _bulk_sent(ledger: psycopg.Connection[tuple[object, ...]]) -> int:
    row = ledger.execute(_BULK_SENT).fetchone()
    assert row is not None
    return int(str(row[0]))


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within a minute: {what}")
        time.sleep(0.05)


def print_try(one: Try) -> None:
    print(f"{one.first:>8.2f} s {one.last:>8.2f} s   bulk {one.bulk_was}", flush=True)


def print_summary(found: Sequence[Try]) -> None:
    print(f"\n{'tries':>6} {'':>16} {'median':>9} {'9 of 10':>9} {'worst':>9}")
    for state in ("receiving", "running", "either"):
        those = [one for one in found if state in {one.bulk_was, "either"}]
        if len(those) < 2:  # nothing to take quantiles of
            continue
        for name, times in (("first", [one.first for one in those]), ("last", [one.last for one in those])):
            ninth = quantiles(times, n=10, method="inclusive")[-1]
            figures = "".join(f"{seconds:>8.2f} s" for seconds in (median(times), ninth, max(times)))
            print(f"{len(those):>6} {state + ', ' + name:>16}{figures}")


def main() -> int:
    match sys.argv[1:]:
        case ["produce", broker_url, recipients]:
            produce(broker_url, int(recipients))
            return 0
        case _:
            pass
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulk", type=int, default=1_000_000, help="recipients of the bulk job")
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--recipients", type=int, default=100, help="recipients of an urgent job")
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.INDIVIDUAL, help="of the urgent job")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    load = Load(arguments.mode, arguments.recipients, "urgent")
    with Servers() as servers:
        database_url = servers.postgres.create_database()
        tocsin = Tocsin(
            servers.directory, database_url, servers.rabbitmq.create_vhost(), mail_server(servers, Route.SINK),
            processes=arguments.processes,
        )  # fmt: skip
        bulk = Bulk(tocsin.broker_url, arguments.bulk)
        try:
            tocsin.start()
            tocsin.send(Load(Mode.SHARED, 1_000, "warm"))
            with psycopg.connect(database_url, autocommit=True) as ledger:
                groups = {**servers.groups(), **tocsin.groups(), "producer": [bulk.process_id]}
                found: list[Try] = []
                with measured(groups) as cost:
                    for one in tries(tocsin, bulk, ledger, load=load, tell=print_try):
                        found.append(one)
                        if len(found) == arguments.tries:
                            break
                sent = _bulk_sent(ledger)
            memory = max(map(peak_memory, tocsin.worker_ids()), default=0.0)
        finally:
            bulk.stop()
            tocsin.stop()
    print_summary(found)
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in cost.cpu.items())
    print(
        f"\nMeanwhile {sent:,} bulk recipients in {cost.seconds:.0f} s ({sent / cost.seconds:,.0f}/s);"
        f" stolen {cost.stolen:.1%}, workers at most {memory:.0f} MiB.\nCPU seconds: {spent}."
    )
    return 0 if max(one.first for one in found) <= FIRST_WITHIN and max(one.last for one in found) <= LAST_WITHIN else 3


if __name__ == "__main__":
    sys.exit(main())
