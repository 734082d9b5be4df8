"""What a rotation does next, decided from what is there. Decides, does nothing.

    open → wait until all have it open → promote → seal anew → wait until all seal with it → seal anew → retire

Nothing but the key file and the ledger is looked at, so a rotation that was interrupted goes on where it stopped,
whoever runs it. A key that no worker lacks seals; a key that nothing is sealed with goes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tocsin_schema.ledger.master_keys import KnownKey, LiveWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a rotation goes by.

    `in_file` are the ids in the key file, the primary first; all of them are among `known`. `sealed` counts the values
    by the key that they name; `unopenable` those of them that the last pass could not open.
    """

    in_file: tuple[str, ...]
    known: Mapping[str, KnownKey]
    workers: tuple[LiveWorker, ...] = ()
    sealed: Mapping[str, int] = field(default_factory=dict[str, int])
    unopenable: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def primary(self) -> str:
        """The key that seals."""
        return self.in_file[0]

    @property
    def sealed_otherwise(self) -> int:
        """How many values are still to be sealed with the primary key."""
        return sum(
            max(0, count - self.unopenable.get(key_id, 0))
            for key_id, count in self.sealed.items()
            if key_id != self.primary
        )


@dataclass(frozen=True, slots=True)
class OpenNewKey:
    """Make a key and put it at the end of the key file: it opens everywhere before it seals anywhere."""


@dataclass(frozen=True, slots=True)
class FetchKeyFile:
    """Stop: a rotation on another machine has begun, and its new key is not in this machine's file."""

    key_id: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WaitUntilOpen:
    """Wait: these hosts have worker processes that could not open what is sealed with the key."""

    key_id: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promote:
    """Put the key first in the key file: it seals from now on."""

    key_id: str


@dataclass(frozen=True, slots=True)
class Reseal:
    """Seal so many values with the primary key instead."""

    count: int


@dataclass(frozen=True, slots=True)
class WaitUntilSealing:
    """Wait: these hosts have worker processes that still seal with another key."""

    key_id: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retire:
    """Take these keys out of the key file: nothing is sealed with them any more."""

    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """Everything that opens is sealed with the one primary key."""


Step = OpenNewKey | FetchKeyFile | WaitUntilOpen | Promote | Reseal | WaitUntilSealing | Retire | Done


def next_step(now: Situation, *, begins: bool) -> Step:
    """Say what comes next; `begins` holds until this run has changed anything: a rotation may begin only then."""
    elsewhere = _key_from_elsewhere(now)
    if elsewhere is not None:
        return elsewhere
    candidate = _candidate(now)
    if candidate is not None:
        hosts = _hosts(worker for worker in now.workers if candidate not in worker.key_ids)
        return WaitUntilOpen(candidate, hosts) if hosts else Promote(candidate)
    if now.sealed_otherwise:
        hosts = _hosts(worker for worker in now.workers if now.primary not in worker.key_ids)
        return WaitUntilOpen(now.primary, hosts) if hosts else Reseal(now.sealed_otherwise)
    retiring = _retiring(now)
    if not retiring:
        return OpenNewKey() if begins and not _is_held_up(now) else Done()
    hosts = _hosts(worker for worker in now.workers if worker.key_ids[:1] != [now.primary])
    return WaitUntilSealing(now.primary, hosts) if hosts else Retire(retiring)


def _key_from_elsewhere(now: Situation) -> FetchKeyFile | None:
    """Find a key newer than our primary that workers have and our file has not."""
    ours = now.known[now.primary].promoted_at
    for key in sorted(now.known.values(), key=lambda key: key.opened_at, reverse=True):
        is_newer = key.promoted_at is None or (ours is not None and key.promoted_at > ours)
        if key.id not in now.in_file and key.retired_at is None and is_newer:
            hosts = _hosts(worker for worker in now.workers if key.id in worker.key_ids)
            if hosts:
                return FetchKeyFile(key.id, hosts)
    return None


def _candidate(now: Situation) -> str | None:
    """Give the key that waits behind the primary to be promoted: opened since, and nothing is sealed with it yet."""
    key = now.known[now.in_file[-1]]
    since = now.known[now.primary].promoted_at
    is_new = key.promoted_at is None and key.retired_at is None and (since is None or key.opened_at >= since)
    return key.id if key.id != now.primary and is_new and not now.sealed.get(key.id) else None


def _retiring(now: Situation) -> tuple[str, ...]:
    """Give the keys to retire, oldest first; none where all that is left was kept on purpose or never sealed."""
    held = {key_id for key_id, count in now.sealed.items() if count}
    old = [key for key in now.known.values() if key.retired_at is None and key.id != now.primary and key.id not in held]
    if not any(key.id in now.in_file or key.promoted_at is not None for key in old):
        return ()
    return tuple(key.id for key in sorted(old, key=lambda key: (key.opened_at, key.id)))


def _is_held_up(now: Situation) -> bool:
    """Whether an old key stays in the file only for what it should open and does not: that comes first."""
    return any(now.known[key_id].retired_at is None for key_id in now.in_file[1:])


def _hosts(workers: Iterable[LiveWorker]) -> tuple[str, ...]:
    """Name the hosts of worker processes, with how many there are where it is more than one."""
    counted = Counter(worker.host for worker in workers)
    return tuple(host if count == 1 else f"{host} ({count} processes)" for host, count in sorted(counted.items()))
