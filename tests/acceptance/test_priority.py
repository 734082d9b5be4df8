"""An urgent job passes a large bulk job at intake and on the only connection of its mailbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.installation import Installation
from tests.servers.slow_mail import SlowMailServer
from tocsin_schema.message_broker.publishing import open_publisher
from tocsin_schema.sealing import write_new_key_file
from tocsin_workers.sender.windows import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator


PARTS = 15
PART_SIZE = 1000
URGENT = 12
TRIES = 4

#: How many bulk messages are recorded, and whether the urgent job can be seen: both at one moment.
SEEN = """
SELECT (SELECT count(*) FROM email_copies c JOIN jobs j ON j.number = c.job_number WHERE j.id = %s),
       EXISTS (SELECT FROM jobs WHERE id = %s)
"""
#: How many bulk messages were accepted before the first and before the last urgent one.
PASSED = """
SELECT count(*) FILTER (WHERE b.accepted_at < u.first), count(*) FILTER (WHERE b.accepted_at < u.last)
FROM email_copies b
JOIN jobs j ON j.number = b.job_number AND j.id = %s
CROSS JOIN (
    SELECT min(c.accepted_at) AS first, max(c.accepted_at) AS last
    FROM email_copies c JOIN jobs o ON o.number = c.job_number AND o.id = %s
) u
"""
TAKEN_IN = """
SELECT j.rank, p.number FROM job_parts p JOIN jobs j ON j.number = p.job_number ORDER BY p.received_at
"""


class Desk(Installation):
    """An installation with one worker process and a mailbox of one connection, at which a large bulk job waits."""

    def begin(self, server: SlowMailServer) -> None:
        write_new_key_file(self.directory / "master.key")
        self.tocsin(
            "profile", "add", "alerts", "--provider", "custom", "--host", server.host, "--port", str(server.port),
            "--tls", "none", "--auth", "none", "--from", "alerts@campus.example", "--connections", "1",
        )  # fmt: skip
        self.bulk = self.job(mode="individual", priority="bulk")["id"]
        self.first_urgent = self.urgent_job()
        with open_publisher(broker_url=self.broker_url, database_url=self.database_url) as publisher:
            for number in range(1, PARTS + 1):
                publisher.publish(json.dumps(self.part(number)).encode(), "bulk")
            publisher.publish(json.dumps(self.first_urgent).encode(), "urgent")
        self.start_workers(processes=1)

    def part(self, number: int) -> dict[str, Any]:
        return {
            **self.job(mode="individual", priority="bulk"),
            "id": self.bulk,
            "source": "library",
            "recipients": [{"address": f"reader-{number}-{one}@campus.example"} for one in range(PART_SIZE)],
            "part": {"number": number, "last": number == PARTS},
        }

    def urgent_job(self) -> dict[str, Any]:
        recipients = [{"address": f"warden-{number}@campus.example"} for number in range(URGENT)]
        return self.job(mode="individual", priority="urgent", recipients=recipients)

    def publish_urgent(self) -> tuple[str, int]:
        """Publish an urgent job; give its id, and how many bulk messages were recorded when it was taken in."""
        job = self.urgent_job()
        self.publish(job, rank="urgent")
        recorded = 0

        def is_taken_in() -> bool:
            nonlocal recorded
            [(recorded, is_there)] = self.query(SEEN, self.bulk, job["id"])
            return bool(is_there)

        self.wait_until(is_taken_in, "the urgent job is taken in")
        return job["id"], recorded

    def passed(self, job_id: str) -> tuple[int, int]:
        """Give how many bulk messages were accepted before the first and before the last message of a job."""
        self.wait_for_job(job_id)
        [(before_first, before_last)] = self.query(PASSED, self.bulk, job_id)
        return before_first, before_last


@pytest.fixture(scope="module")
def desk(ledger_url: str, vhost_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("priority"), ledger_url, vhost_url)
    desk.environment["TOCSIN_SHUTDOWN_GRACE_SECONDS"] = "2"
    try:
        with SlowMailServer(seconds=0.002) as server:
            desk.begin(server)
            yield desk
            desk.stop()
    finally:
        desk.stop()


def test_an_urgent_part_is_taken_in_before_the_bulk_parts_that_came_first(desk: Desk) -> None:
    _, before_last = desk.passed(desk.first_urgent["id"])
    assert before_last < PART_SIZE
    desk.wait_until(lambda: len(desk.query(TAKEN_IN)) == PARTS + 1, "everything is taken in")
    assert (0, 1) in desk.query(TAKEN_IN)[: PARTS // 2]


def test_an_urgent_job_passes_the_bulk_job_that_is_being_sent_over_the_only_connection(desk: Desk) -> None:
    for _ in range(TRIES):
        job_id, recorded = desk.publish_urgent()
        before_first, before_last = desk.passed(job_id)
        # What was marked and not yet recorded then, and a window that was made ready just before.
        assert before_first - recorded <= 2 * WINDOW
        assert before_last - before_first <= WINDOW
    assert desk.query("SELECT state FROM jobs WHERE id = %s", desk.bulk) == [("running",)]
