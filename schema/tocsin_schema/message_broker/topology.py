"""The names on the message broker, what each queue is for, and how much of it a process may hold.

Pure, and without an import outside the standard library, so that deployments, dashboards and the light
producer client agree with the workers by construction.

    tocsin.intake (direct exchange) ── urgent|normal|bulk ──▶ tocsin.intake.<rank> ──▶ tocsin.intake.dead
    wake-ups (default exchange)     ──▶ tocsin.send.<rank>, tocsin.tokens, tocsin.sweep

Intake queues carry the only copy of a part and lose nothing; wake-up queues carry hints and may lose
anything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, assert_never

INTAKE_EXCHANGE: Final = "tocsin.intake"
"""Direct and durable; the routing key is the rank."""

RANKS: Final = ("urgent", "normal", "bulk")
"""Routing keys of the intake exchange, best first."""

INTAKE_QUEUES: Final = tuple(f"tocsin.intake.{rank}" for rank in RANKS)
DEAD_QUEUE: Final = "tocsin.intake.dead"
SEND_QUEUES: Final = tuple(f"tocsin.send.{rank}" for rank in RANKS)
TOKEN_QUEUE: Final = "tocsin.tokens"  # noqa: S105 - a queue's name, not a token
SWEEP_QUEUE: Final = "tocsin.sweep"

WAKE_UP_QUEUES: Final = (*SEND_QUEUES, TOKEN_QUEUE, SWEEP_QUEUE)
QUEUES: Final = (*INTAKE_QUEUES, DEAD_QUEUE, *WAKE_UP_QUEUES)

#: dramatiq binds an actor to one queue, so a rank has its own.
ACTORS: Final = {
    **{f"tocsin.intake.{rank}": f"intake_{rank}" for rank in RANKS},
    DEAD_QUEUE: "dead_letter",
    **{f"tocsin.send.{rank}": f"sender_{rank}" for rank in RANKS},
    TOKEN_QUEUE: "token_broker",
    SWEEP_QUEUE: "sweeper",
}
"""Queue → the name of the one actor that works it."""

DELIVERY_LIMIT: Final = 20
"""A part whose consumer died so often is dead-lettered.

It may be what kills them. RabbitMQ 4's own default.
"""

WAKE_UP_LIMIT: Final = 10_000
"""Wake-ups kept in one queue.

The oldest are dropped, since the sweeper finds in the ledger what they meant.
"""

#: The first major version of RabbitMQ that limits deliveries by itself, and takes -1 to mean no limit.
_FIRST_WITH_DEFAULT_LIMIT: Final = 4


class Role(StrEnum):
    """What a worker process does: which queues it consumes."""

    INTAKE = "intake"
    SENDER = "sender"
    TOKENS = "tokens"
    SWEEPER = "sweeper"
    ALL = "all"


def intake_queue(rank: str) -> str:
    """Give the intake queue of a rank; ValueError where there is no such rank."""
    if rank not in RANKS:
        raise ValueError(f"no such rank: {rank!r}; there are {', '.join(RANKS)}")
    return f"tocsin.intake.{rank}"


def send_queue(rank: str) -> str:
    """Give the senders' wake-up queue of a rank; ValueError where there is no such rank."""
    if rank not in RANKS:
        raise ValueError(f"no such rank: {rank!r}; there are {', '.join(RANKS)}")
    return f"tocsin.send.{rank}"


def queues_of(role: Role) -> tuple[str, ...]:
    """Give the queues that a process of this role consumes."""
    match role:
        case Role.INTAKE:
            return (*INTAKE_QUEUES, DEAD_QUEUE)
        case Role.SENDER:
            return SEND_QUEUES
        case Role.TOKENS:
            return (TOKEN_QUEUE,)
        case Role.SWEEPER:
            return (SWEEP_QUEUE,)
        case Role.ALL:
            return QUEUES
        case _:
            assert_never(role)


def prefetch(queue: str, threads: int) -> int:
    """Say how many messages of a queue one process may hold, started or not.

    `threads` is how many of the process's threads take wake-ups, at least 3. Intake holds one part each, because every
    death of a consumer counts as a delivery of all that it held. A quarter of the threads, at least one, is left to
    `urgent` whatever happens: `normal` and `bulk` together never hold more than the rest.
    """
    if queue in INTAKE_QUEUES or queue in (DEAD_QUEUE, SWEEP_QUEUE):
        return 1
    if queue == TOKEN_QUEUE:
        return 2
    rest = max(2, threads - reserved_for_urgent(threads))
    if queue == send_queue("normal"):
        return rest - rest // 2
    if queue == send_queue("bulk"):
        return rest // 2
    return threads


def reserved_for_urgent(threads: int) -> int:
    """Say how many of so many threads, or places for slices, only urgent wake-ups may use: a quarter, rounded up."""
    return max(1, -(-threads // 4))


def worker_threads(queues: tuple[str, ...], threads: int) -> int:
    """Say how many threads a dramatiq worker on these queues needs, `threads` of them for wake-ups.

    Intake, tokens and sweeping get threads of their own on top, so that nothing of theirs, which may wait for
    Postgres or a token endpoint, ever keeps a sender from being woken.
    """
    own = sum(prefetch(queue, threads) for queue in queues if queue not in SEND_QUEUES)
    return own + (threads if any(queue in SEND_QUEUES for queue in queues) else 0)


def queue_arguments(queue: str, *, rabbitmq_major: int) -> dict[str, str | int]:
    """Give the arguments with which RabbitMQ declares a queue.

    All are quorum queues: they outlive a node. Dead-lettering is at-least-once, which needs `reject-publish`
    (https://www.rabbitmq.com/docs/quorum-queues#dead-lettering); the default drops messages while the
    dead-letter queue is away. The dead-letter queue has no limit and no way out but an acknowledgement;
    RabbitMQ 4 limits deliveries to 20 unless told otherwise, and RabbitMQ 3 refuses the value that tells it.
    """
    if queue in INTAKE_QUEUES:
        return {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_QUEUE,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERY_LIMIT,
        }
    if queue == DEAD_QUEUE:
        unlimited = {"x-delivery-limit": -1} if rabbitmq_major >= _FIRST_WITH_DEFAULT_LIMIT else {}
        return {"x-queue-type": "quorum", **unlimited}
    return {"x-queue-type": "quorum", "x-max-length": WAKE_UP_LIMIT, "x-overflow": "drop-head"}
