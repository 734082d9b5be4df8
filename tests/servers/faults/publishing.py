"""Publishing as an upstream system does it: again with the same id until it returns without error."""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import TYPE_CHECKING

from tests.servers.faults.report import Published
from tocsin_producers import Publisher
from tocsin_schema.errors import MessageBrokerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers.faults.load import LoadJob

#: Longer than any alarm or restart of the suite, and the publisher's own deadline several times over.
DEADLINE_SECONDS = 150.0
_RETRY_SECONDS = 0.25


class Upstream:
    """A thread that publishes jobs, one every `pause` seconds; `finish` waits until all of them are kept."""

    def __init__(
        self, jobs: Sequence[LoadJob], *, broker_url: str | None, database_url: str, pause: float = 0.0
    ) -> None:
        self._pause = pause
        self._waiting = list(jobs)
        self._urls = (broker_url, database_url)
        self._deadline = time.monotonic() + DEADLINE_SECONDS
        self._given_up = Event()
        self._trouble: BaseException | None = None
        self.published: list[Published] = []
        self.errors = 0
        """How often publishing failed and was tried again."""
        self._thread = Thread(target=self._run, name="upstream", daemon=True)
        self._thread.start()

    def finish(self) -> list[Published]:
        """Give the jobs that are published, all of them."""
        self._thread.join(DEADLINE_SECONDS)
        if self._trouble is not None or self._thread.is_alive():
            self._given_up.set()
            raise AssertionError(f"{len(self._waiting)} jobs could not be published") from self._trouble
        return self.published

    def _run(self) -> None:
        try:
            while self._waiting:
                try:
                    self._publish_all()
                except MessageBrokerError:
                    self.errors += 1
                    if self._given_up.wait(_RETRY_SECONDS) or time.monotonic() > self._deadline:
                        raise
        except BaseException as error:  # noqa: BLE001 - handed to whoever calls `finish`
            self._trouble = error

    def _publish_all(self) -> None:
        broker_url, database_url = self._urls
        publisher = Publisher(broker_url=broker_url, database_url=database_url)
        try:
            while self._waiting:
                job = self._waiting[0]
                publisher.publish(job.part, recipients=job.addresses)
                self.published.append(Published(job.id, job.holds, job.addresses))
                del self._waiting[0]
                self._given_up.wait(self._pause)
        except BaseException as error:
            publisher.__exit__(type(error), error, error.__traceback__)
            raise
        publisher.close()
