"""How fast does Tocsin send, and how fast are others? In turn, on the same servers, within one run.

    .venv/bin/python -m bench.throughput --mode individual|shared [--recipients N] [--contestants tocsin,raw,…]
                                         [--rounds 5] [--processes N] [--warm-up N]

A turn is measured from the first byte that is handed over until the contestant has nothing left to do and all that it
keeps is on disk. Before it comes a warm-up, of which nothing counts.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench.contestants.handmade import Handmade
from bench.contestants.nodemailer_client import Nodemailer
from bench.contestants.postfix_relay import Postfix
from bench.contestants.raw import Raw
from bench.contestants.tocsin import Tocsin
from bench.mail import Load, Mode
from bench.measuring import Cost, measured, peak_memory
from bench.profiling import print_top, profiled
from bench.routes import Route, mail_server
from bench.servers import Servers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from bench.contestants.contestant import Contestant, MailServer

WARM_UP: Final = 1_000
#: Connections of a client where nothing else is asked for.
CLIENT_CONNECTIONS: Final = 20
WITH_SIGN_IN: Final = frozenset({"tocsin", "nodemailer", "nodemailer-7"})
MILLISECONDS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One contestant's turn."""

    contestant: str
    recipients: int
    cost: Cost
    memory: float
    """The most that a worker process had, in MiB."""
    note: str = ""

    @property
    def rate(self) -> float:
        """Recipients a second."""
        return self.recipients / self.cost.seconds


def take_turn(
    contestant: Contestant,
    load: Load,
    *,
    warm_up: int = WARM_UP,
    shared_groups: Callable[[], dict[str, list[int]]],
    profile: Callable[[Contestant], AbstractContextManager[object]] = nullcontext,
) -> Turn:
    """Have a contestant send `load` after a warm-up, and measure it.

    `shared_groups` gives the root processes of servers that several contestants use; `profile` what watches meanwhile.
    """
    try:
        contestant.start()
        contestant.send(Load(load.mode, warm_up, f"warm-{load.tag}"))
        with profile(contestant), measured({**shared_groups(), **contestant.groups()}) as cost:
            contestant.send(load)
        memory = max(map(peak_memory, contestant.worker_ids()), default=0.0)
        note = contestant.note()
    finally:
        contestant.stop()
    return Turn(contestant.name, load.recipients, cost, memory, note)


def run(
    contestants: Sequence[Contestant],
    *,
    mode: Mode,
    recipients: int,
    rounds: int,
    warm_up: int,
    shared_groups: Callable[[], dict[str, list[int]]],
    profile: Callable[[Contestant], AbstractContextManager[object]] = nullcontext,
    tell: Callable[[Turn], None] = lambda _: None,
) -> list[Turn]:
    """Let everybody take turns; every other round goes backwards, so that nobody always comes after the same one."""
    turns: list[Turn] = []
    for number in range(rounds):
        for contestant in contestants if number % 2 == 0 else list(reversed(contestants)):
            load = Load(mode, recipients, f"round-{number}")
            turn = take_turn(contestant, load, warm_up=warm_up, shared_groups=shared_groups, profile=profile)
            tell(turn)
            turns.append(turn)
    return turns


def print_turn(turn: Turn) -> None:
    spent = "  ".join(f"{name} {seconds:.1f}" for name, seconds in turn.cost.cpu.items() if seconds >= 0.05)
    memory = f"{turn.memory:.0f} MiB" if turn.memory else "-"
    print(
        f"{turn.contestant:>14} {turn.rate:>10,.0f}/s {turn.cost.seconds:>8.2f} s {turn.cost.stolen:>7.1%} {memory:>8}"
        f"   {spent}",
        flush=True,
    )
    if turn.note:
        print(f"{'':>14} {turn.note}", flush=True)


def print_summary(turns: Sequence[Turn]) -> None:
    """Print medians, and of the first contestant's rate the ratio to each other one's, round by round."""
    names = list(dict.fromkeys(turn.contestant for turn in turns))
    rates = {name: [turn.rate for turn in turns if turn.contestant == name] for name in names}
    first = rates["tocsin" if "tocsin" in rates else names[0]]
    print(f"\n{'medians':>14} {'recipients/s':>12} {'from':>9} {'to':>9} {'stolen':>7}  ratio")
    for name in names:
        ratio = median(mine / theirs for mine, theirs in zip(first, rates[name], strict=True))
        stolen = median(turn.cost.stolen for turn in turns if turn.contestant == name)
        print(
            f"{name:>14} {median(rates[name]):>12,.0f} {min(rates[name]):>9,.0f} {max(rates[name]):>9,.0f}"
            f" {stolen:>7.1%}  {ratio:.2f}"
        )


def profiler(directory: Path) -> Callable[[Contestant], AbstractContextManager[object]]:
    """Give what samples a contestant's workers and tells the top costs at the end of a turn."""

    @contextmanager
    def watch(contestant: Contestant) -> Generator[None]:
        with profiled(contestant.worker_ids(), directory, contestant.name) as files:
            yield
        print_top(files)

    return watch


def made(name: str, servers: Servers, server: MailServer, arguments: argparse.Namespace) -> Contestant:
    if server.sign_in is not None and name not in WITH_SIGN_IN:
        raise SystemExit(f"{name} cannot log in")
    match name:
        case "tocsin":
            options = ["--pipelining", arguments.pipelining] if arguments.pipelining else []
            return Tocsin(
                servers.directory,
                servers.postgres.create_database(),
                servers.rabbitmq.create_vhost(),
                server,
                processes=arguments.processes,
                threads=arguments.threads,
                connections=arguments.connections,
                profile_options=options,
            )
        case "raw" | "raw-full":
            pipelining = "full" if name == "raw-full" else "envelope"
            return Raw(server, connections=arguments.connections or CLIENT_CONNECTIONS, pipelining=pipelining)
        case "handmade":
            return Handmade(
                servers.directory,
                servers.postgres.create_database(),
                servers.rabbitmq.create_vhost(),
                server,
                connections=arguments.connections,
            )
        case "nodemailer" | "nodemailer-7":
            return Nodemailer(server, name=name, connections=arguments.connections or CLIENT_CONNECTIONS)
        case "postfix":
            return Postfix(server)
        case _:
            raise SystemExit(f"no contestant is called {name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.INDIVIDUAL)
    parser.add_argument("--recipients", type=int, default=10_000)
    parser.add_argument("--contestants", default="tocsin", help="names, parted by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="recipients before each turn")
    parser.add_argument("--processes", type=int, default=2, help="Tocsin's worker processes")
    parser.add_argument("--threads", type=int, help="slices that a worker process works at a time; default: its own")
    parser.add_argument("--connections", type=int, help="connections to the mail server at a time")
    parser.add_argument("--pipelining", choices=["full", "envelope", "off"], help="of Tocsin's sending profile")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="a round trip to the mail server takes this longer")
    parser.add_argument("--server", type=Route, choices=list(Route), default=Route.SINK)
    parser.add_argument("--profile", type=Path, help="directory for py-spy's samples of Python workers; figures suffer")
    arguments = parser.parse_args()
    with Servers() as servers:
        round_trip = arguments.delay_ms / MILLISECONDS
        server = mail_server(servers, arguments.server, round_trip_seconds=round_trip)
        contestants = [made(name, servers, server, arguments) for name in arguments.contestants.split(",")]
        print(f"{'':>14} {'recipients':>12} {'time':>10} {'stolen':>7} {'memory':>8}   CPU seconds")
        turns = run(
            contestants,
            mode=arguments.mode,
            recipients=arguments.recipients,
            rounds=arguments.rounds,
            warm_up=arguments.warm_up,
            shared_groups=servers.groups,
            profile=nullcontext if arguments.profile is None else profiler(arguments.profile),
            tell=print_turn,
        )
        print_summary(turns)
    return 0


if __name__ == "__main__":
    sys.exit(main())
