"""One very large job from end to end: how much memory do producer and workers take, and is its progress to be seen?

    .venv/bin/python bench/large_job.py [--recipients N] [--individual] [--processes N]

Producer, workers and mail server are processes of their own; RabbitMQ and Postgres are the tests' servers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, ClassVar, cast
from uuid import UUID, uuid4

import psutil
import uvloop

from tests.servers.availability import Unavailable
from tests.servers.installation import SENDER, Installation
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitmqNode
from tocsin_producers import Publisher
from tocsin_schema.ledger.migrate import migrate
from tocsin_schema.sealing import write_new_key_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEBIBYTE = 1024 * 1024
#: The profile's batch size, which is also how many recipients a shared message has.
BATCH_SIZE = 50
COUNT = "SELECT c.* FROM job_counts c JOIN jobs j ON j.number = c.job_number WHERE j.id = %s"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood at a moment; memory is resident, in MiB."""

    seconds: float
    total: int
    """Recipients that were taken in."""
    sent: int
    show_seconds: float
    """What `tocsin job show` took; on busy cores most of it is the start of the command."""
    count_seconds: float
    """What the ledger took to count the job, which is part of it."""
    producer: float | None
    """None once it has ended."""
    workers: tuple[float, ...]


@dataclass(slots=True)
class Account:
    """What a run came to."""

    recipients: int
    seconds: float = 0.0
    published_in_seconds: float = 0.0
    received: int = 0
    """Recipients that the mail server took."""
    samples: list[Sample] = field(default_factory=list[Sample])

    @property
    def producer_peak(self) -> float:
        return max(sample.producer or 0.0 for sample in self.samples)

    def worker_peak(self, *, from_share: float = 0.0, to_share: float = 1.0) -> float:
        """Give the most that a worker took while the job was between two shares of the way, in MiB."""
        return max(
            (
                max(sample.workers)
                for sample in self.samples
                if from_share * self.recipients <= sample.sent <= to_share * self.recipients and sample.workers
            ),
            default=0.0,
        )

    @property
    def slowest_show(self) -> float:
        return max(sample.show_seconds for sample in self.samples)

    @property
    def slowest_count(self) -> float:
        return max(sample.count_seconds for sample in self.samples)


def run_large_job(
    installation: Installation,
    recipients: int,
    *,
    mode: str = "shared",
    processes: int = 2,
    every_seconds: float = 5.0,
    hold_at: int | None = None,
    tell: Callable[[Sample], None] = lambda _: None,
) -> Account:
    """Send one job through an installation that has a ledger and a message broker, and watch it.

    `hold_at`: the mail server takes no more recipients than that until a sample has shown them as sent, so that the
    job cannot be over between two samples.
    """
    account = Account(recipients)
    with mail_server(hold_at=recipients if hold_at is None else hold_at) as (sink, port):
        installation.tocsin(
            "profile", "add", "large", "--provider", "custom", "--host", "127.0.0.1", "--port", str(port),
            "--tls", "none", "--auth", "none", "--from", SENDER, "--batch-size", str(BATCH_SIZE),
            "--connections", str(4 * processes),
        )  # fmt: skip
        supervisor = psutil.Process(installation.start_workers(processes=processes).pid)
        job_id = uuid4()
        begun = monotonic()
        producer = started("produce", str(job_id), mode, str(recipients), installation.broker_url or "")
        try:
            state = ""
            while state != "finished":
                if producer.poll() is None:
                    account.published_in_seconds = monotonic() - begun
                elif producer.returncode:
                    raise RuntimeError("the producer failed")
                sample, state = look(installation, job_id, begun, producer, supervisor)
                account.samples.append(sample)
                tell(sample)
                if hold_at is not None and sample.sent > hold_at - BATCH_SIZE:
                    let_go(sink)
                    hold_at = None
                wait(installation, job_id, until=begun + sample.seconds + every_seconds)
            account.seconds = monotonic() - begun
        finally:
            producer.kill()
            producer.communicate()
            installation.stop_workers()
        account.received = int(sink.communicate()[0])
    return account


def look(
    installation: Installation,
    job_id: UUID,
    begun: float,
    producer: subprocess.Popen[str],
    supervisor: psutil.Process,
) -> tuple[Sample, str]:
    asked = perf_counter()
    ended = installation.run("job", "show", str(job_id), "--json")
    took = perf_counter() - asked
    asked = perf_counter()
    installation.query(COUNT, job_id)
    counted = perf_counter() - asked
    total, sent, state = 0, 0, ""
    if ended.returncode == 0:  # else nothing is taken in yet
        shown = json.loads(ended.stdout)
        total, sent, state = shown["total"], shown["recipients"].get("sent", 0), shown["state"]
    return Sample(
        monotonic() - begun, total, sent, took, counted, memory_of(producer.pid), tuple(
            memory for child in supervisor.children() if (memory := memory_of(child.pid)) is not None
        ),
    ), state  # fmt: skip


def wait(installation: Installation, job_id: UUID, *, until: float) -> None:
    """Wait until the next sample is due, or the job has ended."""
    while monotonic() < until:
        if installation.query("SELECT 1 FROM jobs WHERE id = %s AND state = 'finished'", job_id):
            return
        time.sleep(0.1)


def memory_of(pid: int) -> float | None:
    """Give a process's resident memory in MiB; None where it has ended."""
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return None if ended else process.memory_info().rss / MEBIBYTE
    except psutil.NoSuchProcess:
        return None


# The producer's process


def produce(job_id: str, mode: str, recipients: str, broker_url: str) -> None:
    """Publish the job, its recipients from a generator."""
    with Publisher(broker_url=broker_url) as publisher:
        publisher.publish(
            id=job_id,
            profile="large",
            mode=mode,
            priority="bulk",
            content={"subject": "Library notice", "text": "Your loans are due.\n" * 20},  # type: ignore[typeddict-item]
            recipients=addresses(int(recipients)),
        )


def addresses(count: int) -> Iterator[str]:
    return (f"reader-{number}@campus.example" for number in range(count))


# The mail server's process


class Taker(asyncio.Protocol):
    """Takes every message as fast as it can, and only counts its recipients; some only once it is let go."""

    taken = 0
    most: float = float("inf")
    """Recipients; who would be more waits for the reply to the dot."""
    held: ClassVar[list[Taker]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base
        self._buffer = b""
        self._in_body = False
        self._recipients = 0
        self._transport.write(b"220 taker ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        while True:
            end = self._buffer.find(b"\r\n.\r\n" if self._in_body else b"\r\n")
            if end < 0:
                break
            if self._in_body and Taker.taken + self._recipients > Taker.most:
                Taker.held.append(self)
                break
            line, self._buffer = self._buffer[:end], self._buffer[end + (5 if self._in_body else 2) :]
            replies.append(self._dot() if self._in_body else self._command(line[:4].upper()))
        self._transport.write(b"".join(replies))

    def _dot(self) -> bytes:
        Taker.taken += self._recipients
        self._in_body, self._recipients = False, 0
        return b"250 2.0.0 Ok: queued\r\n"

    def _command(self, verb: bytes) -> bytes:
        match verb:
            case b"EHLO":
                return b"250-taker\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n"
            case b"RCPT":
                self._recipients += 1
            case b"DATA":
                self._in_body = True
                return b"354 go ahead\r\n"
            case b"QUIT":
                return b"221 2.0.0 Bye\r\n"
            case _:
                pass
        return b"250 2.0.0 Ok\r\n"


async def take_mail(hold_at: int) -> None:
    """Serve until standard input ends; then tell how many recipients came. A line in it lets go who was held."""
    loop = asyncio.get_running_loop()
    Taker.most = hold_at
    server = await loop.create_server(Taker, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    if await asyncio.to_thread(sys.stdin.readline):
        Taker.most = float("inf")
        for held in Taker.held:
            held.data_received(b"")
        await asyncio.to_thread(sys.stdin.read)
    print(Taker.taken)


class mail_server:  # noqa: N801 - used as a function is
    """The mail server's process and its port."""

    def __init__(self, *, hold_at: int) -> None:
        self._hold_at = hold_at

    def __enter__(self) -> tuple[subprocess.Popen[str], int]:
        self._process = started("take-mail", str(self._hold_at))
        assert self._process.stdout is not None
        return self._process, int(self._process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def let_go(mail_server: subprocess.Popen[str]) -> None:
    """Let it take all that comes."""
    assert mail_server.stdin is not None
    mail_server.stdin.write("go\n")
    mail_server.stdin.flush()


def started(*arguments: str) -> subprocess.Popen[str]:
    """Start this program in another of its parts."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.large_job", *arguments],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


# The command


def main() -> int:
    match sys.argv[1:]:
        case ["take-mail", hold_at]:
            uvloop.run(take_mail(int(hold_at)))
        case ["produce", job_id, mode, recipients, broker_url]:
            produce(job_id, mode, recipients, broker_url)
        case _:
            return measure()
    return 0


def measure() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--individual", action="store_true", help="a message each, instead of one to 50")
    arguments = parser.parse_args()
    node = RabbitmqNode.obtain()
    if isinstance(node, Unavailable):
        print(node.reason, file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory() as directory, PostgresServer.start() as postgres:
            installation = prepared(Path(directory), postgres.create_database(), node.create_vhost())
            print(f"{'s':>6} {'taken in':>10} {'sent':>10} {'job show':>9} {'count':>7}  MiB: producer, workers")
            account = run_large_job(
                installation,
                arguments.recipients,
                mode="individual" if arguments.individual else "shared",
                processes=arguments.processes,
                tell=print_sample,
            )
    finally:
        node.stop()
    print(
        f"\n{account.received:,} of {account.recipients:,} recipients in {account.seconds:.0f} s"
        f" ({account.received / account.seconds:,.0f}/s), published in {account.published_in_seconds:.0f} s."
        f"\nPeaks: producer {account.producer_peak:.0f} MiB,"
        f" workers {account.worker_peak(to_share=0.5):.0f} MiB in the first half"
        f" and {account.worker_peak(from_share=0.5):.0f} MiB in the second;"
        f" slowest `job show` {account.slowest_show:.1f} s, of it in the ledger {account.slowest_count:.2f} s."
    )
    return 0 if account.received == account.recipients else 1


def prepared(directory: Path, database_url: str, broker_url: str) -> Installation:
    """Give an installation with a ledger and a master key."""
    asyncio.run(migrate(database_url))
    installation = Installation(directory, database_url, broker_url)
    write_new_key_file(directory / "master.key")
    return installation


def print_sample(sample: Sample) -> None:
    producer = "-" if sample.producer is None else f"{sample.producer:.0f}"
    workers = " ".join(f"{memory:.0f}" for memory in sample.workers)
    counts = f"{sample.total:10,} {sample.sent:10,}"
    times = f"{sample.show_seconds:7.2f} s {sample.count_seconds:5.2f} s"
    print(f"{sample.seconds:6.0f} {counts} {times}  {producer}, {workers}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
