"""Refused addresses are not written to again: the server's word, the ledger, and who is tried all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.servers.ledger_rows import add_job, add_profile, add_worker, counts_of
from tests.servers.ledger_sender import claim_one
from tests.servers.office import NO_SUCH_USER, SOMEBODY
from tocsin_schema.contract.part import Priority
from tocsin_schema.ledger import installation_settings, suppressions
from tocsin_schema.ledger.recording import RecordedException, Settlement
from tocsin_workers.sender.recording import MessageOutcome

if TYPE_CHECKING:
    from tests.servers.office import Office
    from tocsin_schema.ledger.sending import ClaimedBatch

ADA = "Ada.L@campus.example"
GRACE = "grace@campus.example"


async def test_a_refused_address_is_not_written_to_again_by_its_source(office: Office):
    office.refuse(ADA)
    first = await office.send(ADA, GRACE, source="library")
    assert await office.states(first) == {ADA: ("failed", NO_SUCH_USER), GRACE: ("sent", None)}
    (entry,) = await office.suppressed(ADA)
    since = entry["created_at"].strftime("%Y-%m-%d")
    assert (entry["source"], entry["job_number"], entry["actor"]) == ("library", first, None)
    assert (entry["code"], entry["enhanced_code"], entry["reply"]) == (550, "5.1.1", "No such user here")
    assert entry["reason"] == NO_SUCH_USER

    office.welcome()
    second = await office.send(ADA, GRACE, source="library")
    assert office.asked == [GRACE]
    assert await office.states(second) == {
        ADA: ("suppressed", f"suppressed since {since}: {NO_SUCH_USER}"),
        GRACE: ("sent", None),
    }
    assert await counts_of(office.ledger, second) == {"sent": 1, "suppressed": 1}
    assert await office.one("SELECT state FROM jobs WHERE number = %s", second) == "finished"
    # The copy is of the one who was sent to; nobody tried the other.
    copied = "SELECT array_agg(recipients::text) FROM email_copies WHERE job_number = %s"
    assert await office.one(copied, second) == ["01"]
    assert await office.one("SELECT count(*) FROM delivery_attempts WHERE job_number = %s", second) == 0
    assert len(await office.suppressed(ADA)) == 1


async def test_a_job_of_nothing_but_suppressed_recipients_finishes_and_no_message_is_begun(office: Office):
    await office.suppress(ADA, None)
    job = await office.send(ADA, source="library")
    assert await counts_of(office.ledger, job) == {"suppressed": 1}
    assert await office.one("SELECT state FROM jobs WHERE number = %s", job) == "finished"
    assert "MAIL" not in office.server.verbs()


@pytest.mark.parametrize(
    ("source", "priority"),
    [("registry", Priority.NORMAL), (None, Priority.NORMAL), ("library", Priority.URGENT)],
    ids=["another source", "no source", "urgent"],
)
async def test_others_and_urgent_jobs_write_to_it_all_the_same(office: Office, source: str | None, priority: Priority):
    await office.suppress(ADA, "library")
    job = await office.send(ADA, source=source, priority=priority)
    assert await office.state(job, ADA) == "sent"


@pytest.mark.parametrize("source", ["library", None], ids=["a source", "no source"])
async def test_a_suppression_without_a_source_holds_for_all(office: Office, source: str | None):
    await office.suppress(ADA, None)
    assert await office.state(await office.send(ADA, source=source), ADA) == "suppressed"


async def test_jobs_without_a_source_have_suppressions_of_their_own(office: Office):
    office.refuse(ADA)
    await office.send(ADA)
    assert [entry["source"] for entry in await office.suppressed(ADA)] == [""]
    office.welcome()
    assert await office.state(await office.send(ADA), ADA) == "suppressed"
    assert await office.state(await office.send(ADA, source="library"), ADA) == "sent"


async def test_the_local_part_is_compared_as_it_stands_and_the_domain_in_any_case(office: Office):
    await office.suppress(ADA, None)
    job = await office.send("ada.l@campus.example", "AdaL@campus.example", "Ada.L@Campus.EXAMPLE")
    assert {address: state for address, (state, _) in (await office.states(job)).items()} == {
        "ada.l@campus.example": "sent",
        "AdaL@campus.example": "sent",
        ADA: "suppressed",
    }


async def test_an_address_that_was_taken_off_the_list_is_tried_again(office: Office):
    office.refuse(ADA)
    await office.send(ADA, source="library")
    assert await suppressions.remove_suppressions(office.ledger, [ADA], source=None, actor=SOMEBODY) == 1
    assert await office.one("SELECT removed_by FROM removed_suppressions WHERE address = %s", ADA) == SOMEBODY.name
    office.welcome()
    assert await office.state(await office.send(ADA, source="library"), ADA) == "sent"


async def test_nobody_is_suppressed_where_the_setting_says_so(office: Office):
    await installation_settings.write_value(office.ledger, "SuppressRefusedAddresses", "0")
    try:
        office.refuse(ADA)
        assert await office.state(await office.send(ADA, source="library"), ADA) == "failed"
    finally:
        await office.ledger.execute("DELETE FROM settings WHERE key = 'SuppressRefusedAddresses'")
    assert await office.suppressed(ADA) == []


@pytest.mark.parametrize("reply", ["552 5.2.2 Mailbox full", "550 5.7.1 Message rejected by policy", "550 No"])
async def test_a_refusal_that_is_not_about_the_address_suppresses_nobody(office: Office, reply: str):
    office.refuse(ADA, reply)
    assert await office.state(await office.send(ADA, source="library"), ADA) == "failed"
    assert await office.suppressed(ADA) == []


async def test_who_was_deferred_and_is_suppressed_meanwhile_is_not_tried_again(office: Office):
    office.refuse(ADA, "451 4.7.1 Greylisted, try again later")
    job = await office.send(ADA, source="library")
    assert await office.state(job, ADA) == "pending"
    await office.suppress(ADA, "library")
    await office.ledger.execute("UPDATE recipient_exceptions SET due_at = now() WHERE job_number = %s", [job])
    await office.ledger.execute("UPDATE batches SET due_at = now() WHERE job_number = %s", [job])
    await office.work()
    assert office.asked == [ADA]
    assert await counts_of(office.ledger, job) == {"suppressed": 1}
    assert await office.one("SELECT state FROM jobs WHERE number = %s", job) == "finished"


# Written with the outcome, and fenced like it


def a_refusal(batch: ClaimedBatch, *, lease_epoch: int, state: str = "failed", dead: bool = True) -> MessageOutcome:
    row = RecordedException(
        job_number=batch.job_number,
        ordinal=batch.first_ordinal,
        batch_number=batch.number,
        lease_epoch=lease_epoch,
        state=state,
        attempts=1,
        due_in_seconds=None,
        phase="rcpt",
        code=550,
        enhanced_code="5.1.1",
        reply="No",
        reason="550 5.1.1 No",
        dead_address=dead,
    )
    settlement = Settlement(batch.job_number, batch.number, lease_epoch, batch.size, sent=0, settled=1)
    return MessageOutcome(settlement, exceptions=(row,))


@pytest.fixture
async def batch(office: Office) -> ClaimedBatch:
    """A claimed batch of recipients r0 and r1."""
    profile = await add_profile(office.ledger)
    await add_job(office.ledger, profile, recipients=2)
    return await claim_one(office.ledger, profile, await add_worker(office.ledger))


async def test_a_refusal_that_is_recorded_twice_suppresses_once(office: Office, batch: ClaimedBatch):
    for _ in range(2):
        await office.runtime.recorder.put(a_refusal(batch, lease_epoch=batch.lease_epoch))
    assert len(await office.suppressed("r0@campus.example")) == 1


async def test_who_has_lost_a_batch_suppresses_nobody(office: Office, batch: ClaimedBatch):
    # The new owner was told something else of the same recipient.
    await office.runtime.recorder.put(a_refusal(batch, lease_epoch=batch.lease_epoch, dead=False))
    await office.runtime.recorder.put(a_refusal(batch, lease_epoch=batch.lease_epoch - 1))
    assert await office.suppressed("r0@campus.example") == []


async def test_a_late_refusal_of_one_who_was_held_as_unknown_counts(office: Office, batch: ClaimedBatch):
    await office.runtime.recorder.put(a_refusal(batch, lease_epoch=batch.lease_epoch, state="unknown", dead=False))
    # The sweeper has taken the batch back.
    await office.ledger.execute("UPDATE batches SET lease_epoch = lease_epoch + 1 WHERE number = %s", [batch.number])
    await office.runtime.recorder.put(a_refusal(batch, lease_epoch=batch.lease_epoch))
    assert len(await office.suppressed("r0@campus.example")) == 1
