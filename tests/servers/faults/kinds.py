"""The faults: a closed list, and what each of them may do to mail. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never


class Fault(StrEnum):
    """Something that breaks; the value is what the table calls it."""

    WORKER_KILLED = "a worker process killed"
    WORKER_FROZEN = "a worker process frozen past its lease"
    TREE_KILLED = "supervisor and all workers killed"
    POSTGRES_STOPPED = "Postgres stopped at once"
    RABBITMQ_KILLED = "RabbitMQ killed"
    CONNECTIONS_CLOSED = "AMQP connections closed by RabbitMQ"
    WAKE_UPS_PURGED = "wake-ups purged"
    WAKE_UPS_DELETED = "wake-up queues deleted"
    MEMORY_ALARM = "RabbitMQ's memory alarm"
    DISK_ALARM = "RabbitMQ's disk alarm"
    DROP_BEFORE_DOT = "mail server drops before the dot"
    DROP_AFTER_DOT = "mail server drops after the dot, without reply"
    TEMPORARY_REFUSALS = "mail server answers 4xx, at every phase"
    PERMANENT_REFUSALS = "mail server answers 5xx, at every phase"
    MAIL_SERVER_AWAY = "mail server goes away"
    TOKENS_FAIL = "token endpoint answers 500"
    TOKENS_HANG = "token endpoint does not answer"


class Part(StrEnum):
    """What of the installation a fault is in: two faults at once are in different parts."""

    WORKERS = "workers"
    LEDGER = "ledger"
    MESSAGE_BROKER = "message broker"
    MAIL_SERVER = "mail server"
    TOKENS = "tokens"


class Doubling(StrEnum):
    """How many messages one such fault may make go out twice."""

    NONE = "none"
    MESSAGE = "one message"
    """The one whose reply was withheld."""
    CONNECTIONS = "one message a connection"
    """The one that each connection was waiting for the reply to."""
    WINDOWS = "a window a connection"
    """What was in flight: accepted, perhaps, and not yet recorded."""


def part_of(fault: Fault) -> Part:
    """Say where a fault is."""
    match fault:
        case Fault.WORKER_KILLED | Fault.WORKER_FROZEN | Fault.TREE_KILLED:
            return Part.WORKERS
        case Fault.POSTGRES_STOPPED:
            return Part.LEDGER
        case (
            Fault.RABBITMQ_KILLED
            | Fault.CONNECTIONS_CLOSED
            | Fault.WAKE_UPS_PURGED
            | Fault.WAKE_UPS_DELETED
            | Fault.MEMORY_ALARM
            | Fault.DISK_ALARM
        ):
            return Part.MESSAGE_BROKER
        case (
            Fault.DROP_BEFORE_DOT
            | Fault.DROP_AFTER_DOT
            | Fault.TEMPORARY_REFUSALS
            | Fault.PERMANENT_REFUSALS
            | Fault.MAIL_SERVER_AWAY
        ):
            return Part.MAIL_SERVER
        case Fault.TOKENS_FAIL | Fault.TOKENS_HANG:
            return Part.TOKENS
        case _:
            assert_never(fault)


def needs_rabbitmq(fault: Fault) -> bool:
    """Say whether a fault has no meaning on the message broker in Postgres; purging its table has."""
    return part_of(fault) is Part.MESSAGE_BROKER and fault is not Fault.WAKE_UPS_PURGED


def doubling(fault: Fault) -> Doubling:
    """Say how many messages one such fault may double."""
    match fault:
        case Fault.WORKER_KILLED | Fault.WORKER_FROZEN | Fault.TREE_KILLED:
            return Doubling.WINDOWS
        case Fault.MAIL_SERVER_AWAY:
            return Doubling.CONNECTIONS
        case Fault.DROP_AFTER_DOT:
            return Doubling.MESSAGE
        case _:
            return Doubling.NONE


def most_doubled(fault: Fault, times: int, *, window: int, connections: int) -> int:
    """Give how many messages may have gone out twice after a fault has struck so many times."""
    match doubling(fault):
        case Doubling.NONE:
            return 0
        case Doubling.MESSAGE:
            return times
        case Doubling.CONNECTIONS:
            return times * connections
        case Doubling.WINDOWS:
            return times * connections * window
        case _ as never:
            assert_never(never)


def leaves_doubt(fault: Fault) -> bool:
    """Say whether a sender may be left not knowing what became of a message that it wrote.

    It is so too where the server breaks off before it has read the dot: the sender may have written it. And a 421
    after the dot may be a good-bye that crossed it.
    """
    return doubling(fault) is not Doubling.NONE or fault in (Fault.DROP_BEFORE_DOT, Fault.TEMPORARY_REFUSALS)


def refuses_for_good(fault: Fault) -> bool:
    """Say whether recipients may end as failed."""
    return fault is Fault.PERMANENT_REFUSALS


def wants_a_person(fault: Fault) -> bool:
    """Say whether a profile may be paused for it, which the suite ends as an operator would."""
    return fault in (Fault.PERMANENT_REFUSALS, Fault.TOKENS_FAIL, Fault.TOKENS_HANG)


def explanation(fault: Fault) -> str:
    """Say what its duplicates come from."""
    match doubling(fault):
        case Doubling.NONE:
            return "it doubles nothing"
        case Doubling.MESSAGE:
            return "accepted, and the reply withheld"
        case Doubling.CONNECTIONS:
            return "accepted, and the reply lost with the connection"
        case Doubling.WINDOWS if fault is Fault.WORKER_FROZEN:
            return "accepted, and not recorded before the lease had lapsed"
        case Doubling.WINDOWS:
            return "accepted, and not yet recorded at the kill"
        case _ as never:
            assert_never(never)
