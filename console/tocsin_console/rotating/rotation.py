"""Carrying a rotation out, step by step; each step is committed before the next is decided."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from tocsin_console.output import counted, listed
from tocsin_console.rotating.key_store import KeyStore
from tocsin_console.rotating.steps import (
    Done,
    FetchKeyFile,
    OpenNewKey,
    Promote,
    Reseal,
    Retire,
    Situation,
    WaitUntilOpen,
    WaitUntilSealing,
    next_step,
)
from tocsin_schema.errors import SealError
from tocsin_schema.ledger import master_keys, resealing
from tocsin_schema.ledger.connection import connect
from tocsin_schema.sealing import MasterKey, load_sealer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.resealing import Unopenable
    from tocsin_schema.sealing import Sealer
    from tocsin_schema.settings import Settings

LOOK_EVERY_SECONDS = 0.5
#: What a process sealed just before it changed over to the new key is stored after so long.
SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationOptions:
    """How to rotate: how long to wait for workers, whether retired keys stay in the file. Times in seconds."""

    patience_seconds: float = 60.0
    settle_seconds: float = SETTLE_SECONDS
    keep_old_keys: bool = False


async def rotate(url: str, settings: Settings, options: RotationOptions, *, say: Callable[[str], None]) -> None:
    """Rotate the master key of the ledger at `url`, or go on with a rotation that stopped; `say` is told each step.

    Raises UsageError where the keys can only be changed by a person, SealError where something has to be done first
    or values do not open, LedgerError. Whatever it raises, nothing is broken, and it can be run again.
    """
    async with _the_only_rotation(url) as lock, connect(url) as connection:
        await connection.set_autocommit(True)
        sealer = await load_sealer(connection, settings, is_to_seal=True)
        await _Rotation(lock, connection, KeyStore(settings), sealer, options=options, say=say).run()


class _Rotation:
    """One run of the command."""

    def __init__(
        self,
        lock: Connection,
        connection: Connection,
        store: KeyStore,
        sealer: Sealer,
        *,
        options: RotationOptions,
        say: Callable[[str], None],
    ) -> None:
        self._lock = lock
        self._connection = connection
        self._store = store
        self._sealer = sealer.with_keys(sealer.keyring)
        self._options = options
        self._say = say
        self._unopenable: list[Unopenable] = []

    async def run(self) -> None:
        """Do one step after the other until all is done."""
        begins, waiting_since = True, None
        clock = asyncio.get_running_loop().time
        while not isinstance(step := next_step(await self._look(), begins=begins), Done):
            if isinstance(step, WaitUntilOpen | WaitUntilSealing):
                if waiting_since is None:
                    waiting_since = clock()
                    self._say(_waiting(step))
                if clock() - waiting_since >= self._options.patience_seconds:
                    raise _out_of_patience(step, self._store.place)
                await asyncio.sleep(LOOK_EVERY_SECONDS)
            else:
                waiting_since = None
                begins = not await self._carry_out(step) and begins
        self._end()

    async def _look(self) -> Situation:
        """See where things stand, and note in the ledger which keys the key file holds."""
        await master_keys.hold_rotation(self._lock)
        keyring = self._store.read()
        # What was open in this run stays so: a value may be sealed with a key at the moment when it is retired.
        self._sealer = self._sealer.with_keys(keyring.with_also(self._sealer.keyring.keys))
        sealed = await resealing.count_by_key(self._connection)
        await master_keys.note_keys(self._connection, keyring.ids, in_use=sealed.keys())
        return Situation(
            in_file=keyring.ids,
            known={key.id: key for key in await master_keys.list_keys(self._connection)},
            workers=tuple(await master_keys.list_live_workers(self._connection)),
            sealed=sealed,
            unopenable=Counter(one.value.key_id for one in self._unopenable),
        )

    async def _carry_out(self, step: OpenNewKey | FetchKeyFile | Promote | Reseal | Retire) -> bool:
        """Do a step, and say whether it changed anything."""
        match step:
            case OpenNewKey():
                self._open_new_key()
            case FetchKeyFile():
                raise _key_is_elsewhere(step, self._store.place)
            case Promote(key_id):
                self._store.promote(key_id)
                self._say(f"Key {key_id} is first in {self._store.place}: it seals from now on.")
            case Reseal():
                return await self._reseal()
            case Retire(key_ids):
                await self._retire(key_ids)
            case _:
                assert_never(step)
        return True

    def _open_new_key(self) -> None:
        key = MasterKey.generate()
        self._store.open_key(key)
        self._say(f"Key {key.id} is new at the end of {self._store.place}: it opens, and does not seal yet.")

    async def _reseal(self) -> bool:
        done = await resealing.reseal(self._connection, self._sealer)
        self._unopenable = done.unopenable
        if done.count:
            primary = self._sealer.keyring.primary.id
            self._say(f"{counted(done.count, 'value is', 'values are')} now sealed with key {primary}.")
        for one in done.thrown_away:
            self._say(f"Thrown away, since it does not open and another one can be had: {one.value.told}.")
        return bool(done.count or done.thrown_away)

    async def _retire(self, key_ids: tuple[str, ...]) -> None:
        """Take old keys out, once what workers sealed with them at the last moment is stored and sealed anew."""
        situation = await self._look()
        if situation.workers:
            await asyncio.sleep(self._options.settle_seconds)
            situation = await self._look()
        if situation.sealed_otherwise:
            return
        held = {key_id for key_id, count in situation.sealed.items() if count}
        gone = [key_id for key_id in situation.in_file[1:] if key_id not in held]
        if not self._options.keep_old_keys and self._store.is_writable:
            self._store.remove(gone)
            self._say(_removed(gone, self._store.place))
        else:
            self._say(_kept(gone, self._store.place))
        await master_keys.retire_keys(self._connection, key_ids)

    def _end(self) -> None:
        """Say that all is done, or raise SealError that names what does not open."""
        primary = self._sealer.keyring.primary.id
        if not self._unopenable:
            self._say(f"Done: everything is sealed with key {primary}.")
            return
        for one in self._unopenable:
            self._say(f"Not sealed anew: {one.value.told}. {one.error}")
        raise SealError(
            f"{counted(len(self._unopenable), 'value does', 'values do')} not open and could not be sealed anew;"
            f" everything else is sealed with key {primary}.",
            fix="Enter what is named above anew, then run `tocsin key rotate` again: it retires the old key.",
        )


@asynccontextmanager
async def _the_only_rotation(url: str) -> AsyncGenerator[Connection]:
    """Hold the fleet-wide right to rotate, in a transaction of its own: PgBouncer carries that in every mode."""
    async with connect(url) as connection:
        if not await master_keys.lock_rotation(connection):
            raise SealError("Another `tocsin key rotate` is running.", fix="Wait until it has ended.")
        yield connection


def _waiting(step: WaitUntilOpen | WaitUntilSealing) -> str:
    what = "have key" if isinstance(step, WaitUntilOpen) else "seal with key"
    return f"Waiting until all workers {what} {step.key_id}: {listed(step.hosts)}"


def _out_of_patience(step: WaitUntilOpen | WaitUntilSealing, place: str) -> SealError:
    what = "do not have" if isinstance(step, WaitUntilOpen) else "do not yet seal with"
    return SealError(
        f"Workers on {listed(step.hosts)} {what} key {step.key_id}. Nothing is broken: both keys are open here.",
        fix=f"Copy {place} to them as it is now, or wait for the volume that carries it; with TOCSIN_MASTER_KEY,"
        " restart them. Then run `tocsin key rotate` again.",
    )


def _key_is_elsewhere(step: FetchKeyFile, place: str) -> SealError:
    return SealError(
        f"A rotation has begun on another machine: workers on {listed(step.hosts)} have key {step.key_id}, and {place}"
        " has not.",
        fix="Copy the key file from there to this machine, then run `tocsin key rotate` again.",
    )


def _removed(key_ids: list[str], place: str) -> str:
    if not key_ids:
        return "No old key is left to be taken out."
    return (
        f"Taken out of {place}: {listed(key_ids)}. Keep a backup of it for as long as you keep backups of the database"
        " from before: they open with it only. Give the file as it is now to every other machine, and back it up."
    )


def _kept(key_ids: list[str], place: str) -> str:
    if not key_ids:
        return "No old key is left."
    return f"No longer needed by this ledger, and may be taken out of {place} everywhere: {listed(key_ids)}."
