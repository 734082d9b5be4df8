"""What is told of a collector of spans that is away or refuses: one line, as everything else is logged, and no more."""

from __future__ import annotations

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from tests.servers.patience import PATIENCE_SECONDS
from tocsin_schema.settings import LogFormat, Settings
from tocsin_workers.logging_setup import set_up_logging
from tocsin_workers.span_exporting import TOLD_EVERY_SECONDS, CollectorExporter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("logging_as_before")

SPANS = [ReadableSpan("slice", SpanContext(1, 1, is_remote=False))]


@pytest.fixture(autouse=True)
def _library_as_before() -> Iterator[None]:
    library = logging.getLogger("opentelemetry.exporter")
    before = library.handlers[:], library.level, library.propagate
    yield
    library.handlers[:], library.level, library.propagate = before


class Heard(logging.Handler):
    """Notes that something was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.anything.set()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_of_a_collector_that_is_away_one_line_names_it_and_says_what_to_do(capsys: pytest.CaptureFixture[str]):
    set_up_logging(Settings(log_format=LogFormat.JSON))
    heard = Heard()
    logging.getLogger("tocsin_workers.span_exporting").addHandler(heard)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        exporter = CollectorExporter(f"http://user:hunter2@{host}/v1/traces?key=hunter3")
        sending = threading.Thread(target=exporter.export, args=(SPANS,))
        sending.start()
        assert heard.anything.wait(PATIENCE_SECONDS)
        exporter.shutdown()
        sending.join(PATIENCE_SECONDS)
        exporter.export(SPANS)
    logging.getLogger("tocsin_workers.span_exporting").removeHandler(heard)
    [line] = lines(capsys)
    assert line["level"] == "warning"
    assert f"http://{host}/v1/traces does not take them (Connection refused). Start it" in line["event"]
    assert "hunter" not in str(line)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[int]]]:
    """A collector's URL, and the codes that it answers with, one after the other."""
    answers: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answers.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", answers
        server.shutdown()
        thread.join(PATIENCE_SECONDS)


def test_a_collector_that_refuses_is_told_once_a_minute_and_when_it_takes_spans_again(
    collector: tuple[str, list[int]], capsys: pytest.CaptureFixture[str]
):
    set_up_logging(Settings(log_format=LogFormat.JSON))
    url, answers = collector
    now = 0.0
    exporter = CollectorExporter(url, clock=lambda: now)
    told: list[list[str]] = []
    for answer, later in ((401, 0.0), (401, 0.0), (404, TOLD_EVERY_SECONDS), (200, 0.0), (200, 0.0), (401, 1.0)):
        now += later
        answers.append(answer)
        assert (exporter.export(SPANS) is SpanExportResult.SUCCESS) == (answer == 200)
        told.append([line["event"] for line in lines(capsys)])
    exporter.shutdown()
    assert [len(events) for events in told] == [1, 0, 1, 1, 0, 0]
    assert "code: 401, reason: Unauthorized" in told[0][0]
    assert "404" in told[2][0]
    assert told[3] == [f"Spans go out again: the collector at {url} takes them."]
