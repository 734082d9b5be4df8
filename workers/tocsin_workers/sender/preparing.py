"""From due recipients to messages that are ready for the wire. Pure; the same inputs give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec import Struct

from tocsin_schema.contract.addresses import Address, parse_address
from tocsin_schema.contract.part import MAX_RECIPIENTS, Attachment, Mode
from tocsin_schema.errors import RenderingError
from tocsin_workers.rendering.filling import MessageFiller
from tocsin_workers.rendering.headers import Mailbox
from tocsin_workers.rendering.message import MessageSources, RenderedMessage, filled
from tocsin_workers.rendering.message_id import MessageIds
from tocsin_workers.rendering.mime import Composer, encode_attachment, shown_to
from tocsin_workers.rendering.tag_values import recipient_values
from tocsin_workers.rendering.templates import compile_message
from tocsin_workers.smtp.body import LONE_DOT, to_wire
from tocsin_workers.smtp.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.attachments import StoredAttachment
    from tocsin_schema.ledger.sending import ClaimedBatch, JobContent
    from tocsin_workers.rendering.message import FilledMessage
    from tocsin_workers.rendering.mime import ComposedMessage
    from tocsin_workers.sender.screening import DueRecipient, ScreenedBatch


@dataclass(frozen=True, slots=True)
class JobMessages:
    """Everything that makes the messages of one job, made once a job and process.

    `filler` is there in individual mode, `shared` is the rendered message in shared mode, with its `shown_to`.
    """

    content: JobContent
    sender: Address
    composer: Composer = field(repr=False)
    ids: MessageIds = field(repr=False)
    filler: MessageFiller | None = field(repr=False)
    shared: tuple[FilledMessage, Mailbox] | None = field(repr=False)

    @classmethod
    def of(cls, content: JobContent, from_address: str, attachments: Sequence[StoredAttachment]) -> JobMessages:
        """Compile what the ledger holds of a job. Raises RenderingError; intake has made sure that it does not."""
        fields = {
            "subject": content.subject,
            "text": content.text_body,
            "html": content.html_body,
            "from_name": content.from_name,
            "reply_to": content.reply_to,
            "visible_to": content.visible_to,
        }
        sender = parse_address(from_address)
        encoded = [encode_attachment(Attachment(one.filename, one.content_type, one.content)) for one in attachments]
        filler = shared = None
        if content.rendered:
            rendered = RenderedMessage(**fields, headers=content.headers)
            shared = filled(rendered), shown_to(rendered, sender)
        else:
            filler = MessageFiller(compile_message(MessageSources(**fields, headers=content.headers)), content.data)
        return cls(
            content=content,
            sender=sender,
            composer=Composer(sender, encoded),
            ids=MessageIds(content.id, sender.domain),
            filler=filler,
            shared=shared,
        )


class PreparedMessage(Struct, frozen=True, gc=False):
    """A message and whom it goes to, ready for one transaction. `octets` is the message before dot-stuffing."""

    batch: ClaimedBatch
    on_unknown: str
    recipients: tuple[DueRecipient, ...]
    envelope: Envelope
    octets: bytes
    digest: bytes
    subject: str
    reply_to: str | None
    visible_to: str
    message_id: str
    dated_at: datetime
    has_leading_dot: bool = True
    """Whether a line may begin with a dot."""

    @property
    def wire(self) -> bytes:
        """The octets to write after a 354. Made when they are needed: a window of messages is held in memory."""
        # What was composed has its lines ended by CRLF. To look for dots costs more than all else here.
        return to_wire(self.octets) if self.has_leading_dot else self.octets + LONE_DOT

    @property
    def mask(self) -> int:
        """Whose bits of the batch are meant."""
        return sum([1 << recipient.index for recipient in self.recipients])

    def __repr__(self) -> str:
        return f"PreparedMessage({self.message_id}, {len(self.octets)} octets, {len(self.recipients)} recipients)"


class UnrenderableRecipient(Struct, frozen=True):
    """A recipient whose message cannot be made, and why."""

    batch: ClaimedBatch
    recipient: DueRecipient
    error: RenderingError


def prepare(
    messages: JobMessages, screened: ScreenedBatch, dated_at: datetime, *, largest: int
) -> Iterator[PreparedMessage | UnrenderableRecipient]:
    """Make a batch's messages one after the other: one for all, or one for each.

    `largest` is how many recipients a transaction may have. Who has to go alone goes alone: addresses that need
    SMTPUTF8, which not every server offers, and those of a batch that a server refused without saying whose fault
    it was. `dated_at` is the Date header, in whole seconds.
    """
    for group in _groups(screened.due, Mode(messages.content.mode), largest):
        try:
            yield _message(messages, screened.batch, group, dated_at)
        except RenderingError as error:
            for recipient in group:
                yield UnrenderableRecipient(screened.batch, recipient, error)


class RenderedOctets(Struct, frozen=True, gc=False):
    """A message's exact bytes, and what a copy of it tells."""

    composed: ComposedMessage
    subject: str
    reply_to: str | None
    visible_to: str
    message_id: str


def render_octets(
    messages: JobMessages, batch_number: int, recipient: DueRecipient | None, dated_at: datetime
) -> RenderedOctets:
    """Make a message's exact bytes: with a `recipient` theirs alone, else the one that a batch shares.

    The only way in which they are made, now or for a copy later. Raises RenderingError.
    """
    if recipient is None:
        assert messages.shared is not None
        message, to = messages.shared
        message_id = messages.ids.of_batch(batch_number)
    else:
        assert messages.filler is not None
        person = recipient.recipient
        message = messages.filler.fill(recipient_values(person.address, person.name, person.data or {}))
        to = Mailbox(_address(person.address), person.name)
        part, place = divmod(person.ordinal, MAX_RECIPIENTS)
        message_id = messages.ids.of_recipient(part + 1, place)
    composed = messages.composer.compose(message, to=to, message_id=message_id, date=dated_at)
    return RenderedOctets(composed, message.subject or "", message.reply_to, to.address.address, message_id)


def _groups(due: Sequence[DueRecipient], mode: Mode, largest: int) -> Iterator[tuple[DueRecipient, ...]]:
    match mode:
        case Mode.INDIVIDUAL:
            yield from ((recipient,) for recipient in due)
        case Mode.SHARED:
            together = [one for one in due if not one.alone and one.recipient.address.isascii()]
            for start in range(0, len(together), largest):
                yield tuple(together[start : start + largest])
            yield from ((one,) for one in due if one.alone or not one.recipient.address.isascii())


def _message(
    messages: JobMessages, batch: ClaimedBatch, group: tuple[DueRecipient, ...], dated_at: datetime
) -> PreparedMessage:
    person = group[0] if messages.content.mode == Mode.INDIVIDUAL else None
    rendered = render_octets(messages, batch.number, person, dated_at)
    octets = rendered.composed.octets
    # Bodies are always encoded: octets over 127 stand in headers only, for addresses without an ASCII form.
    is_international = not octets.isascii()
    return PreparedMessage(
        batch=batch,
        on_unknown=messages.content.on_unknown,
        recipients=group,
        envelope=Envelope(
            mail_from=messages.sender.address,
            recipients=tuple([one.recipient.address for one in group]),
            size=len(octets),
            smtputf8=is_international,
            eight_bit=is_international,
        ),
        octets=octets,
        digest=sha256(octets).digest(),
        subject=rendered.subject,
        reply_to=rendered.reply_to,
        visible_to=rendered.visible_to,
        message_id=rendered.message_id,
        dated_at=dated_at,
        has_leading_dot=rendered.composed.has_leading_dot,
    )


def _address(stored: str) -> Address:
    """Take an address that intake has put into its canonical form."""
    return Address(stored, needs_smtputf8=not stored.isascii())
