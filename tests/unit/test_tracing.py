"""Traces: the context that goes with a part, the root that follows from a job's id, and spans made from them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import opentelemetry.trace
import pytest
from dramatiq import Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from tocsin_producers.tracing import publish_span
from tocsin_schema.errors import ConfigurationError
from tocsin_schema.message_broker.encoder import encode_message, message_for
from tocsin_schema.settings import Settings, Tracing
from tocsin_schema.trace_context import JobTraceIds, TraceParent, read_traceparent, root_of
from tocsin_workers import tracing
from tocsin_workers.collector_address import collector_url, without_user
from tocsin_workers.intake.taking import Result, TakenPart
from tocsin_workers.outcomes import Verdict
from tocsin_workers.sender.slice import SliceResult
from tocsin_workers.sender.tally import MOST_NAMED, SliceTally
from tocsin_workers.span_exporting import TOLD_EVERY_SECONDS, CollectorNews
from tocsin_workers.trace_sampling import ByHashedTrace
from tocsin_workers.tracing import IntakePlace, Spans, check_tracing, intake_place, open_spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

JOB = UUID("0192e0aa-0000-4000-8000-000000000001")
QUEUE = "tocsin.intake.normal"
GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


# The context


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_context_is_read_as_it_was_written(trace_id: int, span_id: int, is_sampled: bool):
    parent = TraceParent(trace_id, span_id, is_sampled)
    assert read_traceparent(str(parent)) == parent


@pytest.mark.parametrize(
    "value",
    [
        None, 7, b"00-", "", "00", GIVEN.upper(), f"{GIVEN}-more", GIVEN.replace("00-", "ff-", 1), GIVEN + "\n",
        f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "01-" + GIVEN[3:] + "-" + "x" * 10_000,
    ],
)  # fmt: skip
def test_whatever_is_no_context_is_none(value: object):
    assert read_traceparent(value) is None


def test_a_later_version_of_the_context_is_read_as_far_as_it_is_known():
    assert read_traceparent(f"01-{GIVEN[3:]}-what-comes-later") == read_traceparent(GIVEN)


def test_the_trace_of_a_job_is_called_as_the_job():
    root = root_of(JOB)
    assert f"{root.trace_id:032x}" == JOB.hex
    assert root.span_id
    assert root == root_of(JOB)
    assert root.span_id != root_of(uuid4()).span_id


def test_the_context_goes_with_a_part_in_amqp_headers_and_in_an_envelopes_options():
    plain = message_for(QUEUE, b"{}", traceparent=GIVEN)
    assert plain is not None
    assert plain.kwargs["traceparent"] == GIVEN
    message = Message[None](
        queue_name=QUEUE, actor_name="intake_normal", args=(b"{}",), kwargs={}, options={"traceparent": GIVEN, "eta": 1}
    )
    opened = message_for(QUEUE, encode_message(message))
    assert opened is not None
    assert (opened.args, opened.kwargs["traceparent"], opened.options) == ((b"{}",), GIVEN, {})


@pytest.mark.parametrize("junk", ["", "x" * 1000, 7, {"a": 1}, b"\xff"])
def test_a_context_that_makes_no_sense_does_not_go_with_a_part(junk: object):
    message = message_for(QUEUE, b"{}", traceparent=junk)
    assert message is not None
    assert "traceparent" not in message.kwargs


# Spans


class Traced:
    """Spans of one provider, kept in memory."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider)

    @property
    def made(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def ids(self) -> list[tuple[str, str, str | None]]:
        """Give each span's name, trace id, and parent's span id."""
        return [
            (span.name, f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}" if span.parent else None)
            for span in self.made
            if span.context is not None
        ]


@pytest.fixture
def traced() -> Traced:
    return Traced(TracerProvider(id_generator=JobTraceIds()))  # pyright: ignore[reportArgumentType]  # by its methods


def taken(*, is_new_job: bool) -> TakenPart:
    return TakenPart(Result.TAKEN, JOB, 1, is_new_job, "shared", uuid4(), 1, recipients=3, rejected=0, duplicates=0)


def a_slice() -> SliceTally:
    tally = SliceTally(keeps_windows=True)
    tally.job(1).id = JOB
    tally.count_window(tally.began_at, {1: {Verdict.SENT: 2, Verdict.FAILED: 1}})
    return tally


def test_the_intake_that_begins_a_job_is_the_root_of_its_trace_where_nobody_told_of_publishing(traced: Traced):
    traced.spans.part_taken(taken(is_new_job=True), 1, began_at=1, traceparent=None)
    traced.spans.part_taken(taken(is_new_job=False), 2, began_at=2, traceparent=GIVEN)
    traced.spans.slice_worked("news", SliceResult.WORKED, a_slice())
    root = f"{root_of(JOB).span_id:016x}"
    slices = [span for span in traced.made if span.name == "slice"]
    assert slices[0].context is not None
    assert traced.ids() == [
        ("take in", JOB.hex, None),
        ("take in", JOB.hex, root),
        ("transmit window", JOB.hex, f"{slices[0].context.span_id:016x}"),
        ("slice", JOB.hex, root),
    ]
    assert traced.made[0].context is not None
    assert f"{traced.made[0].context.span_id:016x}" == root
    assert [f"{link.context.trace_id:032x}" for link in traced.made[1].links] == [GIVEN[3:35]]


def test_an_intake_is_under_the_publishing_that_is_the_root_else_under_the_root_or_the_root_itself():
    root, elsewhere = root_of(JOB), read_traceparent(GIVEN)
    published = TraceParent(root.trace_id, root.span_id, is_sampled=False)
    for begins_job in (True, False):
        assert intake_place(root, published, begins_job=begins_job) == IntakePlace(parent=published)
    assert intake_place(root, None, begins_job=True) == IntakePlace(parent=None)
    assert intake_place(root, None, begins_job=False) == IntakePlace(parent=root)
    assert intake_place(root, elsewhere, begins_job=True) == IntakePlace(parent=None, link=elsewhere)
    assert intake_place(root, elsewhere, begins_job=False) == IntakePlace(parent=root, link=elsewhere)


def test_publishing_is_the_root_where_tocsin_set_tracing_up(traced: Traced, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: traced.provider)
    with traced.provider.get_tracer("an application").start_as_current_span("its own") as own, publish_span() as span:
        told = span.traceparent(JOB)
        assert span.traceparent(JOB) == told
        span.note(parts=2, recipients=9, rank="normal")
    assert told == str(root_of(JOB))
    traced.spans.part_taken(taken(is_new_job=True), 1, began_at=1, traceparent=told)
    root = f"{root_of(JOB).span_id:016x}"
    assert [one for one in traced.ids() if one[1] == JOB.hex] == [
        ("publish", JOB.hex, None),
        ("take in", JOB.hex, root),
    ]
    assert [link.context for link in traced.made[0].links] == [own.get_span_context()]


def test_publishing_is_in_the_callers_own_trace_where_the_caller_set_tracing_up(monkeypatch: pytest.MonkeyPatch):
    application = Traced(TracerProvider())
    monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: application.provider)
    told: list[str | None] = []

    def publish_in_vain() -> None:
        with publish_span() as span:
            told.append(span.traceparent(JOB))
            raise ConnectionError("to robin@example.org")

    with application.provider.get_tracer("an application").start_as_current_span("its own") as own:
        with pytest.raises(ConnectionError):
            publish_in_vain()
        parent = read_traceparent(told[0])
        assert parent is not None
        assert parent.trace_id == own.get_span_context().trace_id != JOB.int
    [publish] = [one for one in application.made if one.name == "publish"]
    assert publish.status.description == "ConnectionError"


def test_all_processes_sample_a_job_alike():
    sampler = TraceIdRatioBased(0.5)
    for job in (uuid4() for _ in range(50)):
        one = Traced(TracerProvider(id_generator=JobTraceIds(), sampler=sampler))  # pyright: ignore[reportArgumentType]  # by its methods
        tally = a_slice()
        tally.job(1).id = job
        one.spans.slice_worked("news", None, tally)
        is_sampled = sampler.should_sample(None, job.int, "").decision.is_sampled()
        assert len(one.made) == (2 if is_sampled else 0)


def test_of_a_ratio_of_jobs_about_so_many_are_sampled():
    sampler = ByHashedTrace(TraceIdRatioBased(0.1))
    jobs = [uuid5(NAMESPACE_URL, str(number)) for number in range(1000)]
    sampled = sum(sampler.should_sample(None, job.int, "").decision.is_sampled() for job in jobs)
    assert 60 < sampled < 140


def test_nothing_is_imported_where_nothing_is_traced():
    script = (
        "import sys, tocsin_workers.process.__main__, tocsin_producers;"
        "from tocsin_producers.tracing import publish_span;"
        "from tocsin_schema.settings import Settings; from tocsin_workers.tracing import open_spans;"
        "from uuid import uuid4;"
        "assert open_spans(Settings(), service='x') is None\n"
        "with publish_span() as span: assert span.traceparent(uuid4()) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("missing", ["nowhere.at_all", "opentelemetry.nowhere"])
def test_tracing_that_is_wanted_and_not_installed_is_told_before_any_work(
    missing: str, monkeypatch: pytest.MonkeyPatch
):
    check_tracing(Settings(tracing=Tracing.OTLP))
    monkeypatch.setattr(tracing, "_EXPORTER", missing)
    check_tracing(Settings(tracing=Tracing.OFF))
    with pytest.raises(ConfigurationError, match=r"tocsin\[tracing\]"):
        check_tracing(Settings(tracing=Tracing.OTLP))


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_a_collector_that_is_no_web_address_is_refused_by_name_before_any_work(
    variable: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, "ftp://tocsin:hunter2@spans.example/")
    check_tracing(Settings(tracing=Tracing.OFF))
    for refuse in (check_tracing, lambda settings: open_spans(settings, service="tocsin-worker")):
        with pytest.raises(ConfigurationError, match=f"{variable} is not usable") as refused:
            refuse(Settings(tracing=Tracing.OTLP))
        assert "hunter2" not in str(refused.value)


def test_a_supervisor_asks_nothing_of_opentelemetry_before_it_starts_its_children():
    script = (
        "import sys, tocsin_workers.supervising.running\n"
        "from tocsin_schema.settings import Settings, Tracing; from tocsin_workers.tracing import check_tracing\n"
        "check_tracing(Settings(tracing=Tracing.OTLP))\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


# The collector


def test_trouble_with_a_collector_is_told_once_a_minute_and_its_end_where_it_was_told():
    news = CollectorNews()
    assert not news.success()
    assert [news.trouble(now) for now in (0.0, 1.0, TOLD_EVERY_SECONDS, TOLD_EVERY_SECONDS + 1)] == [
        True, False, True, False,
    ]  # fmt: skip
    assert [news.success(), news.success()] == [True, False]
    assert not news.trouble(TOLD_EVERY_SECONDS + 2)
    assert not news.success()


def test_a_collectors_url_is_read_from_the_standard_variables():
    assert collector_url({}) == "http://localhost:4318/v1/traces"
    assert collector_url({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://spans.example/"}) == "https://spans.example/v1/traces"
    both = {"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://spans.example/in"}
    assert collector_url(both) == "https://spans.example/in"


def test_a_collectors_url_is_shown_without_user_and_query_and_what_is_none_is_refused():
    assert without_user("https://u:p@w@[::1]:4318/v1/traces?key=k") == "https://[::1]:4318/v1/traces"
    for wrong in ("user:hunter2@spans.example", "spans.example:4318", "http://", "http://user:hun/ter@x", "ftp://x/"):
        with pytest.raises(ValueError):
            without_user(wrong)


# What a slice says


def test_a_slice_names_a_few_of_its_jobs_and_counts_all():
    tally = SliceTally()
    for number in range(MOST_NAMED + 2):
        tally.count(number, Verdict.SENT, 10)
    tally.count(0, "suppressed", 1)
    tally.job(99)
    line = tally.line()
    assert line["jobs"] == [str(number) for number in range(MOST_NAMED)]
    assert (line["more_jobs"], line["sent"], line["failed"], line["suppressed"]) == (2, 70, 0, 1)
    assert "deferred" not in line


def test_a_slice_that_did_nothing_says_nothing():
    tally = SliceTally()
    tally.job(1).id = JOB
    assert not tally.has_any
