"""Profiles whose mail servers are slow hold up no other, and of very many profiles each gets its turn."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.slow_mail import SlowMailServer
from tocsin_schema.message_broker.publishing import open_publisher
from tocsin_schema.message_broker.topology import prefetch, send_queue
from tocsin_schema.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.servers.installation import Installation

#: Normal wake-ups that the fixture's two worker processes hold at a time: if a thread waited for each slice, there
#: would be no more slices than that.
HELD = 2 * prefetch(send_queue("normal"), Settings().worker_threads)
STUCK = 8
MANY = 150
MESSAGES = 12

ADD_PROFILE = """
WITH m AS (INSERT INTO mailboxes (host, login) VALUES (%(host)s, %(name)s) RETURNING id)
INSERT INTO sending_profiles
    (name, provider, host, port, tls, auth, from_address, login, batch_size, mailbox_id)
SELECT %(name)s, 'custom', %(host)s, %(port)s, 'none', 'none', 'alerts@campus.example', %(name)s, 2, id FROM m
"""
COUNT_STATES = "SELECT state, count(*) FROM jobs WHERE id = ANY (%s::uuid[]) GROUP BY state"


@pytest.fixture
def stuck() -> Iterator[SlowMailServer]:
    """A mail server that lets everybody in, and says no more until it is told to."""
    with SlowMailServer(seconds=3600) as server:
        yield server


@pytest.fixture
def slow() -> Iterator[SlowMailServer]:
    with SlowMailServer(seconds=0.05) as server:
        yield server


def jobs_of_profiles(installation: Installation, server: SlowMailServer, count: int) -> list[dict[str, Any]]:
    """Make profiles without any limit, each of them a mailbox of its own, and a job for each."""
    names = [f"many-{uuid.uuid4().hex[:8]}" for _ in range(count)]
    for name in names:
        installation.execute(ADD_PROFILE, {"name": name, "host": server.host, "port": server.port})
    return [installation.job(profile=name, mode="individual", recipients=readers(MESSAGES)) for name in names]


def readers(count: int) -> list[dict[str, str]]:
    return [{"address": f"reader-{number}@campus.example"} for number in range(count)]


def publish(installation: Installation, jobs: Sequence[dict[str, Any]]) -> None:
    with open_publisher(broker_url=installation.broker_url, database_url=installation.database_url) as publisher:
        for job in jobs:
            publisher.publish(json.dumps(job).encode(), "normal")


def wait_until_finished(installation: Installation, jobs: Sequence[dict[str, Any]]) -> None:
    ids = [job["id"] for job in jobs]
    installation.wait_until(
        lambda: installation.query(COUNT_STATES, ids) == [("finished", len(jobs))], f"{len(jobs)} jobs are finished"
    )


def slices(installation: Installation) -> float:
    """How many slices there were so far, and wake-ups for which there was no place."""
    return sum(value for name, value in installation.metrics().items() if name.startswith("tocsin_slices_total"))


def test_servers_that_do_not_answer_hold_up_no_other_profile_and_their_mail_goes_out_once_they_do(
    installation: Installation, stuck: SlowMailServer
) -> None:
    waiting = jobs_of_profiles(installation, stuck, STUCK)
    publish(installation, waiting)
    installation.wait_until(
        lambda: stuck.seen().open_now > max(HELD, 2 * STUCK), "more slices are stuck than there are threads"
    )
    other = installation.job(mode="individual", recipients=readers(300))
    publish(installation, [other])
    assert installation.wait_for_job(other["id"])["recipients"] == {"sent": 300}
    seen = stuck.seen()
    assert seen.messages == 0
    assert seen.open_now > HELD
    stuck.let_go()
    wait_until_finished(installation, waiting)
    assert stuck.seen().messages == STUCK * MESSAGES


def test_of_very_many_profiles_each_gets_its_turn_by_few_wake_ups(
    installation: Installation, slow: SlowMailServer
) -> None:
    jobs = jobs_of_profiles(installation, slow, MANY)
    before = slices(installation)
    publish(installation, jobs)
    wait_until_finished(installation, jobs)
    assert slow.seen().messages == MANY * MESSAGES
    # A slice that sends, sends a message at least and wakes three others at most; one that finds nothing wakes nobody.
    # So this holds however slow the machine is, and not if wake-ups beget wake-ups.
    assert slices(installation) - before < 3 * MANY * MESSAGES
