"""Asking the ledger and the message broker whether they answer: bounded in time, and at most every few seconds.

A server that takes a connection and then says nothing holds a thread of its own here, one at most a check; whoever
wants to know is told after a while that there was no answer.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from tocsin_schema.errors import ConfigurationError, LedgerError, MessageBrokerError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.migrate import check_schema
from tocsin_schema.message_broker import amqp
from tocsin_workers.supervising.asking import Question
from tocsin_workers.supervising.health import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FRESH_SECONDS: Final = 3.0
"""How long an answer is good."""
LONGEST_SECONDS: Final = 10.0
"""When a question is given up that was asked and is not answered, so that the next one can be asked."""
PATIENCE_SECONDS: Final = 3.0
"""How long a server is waited for: a probe should wait a little longer."""


def check(ask: Callable[[], Mapping[str, str]], *, unanswered: Mapping[str, str]) -> Question[Mapping[str, str]]:
    """Ask again and again what each check of `ask` comes to: `OK`, or what is wrong in words.

    `unanswered` is what is told where it does not return in time.
    """

    def failed(error: Exception) -> Mapping[str, str]:
        # Only its kind: libraries quote addresses with their passwords.
        return {name: f"the check failed: {type(error).__name__}" for name in unanswered}

    return Question(ask, good_seconds=lambda _took: FRESH_SECONDS, failed=failed, unanswered=unanswered)


class ServerChecks:
    """Whether the ledger answers and fits this release, and whether the message broker answers."""

    def __init__(self, database_url: str, broker_url: str | None) -> None:
        self._checks = [
            check(
                lambda: asyncio.run(_ask_ledger(database_url)),
                unanswered=_no_ledger(_silence("Postgres")),
            )
        ]
        if broker_url is not None:
            self._checks.append(
                check(lambda: _ask_rabbitmq(broker_url), unanswered={"message_broker": _silence("RabbitMQ")})
            )

    def __call__(self) -> dict[str, str]:
        """Ask all of them side by side; returns within `PATIENCE_SECONDS`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        asked = [(question, question.begin()) for question in self._checks]
        said = {name: text for question, one in asked for name, text in question.result(one, by=deadline).items()}
        # Without RabbitMQ the queues live in the ledger's own Postgres.
        return {"database": said["database"], "message_broker": said["database"], **said}


def _silence(server: str) -> str:
    return f"{server} does not answer within {PATIENCE_SECONDS:g} s"


def _no_ledger(problem: str) -> Mapping[str, str]:
    return {"database": problem, "schema": "unknown: Postgres does not answer"}


async def _ask_ledger(url: str) -> Mapping[str, str]:
    schema = OK
    try:
        async with asyncio.timeout(LONGEST_SECONDS), connect(url) as connection:
            try:
                await check_schema(connection)
            except LedgerError as unfit:
                schema = str(unfit)
    except TimeoutError:
        return _no_ledger(_silence("Postgres"))
    except LedgerError as away:
        return _no_ledger(away.problem)
    return {"database": OK, "schema": schema}


def _ask_rabbitmq(url: str) -> Mapping[str, str]:
    try:
        parameters = amqp.connection_parameters(url, name="health")
        parameters.stack_timeout = amqp.CONNECT_SECONDS
        amqp.close(amqp.connect(parameters))
    except (MessageBrokerError, ConfigurationError) as error:
        return {"message_broker": error.problem}
    return {"message_broker": OK}
