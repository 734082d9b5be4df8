"""Waiting for a published job: until it is through, refused, or out of time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from tocsin_console.sending import waiting
from tocsin_console.sending.waiting import Waited, newest_letter, wait_for_job
from tocsin_schema.ledger.connection import Connection, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tocsin_schema.ledger.dead_letters import DeadLetterLine


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url) as connection:
        yield connection


async def keep_letter(ledger: Connection, job_id: UUID) -> None:
    await ledger.execute(
        "INSERT INTO dead_letters (queue, code, reason, job_id, body, digest, details)"
        " VALUES ('tocsin.intake.normal', 'unknown_profile', 'There is no such profile.', %s, '', %s, '{}')",
        (job_id, uuid4().bytes),
    )
    await ledger.commit()


async def wait(ledger: Connection, job_id: UUID, before: DeadLetterLine | None, seconds: float | None) -> Waited:
    return await wait_for_job(ledger, job_id, letter_before=before, report=lambda _: None, timeout_seconds=seconds)


async def test_a_job_that_intake_refuses_ends_the_waiting_with_the_reason(ledger: Connection) -> None:
    job_id = uuid4()
    await keep_letter(ledger, uuid4())
    await keep_letter(ledger, job_id)
    waited = await wait(ledger, job_id, None, None)
    assert waited.job is None
    assert waited.refused is not None
    assert waited.refused.reason == "There is no such profile."


async def test_a_refusal_of_an_earlier_attempt_is_not_taken_for_ours(ledger: Connection) -> None:
    job_id = uuid4()
    await keep_letter(ledger, job_id)
    before = await newest_letter(ledger, job_id)
    assert before is not None
    assert await wait(ledger, job_id, before, 0) == Waited(None)
    await keep_letter(ledger, job_id)
    waited = await wait(ledger, job_id, before, None)
    assert waited.refused is not None
    assert waited.refused.id > before.id


async def test_the_earlier_refusal_is_the_answer_where_nothing_else_comes(
    ledger: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "OLD_LETTER_GRACE_SECONDS", 0.0)
    job_id = uuid4()
    await keep_letter(ledger, job_id)
    waited = await wait(ledger, job_id, await newest_letter(ledger, job_id), None)
    assert waited.refused is not None


async def test_a_job_that_has_not_come_when_the_time_is_up_is_simply_not_there(ledger: Connection) -> None:
    assert await wait(ledger, uuid4(), None, 0) == Waited(None)
