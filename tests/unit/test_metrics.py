"""What is measured: the samples that a supervisor makes at a scrape, and what a worker process observes."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dramatiq import Message
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from tocsin_schema.contract.part import Priority
from tocsin_schema.ledger.credential_expiry import CredentialEnd
from tocsin_schema.ledger.depths import Backlog
from tocsin_schema.ledger.measuring import ProfileGauges, TokenTimes, Watch
from tocsin_schema.message_broker import publish_time
from tocsin_schema.message_broker.encoder import encode_message, message_for
from tocsin_schema.message_broker.topology import ACTORS
from tocsin_workers import metrics
from tocsin_workers.process.slices import CROWDED
from tocsin_workers.sender.slice import SliceResult
from tocsin_workers.supervising.samples import (
    BacklogCounts,
    LedgerCounts,
    ledger_families,
    queue_families,
    supervisor_families,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

BACKLOG = Backlog(
    due_batches=5,
    waiting_batches=3,
    leased_batches=2,
    receiving_jobs=1,
    running_jobs=2,
    paused_jobs=3,
    pending=40,
    in_flight=5,
    sent=90,
    failed=3,
    unknown=2,
    suppressed=1,
)
FREE = ProfileGauges(
    name="alerts",
    pause_cause=None,
    is_resting=False,
    connections_open=None,
    connections_limit=None,
    wants_connection=False,
    messages_last_minute=7,
    messages_limit=None,
    recipients_used=0,
    recipients_limit=None,
)
QUIET = LedgerCounts(
    backlog=BacklogCounts(BACKLOG, unknown_of_ended_jobs=4),
    watch=Watch(is_halted=False, swept_at=NOON, dead_letters=1),
    profiles=[],
    tokens=[],
    credential_ends=[],
)


def samples(families: Iterable[metrics.Family]) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def of_profile(profile: ProfileGauges) -> dict[tuple[str, str], float]:
    found = samples(ledger_families(replace(QUIET, profiles=[profile])))
    return {
        (name, labels.removeprefix("alerts,")): value for (name, labels), value in found.items() if "alerts" in labels
    }


# The ledger


def test_the_ledger_is_counted_by_state():
    assert samples(ledger_families(QUIET)) == {
        ("tocsin_ledger_up", ""): 1,
        ("tocsin_ledger_batches", "due"): 5,
        ("tocsin_ledger_batches", "waiting"): 3,
        ("tocsin_ledger_batches", "leased"): 2,
        ("tocsin_ledger_jobs", "receiving"): 1,
        ("tocsin_ledger_jobs", "running"): 2,
        ("tocsin_ledger_jobs", "paused"): 3,
        ("tocsin_ledger_recipients", "pending"): 40,
        ("tocsin_ledger_recipients", "in_flight"): 5,
        ("tocsin_ledger_recipients", "sent"): 90,
        ("tocsin_ledger_recipients", "failed"): 3,
        ("tocsin_ledger_recipients", "unknown"): 6,
        ("tocsin_ledger_recipients", "suppressed"): 1,
        ("tocsin_ledger_dead_letters", ""): 1,
        ("tocsin_sending_halted", ""): 0,
        ("tocsin_sweeper_last_pass_timestamp_seconds", ""): NOON.timestamp(),
    }


def test_a_ledger_that_does_not_answer_is_down_and_has_no_counts():
    assert samples(ledger_families(None)) == {("tocsin_ledger_up", ""): 0.0}


def test_before_its_first_pass_the_sweeper_tells_no_time():
    never = replace(QUIET, watch=Watch(is_halted=True, swept_at=None, dead_letters=0))
    found = samples(ledger_families(never))
    assert found["tocsin_sending_halted", ""] == 1
    assert not any("last_pass" in name for name, _ in found)


@pytest.mark.parametrize(
    ("cause", "reason"), [("credentials", "credentials"), ("by_hand", "operator"), ("sender", "sender"), (None, None)]
)
def test_a_paused_profile_has_a_one_for_its_reason_and_for_no_other(cause: str | None, reason: str | None):
    found = of_profile(replace(FREE, pause_cause=cause))
    paused = {labels: value for (name, labels), value in found.items() if name == "tocsin_profile_paused"}
    assert paused == {one: float(one == reason) for one in ("credentials", "operator", "sender")}


def test_a_mailbox_without_limits_tells_only_what_it_sends():
    found = of_profile(FREE)
    assert {key: value for key, value in found.items() if "budget" in key[0]} == {
        ("tocsin_budget_messages_per_minute", "used"): 7
    }
    assert found["tocsin_mailbox_resting", "alerts"] == 0


def test_a_limited_mailbox_tells_what_is_used_and_left():
    found = of_profile(
        replace(
            FREE,
            is_resting=True,
            connections_open=2,
            connections_limit=3,
            wants_connection=True,
            messages_limit=28.5,
            recipients_used=900,
            recipients_limit=1000,
        )
    )
    assert {key: value for key, value in found.items() if "paused" not in key[0]} == {
        ("tocsin_mailbox_resting", "alerts"): 1,
        ("tocsin_budget_connections", "open"): 2,
        ("tocsin_budget_connections", "limit"): 3,
        ("tocsin_budget_connections", "wanted"): 1,
        ("tocsin_budget_messages_per_minute", "used"): 7,
        ("tocsin_budget_messages_per_minute", "limit"): 28.5,
        ("tocsin_budget_recipients_per_day", "used"): 900,
        ("tocsin_budget_recipients_per_day", "limit"): 1000,
    }


def test_tokens_and_credentials_tell_when_they_end_and_no_mailbox():
    later = NOON.replace(hour=13)
    counted = replace(
        QUIET,
        tokens=[TokenTimes("campus", NOON, later)],
        credential_ends=[
            CredentialEnd("campus", "refresh_token", "b@campus.example", later),
            CredentialEnd("campus", "refresh_token", "a@campus.example", NOON),
        ],
    )
    found = samples(ledger_families(counted))
    assert {key: value for key, value in found.items() if "campus" in key[1]} == {
        ("tocsin_token_obtained_timestamp_seconds", "campus"): NOON.timestamp(),
        ("tocsin_token_expiry_timestamp_seconds", "campus"): later.timestamp(),
        ("tocsin_credential_expiry_timestamp_seconds", "campus,refresh_token"): NOON.timestamp(),
    }


# The queues, and the supervisor itself


def test_messages_are_counted_by_queue():
    assert samples(queue_families({"tocsin.intake.bulk": 7, "tocsin.intake.dead": 0})) == {
        ("tocsin_message_broker_up", ""): 1.0,
        ("tocsin_queue_messages", "tocsin.intake.bulk"): 7.0,
        ("tocsin_queue_messages", "tocsin.intake.dead"): 0.0,
    }


def test_a_message_broker_that_does_not_answer_is_down_and_has_no_counts():
    assert samples(queue_families(None)) == {("tocsin_message_broker_up", ""): 0.0}


def test_a_supervisor_tells_its_release_and_its_children():
    assert samples(supervisor_families(version="1.2", role="sender", processes=4, restarts=2)) == {
        ("tocsin_build_info", "1.2"): 1,
        ("tocsin_worker_processes", "sender"): 4,
        ("tocsin_worker_restarts_total", ""): 2,
    }


# Observing


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_of_messages_in_quick_succession_one_is_observed(monkeypatch: pytest.MonkeyPatch):
    now = [1e6]
    monkeypatch.setattr(metrics, "monotonic", lambda: now[0])
    counts = "tocsin_publish_to_accept_seconds_count", "tocsin_due_to_accept_seconds_count"
    before = [value(name, priority="bulk") for name in counts]
    for _ in range(10):
        metrics.observe_acceptance(Priority.BULK.rank, since_published=3.0, since_due=2.0)
    now[0] += metrics.SAMPLE_SECONDS
    metrics.observe_acceptance(Priority.BULK.rank, since_published=3.0, since_due=2.0)
    assert [value(name, priority="bulk") for name in counts] == [count + 2 for count in before]


def test_what_was_dated_in_the_future_has_taken_no_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "monotonic", lambda: 2e6)
    before = value("tocsin_publish_to_accept_seconds_sum", priority="urgent")
    metrics.observe_acceptance(Priority.URGENT.rank, since_published=-60.0, since_due=0.0)
    assert value("tocsin_publish_to_accept_seconds_sum", priority="urgent") == before


def test_replies_are_counted_by_class_and_what_has_none_is_not():
    metrics.count_replies("classes", {250: 3, 251: 1, 421: 2, 550: 1, 354: 9})
    counted = [value("tocsin_smtp_replies_total", profile="classes", **{"class": one}) for one in ("2xx", "4xx", "5xx")]
    assert counted == [4, 2, 1]
    assert value("tocsin_smtp_replies_total", profile="classes", **{"class": "3xx"}) == 0


def test_every_way_in_which_a_slice_ends_is_counted_from_the_start():
    told = [sample for family in metrics.SLICES.collect() for sample in family.samples]
    assert {sample.labels["result"] for sample in told} == {*SliceResult, CROWDED}


# When a part was published


def test_the_time_of_publishing_is_read_in_milliseconds_where_it_is_told_so():
    assert publish_time.published_ms(1_790_000_000, {"timestamp_in_ms": 1_790_000_000_123}) == 1_790_000_000_123
    assert publish_time.published_ms(1_790_000_000, {"timestamp_in_ms": "soon"}) == 1_790_000_000_000
    assert publish_time.published_ms(None, None) is None
    timestamp, headers = publish_time.properties_at(1_790_000_000.4567)
    assert publish_time.published_ms(timestamp, headers) == 1_790_000_000_456


def test_a_part_comes_with_the_time_that_its_message_or_its_envelope_tells():
    queue = "tocsin.intake.normal"

    def told(body: bytes, published_ms: int | None = None) -> object:
        message = message_for(queue, body, published_ms=published_ms)
        assert message is not None
        return message.kwargs.get("published_ms")

    envelope = encode_message(
        Message(
            queue_name=queue, actor_name=ACTORS[queue], args=(b"{}",), kwargs={}, options={}, message_timestamp=1234
        )
    )
    assert (told(b"{}"), told(b"{}", 5678), told(envelope), told(envelope, 5678)) == (None, 5678, 1234, 5678)


@given(st.one_of(st.none(), st.integers(), st.sampled_from([0, 946_684_800_000, 253_370_764_799_999])))
def test_a_time_that_cannot_be_meant_is_none(milliseconds: int | None):
    moment = publish_time.moment(milliseconds)
    assert moment is None or 2000 <= moment.year < 9999


@given(st.one_of(st.none(), st.booleans(), st.text(), st.floats(), st.binary()), st.dictionaries(st.text(), st.text()))
def test_whatever_stands_in_a_messages_properties_is_no_error(timestamp: object, headers: dict[str, object]):
    assert publish_time.published_ms(timestamp, headers) is None


# Names


def test_every_metric_stands_in_the_documentation_with_its_kind_and_labels():
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `tocsin_")
    ]
    documented = {(row[0].strip("`"), row[1], tuple(re.findall(r"`(\w+)`", row[2]))) for row in rows}
    assert len(documented) == len(rows)
    assert documented == {(metric.name, metric.kind.value, metric.labels) for metric in metrics.METRICS}


def test_labels_are_few_and_say_nothing_of_persons_hosts_or_jobs():
    known = {
        "profile", "oauth_profile", "credential", "outcome", "result", "mode", "priority", "phase", "class", "how",
        "state", "reason", "queue", "version", "role",
    }  # fmt: skip
    assert {label for metric in metrics.METRICS for label in metric.labels} <= known
    assert all(len(metric.labels) <= 2 for metric in metrics.METRICS)


def test_names_follow_the_conventions():
    for metric in metrics.METRICS:
        assert re.fullmatch(r"tocsin_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is metrics.Kind.COUNTER)
        assert metric.meaning.endswith(".")
