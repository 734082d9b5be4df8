"""What does a profile lose by another one whose mail server is slow?

    .venv/bin/python -m bench.fairness [--recipients 20000] [--rounds 5] [--slow-recipients 5000] [--seconds 30]
                                       [--mode individual|shared] [--processes N]

Turns alone and turns beside the slow profile, one after the other within one run, every other round the other way
round. The slow one's server lets everybody in at once and answers each command of a message after 30 s. Its job is
published first and has as many connections as it can get when the measured one begins, or with `--at-once` its first.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from bench.contestants.tocsin import Tocsin
from bench.mail import SENDER, Load, Mode
from bench.measuring import measured, peak_memory
from bench.routes import Route, mail_server
from bench.servers import Servers
from tests.servers.slow_mail import SlowMailServer
from tocsin_producers import Content, Publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measuring import Cost

SLOW: Final = "slow"
WARM_UP: Final = 1_000
#: After so many seconds without a further connection the slow profile has what it gets.
QUIET_SECONDS: Final = 6.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What the fast profile reached, and how many connections the slow one had at the end."""

    slow_connections: int | None
    """None in a turn alone."""
    rate: float
    cost: Cost
    memory: float


class Pair:
    """An installation with a fast profile and a slow one."""

    def __init__(self, servers: Servers, slow: SlowMailServer, *, processes: int) -> None:
        self._servers = servers
        self._slow = slow
        self._tocsin = Tocsin(
            servers.directory, servers.postgres.create_database(), servers.rabbitmq.create_vhost(),
            mail_server(servers, Route.SINK), processes=processes,
        )  # fmt: skip
        installation = self._tocsin.installation
        # What waits for the slow server is cut off at the end of a turn.
        installation.environment["TOCSIN_SHUTDOWN_GRACE_SECONDS"] = "2"
        installation.tocsin(
            "profile", "add", SLOW, "--provider", "custom", "--host", slow.host, "--port", str(slow.port),
            "--tls", "none", "--auth", "none", "--from", f"slow-{SENDER}", "--connections", "none",
        )  # fmt: skip

    def take_turn(self, load: Load, *, beside: int | None, at_once: bool) -> Turn:
        """Send `load`, alone or beside a slow job of so many recipients."""
        tocsin = self._tocsin
        try:
            tocsin.start()
            tocsin.send(Load(load.mode, WARM_UP, f"warm-{load.tag}"))
            slow_job: UUID | None = None
            if beside is not None:
                slow_job = self._publish_slow(Load(Mode.INDIVIDUAL, beside, f"slow-{load.tag}"))
                self._wait_for_slow_connections(quiet_seconds=0.0 if at_once else QUIET_SECONDS)
            with measured({**self._servers.groups(), **tocsin.groups()}) as cost:
                tocsin.send(load)
            connections = None if beside is None else self._slow.seen().open_now
            memory = max(map(peak_memory, tocsin.worker_ids()), default=0.0)
            if slow_job is not None:
                tocsin.installation.tocsin("job", "cancel", str(slow_job), "--yes")
        finally:
            tocsin.stop()
        return Turn(connections, load.recipients / cost.seconds, cost, memory)

    def _publish_slow(self, load: Load) -> UUID:
        job_id = uuid4()
        with Publisher(broker_url=self._tocsin.broker_url) as publisher:
            publisher.publish(
                id=job_id, profile=SLOW, mode=load.mode.value, priority="normal",
                content=Content("Slow", "Your loans are due."), recipients=load.addresses(),
            )  # fmt: skip
        return job_id

    def _wait_for_slow_connections(self, *, quiet_seconds: float) -> None:
        most, since = 0, time.monotonic()
        while not most or time.monotonic() - since < quiet_seconds:
            now_open = self._slow.seen().open_now
            if now_open > most:
                most, since = now_open, time.monotonic()
            time.sleep(0.05)


def print_turn(turn: Turn) -> None:
    beside = "alone" if turn.slow_connections is None else f"beside {turn.slow_connections}"
    spent = "  ".join(f"{name} {seconds:.1f}" for name, seconds in turn.cost.cpu.items() if seconds >= 0.05)
    print(f"{beside:>10} {turn.rate:>9,.0f}/s {turn.cost.stolen:>7.1%} {turn.memory:>6.0f} MiB   {spent}", flush=True)


def print_summary(turns: Sequence[Turn]) -> float:
    """Print the medians; give the median of the rounds' ratios."""
    alone = [turn.rate for turn in turns if turn.slow_connections is None]
    beside = [turn.rate for turn in turns if turn.slow_connections is not None]
    ratio = median(one / other for one, other in zip(beside, alone, strict=True))
    print(
        f"\nmedians: alone {median(alone):,.0f}/s, beside the slow profile {median(beside):,.0f}/s; ratio {ratio:.3f}"
    )
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.INDIVIDUAL)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--slow-recipients", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="until the slow server answers a command")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--at-once", action="store_true", help="begin when the slow profile has its first connection")
    arguments = parser.parse_args()
    turns: list[Turn] = []
    with Servers() as servers, SlowMailServer(seconds=arguments.seconds) as slow:
        pair = Pair(servers, slow, processes=arguments.processes)
        for number in range(arguments.rounds):
            for beside in (None, arguments.slow_recipients)[:: 1 if number % 2 == 0 else -1]:
                load = Load(arguments.mode, arguments.recipients, f"round-{number}-{beside}")
                turn = pair.take_turn(load, beside=beside, at_once=arguments.at_once)
                print_turn(turn)
                turns.append(turn)
    return 0 if print_summary(turns) >= 0.95 else 3


if __name__ == "__main__":
    sys.exit(main())
