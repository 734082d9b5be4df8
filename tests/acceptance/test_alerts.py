"""Each alert fires in a real Prometheus from a cause that is provoked at real workers, and clears when it is gone.

In the rules time goes by 120 times faster (`tests.deployed_queries.shortened`).
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from tests.deployed_queries import ALERTS, RECORDING, asked_by_dashboards, filled_in, shortened
from tests.servers import prometheus
from tests.servers.alert_scene import INSTALLATIONS, AlertScene
from tests.servers.availability import or_skip
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.postgres import PostgresServer
    from tests.servers.rabbitmq import RabbitmqNode

FACTOR: Final = 120.0
#: A credential that ends so soon is a page.
SECRET_LIVES: Final = timedelta(days=2) / FACTOR
DOCS: Final = "https://docs.campus.example"
LOOK_EVERY_SECONDS: Final = 1.0
INTERVAL: Final = "15s"
"""What Grafana puts in for `$__rate_interval`."""

EXPECTED: Final = {
    ("TocsinBacklogGrowing", "busy"),
    ("TocsinCredentialExpiring", "busy"),
    ("TocsinDeadLetters", "busy"),
    ("TocsinNobodyAccepted", "busy"),
    ("TocsinProfilePaused", "busy"),
    ("TocsinQuotaNear", "busy"),
    ("TocsinTokenFailures", "busy"),
    ("TocsinUnknownOutcomes", "busy"),
    ("TocsinNoMailGoingOut", "stuck"),
    ("TocsinSendingHalted", "idle"),
    ("TocsinSweeperStale", "idle"),
    ("TocsinWorkersRestarting", "idle"),
    ("TocsinLedgerDown", "cut"),
    ("TocsinMessageBrokerDown", "cut"),
}


@pytest.fixture
def scene(tmp_path: Path, postgres_server: PostgresServer, rabbitmq_node: RabbitmqNode) -> Iterator[AlertScene]:
    with ExitStack() as stack:
        urls = {name: postgres_server.create_ledger() for name in INSTALLATIONS}
        broker_urls = {name: rabbitmq_node.create_vhost() for name in INSTALLATIONS}
        for name in INSTALLATIONS:
            stack.callback(postgres_server.drop_database, urls[name])
            stack.callback(rabbitmq_node.delete_vhost, broker_urls[name])
        with AlertScene(tmp_path, urls, broker_urls) as scene:
            scene.add_profiles(secret_lives=SECRET_LIVES)
            yield scene


@pytest.fixture
def running(scene: AlertScene) -> Iterator[Prometheus]:
    rules = {file.name: shortened(file, FACTOR) for file in (RECORDING, ALERTS)}
    unpacked = or_skip(prometheus.from_debian())
    with Prometheus(unpacked, jobs=scene.targets, rules=rules, external_labels={"tocsin_docs": DOCS}) as running:
        yield running


def test_each_alert_fires_from_its_cause_and_clears_and_every_panel_has_data(
    scene: AlertScene, running: Prometheus
) -> None:
    wait_until_all_are_scraped(running)
    panels = Panels(scene)
    fired: set[tuple[str, str]] = set()
    scene.provoke()
    with ThreadPoolExecutor() as pool:
        killing = pool.submit(scene.kill_workers)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (fired >= EXPECTED and not panels.without_data) and time.monotonic() < deadline:
            scene.go_on()
            fired |= firing(running)
            panels.look(running)
            time.sleep(LOOK_EVERY_SECONDS)
        killing.result()
    assert running.unhealthy_rules() == {}
    assert fired == EXPECTED
    assert panels.without_data == set()

    scene.mend()
    wait_until_clear(running, scene)


class Panels:
    """Which queries of the dashboards have not had an answer with data yet, for none of the installations."""

    def __init__(self, scene: AlertScene) -> None:
        self._jobs = list(scene.targets)
        self._asked = set(asked_by_dashboards())

    @property
    def without_data(self) -> set[str]:
        return {asked.where for asked in self._asked}

    def look(self, running: Prometheus) -> None:
        self._asked = {asked for asked in self._asked if not self._has_data(running, asked.expr)}

    def _has_data(self, running: Prometheus, expr: str) -> bool:
        queries = (filled_in(expr, job=job, interval=INTERVAL) for job in self._jobs)
        return any(not math.isnan(sample.value) for query in queries for sample in running.query(query))


def wait_until_all_are_scraped(running: Prometheus) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(running.query("tocsin_ledger_up == 1 and on (job) tocsin_worker_processes > 0")) < len(INSTALLATIONS):
        assert time.monotonic() < deadline, running.query("up")
        time.sleep(0.2)


def wait_until_clear(running: Prometheus, scene: AlertScene) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while still := firing(running):
        assert time.monotonic() < deadline, "\n".join(f"{alert} of {job}: {scene.told_by(job)}" for alert, job in still)
        time.sleep(LOOK_EVERY_SECONDS)


def firing(running: Prometheus) -> set[tuple[str, str]]:
    """Give the alerts that fire, each with its installation; their texts must be whole."""
    alerts = [alert for alert in running.alerts() if alert.state == "firing"]
    for alert in alerts:
        assert alert.annotations["runbook_url"] == f"{DOCS}/runbooks/#{alert.name.lower()}"
        assert not any("<" in text or "{{" in text for text in alert.annotations.values()), alert.annotations
    return {(alert.name, alert.labels.get("job", "")) for alert in alerts}
