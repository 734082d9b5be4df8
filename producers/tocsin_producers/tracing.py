"""The span of publishing a job, where this process traces with OpenTelemetry; nothing, and no import, where not.

A library must not decide whether its process traces: it takes part if somebody has set OpenTelemetry up. With Tocsin's
own set-up (the `tocsin` command's) the span is the root of the job's trace (`tocsin_schema.trace_context`). With
another one it is in the caller's own trace, under the caller's span, and the job's trace links to it.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from time import time_ns
from typing import TYPE_CHECKING

from tocsin_schema.trace_context import JobTraceIds, TraceParent, as_root, root_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from uuid import UUID

    from opentelemetry.trace import Span

_TRACING_MODULE = "opentelemetry.trace"


class PublishSpan:
    """The span of one job's publishing; it begins to exist when the job's id is known."""

    def __init__(self) -> None:
        self._began_at = time_ns()
        self._span: Span | None = None

    def traceparent(self, job_id: UUID) -> str | None:
        """Give the context that goes with the job's parts; None where nothing is traced."""
        if _TRACING_MODULE not in sys.modules:
            return None
        if self._span is None:
            self._span = _begin(job_id, self._began_at)
        context = self._span.get_span_context()
        if not context.is_valid:
            return None
        return str(TraceParent(context.trace_id, context.span_id, context.trace_flags.sampled))

    def note(self, *, parts: int, recipients: int, rank: str) -> None:
        """Tell how much was published."""
        if self._span is not None:
            self._span.set_attributes({"tocsin.parts": parts, "tocsin.recipients": recipients, "tocsin.priority": rank})

    def end(self, error: BaseException | None = None) -> None:
        """End it; of an error only its kind is told, since its words may hold addresses."""
        if self._span is None:
            return
        if error is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - only where it is imported already

            self._span.set_status(StatusCode.ERROR, type(error).__name__)
        self._span.end()


@contextmanager
def publish_span() -> Generator[PublishSpan]:
    """Give the span of what is done in here."""
    span = PublishSpan()
    try:
        yield span
    except BaseException as error:
        span.end(error)
        raise
    span.end()


def _begin(job_id: UUID, began_at: int) -> Span:
    from opentelemetry import trace  # noqa: PLC0415 - only where it is imported already
    from opentelemetry.context import Context  # noqa: PLC0415 - the same

    provider = trace.get_tracer_provider()
    tracer = provider.get_tracer("tocsin")
    attributes = {"tocsin.job.id": str(job_id), "messaging.operation.type": "send"}
    if not isinstance(getattr(provider, "id_generator", None), JobTraceIds):
        return tracer.start_span("publish", kind=trace.SpanKind.PRODUCER, attributes=attributes, start_time=began_at)
    caller = trace.get_current_span().get_span_context()
    with as_root(root_of(job_id)):
        return tracer.start_span(
            "publish",
            context=Context(),
            kind=trace.SpanKind.PRODUCER,
            attributes=attributes,
            links=[trace.Link(caller)] if caller.is_valid else [],
            start_time=began_at,
        )
