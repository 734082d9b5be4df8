from __future__ import annotations

import asyncio

import pytest
from dramatiq import Message
from dramatiq.errors import ActorNotFound

from tocsin_schema.errors import ContractError, LedgerError, MessageBrokerError
from tocsin_schema.message_broker.failures import Fate, HeldMessage, fate
from tocsin_schema.message_broker.topology import DEAD_QUEUE, INTAKE_QUEUES, QUEUES, WAKE_UP_QUEUES


@pytest.mark.parametrize("queue", QUEUES)
def test_what_succeeded_is_acknowledged(queue: str) -> None:
    assert fate(queue, None) is Fate.ACKNOWLEDGE


@pytest.mark.parametrize("queue", INTAKE_QUEUES)
@pytest.mark.parametrize("error", [ValueError(), ContractError("unknown_field", "No.")])
def test_a_part_that_its_actor_fails_on_is_dead_lettered(queue: str, error: Exception) -> None:
    assert fate(queue, error) is Fate.DEAD_LETTER


@pytest.mark.parametrize("queue", INTAKE_QUEUES)
@pytest.mark.parametrize(
    "error",
    [LedgerError("away"), MessageBrokerError("away"), asyncio.CancelledError(), ActorNotFound("x"), SystemExit()],
    ids=lambda error: type(error).__name__,
)
def test_a_part_is_not_blamed_for_its_surroundings(queue: str, error: BaseException) -> None:
    assert fate(queue, error) is Fate.REQUEUE


@pytest.mark.parametrize("error", [ValueError(), LedgerError("away")])
def test_a_dead_letter_is_never_dropped(error: Exception) -> None:
    assert fate(DEAD_QUEUE, error) is Fate.REQUEUE


@pytest.mark.parametrize("queue", WAKE_UP_QUEUES)
def test_a_wake_up_is_never_kept(queue: str) -> None:
    assert fate(queue, ValueError()) is Fate.ACKNOWLEDGE


def test_a_log_line_shows_no_part() -> None:
    held = HeldMessage(
        Message(
            queue_name="tocsin.intake.bulk",
            actor_name="intake_bulk",
            args=(b"somebody@example.org", {"reason": "private"}),
            kwargs={},
            options={},
        )
    )
    assert str(held) == "intake_bulk(<20 bytes>, …)"
    assert "example.org" not in f"{held!r}"
