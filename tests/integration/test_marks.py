"""What may be in doubt, and what still begins after somebody said stop: a real ledger, a server that takes its time."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from tests.servers.ledger_rows import add_job, add_profile
from tests.servers.smtp import Wait
from tocsin_schema.ledger.recording import Settlement
from tocsin_workers.intake.taking import take_in
from tocsin_workers.sender import marking
from tocsin_workers.sender.claiming import Claim
from tocsin_workers.sender.recording import MessageOutcome
from tocsin_workers.sender.slice import SliceResult, work_slice
from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers.office import Office
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.marking import Mark
    from tocsin_workers.sender.preparing import PreparedMessage


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


async def test_no_more_than_a_window_is_in_doubt_however_slowly_the_ledger_records(
    office: Office, ledger_url: str, monkeypatch: pytest.MonkeyPatch
):
    held = asyncio.Event()
    real = Claim.all_committed_but

    async def all_committed_but(claim: Claim, most: int) -> None:
        if len(claim.committed) > most and not claim.committed[-most - 1][1].done():
            held.set()
        await real(claim, most)

    monkeypatch.setattr(Claim, "all_committed_but", all_committed_but)
    await office.ledger.execute("UPDATE sending_profiles SET batch_size = 100 WHERE name = %s", [office.profile])
    other = await add_job(office.ledger, await add_profile(office.ledger))
    job = await individual_job(office, 100)
    async with await psycopg.AsyncConnection.connect(ledger_url) as somebody:
        # The recorder waits for the batch of another job that somebody has locked.
        await somebody.execute("SELECT FROM batches WHERE job_number = %s FOR UPDATE", [other])
        waiting = office.runtime.recorder.put(MessageOutcome(Settlement(other, 0, 0, 2, sent=0, settled=0)))
        working = asyncio.create_task(office.work())
        async with asyncio.timeout(10):
            await held.wait()
        assert len(office.server.messages) == await in_flight(office, job) == WINDOW
        await somebody.rollback()
        await waiting
        await working
    assert len(office.server.messages) == 100
    assert await in_flight(office, job) == 0


@pytest.mark.parametrize(
    "stop",
    [
        "UPDATE jobs SET state = 'cancelled'",
        "UPDATE jobs SET state = 'paused'",
        "UPDATE sending_profiles SET paused_at = now(), paused_reason = 'x', pause_cause = 'by_hand'",
    ],
)
async def test_a_body_is_not_begun_that_was_stopped_while_the_server_took_its_time(
    office: Office, stop: str, monkeypatch: pytest.MonkeyPatch
):
    asked = asyncio.Event()
    real = marking.mark

    async def mark(desk: SenderDesk, messages: Sequence[PreparedMessage]) -> Mark:
        given = await real(desk, messages)
        if not given.ours:
            asked.set()
        return given

    monkeypatch.setattr(marking, "MARK_SECONDS", 0.02)
    monkeypatch.setattr(marking, "mark", mark)
    office.server.answers["MAIL"] = slow = Wait(asyncio.Event())
    job = await individual_job(office, 1)
    working = asyncio.create_task(office.work())
    await slow.reached.wait()
    await office.ledger.execute(stop.encode())
    async with asyncio.timeout(10):
        await asked.wait()
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
