"""OpenTelemetry spans of the workers: of each part that is taken in, of each slice by job, and of its windows.

    publish ─┬─ take in part 1
             ├─ slice ─┬─ transmit window
             │         └─ …
             └─ …

All of a job is in one trace, whose id is the job's (`tocsin_schema.trace_context`). A slice that worked for several
jobs is told in the trace of each, with that job's share of it. Spans are made when what they tell of is over, from
times that were noted: so tracing costs the work nothing while it is under way, and nothing at all where it is off. No
span tells an address.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, assert_never
from uuid import uuid4

from tocsin_schema.errors import ConfigurationError
from tocsin_schema.settings import Settings, Tracing
from tocsin_schema.trace_context import JobTraceIds, TraceParent, as_root, read_traceparent, root_of
from tocsin_workers.collector_address import collector_url
from tocsin_workers.release import running_release

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from uuid import UUID

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link
    from opentelemetry.util.types import AttributeValue

    from tocsin_workers.intake.taking import TakenPart
    from tocsin_workers.sender.slice import SliceResult
    from tocsin_workers.sender.tally import JobTally, SliceTally

#: What a collector that hangs may take of the end of a process.
CLOSING_SECONDS: Final = 2.0
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http"


@dataclass(frozen=True, slots=True)
class IntakePlace:
    """Where the span of taking a part in belongs.

    Without a `parent` it is the root of its job's trace, and has the root's ids.
    """

    parent: TraceParent | None
    link: TraceParent | None = None


def intake_place(root: TraceParent, told: TraceParent | None, *, begins_job: bool) -> IntakePlace:
    """Say where the intake of a part belongs in a trace with this root; `told` is the context that came with the part.

    What is told of another trace than the job's is a link only.
    """
    if told is not None and told.is_same_span(root):
        return IntakePlace(parent=told)
    # Nobody has told of publishing: who begins the job is the root, which senders name as their parent.
    return IntakePlace(parent=None if begins_job else root, link=told)


class Spans:
    """Makes the spans of one process. No method raises anything; all but `close` return at once."""

    def __init__(self, provider: TracerProvider) -> None:
        # Here, since where nothing is traced OpenTelemetry need not be installed.
        from opentelemetry import trace  # noqa: PLC0415 - see above

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("tocsin")

    def part_taken(self, taken: TakenPart, number: int | None, *, began_at: int, traceparent: str | None) -> None:
        """Tell of a part that is in the ledger. Times are of `time.time_ns`."""
        attributes: dict[str, AttributeValue] = {
            "tocsin.part.result": taken.result.value,
            "tocsin.recipients": taken.recipients,
        }
        if number is not None:
            attributes["tocsin.part.number"] = number
        self._intake(taken.job_id, attributes, began_at, read_traceparent(traceparent), begins_job=taken.is_new_job)

    def part_refused(self, job_id: UUID | None, code: str, *, began_at: int, traceparent: str | None) -> None:
        """Tell of a part that became a dead letter; nothing, where not even its job can be told."""
        if job_id is None:
            return
        attributes: dict[str, AttributeValue] = {"tocsin.part.result": "refused", "tocsin.part.refused_for": code}
        self._intake(job_id, attributes, began_at, read_traceparent(traceparent), begins_job=False)

    def slice_worked(self, profile: str, result: SliceResult | None, tally: SliceTally) -> None:
        """Tell of a slice, in the trace of each job that it worked for. None: it was broken off."""
        name, ended_at = str(uuid4()), time.time_ns()
        for job in tally.jobs.values():
            if job.id is None or not job.recipients:
                continue
            attributes: dict[str, AttributeValue] = {
                "tocsin.slice.id": name,
                "tocsin.slice.jobs": len(tally.jobs),
                "tocsin.slice.result": "broken off" if result is None else result.value,
                "tocsin.job.id": str(job.id),
                "tocsin.profile": profile,
                **_outcomes(job.recipients),
            }
            self._slice(job, attributes, tally.began_at, ended_at)

    def close(self) -> None:
        """Send what is left, unless that takes too long."""
        sending = threading.Thread(target=self._provider.shutdown, name="closing spans", daemon=True)
        sending.start()
        sending.join(CLOSING_SECONDS)

    def _intake(
        self,
        job_id: UUID,
        attributes: Mapping[str, AttributeValue],
        began_at: int,
        told: TraceParent | None,
        *,
        begins_job: bool,
    ) -> None:
        root = self._root(job_id)
        place = intake_place(root, told, begins_job=begins_job)
        with as_root(root) if place.parent is None else nullcontext():
            span = self._tracer.start_span(
                "take in",
                self._under(place.parent),
                self._api.SpanKind.CONSUMER,
                {**attributes, "tocsin.job.id": str(job_id), "messaging.operation.type": "process"},
                [] if place.link is None else [self._link(place.link)],
                start_time=began_at,
            )
        span.end()

    def _slice(self, job: JobTally, attributes: Mapping[str, AttributeValue], began_at: int, ended_at: int) -> None:
        assert job.id is not None
        worked = self._tracer.start_span(
            "slice", self._under(self._root(job.id)), self._api.SpanKind.INTERNAL, attributes, start_time=began_at
        )
        inside = self._api.set_span_in_context(worked, self._no_parent())
        for window in job.windows:
            span = self._tracer.start_span(
                "transmit window",
                inside,
                self._api.SpanKind.CLIENT,
                _outcomes(window.recipients),
                start_time=window.began_at,
            )
            span.end(window.ended_at)
        worked.end(ended_at)

    def _root(self, job_id: UUID) -> TraceParent:
        """Name a job's root span. Whether it was sampled nobody has told: the sampler decides by the trace's id."""
        root = root_of(job_id)
        decided = self._provider.sampler.should_sample(None, root.trace_id, "publish")
        return TraceParent(root.trace_id, root.span_id, decided.decision.is_sampled())

    def _under(self, parent: TraceParent | None) -> Context:
        if parent is None:
            return self._no_parent()
        span = self._api.NonRecordingSpan(self._context_of(parent))
        return self._api.set_span_in_context(span, self._no_parent())

    def _link(self, to: TraceParent) -> Link:
        return self._api.Link(self._context_of(to))

    def _context_of(self, parent: TraceParent):  # noqa: ANN202 - the library's SpanContext, which only it imports
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED if parent.is_sampled else 0)
        return self._api.SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)

    @staticmethod
    def _no_parent() -> Context:
        from opentelemetry.context import Context  # noqa: PLC0415 - see above

        return Context()


def open_spans(settings: Settings, *, service: str, role: str | None = None) -> Spans | None:
    """Begin to trace, where the settings say so; None where they do not, and then nothing is imported.

    From here on the whole process traces (OpenTelemetry's global provider). Where the spans go say the standard
    variables (https://opentelemetry.io/docs/specs/otel/protocol/exporter/). Raises ConfigurationError where what that
    needs is not installed, or a variable makes no sense.
    """
    match settings.tracing:
        case Tracing.OFF:
            return None
        case Tracing.OTLP:
            return _open(service, role)
        case _:
            assert_never(settings.tracing)


def check_tracing(settings: Settings) -> None:
    """Raise ConfigurationError where tracing is wanted and cannot be; OpenTelemetry itself is not loaded.

    That is, where it is not installed, or the collector's URL makes no sense.
    """
    if settings.tracing is Tracing.OFF:
        return
    try:
        found = find_spec(_EXPORTER)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise _not_installed()
    collector_url(os.environ)


@contextmanager
def traced(settings: Settings, *, service: str) -> Generator[None]:
    """Trace what is done in here, where the settings say so, for a command that ends soon. Raises as `open_spans`."""
    spans = open_spans(settings, service=service)
    try:
        yield
    finally:
        if spans is not None:
            spans.close()


def _open(service: str, role: str | None) -> Spans:
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra

        from tocsin_workers.span_exporting import CollectorExporter  # noqa: PLC0415 - needs the extra
        from tocsin_workers.trace_sampling import ByHashedTrace  # noqa: PLC0415 - needs the extra
    except ImportError as error:
        raise _not_installed() from error
    collector = collector_url(os.environ)
    told: dict[str, AttributeValue] = {"service.name": service, "service.version": running_release()}
    if role is not None:
        told["tocsin.role"] = role
    try:
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins.
        resource = Resource(told).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, id_generator=JobTraceIds())  # pyright: ignore[reportArgumentType]  # by its methods
        provider.sampler = ByHashedTrace(provider.sampler)
        provider.add_span_processor(BatchSpanProcessor(CollectorExporter(collector)))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "Tracing cannot be set up: a variable whose name begins with OTEL_ makes no sense.",
            fix="Correct it, or set TOCSIN_TRACING to off.",
        ) from error
    trace.set_tracer_provider(provider)
    return Spans(provider)


def _not_installed() -> ConfigurationError:
    return ConfigurationError(
        "TOCSIN_TRACING is otlp, but OpenTelemetry is not installed.",
        fix="`pip install 'tocsin[tracing]'`, or set TOCSIN_TRACING to off.",
    )


def _outcomes(recipients: Mapping[str, int]) -> dict[str, AttributeValue]:
    return {f"tocsin.recipients.{outcome}": count for outcome, count in recipients.items()}
