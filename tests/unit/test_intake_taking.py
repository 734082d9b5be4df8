"""When a job is given up, and which parts cannot belong to one job."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.part import JobPart, PartPosition, Priority
from tocsin_schema.errors import ContractError
from tocsin_schema.ledger.installation_settings import InstallationSettings
from tocsin_schema.ledger.intake import JobForPart
from tocsin_workers.intake.taking import _refuse_beyond_the_last, expiry_hours

SETTINGS = InstallationSettings(
    retry_first_delay_seconds=30,
    retry_maximum_delay_seconds=3600,
    urgent_expiry_hours=6,
    normal_expiry_hours=72,
    bulk_expiry_hours=168,
    suppress_refused_addresses=True,
    retention_days=400,
)


@pytest.mark.parametrize(("priority", "hours"), [(Priority.URGENT, 6), (Priority.NORMAL, 72), (Priority.BULK, 168)])
def test_each_priority_expires_when_the_installation_says(priority: Priority, hours: int):
    assert expiry_hours(priority, SETTINGS) == hours


def fits(number: int, *, last: bool, known_last: int | None, highest: int | None) -> bool:
    part = JobPart(profile="p", part=PartPosition(number=number, last=last), recipients=())
    job = JobForPart(False, False, known_last, 1, uuid4(), 50, highest)
    try:
        _refuse_beyond_the_last(part, job)
    except ContractError:
        return False
    return True


def test_the_refusal_names_the_part():
    part = JobPart(profile="p", part=PartPosition(number=4, last=False), recipients=())
    with pytest.raises(ContractError, match="Part 4 does not fit: part 3 is the last") as caught:
        _refuse_beyond_the_last(part, JobForPart(False, False, 3, 1, uuid4(), 50, 3))
    assert (caught.value.code, caught.value.field) == (ContractCode.OTHER_CONTENT, "part")


@pytest.mark.parametrize(
    ("number", "last", "known_last", "highest"),
    [
        (1, True, None, None),
        (3, True, None, None),
        (2, False, 3, 3),
        (3, True, 3, 3),
        (3, True, None, 2),
        (1, False, 3, 3),
        (7, False, None, 5),
    ],
)
def test_parts_come_in_any_order_and_again(number: int, *, last: bool, known_last: int | None, highest: int | None):
    assert fits(number, last=last, known_last=known_last, highest=highest)


@pytest.mark.parametrize(
    ("number", "last", "known_last", "highest"),
    [(4, False, 3, 3), (4, True, 3, 3), (2, True, 3, 3), (2, True, None, 3), (2, True, 3, 1)],
)
def test_a_part_beyond_the_last_is_refused(number: int, *, last: bool, known_last: int | None, highest: int | None):
    assert not fits(number, last=last, known_last=known_last, highest=highest)
