"""What intake and the senders would say of a job, asked before it is published.

An error now is better than a dead letter later. Nothing here changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from tocsin_console.sending.forecast import foresee
from tocsin_schema.contract.addresses import Address, parse_address
from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.part import Mode
from tocsin_schema.errors import ContractError, RenderingError, Scope, UsageError
from tocsin_schema.ledger import intake
from tocsin_schema.ledger.status import read_workers
from tocsin_workers.intake.content import content_of, sources_of
from tocsin_workers.rendering.headers import Mailbox
from tocsin_workers.rendering.message_id import message_id
from tocsin_workers.rendering.mime import compose, shown_to
from tocsin_workers.rendering.tag_values import recipient_tags
from tocsin_workers.rendering.templates import MessageTemplate, compile_message

if TYPE_CHECKING:
    from tocsin_console.sending.forecast import Forecast
    from tocsin_console.sending.plan import JobPlan
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.intake import ProfileForIntake, TemplateForIntake
    from tocsin_workers.rendering.message import RenderedMessage

UNKNOWN_SENDER = "sender@example.org"
"""Stands for the sending profile's address where the ledger cannot be asked."""

_TRIAL_ID = message_id(UUID(int=0), "trial", "localhost")
_TRIAL_DATE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LedgerFindings:
    """What the ledger knows that bears on a job."""

    profile: ProfileForIntake
    template: TemplateForIntake | None
    is_repeated: bool
    """All parts of the job have been taken in before: publishing it again changes nothing."""
    has_workers: bool
    """Whether a worker gave a sign of life within the last 30 seconds."""
    forecast: Forecast | None
    """When it would be through; None where publishing it again changes nothing."""


async def ask_ledger(connection: Connection, plan: JobPlan) -> LedgerFindings:
    """Look up what the job names.

    Raises UsageError for an unknown profile or template, ContractError where the job's id is known with other
    content.
    """
    part = plan.first.part
    profile = await intake.read_sending_profile(connection, part.profile)
    if profile is None:
        raise UsageError(
            f"There is no sending profile {part.profile!r}.",
            fix="See `tocsin profile list`, or make it with `tocsin profile add`.",
            scope=Scope.PROFILE,
        )
    template = None if part.template is None else await intake.read_template(connection, part.template)
    if part.template is not None and template is None:
        raise UsageError(
            f"There is no template {part.template!r}.",
            fix="See `tocsin template list`, or make it with `tocsin template add`.",
            scope=Scope.TEMPLATE,
        )
    is_repeated = await _is_repeated(connection, plan)
    forecast = None if is_repeated else await foresee(connection, plan, profile)
    has_workers = bool(await read_workers(connection))
    return LedgerFindings(profile, template, is_repeated, has_workers=has_workers, forecast=forecast)


def check_message(
    plan: JobPlan, findings: LedgerFindings | None, columns: frozenset[str], *, for_preview: bool
) -> RenderedMessage | None:
    """Make the message of the first recipient and give it, where that can be done.

    Without `for_preview` the first recipient is tried only where a tag names no column, which is everybody's
    trouble; a value that only this recipient has wrong is left to the sender, who fails this recipient alone.
    Raises ContractError for what intake would refuse, RenderingError for what the first recipient's message lacks.
    """
    if findings is None and plan.first.part.template is not None:
        return None
    template = None if findings is None else findings.template
    sender = UNKNOWN_SENDER if findings is None else findings.profile.from_address
    content_of(plan.first, template, sender)
    compiled = compile_message(sources_of(plan.first.part, template))
    if not for_preview and not _names_beyond(compiled, columns):
        return None
    match plan.first.part.mode:
        case Mode.SHARED:
            return _shared(plan, compiled, parse_address(sender))
        case Mode.INDIVIDUAL:
            return _individual(plan, compiled, parse_address(sender))


def _shared(plan: JobPlan, compiled: MessageTemplate, sender: Address) -> RenderedMessage:
    message = compiled.render(plan.first.part.data)
    _try_to_compose(message, sender, shown_to(message, sender))
    return message


def _individual(plan: JobPlan, compiled: MessageTemplate, sender: Address) -> RenderedMessage | None:
    if not plan.first.recipients:
        return None
    first = plan.first.recipients[0]
    try:
        message = compiled.render(plan.first.part.data, recipient_tags(first.address, first.name, first.data))
        _try_to_compose(message, sender, Mailbox(parse_address(first.address), first.name))
    except RenderingError as error:
        raise RenderingError(
            f"The message to the first recipient, {first.address}, cannot be made: {error.problem}", fix=error.fix
        ) from None
    return message


def _try_to_compose(message: RenderedMessage, sender: Address, to: Mailbox) -> None:
    compose(message, from_address=sender, to=to, message_id=_TRIAL_ID, date=_TRIAL_DATE)


def _names_beyond(compiled: MessageTemplate, columns: frozenset[str]) -> bool:
    used = {name.split(".")[1] for name in compiled.variables if name.startswith("recipient.")}
    return bool(used - columns)


async def _is_repeated(connection: Connection, plan: JobPlan) -> bool:
    """Say whether all of the job is in the ledger. Raises ContractError where something else is under its id."""
    known = await intake.read_job_id(connection, plan.id)
    if known is None or not known.is_kept:
        return False
    if known.digest != plan.digest:
        raise _other_content(plan, "its fields")
    found = 0
    for position, expected in enumerate(plan.part_digests, start=1):
        try:
            if await intake.read_part_digest(connection, known.job_number, position) != expected:
                raise _other_content(plan, "other recipients")
        except LookupError:
            continue
        found += 1
    return found == plan.parts


def _other_content(plan: JobPlan, what: str) -> ContractError:
    return ContractError(
        ContractCode.OTHER_CONTENT,
        f"Job {plan.id} was published before with other content ({what}).",
        field="id",
        fix="Give a new notification a new --key or --id.",
    )
