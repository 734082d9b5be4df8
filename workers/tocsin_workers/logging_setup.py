"""Log lines through structlog: JSON for collectors, readable on a terminal; the libraries' lines in the same form.

Whoever logs, the line goes through the same chain to its end: there mail addresses are masked (`log_masking`).
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.settings import LogFormat
from tocsin_workers.log_masking import Bounded

if TYPE_CHECKING:
    from types import TracebackType

    from tocsin_schema.settings import Settings

_log = structlog.get_logger(__name__)

#: Without the values of local variables, which structlog shows by default: secrets would be among them.
_tracebacks = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))

#: Libraries whose everyday lines tell an operator nothing.
_QUIET = {
    # It logs a traceback for every connection that is refused; our own line says why, in words.
    "pika": logging.CRITICAL,
    "dramatiq": logging.WARNING,
    "tocsin_schema.message_broker": logging.WARNING,
    "tocsin_workers.process.event_loop": logging.WARNING,
    "httpx": logging.WARNING,
    "urllib3": logging.WARNING,
    "msal": logging.WARNING,
    "psycopg": logging.ERROR,
    "asyncio": logging.WARNING,
    # Of each span that it has no room for while a collector is away; `span_exporting` tells of that.
    "opentelemetry": logging.ERROR,
}


#: Each consumer of a message broker that is away tries again after three seconds, and calls that critical every time.
_CONSUMERS = "dramatiq.worker.ConsumerThread"
_CONSUMERS_TELL_EVERY_SECONDS = 60.0


class OnceAMinute(logging.Filter):
    """Lets each critical thing that consumers say through once a minute, whichever of them says it."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[int, float] = {}
        """By line of the library's code."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it; its own time counts (logging's protocol)."""
        if record.levelno < logging.CRITICAL or not record.name.startswith(_CONSUMERS):
            return True
        if record.created - self._said_at.get(record.lineno, float("-inf")) < _CONSUMERS_TELL_EVERY_SECONDS:
            return False
        self._said_at[record.lineno] = record.created
        return True


def set_up_logging(settings: Settings) -> None:
    """Send all log lines to standard error, in the form and from the level that the settings say."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    bounded = Bounded(shows_addresses=settings.log_addresses)
    last: list[structlog.typing.Processor] = (
        [_tracebacks, bounded, structlog.processors.JSONRenderer()]
        if settings.log_format is LogFormat.JSON
        else [
            # Made a text before it is masked: the renderer would make one of its own.
            structlog.processors.format_exc_info,
            bounded,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(OnceAMinute())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, root.level))


def log_the_uncaught() -> None:
    """Log exceptions that end the process or one of its threads, instead of printing them as they stand."""

    def tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not issubclass(kind, SystemExit):
            _log.critical("uncaught exception", exc_info=(kind, error, trace))

    sys.excepthook = tell
    threading.excepthook = lambda told: tell(told.exc_type, told.exc_value, told.exc_traceback)
    logging.captureWarnings(capture=True)
