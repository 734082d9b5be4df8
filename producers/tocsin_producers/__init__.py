"""The ways in: how a job gets onto the queue, and how its sender knows that it is there.

    >>> from tocsin_producers import Content, Priority, Publisher
    >>> with Publisher(broker_url=broker_url) as publisher:
    ...     published = publisher.publish(
    ...         source="incident-board",
    ...         key="incident-4711/opened",
    ...         profile="campus",
    ...         content=Content(subject="{{ data.what }}", text="Please leave {{ data.place }}."),
    ...         data={"what": "Fire alarm", "place": "Hall 7"},
    ...         priority=Priority.URGENT,
    ...         recipients=["ada@example.org", {"address": "alan@example.org", "name": "Alan"}],
    ...     )
    >>> published.parts, published.recipients
    (1, 2)

What it promises:

- `publish` returns only when the message broker has confirmed every part. From then on each recipient reaches a
  final state, whatever is killed.
- Publishing the same job again, with the same id (or source and key) and the same recipients in the same order,
  changes nothing. So after an error, or a crash, publish again.
- A part that intake would refuse for its form is refused here, with the same ContractError, before it is sent.
- Where `publish` raises, no part was marked as the last unless all were handed over. A job that stays without its
  last part is sent as far as it came, and closed as incomplete at its expiry.

The light install (`pip install tocsin`) publishes to RabbitMQ; the embedded message broker needs
`tocsin[embedded]`.
"""

from tocsin_producers.parts import AnyRecipient, JobFields, PreparedPart, job_of, prepare_parts
from tocsin_producers.publisher import PublishedJob, Publisher
from tocsin_producers.recipients_file import RecipientsFile, RecipientsFileError, open_recipients_file
from tocsin_schema.contract.part import Attachment, Content, JobPart, Mode, OnUnknown, Priority, Recipient
from tocsin_schema.errors import ContractError, MessageBrokerError

__all__ = [
    "AnyRecipient",
    "Attachment",
    "Content",
    "ContractError",
    "JobFields",
    "JobPart",
    "MessageBrokerError",
    "Mode",
    "OnUnknown",
    "PreparedPart",
    "Priority",
    "PublishedJob",
    "Publisher",
    "Recipient",
    "RecipientsFile",
    "RecipientsFileError",
    "job_of",
    "open_recipients_file",
    "prepare_parts",
]
