"""`/metrics` of the workers: what all their processes did, and what lies in the ledger and on the queues."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

from tocsin_schema.message_broker.topology import QUEUES

if TYPE_CHECKING:
    from tests.servers.installation import Installation


def test_metrics_count_what_all_worker_processes_did(installation: Installation) -> None:
    installation.wait_until(lambda: installation.metrics()["tocsin_ledger_up"] == 1.0, "metrics are served")
    before = installation.metrics()
    job = installation.job(
        mode="individual",
        recipients=[*({"address": f"metric{n}@campus.example"} for n in range(99)), {"address": "no-at-sign"}],
    )
    installation.publish(job)
    installation.wait_for_job(job["id"])
    after = installation.metrics()

    def grown(sample: str) -> float:
        return after[sample] - before.get(sample, 0.0)

    assert grown('tocsin_recipients_total{outcome="sent",profile="alerts"}') == 99
    assert grown('tocsin_messages_total{outcome="accepted",profile="alerts"}') == 99
    assert grown('tocsin_jobs_total{mode="individual",priority="normal"}') == 1
    assert grown('tocsin_intake_parts_total{result="taken"}') == 1
    assert 1 <= grown('tocsin_smtp_seconds_count{phase="final"}') <= 99  # of messages in quick succession a sample
    assert grown('tocsin_smtp_seconds_sum{phase="envelope"}') > 0
    assert grown('tocsin_smtp_replies_total{class="2xx",profile="alerts"}') == 99
    assert 1 <= grown('tocsin_publish_to_accept_seconds_count{priority="normal"}') <= 99
    assert 0 < grown('tocsin_publish_to_accept_seconds_sum{priority="normal"}') < 60 * 99
    assert grown('tocsin_due_to_accept_seconds_count{priority="normal"}') >= 1
    # Our own producers tell when they published.
    assert installation.query("SELECT published_at <= created_at FROM jobs WHERE id = %s", job["id"]) == [(True,)]


def test_a_supervisor_tells_of_itself_and_of_the_installation(installation: Installation) -> None:
    def is_told() -> bool:
        found = installation.metrics()
        return found.get('tocsin_token_expiry_timestamp_seconds{oauth_profile="campus"}', 0.0) > time.time()

    job = installation.job()
    installation.publish(job)
    installation.wait_for_job(job["id"])
    installation.wait_until(is_told, "the access token that was used is told")
    found = installation.metrics()
    assert found[f'tocsin_build_info{{version="{version("tocsin")}"}}'] == 1
    assert found['tocsin_worker_processes{role="all"}'] == 2
    assert found["tocsin_worker_restarts_total"] >= 0
    assert found["tocsin_sending_halted"] == 0
    assert found['tocsin_profile_paused{profile="alerts",reason="credentials"}'] == 0
    assert time.time() - found["tocsin_sweeper_last_pass_timestamp_seconds"] < 60


def test_metrics_hold_no_address_and_no_job(installation: Installation) -> None:
    job = installation.job()
    installation.publish(job)
    installation.wait_for_job(job["id"])
    names = " ".join(installation.metrics())
    assert "campus.example" not in names
    assert job["id"] not in names


def test_metrics_tell_how_much_is_left_to_send(installation: Installation) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    job = installation.job(
        send_after=tomorrow.isoformat(),
        recipients=[{"address": f"later{n}@campus.example"} for n in range(777)],
    )

    def is_counted() -> bool:
        found = installation.metrics()
        pending, running = 'tocsin_ledger_recipients{state="pending"}', 'tocsin_ledger_jobs{state="running"}'
        return found.get(pending, 0.0) >= 777 and found.get(running, 0.0) >= 1

    installation.wait_until(lambda: not is_counted(), "nothing else is left to send")
    installation.publish(job)
    installation.wait_until(is_counted, "a job that waits for its time is counted")
    installation.query("UPDATE jobs SET state = 'cancelled' WHERE id = %s RETURNING id", job["id"])
    installation.wait_until(lambda: not is_counted(), "an ended job is counted no more")


def test_metrics_tell_the_depth_of_every_queue(installation: Installation) -> None:
    installation.wait_until(
        lambda: installation.metrics().get("tocsin_message_broker_up") == 1.0, "the queues are counted"
    )
    found = installation.metrics()
    assert {name for name in found if name.startswith("tocsin_queue_messages{")} == {
        f'tocsin_queue_messages{{queue="{queue}"}}' for queue in QUEUES
    }
