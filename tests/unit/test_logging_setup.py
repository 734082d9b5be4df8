"""What log lines show: where an error arose and nothing of the values there, and no address, whoever logs it."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from typing import Any

import pytest
import structlog

from tocsin_schema.settings import LogFormat, Settings
from tocsin_workers.logging_setup import OnceAMinute, log_the_uncaught, set_up_logging

pytestmark = pytest.mark.usefixtures("logging_as_before")


def lines(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("form", LogFormat)
def test_a_traceback_shows_no_values(form: LogFormat, capsys: pytest.CaptureFixture[str]):
    set_up_logging(Settings(log_format=form))
    password = "correct horse battery staple"

    def log_in(secret: str) -> None:
        raise ValueError(f"{len(secret)} characters")

    try:
        log_in(password)
    except ValueError:
        structlog.get_logger("tocsin_workers.test").exception("it failed")
    said = capsys.readouterr().err
    assert "it failed" in said
    assert "28 characters" in said
    assert "test_logging_setup" in said
    assert password not in said


@pytest.mark.parametrize("form", LogFormat)
def test_addresses_are_masked_whoever_logs_them(form: LogFormat, capsys: pytest.CaptureFixture[str]):
    set_up_logging(Settings(log_format=form))

    def send() -> None:
        raise ConnectionError("550 5.1.1 <robin@example.org> unknown")

    try:
        send()
    except ConnectionError:
        structlog.get_logger("tocsin_workers.test").exception("to robin@example.org", reply="robin@example.org")
    logging.getLogger("mail.log").warning("%s sent %s", "robin@example.org", {"to": "robin@example.org"})
    logging.getLogger("dramatiq.worker").error("failed", extra={"args_of_it": ("robin@example.org",)})
    said = capsys.readouterr().err
    assert "robin@" not in said
    assert said.count("r***@example.org") >= 5


def test_addresses_are_shown_where_the_setting_says_so(capsys: pytest.CaptureFixture[str]):
    set_up_logging(Settings(log_format=LogFormat.JSON, log_addresses=True))
    structlog.get_logger("tocsin_workers.test").info("sent", to="robin@example.org")
    [line] = lines(capsys.readouterr().err)
    assert line["to"] == "robin@example.org"


def test_what_a_library_adds_to_its_line_is_shown(capsys: pytest.CaptureFixture[str]):
    set_up_logging(Settings(log_format=LogFormat.JSON))
    logging.getLogger("tocsin_workers.tokens").info("access token obtained", extra={"oauth_profile": "campus"})
    [line] = lines(capsys.readouterr().err)
    assert (line["event"], line["oauth_profile"], line["level"]) == ("access token obtained", "campus", "info")
    assert "timestamp" in line


def test_in_json_every_line_is_json_also_of_what_nobody_caught(capsys: pytest.CaptureFixture[str]):
    set_up_logging(Settings(log_format=LogFormat.JSON))
    log_the_uncaught()

    def fail() -> None:
        raise LookupError("robin@example.org\nis gone")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except LookupError as error:
        sys.excepthook(LookupError, error, error.__traceback__)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("robin@example.org is deprecated", UserWarning, stacklevel=1)
    said = lines(capsys.readouterr().err)
    assert [line["level"] for line in said] == ["critical", "critical", "warning"]
    assert "robin@" not in str(said)


def test_consumers_of_a_broker_that_is_away_say_so_once_a_minute_and_everything_else_is_logged():
    def said(at: float, *, queue: str = "tocsin.sweep", level: int = logging.CRITICAL, line: int = 326) -> bool:
        name = f"dramatiq.worker.ConsumerThread({queue})"
        record = logging.LogRecord(name, level, "worker.py", line, "connection error", None, None)
        record.created = at
        return once_a_minute.filter(record)

    once_a_minute = OnceAMinute()
    assert said(0.0)
    assert not said(0.1, queue="tocsin.tokens")
    assert not said(59.0)
    assert said(59.0, line=330)
    assert said(59.0, level=logging.ERROR)
    assert said(60.0)
    assert all(once_a_minute.filter(logging.makeLogRecord({"name": "tocsin", "levelno": 50})) for _ in range(2))
