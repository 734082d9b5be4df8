"""What `tocsin send` shows: what was planned, published and, with --wait, what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_console.commands.job import job_as_facts, job_as_json
from tocsin_console.output import Cell, counted, print_block, print_facts, print_json, say

if TYPE_CHECKING:
    from tocsin_console.sending.plan import JobPlan
    from tocsin_console.sending.preflight import LedgerFindings
    from tocsin_console.sending.waiting import Waited
    from tocsin_workers.rendering.message import RenderedMessage


def show_published(plan: JobPlan, findings: LedgerFindings | None, *, as_json: bool) -> None:
    """Show what was published, and when it will be through where the ledger could be asked."""
    if as_json:
        print_json({**_as_json(plan), **_forecast_as_json(findings)})
        return
    print_facts([*_as_facts(plan), *_forecast_as_facts(findings)])
    if findings is not None and findings.forecast is not None and findings.forecast.warning is not None:
        say(
            f"Published all the same. To change it: `tocsin job cancel {plan.id}`, then send again with a later"
            " --expires-at and another --key."
        )
        return
    say(f"Published. Follow it with `tocsin job watch {plan.id}`.")


def show_ended(waited: Waited, plan: JobPlan, *, as_json: bool) -> None:
    """Show the job as it was last seen; where it was never seen, what was published."""
    if as_json:
        print_json({**_as_json(plan), "job": None if waited.job is None else job_as_json(waited.job)})
    elif waited.job is None:
        print_facts(_as_facts(plan))
    else:
        print_facts(job_as_facts(waited.job))


def show_dry_run(
    plan: JobPlan, findings: LedgerFindings | None, message: RenderedMessage | None, *, as_json: bool
) -> None:
    """Show what would be published, and the first recipient's message where it could be made."""
    sender = None if findings is None else findings.profile.from_address
    to = plan.first.recipients[0].address if plan.first.recipients else None
    if as_json:
        preview = None if message is None else _message_as_json(message, sender, to)
        expires_at = None if findings is None or findings.forecast is None else findings.forecast.expires_at
        print_json(
            {
                **_as_json(plan),
                **_forecast_as_json(findings),
                "expires_at": expires_at,
                "published": False,
                "preview": preview,
            }
        )
        return
    print_facts([*_as_facts(plan), *_forecast_as_facts(findings), ("From", sender)])
    if message is not None:
        print_facts([("First recipient", to), ("Subject", message.subject)])
        for heading, body in (("Text", message.text), ("HTML", message.html)):
            if body is not None:
                print_block(heading, body)
    say("Nothing was published.")


def _as_json(plan: JobPlan) -> dict[str, object]:
    part = plan.first.part
    return {
        "id": plan.id,
        "published": True,
        "parts": plan.parts,
        "recipients": plan.recipients,
        "duplicates": plan.duplicates,
        "invalid": plan.invalid,
        "profile": part.profile,
        "template": part.template,
        "mode": part.mode.value,
        "priority": part.priority.value,
    }


def _forecast_as_json(findings: LedgerFindings | None) -> dict[str, object]:
    forecast = None if findings is None else findings.forecast
    return {} if forecast is None else forecast.as_json()


def _forecast_as_facts(findings: LedgerFindings | None) -> list[tuple[str, Cell]]:
    forecast = None if findings is None else findings.forecast
    if forecast is None:
        return []
    backlog = counted(forecast.outlook.backlog, "recipient")
    return [
        ("Messages", forecast.messages),
        ("Backlog of its mailbox", backlog),
        ("Through", forecast.line),
        ("Expires", forecast.expires_at),
    ]


def _message_as_json(message: RenderedMessage, sender: str | None, to: str | None) -> dict[str, object]:
    return {
        "from": sender,
        "from_name": message.from_name,
        "recipient": to,
        "reply_to": message.reply_to,
        "subject": message.subject,
        "text": message.text,
        "html": message.html,
    }


def _as_facts(plan: JobPlan) -> list[tuple[str, Cell]]:
    part = plan.first.part
    return [
        ("Job", plan.id),
        ("Profile", part.profile),
        ("Mode", part.mode.value),
        ("Priority", part.priority.value),
        ("Recipients", plan.recipients),
        ("Malformed addresses", plan.invalid),
        ("Duplicates dropped", plan.duplicates),
        ("Parts", plan.parts),
    ]
