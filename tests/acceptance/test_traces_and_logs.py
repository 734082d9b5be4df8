"""What an installation tells of its work: one trace a job over all processes, and log lines without secrets."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.test_secrets import master_keys, tokens
from tests.servers.installation import CLIENT_SECRET, Installation
from tests.servers.patience import PATIENCE_SECONDS
from tests.servers.span_collector import CollectedSpan, SpanCollector
from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.mail_sink import MailSink, SinkOptions
from tocsin_console.demo.sink_script import Step
from tocsin_schema.message_broker.publishing import open_publisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCKED_OUT = "locked-out@campus.example"
PASSWORD = "the-wrong-password-of-a-mailbox"
#: As an upstream system with tracing of its own sends it.
FOREIGN_TRACE, FOREIGN_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[SpanCollector]:
    with SpanCollector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(
    ledger_url: str, vhost_url: str, collector: SpanCollector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation of its own, whose processes trace."""
    installation = Installation(tmp_path_factory.mktemp("traced"), ledger_url, vhost_url)
    installation.environment |= {
        "TOCSIN_TRACING": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    try:
        installation.start({"refused@campus.example": ["550 5.1.1 <refused@campus.example>: no such user"]})
        yield installation
    finally:
        installation.stop()


def wait_for_spans(traced: Installation, collector: SpanCollector, job_id: str, *names: str) -> list[CollectedSpan]:
    """Wait until a job's trace has spans of these names; give all of it."""
    trace_id = uuid.UUID(job_id).hex
    traced.wait_until(
        lambda: set(names) <= {span.name for span in collector.of_trace(trace_id)}, f"spans {names} of {job_id}"
    )
    return collector.of_trace(trace_id)


def test_one_trace_leads_from_publishing_to_acceptance_over_all_processes(
    traced: Installation, collector: SpanCollector
):
    addresses = [part for n in range(30) for part in ("--to", f"traced{n}@campus.example")]
    sent = json.loads(
        traced.tocsin(
            "send", "--profile", "alerts", "--subject", "S", "--text-file", "-", "--mode", "individual", "--json",
            "--to", "refused@campus.example", *addresses, given="T",
        )
    )  # fmt: skip
    traced.wait_for_job(sent["id"])
    spans = wait_for_spans(traced, collector, sent["id"], "publish", "take in", "slice", "transmit window")

    by_id = {span.span_id: span for span in spans}
    [publish] = [span for span in spans if span.name == "publish"]
    [intake] = [span for span in spans if span.name == "take in"]
    slices = [span for span in spans if span.name == "slice"]
    windows = [span for span in spans if span.name == "transmit window"]
    assert (publish.service, publish.parent_id) == ("tocsin", "")
    assert (intake.service, intake.parent_id) == ("tocsin-worker", publish.span_id)
    assert {span.parent_id for span in slices} == {publish.span_id}
    assert {by_id[span.parent_id].name for span in windows} == {"slice"}
    assert publish.began_at < intake.began_at < slices[0].began_at <= windows[0].began_at < windows[-1].ended_at
    assert publish.attributes["tocsin.recipients"] == intake.attributes["tocsin.recipients"] == 31

    def told(outcome: str, spans: list[CollectedSpan]) -> int:
        return sum(span.attributes.get(f"tocsin.recipients.{outcome}", 0) for span in spans)

    assert (told("sent", windows), told("failed", windows)) == (30, 1)
    assert (told("sent", slices), told("failed", slices)) == (30, 1)
    assert {span.attributes["tocsin.profile"] for span in slices} == {"alerts"}
    assert b"campus.example" not in collector.octets


def test_a_job_from_another_system_has_a_trace_of_its_own_that_links_to_where_it_came_from(
    traced: Installation, collector: SpanCollector
):
    job = traced.job()
    with open_publisher(broker_url=traced.broker_url, database_url=traced.database_url) as publisher:
        publisher.publish(json.dumps(job).encode(), "normal", traceparent=f"00-{FOREIGN_TRACE}-{FOREIGN_SPAN}-01")
    traced.wait_for_job(job["id"])
    spans = wait_for_spans(traced, collector, job["id"], "take in", "slice", "transmit window")
    [intake] = [span for span in spans if span.name == "take in"]
    assert (intake.parent_id, intake.links) == ("", [FOREIGN_TRACE])
    assert {span.parent_id for span in spans if span.name == "slice"} == {intake.span_id}


def lines(traced: Installation, event: str) -> list[dict[str, Any]]:
    said = [json.loads(line) for line in traced.log.read_text().splitlines()]
    return [line for line in said if line["event"] == event]


def test_the_log_has_a_line_a_slice_with_its_jobs_and_counts_but_not_one_a_message(traced: Installation):
    job = traced.job(mode="individual", recipients=[{"address": f"logged{n}@campus.example"} for n in range(200)])
    traced.publish(job)
    traced.wait_for_job(job["id"])

    def of_job() -> list[dict[str, Any]]:
        return [line for line in lines(traced, "slice worked") if job["id"] in line["jobs"]]

    traced.wait_until(lambda: sum(line["sent"] for line in of_job()) == 200, "all 200 are in the log")
    assert len(of_job()) <= 20
    assert all(line["profile"] == "alerts" and line["seconds"] >= 0 for line in of_job())


@pytest.fixture
def strict_mail_server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A mail server that refuses a password and names the mailbox; its port and its authority's certificate."""
    certificates = DemoCertificates(tmp_path / "tls")
    sink = MailSink(SinkOptions(tls=certificates.server_context(), passwords={LOCKED_OUT: "another one"}))
    sink.script.plan(Step.AUTH, *[f"535 5.7.8 <{LOCKED_OUT}>: authentication failed"] * 10)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    _, port = asyncio.run_coroutine_threadsafe(sink.start(), loop).result(10)
    yield port, certificates.ca_file
    asyncio.run_coroutine_threadsafe(sink.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE_SECONDS)
    loop.close()


def test_a_token_refresh_and_a_refused_log_in_are_counted_and_logged_without_secrets_and_addresses(
    traced: Installation, strict_mail_server: tuple[int, Path]
):
    port, ca_file = strict_mail_server
    traced.tocsin(
        "profile", "add", "locked-out", "--provider", "custom", "--host", "localhost", "--port", str(port),
        "--from", LOCKED_OUT, "--auth", "basic", "--password-file", "-", "--ca-file", str(ca_file), given=PASSWORD,
    )  # fmt: skip
    traced.publish(traced.job(profile="locked-out"))
    first = traced.job()
    traced.publish(first)
    traced.wait_for_job(first["id"])
    traced.wait_until(
        lambda: any(line["profile"] == "locked-out" for line in lines(traced, "profile paused")), "the pause is logged"
    )
    obtained = lines(traced, "access token obtained")
    assert obtained
    assert all(line["oauth_profile"] == "campus" for line in obtained)
    counted = traced.metrics()
    assert counted['tocsin_token_requests_total{outcome="obtained"}'] == len(obtained) == traced.token_requests()
    assert counted['tocsin_token_request_seconds_sum{outcome="obtained"}'] > 0

    log = traced.log.read_text()
    for secret in (PASSWORD, CLIENT_SECRET, *tokens(traced), *master_keys(traced)):
        assert secret not in log
    paused = next(line for line in lines(traced, "profile paused") if line["profile"] == "locked-out")
    assert "<l***@campus.example>: authentication failed" in paused["reason"]
    assert "locked-out@" not in log
    assert "someone@" not in log
    assert "refused@" not in log
