"""What all messages of a job share, as it is stored: rendered in shared mode, the sources in individual mode. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.part import Mode
from tocsin_schema.errors import ContractError, RenderingError
from tocsin_schema.ledger.intake import MessageContent
from tocsin_workers.rendering.headers import Mailbox
from tocsin_workers.rendering.message import MessageSources
from tocsin_workers.rendering.message_id import message_id
from tocsin_workers.rendering.mime import compose, shown_to
from tocsin_workers.rendering.tag_values import recipient_tags
from tocsin_workers.rendering.templates import MessageTemplate, compile_message

if TYPE_CHECKING:
    from tocsin_schema.contract.part import JobPart
    from tocsin_schema.contract.recipient_list import ValidPart
    from tocsin_schema.ledger.intake import TemplateForIntake
    from tocsin_workers.rendering.message import RenderedMessage

_TRIAL_ID = message_id(UUID(int=0), "trial", "localhost")
_TRIAL_DATE = datetime(2000, 1, 1, tzinfo=UTC)


def content_of(valid: ValidPart, template: TemplateForIntake | None, from_address: str) -> MessageContent:
    """Make what is stored of the job's message. The job's own fields win over the template's.

    Raises ContractError for whatever can be known to fail now: a malformed or undefined tag, a personal tag in a
    shared message, a header with a line break, a Reply-To that is not one address.
    """
    part = valid.part
    sources = sources_of(part, template)
    try:
        compiled = compile_message(sources)
        match part.mode:
            case Mode.SHARED:
                return _shared(part, compiled, from_address)
            case Mode.INDIVIDUAL:
                _try_out(valid, compiled, from_address)
                return _individual(part, sources)
    except RenderingError as error:
        raise ContractError(
            ContractCode.BAD_TEMPLATE, f"The message cannot be made: {error.problem}", fix=error.fix
        ) from None


def sources_of(part: JobPart, template: TemplateForIntake | None) -> MessageSources:
    """Put together the job's own fields and those of its template or inline content."""
    if template is not None:
        subject, text, html = template.subject, template.text_body, template.html_body
        from_name, reply_to = template.from_name, template.reply_to_address
    else:
        assert part.content is not None
        subject, text, html = part.content.subject, part.content.text, part.content.html
        from_name = reply_to = None
    return MessageSources(
        subject=subject,
        text=text,
        html=html,
        from_name=from_name if part.from_name is None else part.from_name,
        reply_to=reply_to if part.reply_to is None else part.reply_to,
        visible_to=part.to,
        headers=part.headers,
    )


def _shared(part: JobPart, compiled: MessageTemplate, from_address: str) -> MessageContent:
    if compiled.uses_recipient:
        used = min(name for name in compiled.variables if name.partition(".")[0] == "recipient")
        raise ContractError(
            ContractCode.RECIPIENT_TAG_IN_SHARED,
            f"The message uses {{{{ {used} }}}}, but in shared mode all recipients get the same message.",
            field="mode",
            fix="Set mode to individual, or take the tag out.",
        )
    message = compiled.render(part.data)
    sender = parse_address(from_address)
    compose(message, from_address=sender, to=shown_to(message, sender), message_id=_TRIAL_ID, date=_TRIAL_DATE)
    return _stored(message, rendered=True, data={})


def _individual(part: JobPart, sources: MessageSources) -> MessageContent:
    return _stored(sources, rendered=False, data=part.data)


def _try_out(valid: ValidPart, compiled: MessageTemplate, from_address: str) -> None:
    """Find out whether the message fails for everybody, through no fault of theirs.

    As soon as one recipient's message can be made, the job is sound; whoever else's cannot fails alone. Where none
    can, a stand-in who has every column decides: if theirs cannot be made either, the job's own fields are to blame.
    """
    sender = parse_address(from_address)
    failure: RenderingError | None = None
    people = [recipient_tags(one.address, one.name, one.data) for one in valid.recipients]
    columns = {name.split(".")[1]: "x" for name in compiled.variables if name.startswith("recipient.")}
    for tags in [*people, recipient_tags(from_address, "x", columns)] if people else []:
        try:
            message = compiled.render(valid.part.data, tags)
            compose(message, from_address=sender, to=Mailbox(sender), message_id=_TRIAL_ID, date=_TRIAL_DATE)
        except RenderingError as error:
            failure = failure or error
        else:
            return
    if failure is not None:
        raise failure


def _stored(message: MessageSources | RenderedMessage, *, rendered: bool, data: dict[str, object]) -> MessageContent:
    return MessageContent(
        rendered=rendered,
        subject=message.subject or "",
        text_body=message.text,
        html_body=message.html,
        from_name=message.from_name,
        reply_to=message.reply_to,
        visible_to=message.visible_to,
        headers=message.headers,
        data=data,
    )
