"""Dead letters of sound parts, whose consumers died: taken in again by itself, a few times at most."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from tests.servers.ledger_rows import add_profile
from tocsin_schema.ledger.connection import open_pool
from tocsin_schema.ledger.depths import ledger_depths
from tocsin_workers.intake import working
from tocsin_workers.intake.working import SECOND_CHANCES, IntakeDesk, work_dead_letter, work_part

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from uuid import UUID

    from tocsin_schema.ledger.connection import Connection
    from tocsin_workers.waking import Waker

DEATH = {"reason": "delivery_limit", "queue": "tocsin.intake.normal"}


class Killed(BaseException):
    """Stands for a SIGKILL: nothing is done after it."""


class Deaf:
    async def wake_sender(self, profile_id: UUID, rank: int) -> None:
        pass


@pytest.fixture
async def desk(database_url: str) -> AsyncGenerator[IntakeDesk]:
    async with open_pool(database_url, size=2) as pool:
        yield IntakeDesk(pool, cast("Waker", Deaf()), asyncio.Event())


@pytest.fixture
async def connection(database_url: str) -> AsyncGenerator[Connection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as one:
        yield one


async def a_part(connection: Connection) -> bytes:
    await add_profile(connection)
    row = await (await connection.execute("SELECT name FROM sending_profiles")).fetchone()
    assert row is not None
    part: dict[str, Any] = {
        "id": str(uuid4()),
        "profile": row[0],
        "content": {"subject": "Water damage", "text": "Please leave the building."},
        "recipients": [{"address": "someone@campus.example"}],
    }
    return json.dumps(part).encode()


async def letters(connection: Connection) -> list[tuple[Any, ...]]:
    return await (await connection.execute("SELECT state, requeues FROM dead_letters")).fetchall()


async def test_a_sound_part_is_taken_in_after_all(desk: IntakeDesk, connection: Connection) -> None:
    await work_dead_letter(desk, await a_part(connection), DEATH)
    assert await letters(connection) == [("requeued", 1)]
    assert (await ledger_depths(connection)).open_jobs == 1


async def test_the_log_names_the_part_and_tells_a_repeated_and_a_refused_one_from_one_that_was_taken_in(
    desk: IntakeDesk, connection: Connection
) -> None:
    whole = await a_part(connection)
    second = json.dumps({**json.loads(whole), "id": str(uuid4()), "part": {"number": 2, "last": True}}).encode()
    other = second.replace(b"Water", b"Fire")
    with capture_logs() as logged:
        for body in (whole, whole, second, other):
            await work_part(desk, "tocsin.intake.normal", body)
    assert [(entry["event"], entry["part"], entry["job"]) for entry in logged] == [
        ("part taken in", 1, json.loads(whole)["id"]),
        ("part repeated", 1, json.loads(whole)["id"]),
        ("part taken in", 2, json.loads(second)["id"]),
        ("part refused", 2, json.loads(second)["id"]),
    ]


async def test_a_part_that_kills_whoever_takes_it_in_is_left_for_a_person_to_see(
    desk: IntakeDesk, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = await a_part(connection)

    async def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(working, "take_in", die)
        for _ in range(SECOND_CHANCES):
            with pytest.raises(Killed):
                await work_dead_letter(desk, part, DEATH)
    # Its message is delivered once more, and is done with: the ledger has it.
    await work_dead_letter(desk, part, DEATH)
    assert await letters(connection) == [("kept", SECOND_CHANCES)]
    depths = await ledger_depths(connection)
    assert (depths.dead_letters, depths.open_jobs) == (1, 0)
