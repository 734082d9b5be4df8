"""The course of one round: waves of jobs, a fault in the midst of each, and the account when all is quiet again."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers.faults import ledger
from tests.servers.faults.campus import CONNECTIONS
from tests.servers.faults.injecting import Injector
from tests.servers.faults.kinds import Fault, leaves_doubt, most_doubled, refuses_for_good, wants_a_person
from tests.servers.faults.load import wave
from tests.servers.faults.mail_events import Accepted
from tests.servers.faults.publishing import Upstream
from tests.servers.faults.report import Allowance, Report, compare
from tests.servers.faults.table import Line
from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from tests.servers.faults.campus import Campus
    from tests.servers.faults.load import LoadJob
    from tests.servers.faults.mail_events import MailEvent
    from tests.servers.faults.plan import Round
    from tests.servers.faults.report import Published

#: How long all jobs of a round may take to end after its last fault is over.
SETTLING_SECONDS = 90.0
#: How long a wave is given to get going: mailboxes may still rest after the fault of the wave before.
_UNDER_WAY_SECONDS = 20.0
#: Between jobs that are published while a fault lasts.
_PAUSE_SECONDS = 0.3


@dataclass(slots=True)
class RoundRun:
    """One round in the making."""

    campus: Campus
    round: Round
    choice: Random
    events: list[MailEvent] = field(default_factory=list)
    struck: Counter[Fault] = field(default_factory=Counter)
    published: list[Published] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    hangs: bool = False
    """Whether something has not ended: then further rounds would tell nothing."""

    def run(self) -> Line:
        """Let all waves and faults pass, wait until every job has ended, and give account."""
        for number in range(self.round.waves):
            self._wave(number)
        self._settle()
        report = self._report()
        return Line(self.round.faults, self._times(), report)

    def _wave(self, number: int) -> None:
        """Publish jobs, and break things once some of their mail has gone out."""
        prefix = f"r{self.round.number}w{number}-{self.choice.getrandbits(32):08x}"
        jobs = wave(self.choice, prefix, self.round.recipients, tuple(CONNECTIONS))
        urls = {"broker_url": self.campus.broker_url, "database_url": self.campus.database_url}
        before = Upstream(jobs.before, **urls)
        self._wait_until_under_way(jobs.before)
        amidst = Upstream(jobs.amidst, **urls, pause=_PAUSE_SECONDS)
        phase = self.round.phases[number % len(self.round.phases)]
        injectors = {fault: Injector(self.campus, self.choice, phase) for fault in self.round.faults}
        with ExitStack() as struck:
            for fault, injector in injectors.items():
                struck.enter_context(injector.strike(fault))
        self.struck.update({fault: injector.struck for fault, injector in injectors.items()})
        self.resumed += self.campus.resume_paused_profiles()
        self.published += before.finish() + amidst.finish()

    def _wait_until_under_way(self, jobs: Sequence[LoadJob]) -> None:
        """Wait until a part of them has been taken, but not all: a fault that finds no mail proves nothing."""
        addresses = {address for job in jobs for address in job.addresses}
        wanted = len(addresses) * self.choice.uniform(0.05, 0.4)

        def is_under_way() -> bool:
            self.events += self.campus.events.read_new()
            taken = {one for event in self.events if isinstance(event, Accepted) for one in event.recipients}
            return len(taken & addresses) >= wanted

        self.campus.wait(is_under_way, seconds=_UNDER_WAY_SECONDS)

    def _settle(self) -> None:
        """Wait until every job is finished; end pauses, as an operator would."""
        ids = [job.id for job in self.published]
        deadline = time.monotonic() + SETTLING_SECONDS
        while left := ledger.unfinished(self.campus.database_url, ids):
            self.resumed += self.campus.resume_paused_profiles()
            if time.monotonic() > deadline:
                self.hangs = True
                self.problems.append(
                    f"{len(left)} jobs have not ended within {SETTLING_SECONDS:g} s\n{self.campus.why()}"
                )
                break
            time.sleep(0.2)
        if self.resumed and not any(map(wants_a_person, self.round.faults)):
            self.problems.append(f"a profile was paused, which only a person ends: {self.resumed[0]}")
        leased = ledger.query(self.campus.database_url, "SELECT job_number FROM batches WHERE state = 'leased'")
        if leased:
            self.problems.append(f"{len(leased)} batches are still leased")

    def _report(self) -> Report:
        self.events += self.campus.events.read_new()
        kept = ledger.read_jobs(self.campus.database_url, [job.id for job in self.published])
        report = compare(self.published, kept, self.events, self._allowance())
        self.problems += report.problems
        for fault in self.round.faults:
            if not self.struck[fault]:
                self.problems.append(f"{fault}: it never struck, so this round says nothing of it")
        return report

    def _allowance(self) -> Allowance:
        faults = self.round.faults
        return Allowance(
            duplicates=sum(
                most_doubled(fault, self.struck[fault], window=WINDOW, connections=self.campus.connections)
                for fault in faults
            ),
            doubt=any(map(leaves_doubt, faults)),
            refusals=any(map(refuses_for_good, faults)),
        )

    def _times(self) -> int:
        return self.struck.total()
