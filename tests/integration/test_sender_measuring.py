"""What a slice observes on its way: replies by class, how long mail took, what a lost lease kept from going twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

from prometheus_client import REGISTRY

from tocsin_schema.contract.part import Priority
from tocsin_workers.intake.taking import take_in
from tocsin_workers.intake.working import work_part
from tocsin_workers.sender.slice import SliceResult, work_slice

if TYPE_CHECKING:
    from tests.servers.office import Office


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def replies(office: Office) -> tuple[float, ...]:
    """Of the profile: 2xx, 4xx, 5xx."""
    return tuple(
        value("tocsin_smtp_replies_total", profile=office.profile, **{"class": one}) for one in ("2xx", "4xx", "5xx")
    )


def job(office: Office, *addresses: str) -> bytes:
    return json.dumps(
        {
            "id": str(uuid4()),
            "profile": office.profile,
            "content": {"subject": "Water damage", "text": "Please leave."},
            "recipients": [{"address": address} for address in addresses],
        }
    ).encode()


async def work(office: Office) -> SliceResult:
    profile_id = await office.one("SELECT id FROM sending_profiles WHERE name = %s", office.profile)
    return await work_slice(office.runtime.sender, profile_id, 1)


async def test_a_message_has_one_reply_and_each_refused_recipient_one_more(office: Office) -> None:
    office.refuse("gone@campus.example")
    await office.send("a@campus.example", "b@campus.example", "gone@campus.example")
    assert replies(office) == (1, 0, 1)


async def test_a_session_that_is_not_opened_counts_by_the_reply_that_it_got(office: Office) -> None:
    office.server.answers["EHLO"] = lambda _: "421 4.3.2 Too busy"
    await take_in(office.runtime.pool, job(office, "a@campus.example"))
    assert await work(office) is SliceResult.FAILED
    assert replies(office) == (0, 1, 0)


async def test_how_long_a_message_took_is_observed_from_its_publishing_and_from_when_it_was_due(office: Office) -> None:
    priority = Priority.NORMAL.value
    names = "tocsin_publish_to_accept_seconds", "tocsin_due_to_accept_seconds"
    before = [value(f"{name}_sum", priority=priority) for name in names]
    taken = await take_in(office.runtime.pool, job(office, "a@campus.example"))
    await office.ledger.execute(
        "UPDATE jobs SET published_at = now() - interval '1 hour' WHERE number = %s", [taken.job_number]
    )
    await office.ledger.execute(
        "UPDATE batches SET due_at = now() - interval '1 minute' WHERE job_number = %s", [taken.job_number]
    )
    await office.work()
    published, due = (value(f"{name}_sum", priority=priority) - old for name, old in zip(names, before, strict=True))
    assert 3600 <= published < 3660
    assert 60 <= due < 120


async def test_what_a_lost_lease_keeps_from_going_out_is_a_duplicate_avoided(office: Office) -> None:
    def lose_the_lease(_: str) -> None:
        office.runtime.lease.lose()

    before = value("tocsin_duplicates_avoided_total", how="fenced")
    await take_in(office.runtime.pool, job(office, "a@campus.example"))
    office.server.answers["DATA"] = lose_the_lease
    assert await work(office) is SliceResult.HELD
    assert value("tocsin_duplicates_avoided_total", how="fenced") == before + 1


async def test_parts_and_addresses_that_come_twice_are_duplicates_avoided(office: Office) -> None:
    def avoided() -> tuple[float, float]:
        found = [value("tocsin_duplicates_avoided_total", how=how) for how in ("repeated_part", "repeated_address")]
        return found[0], found[1]

    parts, addresses = avoided()
    part = job(office, "a@campus.example", "b@campus.example", "a@campus.example")
    for _ in range(3):
        await work_part(office.runtime.intake, "tocsin.intake.normal", part)
    assert avoided() == (parts + 2, addresses + 1)
