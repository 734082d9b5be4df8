"""How each fault is done, how long it lasts, and how it is undone."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import pika
import psutil
import psycopg

from tests.servers.faults import ledger
from tests.servers.faults.campus import LEASE_SECONDS
from tests.servers.faults.kinds import Fault
from tests.servers.faults.mail_events import MailPhase
from tests.servers.faults.mail_moods import DroppingAfterDot, DroppingBeforeDot, Mood, Refusing
from tocsin_schema.message_broker import amqp
from tocsin_schema.message_broker.topology import WAKE_UP_QUEUES

if TYPE_CHECKING:
    from collections.abc import Generator
    from random import Random

    from pika.adapters.blocking_connection import BlockingChannel

    from tests.servers.faults.campus import Campus
    from tests.servers.rabbitmq import RabbitmqNode

#: How often a mood of the mail server is to show before it passes, and how long that is waited for.
_STRIKES = 4
_STRIKE_SECONDS = 4.0
#: Mailboxes may still rest from the wave before.
_FIRST_STRIKE_SECONDS = 20.0
_TOKEN_FAILURES = 2
_TOKEN_SECONDS = 14.0
_ALARM_SECONDS = 10.0
_OFTEN, _MOSTLY = 0.4, 0.8
_OF_A_SESSION = frozenset({MailPhase.GREETING, MailPhase.EHLO, MailPhase.AUTH})
_NO_DISK, _SOME_DISK = "900000GB", "50MB"
_NO_MEMORY, _USUAL_MEMORY = "0", "0.4"


@dataclass(slots=True)
class Injector:
    """Does faults to an installation; `struck` counts how often what it did last was done."""

    campus: Campus
    choice: Random
    phase: MailPhase
    """Where the mail server refuses, if that is the fault."""
    struck: int = 0

    def strike(self, fault: Fault) -> AbstractContextManager[None]:  # noqa: C901, PLR0911, PLR0912 - a line a fault
        """Do a fault and let it last; it is undone when the block is left."""
        match fault:
            case Fault.WORKER_KILLED:
                return self._killed_worker()
            case Fault.WORKER_FROZEN:
                return self._frozen_worker()
            case Fault.TREE_KILLED:
                return self._killed_tree()
            case Fault.POSTGRES_STOPPED:
                return self._stopped_postgres()
            case Fault.RABBITMQ_KILLED:
                return self._killed_rabbitmq()
            case Fault.CONNECTIONS_CLOSED:
                return self._closed_connections()
            case Fault.WAKE_UPS_PURGED:
                return self._purged_wake_ups()
            case Fault.WAKE_UPS_DELETED:
                return self._deleted_wake_ups()
            case Fault.MEMORY_ALARM:
                return self._alarm("set_vm_memory_high_watermark", _NO_MEMORY, _USUAL_MEMORY)
            case Fault.DISK_ALARM:
                return self._alarm("set_disk_free_limit", _NO_DISK, _SOME_DISK)
            case Fault.DROP_BEFORE_DOT:
                return self._mood(DroppingBeforeDot(_OFTEN))
            case Fault.DROP_AFTER_DOT:
                return self._mood(DroppingAfterDot(_OFTEN))
            case Fault.TEMPORARY_REFUSALS:
                return self._mood(Refusing(self.phase, for_good=False, probability=self._how_often()))
            case Fault.PERMANENT_REFUSALS:
                return self._mood(Refusing(self.phase, for_good=True, probability=self._how_often()))
            case Fault.MAIL_SERVER_AWAY:
                return self._absent_mail_server()
            case Fault.TOKENS_FAIL:
                return self._failing_tokens(by_hanging=False)
            case Fault.TOKENS_HANG:
                return self._failing_tokens(by_hanging=True)
            case _:
                assert_never(fault)

    @property
    def _node(self) -> RabbitmqNode:
        assert self.campus.node is not None
        return self.campus.node

    def _last(self, least: float, most: float) -> None:
        """Let what has been done last for a while."""
        self.struck = 1
        time.sleep(self.choice.uniform(least, most))

    @contextmanager
    def _killed_worker(self) -> Generator[None]:
        self._a_worker().kill()
        self._last(0, 0)
        yield

    @contextmanager
    def _frozen_worker(self) -> Generator[None]:
        worker = self._a_worker()
        worker.suspend()
        try:
            self._last(LEASE_SECONDS * 1.2, LEASE_SECONDS * 1.6)
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.resume()

    @contextmanager
    def _killed_tree(self) -> Generator[None]:
        self.campus.kill_tree()
        self._last(0, 1)
        yield
        self.campus.start_workers()

    @contextmanager
    def _stopped_postgres(self) -> Generator[None]:
        self.campus.cluster.stop_at_once()
        try:
            self._last(0, 3)
            yield
        finally:
            self.campus.cluster.start()

    @contextmanager
    def _killed_rabbitmq(self) -> Generator[None]:
        self._node.kill()
        try:
            self._last(0, 1)
            yield
        finally:
            self._node.start()

    @contextmanager
    def _closed_connections(self) -> Generator[None]:
        self._node.close_all_connections(self.campus.broker_url)
        self._last(0, 0.5)
        yield

    @contextmanager
    def _purged_wake_ups(self) -> Generator[None]:
        self._purge_wake_ups()
        self._last(0, 0.5)
        self._purge_wake_ups()
        yield

    @contextmanager
    def _deleted_wake_ups(self) -> Generator[None]:
        with self._channel() as channel:
            for queue in WAKE_UP_QUEUES:
                channel.queue_delete(queue)
        self._last(0, 0.5)
        yield
        self._node.settle()

    @contextmanager
    def _alarm(self, setting: str, raised: str, usual: str) -> Generator[None]:
        self._node.ctl(setting, raised)
        try:
            assert self.campus.wait(self._is_alarmed, seconds=_ALARM_SECONDS), "RabbitMQ raises no alarm"
            self._last(0, 2)
            yield
        finally:
            self._node.ctl(setting, usual)

    def _how_often(self) -> float:
        """Say how often to refuse: sessions are few, and messages many."""
        return _MOSTLY if self.phase in _OF_A_SESSION else _OFTEN

    @contextmanager
    def _mood(self, mood: Mood) -> Generator[None]:
        self.campus.mail.behave(mood)
        if isinstance(mood, Refusing):
            # It shows at the beginning of sessions too, which are kept for long.
            self.campus.mail.hang_up()
        if not self.campus.wait(lambda: self.campus.mail.count().strikes >= _STRIKES, seconds=_STRIKE_SECONDS):
            self.campus.wait(lambda: self.campus.mail.count().strikes > 0, seconds=_FIRST_STRIKE_SECONDS)
        yield
        self.struck = self.campus.mail.behave()

    @contextmanager
    def _absent_mail_server(self) -> Generator[None]:
        self.campus.mail.leave()
        self._last(0.5, 3)
        yield
        self.campus.mail.come_back()

    @contextmanager
    def _failing_tokens(self, *, by_hanging: bool) -> Generator[None]:
        self.campus.mail.fail_tokens(by_hanging=by_hanging)
        self.campus.wait(lambda: self.campus.mail.count().token_failures >= _TOKEN_FAILURES, seconds=_TOKEN_SECONDS)
        yield
        self.struck = self.campus.mail.count().token_failures
        self.campus.mail.give_tokens()

    def _is_alarmed(self) -> bool:
        return "resource_limit" in self._node.evaluate("rabbit_alarm:get_alarms().")

    def _a_worker(self) -> psutil.Process:
        """Give a worker process, if possible one that has mail in hand."""
        found: list[psutil.Process] = []

        def is_there() -> bool:
            found[:] = [process for process in self.campus.worker_processes() if self.campus.has_work(process)]
            return bool(found)

        self.campus.wait(is_there, seconds=_STRIKE_SECONDS)
        return self.choice.choice(found or self.campus.worker_processes())

    def _purge_wake_ups(self) -> None:
        if self.campus.node is not None:
            with self._channel() as channel:
                for queue in WAKE_UP_QUEUES:
                    channel.queue_purge(queue)
            return
        with suppress(psycopg.OperationalError):  # a Postgres that is stopped at the same time has none to lose
            ledger.query(
                self.campus.database_url,
                "DELETE FROM dramatiq.queue WHERE queue_name = ANY (%s) AND state = 'queued' RETURNING 1",
                list(WAKE_UP_QUEUES),
            )

    @contextmanager
    def _channel(self) -> Generator[BlockingChannel]:
        assert self.campus.broker_url is not None
        connection = pika.BlockingConnection(amqp.connection_parameters(self.campus.broker_url, name="fault suite"))
        try:
            yield connection.channel()
        finally:
            connection.close()
