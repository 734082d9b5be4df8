"""From due recipients to messages that are ready for the wire. Pure; the same inputs give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from tocsin_schema.contract.addresses import Address, parse_address
from tocsin_schema.contract.part import MAX_RECIPIENTS, Attachment, Mode
from tocsin_schema.errors import RenderingError
from tocsin_workers.rendering.headers import Mailbox
from tocsin_workers.rendering.message import MessageSources, RenderedMessage
from tocsin_workers.rendering.message_id import batch_part, message_id, recipient_part
from tocsin_workers.rendering.mime import EncodedAttachment, compose, encode_attachment, shown_to
from tocsin_workers.rendering.tag_values import TagObject, recipient_tags, tag_object
from tocsin_workers.rendering.templates import MessageTemplate, compile_message
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from tocsin_schema.ledger.attachments import StoredAttachment
    from tocsin_schema.ledger.sending import ClaimedBatch, JobContent
    from tocsin_workers.sender.screening import DueRecipient, ScreenedBatch


@dataclass(frozen=True, slots=True)
class JobMessages:
    """Everything that makes the messages of one job, made once a job and process."""

    content: JobContent
    sender: Address
    attachments: tuple[EncodedAttachment, ...]
    template: MessageTemplate | None = field(repr=False)
    rendered: RenderedMessage | None = field(repr=False)
    data: TagObject = field(repr=False)

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
        return cls(
            content=content,
            sender=parse_address(from_address),
            attachments=tuple(
                encode_attachment(Attachment(one.filename, one.content_type, one.content)) for one in attachments
            ),
            template=None if content.rendered else compile_message(MessageSources(**fields, headers=content.headers)),
            rendered=RenderedMessage(**fields, headers=content.headers) if content.rendered else None,
            data=tag_object(content.data),
        )


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A message and whom it goes to, ready for one transaction. `octets` is the message before dot-stuffing."""

    batch: ClaimedBatch
    on_unknown: str
    recipients: tuple[DueRecipient, ...]
    envelope: Envelope
    octets: bytes = field(repr=False)
    digest: bytes
    subject: str
    reply_to: str | None
    visible_to: str
    message_id: str
    dated_at: datetime

    @property
    def wire(self) -> bytes:
        """The octets to write after a 354. Made when they are needed: a window of messages is held in memory."""
        return to_wire(self.octets)

    @property
    def mask(self) -> int:
        """Whose bits of the batch are meant."""
        return sum(1 << recipient.index for recipient in self.recipients)


@dataclass(frozen=True, slots=True)
class UnrenderableRecipient:
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


def render_octets(
    messages: JobMessages, batch_number: int, recipient: DueRecipient | None, dated_at: datetime
) -> tuple[bytes, RenderedMessage, Mailbox, str]:
    """Make a message's exact bytes: with a `recipient` theirs alone, else the one that a batch shares.

    Give the bytes, what was rendered, the visible To, and the Message-ID. Raises RenderingError.
    """
    content = messages.content
    domain = messages.sender.domain
    if recipient is None:
        assert messages.rendered is not None
        rendered = messages.rendered
        to = shown_to(rendered, messages.sender)
        identifier = message_id(content.id, batch_part(batch_number), domain)
    else:
        assert messages.template is not None
        person = recipient.recipient
        rendered = messages.template.render(
            messages.data, recipient_tags(person.address, person.name, person.data or {})
        )
        to = Mailbox(_address(person.address), person.name)
        part, place = divmod(person.ordinal, MAX_RECIPIENTS)
        identifier = message_id(content.id, recipient_part(part + 1, place), domain)
    octets = compose(
        rendered,
        from_address=messages.sender,
        to=to,
        message_id=identifier,
        date=dated_at,
        attachments=messages.attachments,
    )
    return octets, rendered, to, identifier


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
    octets, rendered, to, identifier = render_octets(messages, batch.number, person, dated_at)
    return PreparedMessage(
        batch=batch,
        on_unknown=messages.content.on_unknown,
        recipients=group,
        envelope=Envelope(
            mail_from=messages.sender.address,
            recipients=tuple(one.recipient.address for one in group),
            size=len(octets),
            # Bodies are always encoded: octets over 127 stand in headers only, for addresses without an ASCII form.
            smtputf8=not octets.isascii(),
            eight_bit=not octets.isascii(),
        ),
        octets=octets,
        digest=sha256(octets).digest(),
        subject=rendered.subject or "",
        reply_to=rendered.reply_to,
        visible_to=to.address.address,
        message_id=identifier,
        dated_at=dated_at,
    )


def _address(stored: str) -> Address:
    """Take an address that intake has put into its canonical form."""
    return Address(stored, needs_smtputf8=not stored.isascii())
