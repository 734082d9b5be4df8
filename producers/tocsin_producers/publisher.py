"""Publishing jobs and knowing that they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Self, Unpack

from tocsin_producers.parts import AnyRecipient, JobFields, job_of, prepare_parts
from tocsin_producers.tracing import publish_span
from tocsin_schema.contract.identity import job_id
from tocsin_schema.message_broker.publishing import open_publisher

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from uuid import UUID

    from tocsin_schema.contract.part import JobPart
    from tocsin_schema.settings import Settings


@dataclass(frozen=True, slots=True)
class PublishedJob:
    """A job that the message broker has, whole."""

    id: UUID
    """What every command, event and table calls it: the id given, the one made of source and key, or a new one."""
    parts: int
    recipients: int
    """Recipients that the ledger will account for, the malformed ones included."""
    duplicates: int
    """Entries that intake will drop, since their address stood earlier in the same part."""
    invalid: int
    """Recipients with a malformed address or name; they become failed ones, with the reason."""


class Publisher:
    """Publishes jobs to RabbitMQ, or to the embedded message broker; a context manager.

    One publisher serves any number of jobs, one after the other. Threads may share it: a job that is published
    while another one is waits for it, so a thread with urgent jobs has a publisher of its own. Open it after a fork,
    not before. The constructor connects; it raises MessageBrokerError where the server is away or refuses us,
    ConfigurationError where the URL cannot be read or an extra is not installed, and UsageError where both URLs
    are left out.
    """

    def __init__(self, *, broker_url: str | None = None, database_url: str | None = None) -> None:
        """Connect to RabbitMQ at `broker_url`, or else to the message broker in the Postgres at `database_url`."""
        self._publisher = open_publisher(broker_url=broker_url, database_url=database_url)
        self._turn = Lock()

    @classmethod
    def from_settings(cls, settings: Settings, database_url: str | None = None) -> Self:
        """Connect to the installation's message broker: RabbitMQ where the settings name one, else the embedded one.

        `database_url` says where the embedded Postgres listens; left out, it is the one in the settings.
        """
        broker_url = None if settings.broker_url is None else settings.broker_url.get_secret_value()
        if database_url is None and settings.database_url is not None:
            database_url = settings.database_url.get_secret_value()
        return cls(broker_url=broker_url, database_url=database_url)

    def publish(
        self,
        job: JobPart | None = None,
        /,
        *,
        recipients: Iterable[AnyRecipient] | None = None,
        **fields: Unpack[JobFields],
    ) -> PublishedJob:
        """Publish a job of any size and return when all of it is confirmed.

        The job is given by `fields`, or by `job`, whose fields `fields` replace and whose recipients are taken
        where `recipients` is left out. `recipients` may be a generator: it is read once, a part of at most 1,000
        ahead. The same address twice is dropped within a part only; over more parts that is the caller's to do, as
        `RecipientsFile` does.

        Raises ContractError for what intake would refuse, MessageBrokerError where the broker does not confirm
        within 30 seconds; what `recipients` raises goes through. After any of them parts may have been kept, the
        last one not among them unless all were handed over. Publish again with the same id, or source and key, and
        the same recipients: nothing is doubled by it. Whoever means to do that gives one of them; an id that was
        made here is told only by the result.
        """
        template = job_of(job, fields)
        entries = recipients if recipients is not None else () if job is None else job.recipients
        parts = accepted = duplicates = invalid = 0
        published_id: UUID | None = None
        with self._turn, publish_span() as span:
            for part in prepare_parts(template, entries):
                published_id = job_id(part.valid.part)
                self._publisher.publish(part.body, part.rank, traceparent=span.traceparent(published_id))
                parts += 1
                accepted += len(part.valid.recipients) + len(part.valid.rejected)
                duplicates += part.valid.duplicates
                invalid += len(part.valid.rejected)
            self._publisher.flush()
            span.note(parts=parts, recipients=accepted, rank=template.priority)
        assert published_id is not None
        return PublishedJob(published_id, parts, accepted, duplicates, invalid)

    def close(self) -> None:
        """Disconnect, after the job that is being published. Raises MessageBrokerError where something is left over."""
        with self._turn:
            self._publisher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect; after an exception without waiting for what is unconfirmed."""
        self._publisher.__exit__(kind, error, trace)
