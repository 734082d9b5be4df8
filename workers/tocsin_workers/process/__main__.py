"""`python -m tocsin_workers.process --role R --parent PID`: one worker process, started by the supervisor.

SIGTERM or SIGINT: finish what is in hand within the grace period, give everything back, end. A second one ends at
once, which the ledger is prepared for.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING

import structlog
from dramatiq import Worker

from tocsin_schema.errors import MessageBrokerError, TocsinError
from tocsin_schema.message_broker import open_broker
from tocsin_schema.message_broker.topology import Role, queues_of, worker_threads
from tocsin_schema.settings import LogFormat, Settings, read_settings
from tocsin_workers.logging_setup import log_the_uncaught, set_up_logging
from tocsin_workers.process.actors import declare_actors
from tocsin_workers.process.event_loop import ProcessLoop
from tocsin_workers.process.runtime import LONGEST_WAIT_SECONDS, Runtime
from tocsin_workers.process.signs_of_life import give_signs, signs_descriptor
from tocsin_workers.process.stopping import Stop, close_queues, leave, stop_actors
from tocsin_workers.supervising.supervisor import die_with_parent
from tocsin_workers.tracing import open_spans

if TYPE_CHECKING:
    from tocsin_schema.message_broker.postgres import PostgresMessageBroker
    from tocsin_schema.message_broker.rabbitmq import RabbitmqMessageBroker

_log = structlog.get_logger("tocsin_workers.process")

#: How many objects are made before the collector looks for cycles among them: hardly any of ours are in one, and with
#: Python's 700 it looks every few messages.
COLLECTED_EVERY = 50_000
#: How often an idle thread looks whether it shall end.
POLL_MILLISECONDS = 250


def main() -> int:
    """Run until told to stop; give the exit code."""
    arguments = _arguments()
    die_with_parent(arguments.parent)
    try:
        settings = read_settings()
    except TocsinError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        return 1
    set_up_logging(settings)
    log_the_uncaught()
    try:
        run(settings, Role(arguments.role))
    except TocsinError as error:
        if settings.log_format is LogFormat.JSON:
            _log.critical("worker process cannot run", reason=str(error))
        else:
            sys.stderr.write(f"tocsin: {error}\n")
        return 1
    return 0


def run(settings: Settings, role: Role) -> None:
    """Run a worker on a role's queues. The supervisor has put the ledger's URL into the environment."""
    assert settings.database_url is not None
    database_url = settings.database_url.get_secret_value()
    stop = Stop(settings.shutdown_grace_seconds)
    broker = open_broker(
        broker_url=None if settings.broker_url is None else settings.broker_url.get_secret_value(),
        database_url=database_url,
        threads=settings.worker_threads,
    )
    loop = ProcessLoop()
    loop.begin()
    spans = open_spans(settings, service="tocsin-worker", role=role)
    runtime = Runtime(settings, database_url, role, broker, spans=spans)
    stop.watch(lambda: loop.call(runtime.stopping.set))
    has_begun = threading.Event()
    signs = signs_descriptor(os.environ)
    loop.call(
        lambda: give_signs(
            loop.loop, signs, lambda: has_begun.is_set() and not stop.is_told and not runtime.lease.is_lost
        )
    )
    worker: Worker | None = None
    if loop.run_to_end(runtime.open()) and _wait_for_the_message_broker(broker, stop):
        declare_actors(broker, runtime)
        queues = queues_of(role)
        worker = Worker(
            broker,
            queues=set(queues),
            worker_threads=worker_threads(queues, settings.worker_threads),
            worker_timeout=POLL_MILLISECONDS,
        )
        # What is there by now stays to the end, and need not be looked through again and again.
        gc.freeze()
        gc.set_threshold(COLLECTED_EVERY)
        worker.start()
        has_begun.set()
        _log.info("worker process ready", role=role, pid=os.getpid())
        stop.wait()
        stop_actors(worker, by=stop.closing_begins_at)
        loop.run_to_end(runtime.slices.finish(by=stop.closing_begins_at))
    loop.run_to_end(runtime.close())
    close_queues(worker, broker)
    if spans is not None:
        spans.close()
    loop.stop()


def _wait_for_the_message_broker(broker: RabbitmqMessageBroker | PostgresMessageBroker, stop: Stop) -> bool:
    """Try until the message broker is there; False if told to stop."""
    wait = 0.5
    while not stop.is_told:
        try:
            broker.connect()
        except MessageBrokerError as error:
            _log.error("worker waits for the message broker", reason=str(error))
            stop.wait(wait)
            wait = min(LONGEST_WAIT_SECONDS, wait * 2)
        else:
            return True
    return False


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tocsin-worker-process")
    parser.add_argument("--role", choices=[role.value for role in Role], required=True)
    parser.add_argument("--parent", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    # Not by `sys.exit`, which joins the threads of executors.
    leave(main())
