"""One token request for a fleet of real worker processes, whatever happens to it; direct and through PgBouncer."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.servers.token_campus import Gathering, TokenCampus, token_campus
from tests.servers.token_endpoint import Close, Hang, Reply
from tocsin_schema.ledger.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.servers.pgbouncer import PgBouncer
    from tests.servers.postgres import PostgresServer
    from tests.servers.rabbitmq import RabbitmqNode

PROCESSES = 4
THREADS = 16
LONG_VARIABLE = "TOCSIN_TEST_LONG"
"""Set by `make soak`: lifetimes of 30 s, ten of them, and everything through PgBouncer too."""


@pytest.fixture
async def campuses(
    tmp_path: Path, postgres_server: PostgresServer, pgbouncer_server: PgBouncer, rabbitmq_node: RabbitmqNode
) -> AsyncGenerator[list[TokenCampus]]:
    """Two installations: one reaches its ledger directly, the other through PgBouncer in transaction mode."""
    direct, behind = (postgres_server.create_database() for _ in range(2))
    urls = {"direct": direct, "pgbouncer": pgbouncer_server.url_for(behind)}
    async with AsyncExitStack() as campuses:
        for name, database_url in urls.items():
            await migrate(database_url)
            (tmp_path / name).mkdir()
        yield [
            await campuses.enter_async_context(
                token_campus(tmp_path / name, url, rabbitmq_node.create_vhost(), TOCSIN_WORKER_THREADS=str(THREADS))
            )
            for name, url in urls.items()
        ]
    for database_url in (direct, behind):
        postgres_server.drop_database(database_url)


def to_try(campuses: list[TokenCampus]) -> list[TokenCampus]:
    """In the short form it is enough that mail goes on over lifetimes through PgBouncer too."""
    return campuses if os.environ.get(LONG_VARIABLE) else campuses[:1]


async def test_a_cold_fleet_makes_one_request_and_one_more_after_all_its_log_ins_are_refused_at_once(
    campuses: list[TokenCampus],
) -> None:
    for campus in to_try(campuses):  # one after the other: 64 threads keep two cores busy
        await start_cold_and_be_refused(campus)


async def start_cold_and_be_refused(campus: TokenCampus) -> None:
    """Let four processes of 16 threads send with no token there, then refuse the token to 64 log-ins at a time."""
    campus.endpoint.seconds_to_answer = 0.5
    lifetime = campus.endpoint.lifetime = 120.0  # none is due for refresh before the test is over
    profiles = await campus.add_profiles(PROCESSES * THREADS, connections=1)
    await campus.start_workers(processes=PROCESSES)
    await send_all_at_once(campus, profiles)
    assert campus.endpoint.token_requests == 1

    # A token so young would not be thrown away: another one would fare no better.
    old_enough = campus.endpoint.requests[0].at + lifetime / 5 + 0.5
    await asyncio.sleep(old_enough - asyncio.get_running_loop().time())
    campus.revoke_all()
    campus.sink.gathering = Gathering(PROCESSES * THREADS)
    await send_all_at_once(campus, profiles)
    assert campus.endpoint.token_requests == 2
    assert campus.endpoint.most_at_once == 1
    assert len(campus.refused) >= PROCESSES * THREADS
    await asyncio.to_thread(campus.installation.stop_workers)


async def send_all_at_once(campus: TokenCampus, profiles: list[str]) -> None:
    """Take in a job a profile while all mailboxes rest, then let all of them go."""
    await asyncio.to_thread(
        campus.installation.execute, "UPDATE mailboxes SET parked_until = now() + interval '1 hour'"
    )
    jobs = [campus.job(profile) for profile in profiles]
    await campus.publish(*jobs)
    await campus.until(
        lambda: campus.installation.query("SELECT count(*) FROM jobs WHERE state = 'running'") == [(len(jobs),)],
        "all jobs are taken in",
    )
    await asyncio.to_thread(campus.installation.execute, "UPDATE mailboxes SET parked_until = NULL")
    await campus.all_sent(*jobs)


async def test_mail_goes_on_over_lifetimes_of_a_short_token_with_one_request_each(campuses: list[TokenCampus]) -> None:
    lifetime, lifetimes = (30, 10) if os.environ.get(LONG_VARIABLE) else (12, 2)
    await asyncio.gather(*(go_on_over_lifetimes(campus, lifetime, lifetimes) for campus in campuses))


async def go_on_over_lifetimes(campus: TokenCampus, lifetime: float, lifetimes: int) -> None:
    """Send without a pause, with log-ins all the time; nothing fails, and no two requests lie close together."""
    campus.endpoint.lifetime = lifetime
    profiles = await campus.add_profiles(8)
    await campus.start_workers(processes=2)
    clock = asyncio.get_running_loop().time
    ends_at = clock() + lifetime * lifetimes
    rounds = 0
    while clock() < ends_at:
        jobs = [campus.job(profile, recipients=3) for profile in profiles]
        await campus.publish(*jobs)
        await campus.all_sent(*jobs)
        campus.close_sessions()
        rounds += 1
    assert rounds >= lifetimes
    assert campus.endpoint.token_requests >= lifetimes
    asked_at = [request.at for request in campus.endpoint.requests]
    assert campus.endpoint.most_at_once == 1
    # Each token is used for at least four fifths of its life, less what a worker's clock and the request take.
    assert all(later - earlier > lifetime * 0.7 for earlier, later in itertools.pairwise(asked_at))
    assert campus.refused == []


async def test_a_token_broker_that_is_killed_during_a_refresh_stops_nobody(campuses: list[TokenCampus]) -> None:
    await asyncio.gather(*(kill_the_token_broker(campus) for campus in to_try(campuses)))


async def kill_the_token_broker(campus: TokenCampus) -> None:
    """Kill the token broker while the endpoint hangs; mail goes on, and the next request comes within seconds."""
    (profile,) = await campus.add_profiles(1)
    campus.endpoint.lifetime = 2000
    await campus.start_workers(processes=2, role="sender")
    await campus.start_workers(processes=1, role="intake")
    await campus.start_workers(processes=1, role="sweeper")
    first = campus.job(profile)
    await campus.publish(first)
    await campus.all_sent(first)

    # The token is due, and lives on for a while.
    campus.endpoint.asked.clear()
    campus.endpoint.misbehave(Hang())
    await asyncio.to_thread(
        campus.installation.execute,
        "UPDATE access_tokens SET obtained_at = now() - interval '1650 s', expires_at = now() + interval '350 s'",
    )
    token_broker = await campus.start_workers(processes=1, role="tokens")
    await campus.endpoint.asked.wait()
    os.killpg(token_broker, signal.SIGKILL)
    killed_at = asyncio.get_running_loop().time()
    campus.endpoint.behave()
    meanwhile = campus.job(profile)
    await campus.publish(meanwhile)
    await campus.all_sent(meanwhile)

    # The next one asks once the dead one's lease has lapsed, which is 12 s long, and not before.
    await campus.start_workers(processes=1, role="tokens")
    await campus.until(lambda: campus.endpoint.token_requests >= 3, "somebody asks again")
    assert campus.endpoint.requests[-1].at - killed_at < 15
    assert campus.endpoint.most_at_once == 1


async def test_whatever_the_endpoint_does_no_mail_is_lost_or_failed_and_there_is_no_storm(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    async with token_campus(tmp_path, database_url, broker_url) as campus:
        await live_through_bad_days(campus)


async def live_through_bad_days(campus: TokenCampus) -> None:
    """Let the endpoint misbehave in every way while mail is due; in the end all of it is sent."""
    bad_days = (
        Reply(500, b"oops", {"Retry-After": "60"}),
        Reply(429, b"", {"Retry-After": "1"}),
        Reply(200, b'{"access_token": "half-a-tok'),
        Close(),
        Hang(),
        Reply(200, b'{"access_token": "slow", "expires_in": 60}', drip_seconds=1.0),
    )
    profiles = await campus.add_profiles(8)
    await campus.start_workers(processes=2)
    jobs = [campus.job(profile, recipients=5) for profile in profiles]
    campus.endpoint.misbehave(*bad_days, Reply(503, b""))
    await campus.publish(*jobs)
    for number in range(1, len(bad_days) + 1):
        await campus.until(
            lambda: campus.installation.query("SELECT 1 FROM access_tokens WHERE retry_at > now()") != [],
            "the failure is known",
        )
        assert campus.endpoint.token_requests == number
        assert campus.endpoint.most_at_once == 1
        await asyncio.to_thread(forget_waits, campus)
    campus.endpoint.behave()
    await asyncio.to_thread(forget_waits, campus)
    await campus.all_sent(*jobs)
    assert campus.installation.query("SELECT 1 FROM sending_profiles WHERE paused_at IS NOT NULL") == []


def forget_waits(campus: TokenCampus) -> None:
    """Let the time of all waits be over, each as long as leads to the longest one."""
    campus.installation.execute("UPDATE access_tokens SET retry_at = now(), failed_at = now() - interval '60 s'")
    campus.installation.execute("UPDATE mailboxes SET parked_until = NULL, parked_reason = NULL")
