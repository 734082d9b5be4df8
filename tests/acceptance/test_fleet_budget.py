"""A mailbox's limits are exact over eight worker processes, by the account of a mail server that counts.

`make fleet` runs the long forms of the first and the last test: five minutes each.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.fleet import Fleet
from tests.servers.limited_mail_server import LimitedMailServer
from tests.servers.login_account import Enforced, LoginAccount, earliest_lead, fewest_within, most_within

if TYPE_CHECKING:
    from collections.abc import Iterator


IS_LONG = bool(os.environ.get("TOCSIN_TEST_LONG"))
"""Set by `make fleet`."""
CONNECTIONS = 3
SLOTS_A_MINUTE = 61.0
"""Over so many seconds a minute's messages are spread, so that each may leave up to LATEST_SECONDS after its slot."""
LATEST_SECONDS = 1.0
COOL_DOWN = timedelta(seconds=15)
"""How long after connections were lowered they are not lowered again."""


@pytest.fixture(scope="module")
def server() -> Iterator[LimitedMailServer]:
    with LimitedMailServer() as server:
        yield server


@pytest.fixture(scope="module")
def fleet(
    server: LimitedMailServer, ledger_url: str, vhost_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), ledger_url, vhost_url, server)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


def keeps_to(seen: LoginAccount, per_minute: int) -> None:
    """Check that no more connections are open and no message comes before its time, wherever one begins to count.

    A lead of a second at most is the same as: no 60 s window holds more than `per_minute`; and it needs no full one.
    """
    assert 1 <= seen.most_open <= CONNECTIONS
    assert earliest_lead(seen.attempts, SLOTS_A_MINUTE / per_minute) <= LATEST_SECONDS
    assert seen.refused == []
    assert len(seen.attempts) == len(seen.taken)


def test_eight_processes_keep_to_three_connections_and_a_rate_and_use_it(fleet: Fleet) -> None:
    per_minute, messages = (30, 165) if IS_LONG else (600, 80)
    fleet.add_profile("exact", "--connections", str(CONNECTIONS), "--per-minute", str(per_minute))
    job = fleet.publish("exact", messages)
    seen = fleet.watch("exact", lambda seen: len(seen.taken) >= messages)
    fleet.wait_until_all_sent(job)
    tell("exact", seen)
    keeps_to(seen, per_minute)
    if IS_LONG:
        assert most_within(seen.attempts, 60.0) <= per_minute
        assert (fewest_within(seen.taken, 60.0) or 0) >= per_minute - 1
    else:
        # A slot is lost where a process gets no CPU for a second; whoever hands on slowly loses many.
        assert seen.taken[-1] - seen.taken[0] <= 1.25 * messages * SLOTS_A_MINUTE / per_minute


def test_two_profiles_on_one_mailbox_share_its_budget(fleet: Fleet) -> None:
    limits = ("--connections", str(CONNECTIONS), "--per-minute", "600")
    fleet.add_profile("one", *limits, login="shared")
    fleet.add_profile("two", login="shared")
    jobs = [fleet.publish(profile, 20) for profile in ("one", "two")]
    seen = fleet.watch("shared", lambda seen: len(seen.taken) >= 40)
    fleet.wait_until_all_sent(*jobs)
    tell("shared", seen)
    keeps_to(seen, 600)


def test_nobody_polls_for_a_time_slot_that_is_yet_to_come(fleet: Fleet, server: LimitedMailServer) -> None:
    fleet.add_profile("waiting", "--connections", str(CONNECTIONS), "--per-minute", "30")
    job = fleet.publish("waiting", 50)
    begun = len(fleet.watch("waiting", lambda seen: len(seen.taken) >= 1).taken)
    before = fleet.slices()
    fleet.watch("waiting", lambda seen: len(seen.taken) >= begun + 3)
    slices = fleet.slices() - before
    messages = len(server.seen("waiting").taken) - begun
    fleet.installation.tocsin("job", "cancel", job, "--yes")
    say(f"{slices:g} slices for {messages} messages of a mailbox with 30 a minute")
    # Each of the three connections works a slice a message, and a few look in vain; not eight processes all the time.
    assert slices <= 6 * messages


def test_a_used_up_day_parks_its_mailbox_but_for_urgent_mail_and_ends_by_itself(
    fleet: Fleet, server: LimitedMailServer
) -> None:
    fleet.add_profile("day", "--per-day", "10000")
    fleet.add_profile("other")
    fleet.use_up("day", recipients=7_995, hours_ago=23)
    # It expires soon after there is room again, which is a day and a minute after those 7,995.
    room_at = datetime.now(UTC) + timedelta(minutes=61)
    job = fleet.publish("day", 8, expires_at=(room_at + timedelta(minutes=4)).isoformat())
    shown = wait_for_rest(fleet, "kept_for_urgent_until", job)
    assert len(server.seen("day").taken) == 5
    assert room_at - timedelta(minutes=2) < datetime.fromisoformat(shown["state_until"]) <= room_at
    assert shown["recipients"] == {"sent": 5, "pending": 3}

    fleet.use_up("day", recipients=1_998, urgent=1_998, hours_ago=22)
    urgent = fleet.publish("day", 3, rank="urgent")
    shown = wait_for_rest(fleet, "parked_until", urgent)
    assert len(server.seen("day").taken) == 7
    assert (shown["state"], shown["recipients"]) == ("waiting", {"sent": 2, "pending": 1})
    assert "10,000 recipients of 24 hours are used up" in shown["state_reason"]
    (profile,) = [one for one in fleet.installation.read("status")["profiles"] if one["name"] == "day"]
    assert room_at - timedelta(minutes=2) < datetime.fromisoformat(profile["parked_until"]) <= room_at
    fleet.wait_until_all_sent(fleet.publish("other", 5))
    assert len(server.seen("day").attempts) == 7

    fleet.let_pass(62, "day", job, urgent)
    fleet.wait_until_all_sent(job, urgent)


def wait_for_rest(fleet: Fleet, until: str, job: str) -> dict[str, Any]:
    """Wait until the mailbox `day` rests, and nobody has anything of the job in hand; give the job."""
    fleet.installation.wait_until(
        lambda: fleet.installation.query(f"SELECT 1 FROM mailboxes WHERE login = 'day' AND {until} > now()") != [],
        f"there is a {until}",
    )
    fleet.wait_until_let_go("the mailbox rests")
    return fleet.installation.read("job", "show", job)


def test_connections_that_a_server_refuses_are_lowered_once_a_cool_down_and_nothing_fails(
    fleet: Fleet, server: LimitedMailServer
) -> None:
    server.enforce("crowd", Enforced(CONNECTIONS, answer_seconds=0.05))
    fleet.add_profile("crowd", "--connections", "20")
    job = fleet.publish("crowd", 300)
    fleet.watch("crowd", lambda seen: len(seen.refused) > 0 and len(seen.taken) + len(seen.refused) >= 300)
    fleet.wait_until_let_go("everybody was tried")
    fleet.let_pass(1, "crowd", job)
    fleet.wait_until_all_sent(job)
    seen = server.seen("crowd")
    tell("crowd", seen)
    lowered = [datetime.fromisoformat(line["timestamp"]) for line in fleet.logged("connections lowered", "crowd")]
    assert lowered
    assert all(later - earlier >= COOL_DOWN for earlier, later in pairwise(lowered))
    [(learned,)] = fleet.installation.query("SELECT learned_connections FROM mailboxes WHERE login = 'crowd'")
    assert learned < seen.most_open


def test_a_rate_that_a_server_refuses_is_lowered_once_for_the_whole_fleet_and_nothing_fails(
    fleet: Fleet, server: LimitedMailServer
) -> None:
    server.enforce("hasty", Enforced(messages=40))
    fleet.add_profile("hasty", "--connections", "20")
    job = fleet.publish("hasty", 100)
    fleet.watch("hasty", lambda seen: len(seen.refused) > 0)
    fleet.wait_until_let_go("the mailbox rests")
    seen = server.seen("hasty")
    tell("hasty", seen)
    [(learned, rests)] = fleet.installation.query(
        "SELECT learned_per_minute, parked_until > now() FROM mailboxes WHERE login = 'hasty'"
    )
    assert (len(fleet.logged("rate lowered", "hasty")), rests) == (1, True)
    assert 0 < learned <= 0.9 * 40
    # Each connection was refused once at most.
    assert len(seen.refused) <= seen.most_open

    server.enforce("hasty", Enforced())
    fleet.installation.tocsin("profile", "set", "hasty", "--per-minute", "none")
    fleet.let_pass(2, "hasty", job)
    fleet.wait_until_all_sent(job)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a profile claims that its provider allows, and what the server takes; `jobs` of 1,000 keep it busy."""

    login: str
    limits: tuple[str, ...]
    enforced: Enforced
    jobs: int


CLAIMS = (
    Claim("exchange", ("--connections", "20"), Enforced(CONNECTIONS, 30, answer_seconds=0.5), jobs=1),
    Claim("burst", ("--connections", "20"), Enforced(CONNECTIONS, 300), jobs=2),
    Claim(
        "slow", ("--connections", "20", "--per-minute", "600"), Enforced(CONNECTIONS, 300, answer_seconds=0.2), jobs=2
    ),
)
SETTLED_SECONDS = 60.0
WATCHED_SECONDS = 300.0


@pytest.mark.skipif(not IS_LONG, reason="five minutes: make fleet")
def test_the_fleet_settles_below_what_a_server_enforces_within_a_minute(
    fleet: Fleet, server: LimitedMailServer
) -> None:
    for claim in CLAIMS:
        server.enforce(claim.login, claim.enforced)
        fleet.add_profile(claim.login, *claim.limits)
        for _ in range(claim.jobs):
            fleet.publish(claim.login, 1000)
    ends_at = time.monotonic() + WATCHED_SECONDS
    accounts = [fleet.watch(claim.login, lambda _: time.monotonic() > ends_at) for claim in CLAIMS]
    for claim, seen in zip(CLAIMS, accounts, strict=True):
        tell(claim.login, seen)
        say("  " + "; ".join(f"{at - seen.attempts[0]:.1f} s {said[:9]}" for at, said in seen.refused))
    for claim, seen in zip(CLAIMS, accounts, strict=True):
        settled_at = seen.attempts[0] + SETTLED_SECONDS
        refused = [at for at, _ in seen.refused if at > settled_at]
        offered = [at for at in seen.attempts if at > settled_at]
        assert len(refused) < 0.01 * len(offered), claim.login
        # Below the limit, and not far below it.
        assert claim.enforced.messages is not None
        assert (fewest_within(offered, 60.0) or 0) > claim.enforced.messages / 2, claim.login
    assert fleet.installation.query("SELECT 1 FROM batches WHERE failed > 0") == []


def tell(login: str, seen: LoginAccount) -> None:
    """Show what the server counted."""
    say(
        f"{login}: {len(seen.taken)} of {len(seen.attempts)} messages taken in {seen.taken[-1] - seen.taken[0]:.1f} s,"
        f" most open {seen.most_open}, in 60 s most {most_within(seen.attempts, 60.0)},"
        f" fewest {fewest_within(seen.taken, 60.0)}, refused {len(seen.refused)}"
    )


def say(line: str) -> None:
    """Show figures, where pytest shows them: with -s, and after a failure."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
