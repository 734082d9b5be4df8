"""What was done to a job, in one line of words."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tocsin_console.output import counted, moment
from tocsin_schema.ledger.job_events import JobEvent, RecordedEvent

_KNOWN_NAMES = {
    "sent": "sent",
    "in_flight": "under way",
    "not_sent": "not sent to",
    "failed": "failed",
    "unknown": "unknown",
    "suppressed": "suppressed",
    "expired": "not sent to",
    "unsettled": "not done",
}


def event_line(event: RecordedEvent) -> str:
    """Say in one line what was done to a job, by whom, why, and to how many."""
    by = f" by {event.actor}" if event.actor else ""
    reason = event.details.get("reason")
    told = _told(event)
    return f"{_words(event.event)}{by}" + (f": {reason}" if reason else "") + (f" ({told})" if told else "")


def _told(event: RecordedEvent) -> str:
    details = event.details
    match event.event:
        case JobEvent.EXPIRED | JobEvent.INCOMPLETE if isinstance(details.get("recipients"), dict):
            return _told_of_the_end(details["total"], details["recipients"])
        case JobEvent.RETRIED:
            again = [
                counted(details.get("failed", 0), "failed recipient") if details.get("failed") else "",
                f"{details.get('suppressed', 0):,} no longer suppressed" if details.get("suppressed") else "",
                f"{details.get('expired', 0):,} who had expired" if details.get("expired") else "",
            ]
            return "; ".join(filter(None, [" and ".join(filter(None, again)), *_times(details)]))
        case JobEvent.SETTLED:
            return f"{counted(details.get('recipients', 0), 'recipient')} as {details.get('as')}"
        case _:
            holds = details.get("holds")
            because = [str(hold) for hold in holds] if isinstance(holds, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON, as the sweeper wrote it
            return "; ".join(filter(None, [", ".join(_counts(details)), *because, *_times(details)]))


def _told_of_the_end(total: int, recipients: Mapping[str, int]) -> str:
    """Say whom the end of a job's time has left over: `3 of 5 recipients not sent to, 2 sent`."""
    left = recipients.get("expired", 0)
    others = _counts({name: count for name, count in recipients.items() if name != "expired"})
    return ", ".join([f"{left:,} of {counted(total, 'recipient')} not sent to", *others])


def _counts(details: Mapping[str, Any]) -> list[str]:
    return [f"{details[name]:,} {words}" for name, words in _KNOWN_NAMES.items() if details.get(name)]


def _times(details: Mapping[str, Any]) -> list[str]:
    until = details.get("expires_at")
    return [] if not isinstance(until, str) else [f"expires at {moment(datetime.fromisoformat(until))}"]


def _words(name: str) -> str:
    return name.replace("_", " ")
