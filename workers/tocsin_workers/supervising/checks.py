"""Asking the ledger and the message broker whether they answer: bounded in time, and at most every few seconds.

A server that takes a connection and then says nothing holds a thread of its own here, one at most a check; whoever
wants to know is told after a while that there was no answer.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final

from tocsin_schema.errors import ConfigurationError, LedgerError, MessageBrokerError
from tocsin_schema.ledger.connection import connect
from tocsin_schema.ledger.migrate import check_schema
from tocsin_schema.message_broker import amqp
from tocsin_workers.supervising.health import OK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FRESH_SECONDS: Final = 3.0
"""How long an answer is good."""
LONGEST_SECONDS: Final = 10.0
"""When a question is given up that was asked and is not answered, so that the next one can be asked."""
PATIENCE_SECONDS: Final = 3.0
"""How long a server is waited for: a probe should wait a little longer."""


class Check:
    """One thing that is asked about again and again; any thread may ask.

    `ask` gives what each check of it came to: `OK`, or what is wrong in words. `unanswered` is what is told where it
    does not return in time.
    """

    def __init__(self, ask: Callable[[], Mapping[str, str]], *, unanswered: Mapping[str, str]) -> None:
        self._ask = ask
        self._unanswered = unanswered
        self._lock = Lock()
        self._asked: Future[Mapping[str, str]] | None = None
        self._answered_at = float("-inf")

    def begin(self) -> Future[Mapping[str, str]]:
        """Ask, unless an answer is fresh or on its way; give where it will be."""
        with self._lock:
            asked = self._asked
            is_usable = asked is not None and (not asked.done() or time.monotonic() - self._answered_at < FRESH_SECONDS)
            if asked is None or not is_usable:
                asked = self._asked = Future()
                Thread(target=self._run, args=(asked,), name="health check", daemon=True).start()
            return asked

    def result(self, asked: Future[Mapping[str, str]]) -> Mapping[str, str]:
        """Give what it came to, without waiting any more."""
        return asked.result() if asked.done() else self._unanswered

    def _run(self, asked: Future[Mapping[str, str]]) -> None:
        try:
            answer = self._ask()
        except Exception as error:  # noqa: BLE001 - a check that fails in a way nobody thought of is not good either
            # Only its kind: libraries quote addresses with their passwords.
            answer = {name: f"the check failed: {type(error).__name__}" for name in self._unanswered}
        self._answered_at = time.monotonic()
        asked.set_result(answer)


class ServerChecks:
    """Whether the ledger answers and fits this release, and whether the message broker answers."""

    def __init__(self, database_url: str, broker_url: str | None) -> None:
        self._checks = [
            Check(
                lambda: asyncio.run(_ask_ledger(database_url)),
                unanswered={"database": _silence("Postgres"), "schema": "unknown: Postgres does not answer"},
            )
        ]
        if broker_url is not None:
            self._checks.append(
                Check(lambda: _ask_rabbitmq(broker_url), unanswered={"message_broker": _silence("RabbitMQ")})
            )

    def __call__(self) -> dict[str, str]:
        """Ask all of them side by side; returns within `PATIENCE_SECONDS`."""
        asked = [(check, check.begin()) for check in self._checks]
        wait_for([future for _, future in asked], timeout=PATIENCE_SECONDS)
        said = {name: text for check, future in asked for name, text in check.result(future).items()}
        # Without RabbitMQ the queues live in the ledger's own Postgres.
        return {"database": said["database"], "message_broker": said["database"], **said}


def _silence(server: str) -> str:
    return f"{server} does not answer within {PATIENCE_SECONDS:g} s"


async def _ask_ledger(url: str) -> Mapping[str, str]:
    schema = OK
    try:
        async with asyncio.timeout(LONGEST_SECONDS), connect(url) as connection:
            try:
                await check_schema(connection)
            except LedgerError as unfit:
                schema = str(unfit)
    except TimeoutError:
        return {"database": _silence("Postgres"), "schema": "unknown: Postgres does not answer"}
    except LedgerError as away:
        return {"database": away.problem, "schema": "unknown: Postgres does not answer"}
    return {"database": OK, "schema": schema}


def _ask_rabbitmq(url: str) -> Mapping[str, str]:
    try:
        parameters = amqp.connection_parameters(url, name="health")
        parameters.stack_timeout = amqp.CONNECT_SECONDS
        amqp.close(amqp.connect(parameters))
    except (MessageBrokerError, ConfigurationError) as error:
        return {"message_broker": error.problem}
    return {"message_broker": OK}
