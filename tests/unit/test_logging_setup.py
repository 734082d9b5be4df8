"""What a log line shows of an error: where it arose, and nothing of the values there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from tocsin_schema.settings import LogFormat, Settings
from tocsin_workers.logging_setup import set_up_logging

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


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
    assert password not in said
