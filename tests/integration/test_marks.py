"""What may be in doubt, and what still begins after somebody said stop: a real ledger, a server that takes its time."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.smtp import Wait
from tocsin_workers.intake.taking import take_in
from tocsin_workers.sender import marks
from tocsin_workers.sender.recording import Recorder
from tocsin_workers.sender.slice import SliceResult, work_slice
from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.servers.office import Office
    from tocsin_schema.ledger.recording import WantedMark
    from tocsin_workers.sender.marks import Mark


async def individual_job(office: Office, recipients: int) -> int:
    part = {
        "id": str(uuid4()),
        "profile": office.profile,
        "mode": "individual",
        "content": {"subject": "To {{ recipient.address }}", "text": "Please leave."},
        "recipients": [{"address": f"r{number}@campus.example"} for number in range(recipients)],
    }
    return (await take_in(office.runtime.pool, json.dumps(part).encode())).job_number


async def in_flight(office: Office, job: int) -> int:
    return int(await office.one("SELECT in_flight FROM job_counts WHERE job_number = %s", job))


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Look until it is so: what is waited for happens in Postgres."""
    for _ in range(500):
        if await condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"never came: {what}")


async def test_no_more_than_a_window_is_in_doubt_however_slowly_the_ledger_records(
    office: Office, ledger_url: str, monkeypatch: pytest.MonkeyPatch
):
    waiting = 0
    real = Recorder.mark

    async def mark(recorder: Recorder, wanted: Sequence[WantedMark], *, ahead: bool = False) -> Mark:
        nonlocal waiting
        waiting += 1
        try:
            return await real(recorder, wanted, ahead=ahead)
        finally:
            waiting -= 1

    async def a_window_is_marked() -> bool:
        return await in_flight(office, job) == WINDOW

    async def all_is_sent_that_is_marked() -> bool:
        return waiting == 1 and len(office.server.messages) >= await in_flight(office, job)

    monkeypatch.setattr(Recorder, "mark", mark)
    # However long it takes here, the messages of a window go by the one mark that they have.
    monkeypatch.setattr(marks, "MARK_SECONDS", 60.0)
    await office.ledger.execute("UPDATE sending_profiles SET batch_size = 100 WHERE name = %s", [office.profile])
    office.server.answers["dot"] = first_dot = Wait(asyncio.Event())
    job = await individual_job(office, 100)
    working = asyncio.create_task(office.work())
    await first_dot.reached.wait()
    await until(a_window_is_marked, "all is marked that may be marked ahead")
    async with await psycopg.AsyncConnection.connect(ledger_url) as somebody:
        # From now on nothing can be written to the job's batch.
        await somebody.execute("SELECT FROM batches WHERE job_number = %s FOR UPDATE", [job])
        del office.server.answers["dot"]
        first_dot.event.set()
        await until(all_is_sent_that_is_marked, "the slice waits for its next mark")
        assert len(office.server.messages) == await in_flight(office, job) == WINDOW
        await somebody.rollback()
    await working
    while len(office.server.messages) < 100:
        await office.work()  # its second is over, as so much was waited for
    assert await in_flight(office, job) == 0


@pytest.mark.parametrize(
    "stop",
    [
        "UPDATE jobs SET state = 'cancelled'",
        "UPDATE jobs SET state = 'paused'",
        "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x', pause_cause = 'by_hand'",
        "UPDATE mailboxes SET parked_until = now() + interval '1 minute', parked_reason = 'x'",
    ],
)
async def test_a_body_is_not_begun_that_was_stopped_while_the_server_took_its_time(
    office: Office, stop: str, monkeypatch: pytest.MonkeyPatch
):
    refused = asyncio.Event()
    real = Recorder.mark

    async def mark(recorder: Recorder, wanted: Sequence[WantedMark], *, ahead: bool = False) -> Mark:
        given = await real(recorder, wanted, ahead=ahead)
        if not given.ours:
            refused.set()
        return given

    monkeypatch.setattr(marks, "MARK_SECONDS", 0.02)
    monkeypatch.setattr(Recorder, "mark", mark)
    office.server.answers["MAIL"] = slow = Wait(asyncio.Event())
    job = await individual_job(office, 1)
    working = asyncio.create_task(office.work())
    await slow.reached.wait()
    await office.ledger.execute(stop.encode())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await refused.wait()
    slow.event.set()
    await working
    assert office.server.messages == []
    assert office.server.body_bytes == 0
    assert await in_flight(office, job) == 0


async def test_a_slice_that_begins_while_its_worker_stops_takes_nothing(office: Office):
    job = await individual_job(office, 1)
    office.runtime.stopping.set()
    profile_id = await office.one("SELECT id FROM sending_profiles WHERE name = %s", office.profile)
    assert await work_slice(office.runtime.sender, profile_id, 1) is SliceResult.HELD
    assert office.server.connections == 0
    assert await in_flight(office, job) == 0
