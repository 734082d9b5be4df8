"""Running a machine's or a pod's worker processes: what `tocsin worker`, `up` and `demo` have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.errors import ConfigurationError
from tocsin_workers.logging_setup import log_the_uncaught
from tocsin_workers.supervising.checks import ServerChecks
from tocsin_workers.supervising.counters_directory import counters_directory
from tocsin_workers.supervising.endpoints import METRICS_PATH, Endpoints
from tocsin_workers.supervising.exposition import Exposition
from tocsin_workers.supervising.supervisor import Supervisor, child_command
from tocsin_workers.tracing import check_tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tocsin_schema.message_broker.topology import Role
    from tocsin_schema.settings import Settings

_log = structlog.get_logger(__name__)


def run_workers(
    settings: Settings,
    database_url: str,
    role: Role,
    *,
    processes: int,
    beginning: Callable[[], None] = lambda: None,
) -> None:
    """Run worker processes, and tell of them over HTTP, until SIGTERM or SIGINT.

    `database_url` is the ledger in force, embedded or not. `beginning` is called once nothing can keep the children
    from being started. Raises ConfigurationError where the metrics port is taken, or tracing is wanted and cannot be.
    """
    log_the_uncaught()
    check_tracing(settings)
    with counters_directory() as directory:
        broker_url = None if settings.broker_url is None else settings.broker_url.get_secret_value()
        exposition = Exposition(directory / "counters", database_url=database_url, broker_url=broker_url, role=role)
        supervisor = Supervisor(
            child_command(role),
            count=processes,
            environment={**child_environment(settings, database_url), **exposition.environment},
            grace_seconds=settings.shutdown_grace_seconds,
            on_death=exposition.forget,
        )
        exposition.watch(lambda: supervisor.family)
        if settings.metrics_port:
            checks = ServerChecks(database_url, broker_url)
            _serve(Endpoints(exposition.registry, family=lambda: supervisor.family, ask_servers=checks), settings)
        beginning()
        supervisor.run()


def child_environment(settings: Settings, database_url: str) -> dict[str, str]:
    """Give our own environment, and in it the embedded ledger's address, which no setting has.

    Where the settings name a ledger, a child reads them itself, and a file anew each time it is started.
    """
    return {**os.environ, **({"TOCSIN_DATABASE_URL": database_url} if settings.is_embedded else {})}


def _serve(endpoints: Endpoints, settings: Settings) -> None:
    try:
        port = endpoints.serve(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        raise ConfigurationError(
            f"Port {settings.metrics_port} at {settings.metrics_host} for /metrics cannot be used: {error.strerror}.",
            fix=(
                "Set TOCSIN_METRICS_PORT to a free one, or to 0 to do without, and TOCSIN_METRICS_HOST to an address "
                "of this machine."
            ),
        ) from error
    _log.info("metrics and health", url=f"http://{settings.metrics_host}:{port}{METRICS_PATH}")
