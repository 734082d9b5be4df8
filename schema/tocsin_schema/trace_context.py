"""W3C trace context (https://www.w3.org/TR/trace-context/), and how a job's trace is found by its id.

All spans of a job are in one trace, whose id is the job's: nobody has to store it, and whoever knows the job finds the
trace. Its root is the span of publishing, where that is told in `traceparent`, else the intake's of the first part; in
either case its id follows from the job's, so that senders can name it as their parent.
"""

from __future__ import annotations

import random
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from uuid import UUID

TRACEPARENT: Final = "traceparent"
"""The header of an AMQP message, and the option of a dramatiq message, that carries the context."""

#: Section 3.2: version, trace id, parent id, flags; later versions may add to it, and `ff` is none.
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_LONGEST = 512
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Which span another one belongs under."""

    trace_id: int
    span_id: int
    is_sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{_SAMPLED if self.is_sampled else 0:02x}"

    def is_same_span(self, other: TraceParent) -> bool:
        """Whether both name the same span."""
        return (self.trace_id, self.span_id) == (other.trace_id, other.span_id)


def read_traceparent(value: object) -> TraceParent | None:
    """Read what came with a message; None for whatever is no trace context."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    match = _FORM.fullmatch(value)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED))


def root_of(job_id: UUID) -> TraceParent:
    """Give the root span of a job's trace."""
    span_id = int.from_bytes(sha256(b"tocsin job " + job_id.bytes).digest()[:8], "big")
    return TraceParent(job_id.int, span_id or 1)


_wanted: ContextVar[TraceParent | None] = ContextVar("tocsin_wanted_root", default=None)


class JobTraceIds:
    """An id generator for OpenTelemetry's SDK, by its methods: random ids, or those of a root that is wanted."""

    def generate_trace_id(self) -> int:
        """Give the id of a new trace."""
        wanted = _wanted.get()
        return random.getrandbits(128) or 1 if wanted is None else wanted.trace_id

    def generate_span_id(self) -> int:
        """Give the id of a new span."""
        wanted = _wanted.get()
        return random.getrandbits(64) or 1 if wanted is None else wanted.span_id

    def is_trace_id_random(self) -> bool:
        """Whether every trace id is: a job's is its caller's choice."""
        return False


@contextmanager
def as_root(root: TraceParent) -> Generator[None]:
    """Let the span that is started in here, without a parent, be this one."""
    token = _wanted.set(root)
    try:
        yield
    finally:
        _wanted.reset(token)
