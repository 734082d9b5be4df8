"""The benchmarks run: their figures are worth nothing here, but what they measure has to have happened."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from bench.contestants.contestant import MailServer
from bench.contestants.handmade import Handmade
from bench.contestants.raw import Raw
from bench.contestants.tocsin import Tocsin, publish
from bench.filled_ledger import multiply
from bench.mail import Load, Mode
from bench.throughput import run
from tests.servers import postfix
from tests.servers.availability import or_skip
from tests.servers.delaying_proxy import DelayingProxy
from tests.servers.postfix import SmtpSink
from tocsin_producers import Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECIPIENTS = 120
WARM_UP = 60
ONE_WAY_SECONDS = 0.3
#: What a timer of whole milliseconds may be early by.
GRAIN_SECONDS = 0.002


@pytest.fixture(scope="module")
def sink() -> Iterator[SmtpSink]:
    with SmtpSink(or_skip(postfix.from_debian()), counts=True) as running:
        yield running


@pytest.fixture
def mail_server(sink: SmtpSink) -> MailServer:
    return MailServer(sink.host, sink.port)


def test_contestants_take_turns_and_each_sends_everything(
    tmp_path: Path, empty_database_url: str, broker_url: str, mail_server: MailServer, sink: SmtpSink
) -> None:
    contestants = [
        Raw(mail_server, connections=2),
        Raw(mail_server, connections=2, pipelining="full"),
        Handmade(tmp_path, empty_database_url, broker_url, mail_server, connections=4),
    ]
    turns = run(
        contestants, mode=Mode.INDIVIDUAL, recipients=RECIPIENTS, rounds=1, warm_up=WARM_UP,
        shared_groups=lambda: {"sink": [sink.process_id]},
    )  # fmt: skip
    assert [turn.contestant for turn in turns] == ["raw", "raw-full", "handmade"]
    assert sink.messages() == len(turns) * (RECIPIENTS + WARM_UP)
    assert all(turn.rate > 0 and turn.memory > 0 for turn in turns)
    assert all({"sink", "bench"} < set(turn.cost.cpu) for turn in turns)


def test_tocsin_is_measured_and_a_job_of_its_can_be_multiplied(
    tmp_path: Path, empty_database_url: str, broker_url: str, mail_server: MailServer
) -> None:
    tocsin = Tocsin(tmp_path, empty_database_url, broker_url, mail_server, processes=1)
    try:
        [turn] = run(
            [tocsin], mode=Mode.INDIVIDUAL, recipients=RECIPIENTS, rounds=1, warm_up=WARM_UP, shared_groups=dict
        )
        assert turn.rate > 0
        assert turn.cost.cpu["workers"] > 0
        assert turn.memory > 0

        tocsin.start()
        load = Load(Mode.SHARED, RECIPIENTS, "model")
        with Publisher(broker_url=broker_url) as publisher:
            model = publish(publisher, load, priority="bulk")
        tocsin.wait(model, load)
    finally:
        tocsin.stop()
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        multiply(connection, model, 3)
        told = connection.execute(
            "SELECT count(DISTINCT j.id), count(*) FILTER (WHERE s.state = 'sent'), count(*)"
            " FROM recipient_states s JOIN jobs j ON j.number = s.job_number WHERE j.rank = 2 AND j.state = 'finished'"
        ).fetchone()
        copies = connection.execute(
            "SELECT sum(bit_count(c.recipients)) FROM email_copies c JOIN jobs j ON j.number = c.job_number"
            " WHERE j.rank = 2"
        ).fetchone()
    assert told == (4, 4 * RECIPIENTS, 4 * RECIPIENTS)
    assert copies == (4 * RECIPIENTS,)


def test_the_delaying_proxy_holds_back_each_way_and_keeps_the_order(sink: SmtpSink) -> None:
    with (
        DelayingProxy((sink.host, sink.port), seconds=ONE_WAY_SECONDS) as proxy,
        socket.create_connection((proxy.host, proxy.port), timeout=10) as connection,
        connection.makefile("rb") as replies,
    ):
        assert replies.readline().startswith(b"220 ")
        begun = time.monotonic()
        connection.sendall(b"NOOP\r\n")
        connection.sendall(b"RSET\r\nVRFY nobody\r\nQUIT\r\n")
        codes = [replies.readline()[:3] for _ in range(4)]
        took = time.monotonic() - begun
        assert replies.readline() == b""
    assert codes[-1] == b"221"
    assert took >= 2 * ONE_WAY_SECONDS - GRAIN_SECONDS
    assert took < 4 * 2 * ONE_WAY_SECONDS
