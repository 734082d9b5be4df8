"""Sending spans to their collector, and telling when it does not take them. Imported only where tracing is on.

The library logs every try, and not where it went. In their place there is one line of ours a minute.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from tocsin_workers.collector_address import without_user

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

#: Not structlog's: a command has not set that up, and then warnings go to standard error as they stand.
_log = logging.getLogger(__name__)

TOLD_EVERY_SECONDS: Final = 60.0
#: The loggers of all that is sent go by this name.
_LIBRARY: Final = "opentelemetry.exporter"
_LONGEST: Final = 200


class CollectorNews:
    """What there is to tell of a collector: trouble once a minute, and once that it is over. Times in seconds."""

    def __init__(self) -> None:
        self._told_at = float("-inf")
        self._is_in_trouble = False

    def trouble(self, now: float) -> bool:
        """Note that it has not taken spans; whether to tell."""
        if now - self._told_at < TOLD_EVERY_SECONDS:
            return False
        self._told_at, self._is_in_trouble = now, True
        return True

    def success(self) -> bool:
        """Note that it has taken spans; whether to tell, since trouble was told before."""
        was_in_trouble, self._is_in_trouble = self._is_in_trouble, False
        return was_in_trouble


class CollectorExporter(OTLPSpanExporter):
    """Sends spans to a collector. Raises ValueError where `url` is no http or https URL, or another variable is wrong.

    From here on the library's own log lines on sending are not logged.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = monotonic) -> None:
        self._shown_url = without_user(url)
        self._clock = clock
        self._news = CollectorNews()
        self._reason: str | None = None
        super().__init__(endpoint=url)
        library = logging.getLogger(_LIBRARY)
        library.handlers = [_Hearing(self._hear)]
        library.setLevel(logging.WARNING)
        library.propagate = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, for some seconds at most."""
        self._reason = None
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS and self._news.success():
            _log.info("Spans go out again: the collector at %s takes them.", self._shown_url)
        return result

    def _hear(self, record: logging.LogRecord) -> None:
        # Of what is said of one sending the first says most: later, that it was tried often enough.
        self._reason = self._reason or reason_in(record)
        if self._news.trouble(self._clock()):
            _log.warning(
                "Spans do not go out: the collector at %s does not take them (%s). Start it, or correct the variables "
                "whose names begin with OTEL_EXPORTER_OTLP_, or set TOCSIN_TRACING to off.",
                self._shown_url,
                self._reason,
            )


class _Hearing(logging.Handler):
    """Gives log records to a function instead of writing them."""

    def __init__(self, hear: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record)


def reason_in(record: logging.LogRecord) -> str:
    """Find why spans were not taken in what the library says.

    Of errors only their kind is given, or the operating system's words: their own hold the URL, maybe with a password.
    """
    told = record.args if isinstance(record.args, tuple) else ()
    error = next((one for one in told if isinstance(one, BaseException)), None)
    if error is None:
        # It may quote the server, and a command shows it as it is.
        shown = record.getMessage()[:_LONGEST]
        return "".join(character if character.isprintable() else "?" for character in shown)
    reason = type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        error = error.__cause__ or error.__context__
    return reason
