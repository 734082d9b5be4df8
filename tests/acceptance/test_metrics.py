"""`/metrics` of the workers: what all their processes did, and what lies in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    assert grown('tocsin_smtp_seconds_count{phase="final"}') == 99
    assert grown('tocsin_smtp_seconds_sum{phase="envelope"}') > 0
    assert after['tocsin_token_requests_total{outcome="obtained"}'] >= 1


def test_metrics_hold_no_address_and_no_job(installation: Installation) -> None:
    job = installation.job()
    installation.publish(job)
    installation.wait_for_job(job["id"])
    names = " ".join(installation.metrics())
    assert "campus.example" not in names
    assert job["id"] not in names
