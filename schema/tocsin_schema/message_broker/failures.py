"""What becomes of a message whose actor raised. The decision is pure; the middleware carries it out.

dramatiq acknowledges a message whose actor raised unless somebody marks it as failed, and its own `Retries`
acknowledges it also when the retry could not be enqueued. Here nothing is retried by the broker: a part goes
to the dead-letter queue, from which the ledger takes it, and what waits, waits in the ledger.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from dramatiq import MessageProxy, Middleware
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import Interrupt

from tocsin_schema.errors import Scope, TocsinError
from tocsin_schema.message_broker.topology import DEAD_QUEUE, INTAKE_QUEUES

if TYPE_CHECKING:
    from dramatiq import Broker, Message

log = logging.getLogger(__name__)

REQUEUE_DELAY_SECONDS = 1.0
"""How long a message that was nobody's fault rests before it is given back, so that it does not spin."""

#: Errors that say nothing about the message: we were told to stop, or are not set up to work it.
_NOT_THE_MESSAGE = (
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    Interrupt,
    ActorNotFound,
    KeyboardInterrupt,
    SystemExit,
)

_NOT_THE_MESSAGE_SCOPES = frozenset({Scope.INSTALLATION, Scope.LEDGER, Scope.MESSAGE_BROKER})


class Fate(StrEnum):
    """What to do with a message that its actor is through with."""

    ACKNOWLEDGE = "acknowledge"
    DEAD_LETTER = "dead letter"
    REQUEUE = "requeue"


def fate(queue: str, error: BaseException | None) -> Fate:
    """Decide from the queue and what the actor raised.

    A wake-up is never worth keeping. A dead letter is never dropped: it stays until it is in the ledger. A
    part is dead-lettered, unless the error blames the surroundings (the ledger is away, we are stopping):
    then another worker shall have it.
    """
    if error is None:
        return Fate.ACKNOWLEDGE
    if queue == DEAD_QUEUE:
        return Fate.REQUEUE
    if queue not in INTAKE_QUEUES:
        return Fate.ACKNOWLEDGE
    if isinstance(error, _NOT_THE_MESSAGE):
        return Fate.REQUEUE
    if isinstance(error, TocsinError) and error.scope in _NOT_THE_MESSAGE_SCOPES:
        return Fate.REQUEUE
    return Fate.DEAD_LETTER


class Rejected(Exception):  # noqa: N818 - it names what happened to a message; nobody raises it
    """Stands for the error of a message that was failed without one."""


class HeldMessage(MessageProxy):
    """A message in a worker's hand.

    Its text never shows what it carries: parts are long, and none of the log's.
    """

    @property
    def error(self) -> BaseException:
        """What its actor raised; `Rejected` where it was failed without an exception."""
        return self._exception or Rejected()

    def __str__(self) -> str:
        message = cast("Any", self)._message  # noqa: SLF001 - the proxied message, ours through the base class
        return describe(cast("Message[Any]", message))

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self}>"


def describe(message: Message[Any]) -> str:
    """Name a message in a log line: the actor, and of bytes only their number."""
    shown = [f"<{len(value)} bytes>" if isinstance(value, bytes) else "…" for value in message.args]
    shown += [f"{name}={value!r}" for name, value in message.kwargs.items() if not isinstance(value, bytes)]
    return f"{message.actor_name}({', '.join(shown)})"


class FailedMessages(Middleware):
    """Marks a message as failed where it must not be acknowledged.

    dramatiq itself logs the exception, once.
    """

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002 - the hook's signature
        message: MessageProxy,
        *,
        result: object = None,  # noqa: ARG002 - the hook's signature
        exception: BaseException | None = None,
    ) -> None:
        """Fail it, so that the consumer rejects it instead of acknowledging it."""
        decided = fate(message.queue_name, exception)
        if decided is not Fate.ACKNOWLEDGE:
            log.warning("%s failed: %s", message, decided)
            message.fail()
