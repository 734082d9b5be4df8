"""Whether the ledger and the mail server tell the same story, recipient by recipient. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tocsin_schema.ledger.deliveries import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tocsin_console.demo.mail_sink import ReceivedMessage


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both sides say. A delivery is one message, named by its Message-ID and bytes, to one address.

    `only_in_ledger` and `only_received` are deliveries that the other side does not know; `doubled` were received
    more than once; `without_copy` are recipients that are called sent and have no email copy, or the other way round.
    """

    deliveries: int
    messages: int
    only_in_ledger: tuple[Delivery, ...]
    only_received: tuple[Delivery, ...]
    doubled: tuple[Delivery, ...]
    without_copy: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether what the ledger calls sent is exactly what was received, each once."""
        return not (self.only_in_ledger or self.only_received or self.doubled or self.without_copy)


def compare(
    recorded: Iterable[Delivery], sent: Iterable[tuple[int, str]], received: Sequence[ReceivedMessage]
) -> Comparison:
    """Hold the ledger's email copies and states against what a mail server received."""
    copies = Counter(recorded)
    arrived = Counter(
        Delivery(message.message_id or "", message.sha256, address)
        for message in received
        for address in message.recipients
    )
    called_sent = Counter(address for _, address in sent)
    copied = Counter(delivery.address for delivery in copies.elements())
    return Comparison(
        deliveries=arrived.total(),
        messages=len(received),
        only_in_ledger=tuple(copies - arrived),
        only_received=tuple(arrived - copies),
        doubled=tuple(delivery for delivery, times in arrived.items() if times > 1),
        without_copy=tuple((called_sent - copied) + (copied - called_sent)),
    )
