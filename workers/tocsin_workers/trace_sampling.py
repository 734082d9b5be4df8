"""Sampling of traces whose ids are job ids. Imported only where tracing is on: OpenTelemetry is an extra."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes


class ByHashedTrace(Sampler):
    """Lets another sampler decide by a hash of the trace id.

    A ratio sampler compares the id's low 64 bits with a bound, as if they were random. A job's id is a UUID, whose
    variant (RFC 9562 section 4.1) stands right there: of it no job would be sampled below a ratio of one half.
    """

    def __init__(self, inner: Sampler) -> None:
        self._inner = inner

    def should_sample(  # noqa: PLR0917 - as the base class has it
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide alike for all spans of a trace, in every process."""
        hashed = int.from_bytes(sha256(trace_id.to_bytes(16, "big")).digest()[:16], "big")
        return self._inner.should_sample(parent_context, hashed, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Name it."""
        return f"ByHashedTrace({self._inner.get_description()})"
