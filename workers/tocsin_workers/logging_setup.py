"""Log lines through structlog: JSON for collectors, readable on a terminal; the libraries' lines in the same form."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

from tocsin_schema.settings import LogFormat

if TYPE_CHECKING:
    from tocsin_schema.settings import Settings

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
}


def set_up_logging(settings: Settings) -> None:
    """Send all log lines to standard error, in the form and from the level that the settings say."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [_tracebacks, structlog.processors.JSONRenderer()]
        if settings.log_format is LogFormat.JSON
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, root.level))
