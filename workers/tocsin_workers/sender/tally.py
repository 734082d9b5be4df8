"""What a slice got done, by job: for its one log line, and for its spans where they are wanted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic, time_ns
from typing import TYPE_CHECKING

from tocsin_workers.outcomes import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

SUPPRESSED = "suppressed"
#: Jobs that a log line names.
MOST_NAMED = 5
#: Windows of a job that are kept of one slice; a slice of a second has fewer, unless it goes on and on.
MOST_WINDOWS = 100


@dataclass(frozen=True, slots=True)
class WindowTally:
    """A window's messages of one job: when they were on their way, by `time.time_ns`, and what they came to."""

    began_at: int
    ended_at: int
    recipients: Mapping[str, int]


@dataclass(slots=True)
class JobTally:
    """What a slice did for one job. `id` is None where nothing of the job was read."""

    id: UUID | None = None
    recipients: Counter[str] = field(default_factory=Counter[str])
    windows: list[WindowTally] = field(default_factory=list[WindowTally])


@dataclass(slots=True)
class SliceTally:
    """Counts recipients by job and outcome. `keeps_windows` says that somebody wants to know when each was sent."""

    keeps_windows: bool = False
    began_at: int = field(default_factory=time_ns)
    """By `time.time_ns`."""
    _began: float = field(default_factory=monotonic)
    jobs: dict[int, JobTally] = field(default_factory=dict[int, JobTally])
    """By job number."""

    def job(self, number: int) -> JobTally:
        """Give a job's tally, from now on."""
        return self.jobs.setdefault(number, JobTally())

    def count(self, job_number: int, outcome: str, recipients: int) -> None:
        """Note what became of some recipients of a job."""
        self.job(job_number).recipients[outcome] += recipients

    def count_window(self, began_at: int, by_job: Mapping[int, Mapping[Verdict, int]]) -> None:
        """Note what became of a window's messages, which were on their way since `began_at` (`time.time_ns`)."""
        ended_at = time_ns() if self.keeps_windows else 0
        for number, recipients in by_job.items():
            one = self.job(number)
            one.recipients.update({verdict.value: count for verdict, count in recipients.items()})
            if self.keeps_windows and len(one.windows) < MOST_WINDOWS:
                one.windows.append(WindowTally(began_at, ended_at, {**recipients}))

    @property
    def has_any(self) -> bool:
        """Whether something was done."""
        return any(one.recipients for one in self.jobs.values())

    def line(self) -> dict[str, object]:
        """Give what a log line says: jobs by their ids (of many a few), recipients by outcome, seconds."""
        done = {number: one for number, one in self.jobs.items() if one.recipients}
        names = [str(one.id or number) for number, one in done.items()]
        total: Counter[str] = Counter()
        for one in done.values():
            total.update(one.recipients)
        line: dict[str, object] = {"jobs": names[:MOST_NAMED]}
        if len(names) > MOST_NAMED:
            line["more_jobs"] = len(names) - MOST_NAMED
        line |= {"sent": total[Verdict.SENT], "failed": total[Verdict.FAILED]}
        line |= {
            name: total[name] for name in (Verdict.DEFERRED.value, Verdict.UNKNOWN.value, SUPPRESSED) if total[name]
        }
        return {**line, "seconds": round(monotonic() - self._began, 3)}
