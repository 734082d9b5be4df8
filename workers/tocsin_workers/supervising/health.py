"""What `/livez`, `/readyz` and `/startupz` answer. Pure decisions; `checks` asks the servers.

`/livez` fails only where a restart would help: the supervisor or a child is stuck, or children cannot be started any
more. A ledger or a message broker that is away is none of that: the workers wait for it, and a restart would only cost
what they have in hand. `/readyz` says whether work gets done here. `/startupz` says that every child has come up once,
whether or not there is a ledger: else Kubernetes would kill those that wait for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tocsin_workers.supervising.family import ChildState, FamilyState

OK: Final = "ok"
#: The supervisor looks after its children ten times a second.
STUCK_SUPERVISOR_SECONDS: Final = 15.0
#: A child gives a sign every second once it is up; on a loaded machine its start takes a while.
STUCK_CHILD_SECONDS: Final = 90.0
#: A machine may be short of memory or processes for a moment.
NO_PROCESS_SECONDS: Final = 60.0
#: Children that die one after the other before one comes up: with the pauses between them, two minutes and more.
HOPELESS_DEATHS: Final = 10


@dataclass(frozen=True, slots=True)
class Health:
    """An answer: each check by its name, with `OK` or with what is wrong in words."""

    checks: Mapping[str, str]

    @property
    def is_good(self) -> bool:
        """Whether every check is."""
        return all(said == OK for said in self.checks.values())

    @property
    def body(self) -> dict[str, object]:
        """The answer as JSON has it."""
        return {"status": OK if self.is_good else "unavailable", "checks": dict(self.checks)}


def liveness(family: FamilyState, now: float) -> Health:
    """Say whether a restart would help. `now` is of `time.monotonic`."""
    return Health({"supervisor": _supervisor(family, now), "workers": _lives(family)})


def readiness(family: FamilyState, servers: Mapping[str, str]) -> Health:
    """Say whether work gets done here. `servers` is what asking the ledger and the message broker came to."""
    return Health({**servers, "workers": _works(family)})


def start(family: FamilyState) -> Health:
    """Say whether every child has come up once."""
    missing = sum(not child.came_up for child in family.children)
    if not family.children:
        return Health({"workers": "no worker process has been started yet"})
    return Health({"workers": f"{_of(missing, family)} not up yet" if missing else OK})


def _supervisor(family: FamilyState, now: float) -> str:
    late = now - family.seen_at
    return f"the supervisor has been stuck for {late:.0f} s" if late > STUCK_SUPERVISOR_SECONDS else OK


def _lives(family: FamilyState) -> str:
    if family.is_stopping:
        # They are told to end, and killed after the grace period.
        return OK
    if any(_is_refused(child, family.seen_at) for child in family.children):
        return "the operating system gives us no process for a worker"
    silent = sum(_is_silent(child, family.seen_at) for child in family.children)
    if silent:
        return f"{_of(silent, family)} stuck: no sign of life for {STUCK_CHILD_SECONDS:.0f} s"
    if family.children and all(child.deaths_in_a_row >= HOPELESS_DEATHS for child in family.children):
        return "worker processes die as soon as they are started; the log says why"
    return OK


def _is_refused(child: ChildState, now: float) -> bool:
    return child.not_started_since is not None and now - child.not_started_since > NO_PROCESS_SECONDS


def _is_silent(child: ChildState, now: float) -> bool:
    return child.silent_since is not None and now - child.silent_since > STUCK_CHILD_SECONDS


def _works(family: FamilyState) -> str:
    if family.is_stopping:
        return "stopping"
    # One is enough: another one that has just died and is being replaced holds up nobody.
    return OK if any(child.takes_work for child in family.children) else "no worker process takes work yet"


def _of(count: int, family: FamilyState) -> str:
    verb = "is" if count == 1 else "are"
    return f"{count} of {len(family.children)} worker processes {verb}"
