"""What does it cost to be scraped?

    .venv/bin/python -m bench.exposition [--processes 2] [--profiles 20] [--scrapes 20] [--open 200000]
                                         [--filled 1000000]

A supervisor whose workers have sent for each profile is scraped as Prometheus does it: with a nearly empty ledger, then
with so many recipients of finished jobs, then also with so many of an open one. Scrapes come faster than in life, but
not so fast that the ledger is not counted anew; told is what they cost at one in 15 seconds. Workers idle meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psutil

from bench.contestants.tocsin import NAME_TAG, PROFILE, Tocsin
from bench.linear import fill
from bench.mail import Load, Mode, individual_subject, individual_text
from bench.measuring import cpu_seconds
from bench.routes import Route, mail_server
from bench.servers import Servers
from tocsin_producers import Content, Publisher, Recipient
from tocsin_workers.supervising.counting import FRESH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

#: Prometheus's own default is a minute; most set 15 seconds.
SCRAPED_EVERY: Final = 15.0
#: As Prometheus asks.
HEADERS: Final = {"Accept": "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "Accept-Encoding": "gzip"}
CONTENT: Final = Content(individual_subject(NAME_TAG), individual_text(NAME_TAG))


@dataclass(frozen=True, slots=True)
class Figure:
    """What scrapes cost."""

    case: str
    idle: float
    """CPU seconds a second of the supervisor while nobody scrapes."""
    a_scrape: float
    """CPU seconds that a scrape costs the supervisor beyond that."""
    postgres: float
    """CPU seconds that a scrape costs Postgres beyond what its idle workers ask."""
    longest: float
    """Seconds that a scrape took at most."""
    octets: int

    @property
    def share(self) -> float:
        """Of a core, at a scrape in `SCRAPED_EVERY` seconds."""
        return self.a_scrape / SCRAPED_EVERY


def add_profiles(tocsin: Tocsin, server_options: Sequence[str], profiles: int) -> list[str]:
    """Make more profiles like the first one; give all their names."""
    names = [PROFILE, *(f"{PROFILE}-{number}" for number in range(1, profiles))]
    for name in names[1:]:
        tocsin.installation.tocsin("profile", "add", name, *server_options)
    return names


def send_for_each(tocsin: Tocsin, names: Sequence[str], *, recipients: int) -> None:
    """Send a small job for each profile, so that its series are there."""
    jobs: list[UUID] = []
    with Publisher(broker_url=tocsin.broker_url) as publisher:
        for name in names:
            jobs.append(uuid4())
            people = [Recipient(f"r{number}@campus.example", "Somebody") for number in range(recipients)]
            publisher.publish(id=jobs[-1], profile=name, mode="individual", content=CONTENT, recipients=people)
    for job in jobs:
        tocsin.wait(job, Load(Mode.INDIVIDUAL, recipients, "small"))


def leave_open(tocsin: Tocsin, recipients: int) -> None:
    """Have a job for tomorrow taken in."""
    job = uuid4()
    tocsin.start()
    with Publisher(broker_url=tocsin.broker_url) as publisher:
        publisher.publish(
            id=job,
            profile=PROFILE,
            mode="individual",
            content=CONTENT,
            recipients=(Recipient(f"later{number}@campus.example", "Somebody") for number in range(recipients)),
            send_after=datetime.now(UTC) + timedelta(days=1),
        )
    tocsin.installation.wait_until(
        lambda: tocsin.installation.query("SELECT state FROM jobs WHERE id = %s", job) == [("running",)], "all taken in"
    )
    tocsin.stop()


def scrape(url: str) -> tuple[float, int]:
    """Scrape once; give how long it took, and how many octets came."""
    began_at = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS)) as answer:
        octets = len(answer.read())
    return time.perf_counter() - began_at, octets


def measure(case: str, tocsin: Tocsin, postgres: int, *, scrapes: int) -> Figure:
    """Let it be for a while, then scrape it for as long."""
    [supervisor] = tocsin.groups()["workers"]
    url = f"http://127.0.0.1:{tocsin.installation.environment['TOCSIN_METRICS_PORT']}/metrics"
    scrape(url)
    every = FRESH_SECONDS + 0.5

    def spent() -> tuple[float, float]:
        own = psutil.Process(supervisor).cpu_times()
        return own.user + own.system, cpu_seconds(postgres)

    before = spent()
    time.sleep(scrapes * every)
    idle = [after - was for after, was in zip(spent(), before, strict=True)]
    before = spent()
    found: list[tuple[float, int]] = []
    for _ in range(scrapes):
        time.sleep(every)
        found.append(scrape(url))
    scraped = [after - was for after, was in zip(spent(), before, strict=True)]
    return Figure(
        case=case,
        idle=idle[0] / (scrapes * every),
        a_scrape=(scraped[0] - idle[0]) / scrapes,
        postgres=(scraped[1] - idle[1]) / scrapes,
        longest=max(seconds for seconds, _ in found),
        octets=found[-1][1],
    )


def print_figure(figure: Figure) -> None:
    print(
        f"{figure.case:>28} {figure.a_scrape * 1000:>8.1f} ms {figure.share:>8.2%} {figure.idle:>8.2%}"
        f" {figure.postgres * 1000:>8.1f} ms {figure.longest * 1000:>8.0f} ms {figure.octets:>8,}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="worker processes")
    parser.add_argument("--profiles", type=int, default=20, help="sending profiles that have sent something")
    parser.add_argument("--scrapes", type=int, default=20, help="scrapes of each case")
    parser.add_argument("--open", type=int, default=200_000, help="recipients of open jobs in the second case")
    parser.add_argument(
        "--filled", type=int, default=1_000_000, help="recipients of finished jobs in the third; 0: none"
    )
    arguments = parser.parse_args()
    with Servers() as servers:
        server = mail_server(servers, Route.SINK)
        database_url = servers.postgres.create_database()
        tocsin = Tocsin(
            servers.directory, database_url, servers.rabbitmq.create_vhost(), server, processes=arguments.processes
        )
        options = [
            "--provider", "custom", "--host", server.host, "--port", str(server.port), "--tls", "none",
            "--auth", "none", "--from", "news@campus.example", "--connections", "4", "--per-minute", "none",
            "--per-day", "none",
        ]  # fmt: skip
        names = add_profiles(tocsin, options, arguments.profiles)
        [postgres] = servers.roots["postgres"]
        print(f"{'':>28} {'a scrape':>11} {'share':>8} {'idle':>8} {'Postgres':>11} {'longest':>11} {'octets':>8}")
        preparing: list[tuple[str, Callable[[], None]]] = [("nearly empty", lambda: None)]
        if arguments.filled:
            preparing.append(
                (
                    f"{arguments.filled:,} finished",
                    lambda: fill(tocsin, database_url, arguments.filled, Mode.INDIVIDUAL),
                )
            )
        preparing.append((f"and {arguments.open:,} open", lambda: leave_open(tocsin, arguments.open)))
        for case, prepare in preparing:
            prepare()
            try:
                tocsin.start()
                send_for_each(tocsin, names, recipients=20)
                print_figure(measure(case, tocsin, postgres, scrapes=arguments.scrapes))
            finally:
                tocsin.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
