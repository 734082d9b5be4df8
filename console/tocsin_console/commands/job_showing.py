"""What is shown of jobs, of what was done to them, and of their recipients."""

from collections.abc import Sequence

from tocsin_console.commands.event_words import event_line
from tocsin_console.commands.try_words import place_in_words, reason_in_words, said_in_words, state_in_words
from tocsin_console.output import Cell, moment
from tocsin_console.reading.estimate_words import estimate_as_json, estimate_line, paused_profile
from tocsin_console.reading.progress import state_line
from tocsin_schema.contract.part import Priority
from tocsin_schema.ledger.estimates import Outlook
from tocsin_schema.ledger.job_events import RecordedEvent
from tocsin_schema.ledger.job_reading import Job
from tocsin_schema.ledger.recipient_story import RecipientReading, Try


def job_as_json(job: Job) -> dict[str, object]:
    """Give all that may be known of a job, for programs."""
    shown = job.shown
    return {
        "id": job.id,
        "number": job.number,
        "state": shown.state.value,
        "state_reason": shown.reason,
        "state_until": shown.until,
        "profile": job.profile,
        "template": job.template,
        "template_version": job.template_version,
        "mode": job.mode,
        "priority": Priority.of_rank(job.rank).value,
        "on_unknown": job.on_unknown,
        "source": job.source,
        "key": job.key,
        "event": job.event,
        "correlation_id": job.correlation_id,
        "total": job.total,
        "recipients": job.counts,
        "parts": {"received": job.parts_received, "last": job.last_part},
        "duplicates_dropped": job.duplicates,
        "created_at": job.created_at,
        "send_after": job.send_after,
        "expires_at": job.expires_at,
        "finished_at": job.finished_at,
    }


def job_as_facts(job: Job) -> list[tuple[str, Cell]]:
    """Give all that may be known of a job, for people."""
    template = (
        None if job.template_version is None else f"{job.template or '(removed)'}, version {job.template_version}"
    )
    parts = f"{job.parts_received} of {job.last_part}" if job.last_part else f"{job.parts_received}, the last not yet"
    return [
        ("Job", job.id),
        ("Number", job.number),
        ("State", state_line(job)),
        ("Profile", job.profile or "(removed)"),
        ("Template", template),
        ("Mode", job.mode),
        ("Priority", Priority.of_rank(job.rank).value),
        ("When unknown", job.on_unknown),
        ("Source", job.source),
        ("Key", job.key),
        ("Event", job.event),
        ("Correlation id", job.correlation_id),
        ("Parts received", parts),
        ("Duplicates dropped", job.duplicates),
        ("Recipients", job.total),
        *[(f"  {state}", count) for state, count in job.counts.items()],
        ("Created", job.created_at),
        ("Send after", job.send_after),
        ("Expires", job.expires_at),
        ("Finished", job.finished_at),
    ]


def outlook_as_json(job: Job, outlook: Outlook | None) -> dict[str, object] | None:
    """Give when a job will be through, for programs; None where nothing is left to do."""
    return estimate_as_json(outlook, expires_at=job.expires_at, paused=_paused(job))


def outlook_as_facts(job: Job, outlook: Outlook | None) -> list[tuple[str, Cell]]:
    """Give when a job will be through, for people; nothing where nothing is left to do."""
    line = None if outlook is None else estimate_line(outlook, expires_at=job.expires_at, paused=_paused(job))
    return [] if line is None else [("Through", line if job.state != "receiving" else f"{line} (what has come so far)")]


def _paused(job: Job) -> str:
    """Say what would be paused, where the job waits for it."""
    if job.profile_is_paused and job.profile is not None:
        return paused_profile(job.profile)
    return f"this job is paused (`tocsin job resume {job.id}`)"


def events_as_json(events: Sequence[RecordedEvent]) -> list[dict[str, object]]:
    """Give what was done to a job, for programs, newest first."""
    return [
        {
            "at": event.at,
            "event": event.event,
            "actor_kind": event.actor_kind,
            "actor": event.actor,
            "details": event.details,
        }
        for event in events
    ]


def events_as_facts(events: Sequence[RecordedEvent]) -> list[tuple[str, Cell]]:
    """Give what was done to a job, for people, newest first."""
    return (
        [("History", "newest first"), *((f"  {moment(one.at)}", event_line(one)) for one in events)] if events else []
    )


def recipient_as_json(recipient: RecipientReading) -> dict[str, object]:
    """Give what became of a recipient, and of every try, for programs."""
    return {
        "address": recipient.address,
        "name": recipient.name,
        "state": recipient.state,
        "code": recipient.code,
        "enhanced_code": recipient.enhanced_code,
        "reply": recipient.reply,
        "attempts": recipient.attempts,
        "message_id": recipient.message_id,
        "reason": recipient.reason,
        "due_at": recipient.due_at,
        "tries": [
            {
                "at": one.at,
                "state": one.state,
                "phase": one.phase,
                "code": one.code,
                "enhanced_code": one.enhanced_code,
                "reply": one.reply,
                "reason": one.reason,
            }
            for one in recipient.tries
        ],
    }


def recipient_headings() -> tuple[str, ...]:
    """Give the headings of the recipients' lines."""
    return ("ADDRESS", "STATE", "CODE", "ENHANCED", "ATTEMPTS", "REASON OR REPLY")


def recipient_rows(recipient: RecipientReading, *, all_tries: bool) -> list[tuple[Cell, ...]]:
    """Give a recipient's line, and under it a line a try: where it took several to fail, or of everybody."""
    line = (
        recipient.address,
        recipient.state,
        recipient.code,
        recipient.enhanced_code,
        recipient.attempts,
        reason_in_words(recipient.reason) or recipient.reply,
    )
    has_story = len(recipient.tries) > 1 and recipient.state != "sent"
    return [line, *(_tries_as_rows(recipient) if all_tries or has_story else ())]


def _tries_as_rows(recipient: RecipientReading) -> list[tuple[Cell, ...]]:
    last = len(recipient.tries) - 1
    return [
        _try_as_row(one, state_in_words(one, recipient, is_last=place == last))
        for place, one in enumerate(recipient.tries)
    ]


def _try_as_row(one: Try, state: str) -> tuple[Cell, ...]:
    return (
        f"  {moment(one.at)}",
        state,
        one.code,
        one.enhanced_code,
        None if one.phase is None else place_in_words(one.phase),
        said_in_words(one),
    )
