"""The dramatiq actors: thin, one a queue. What they do is in `intake`, `sender`, `tokens` and `sweeping`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import dramatiq

from tocsin_schema.errors import LedgerError
from tocsin_schema.ledger.access_tokens import TokenKey
from tocsin_schema.ledger.connection import AWAY
from tocsin_schema.message_broker import publish_time
from tocsin_schema.message_broker.topology import (
    ACTORS,
    DEAD_QUEUE,
    INTAKE_QUEUES,
    RANKS,
    SWEEP_QUEUE,
    TOKEN_QUEUE,
    send_queue,
)
from tocsin_workers.intake.working import work_dead_letter, work_part
from tocsin_workers.process.slices import WakeUp
from tocsin_workers.sender.slice import work_slice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from dramatiq import Broker

    from tocsin_workers.process.runtime import Runtime


def declare_actors(broker: Broker, runtime: Runtime) -> None:
    """Declare the actor of every queue. Which queues are consumed is the worker's choice."""
    for queue in INTAKE_QUEUES:
        _declare(broker, queue, _intake(runtime, queue))
    _declare(broker, DEAD_QUEUE, _dead_letter(runtime))
    for rank, name in enumerate(RANKS):
        _declare(broker, send_queue(name), _sender(runtime, rank))
    _declare(broker, TOKEN_QUEUE, _token_broker(runtime))
    _declare(broker, SWEEP_QUEUE, _sweeper(runtime))


def _declare(broker: Broker, queue: str, act: Callable[..., Awaitable[None]]) -> None:
    # Urgent work first where a process has more than one thing to begin: lower numbers go first.
    priority = 0 if queue.endswith("urgent") else 2 if queue.endswith("bulk") else 1
    dramatiq.actor(actor_name=ACTORS[queue], queue_name=queue, broker=broker, priority=priority)(act)


def _intake(runtime: Runtime, queue: str) -> Callable[..., Awaitable[None]]:
    async def intake(body: bytes, published_ms: int | None = None, traceparent: str | None = None) -> None:
        with _ledger_away_as_its_fault():
            await work_part(
                runtime.intake,
                queue,
                body,
                published_at=publish_time.moment(published_ms),
                traceparent=traceparent,
            )

    return intake


def _dead_letter(runtime: Runtime) -> Callable[..., Awaitable[None]]:
    async def dead_letter(body: bytes, death: Mapping[str, object]) -> None:
        with _ledger_away_as_its_fault():
            await work_dead_letter(runtime.intake, body, death)

    return dead_letter


@contextmanager
def _ledger_away_as_its_fault() -> Generator[None]:
    """Let the message broker give a part back whose ledger was away: the part is not to blame."""
    try:
        yield
    except AWAY as error:
        raise LedgerError("The ledger went away.") from error


def _sender(runtime: Runtime, rank: int) -> Callable[..., Awaitable[None]]:
    async def sender(profile_id: str) -> None:
        profile = UUID(profile_id)
        runtime.slices.begin(
            WakeUp(profile, rank),
            lambda wake_ups: work_slice(
                runtime.sender, profile, rank, wake_ups=wake_ups, worked=runtime.slices.note_worked
            ),
        )

    return sender


def _token_broker(runtime: Runtime) -> Callable[..., Awaitable[None]]:
    async def token_broker(oauth_profile_id: str, subject: str) -> None:
        await runtime.refresh_token(TokenKey(UUID(oauth_profile_id), subject))

    return token_broker


def _sweeper(runtime: Runtime) -> Callable[..., Awaitable[None]]:
    async def sweeper() -> None:
        await runtime.sweep_once()

    return sweeper
