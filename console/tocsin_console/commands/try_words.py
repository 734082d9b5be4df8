"""What is said of one try of a recipient, in words: where it ended, what became of it, and why."""

import re

from tocsin_schema.ledger.recipient_story import RecipientReading, Try

_PLACES = {
    "connect": "at the connection",
    "greeting": "at the greeting",
    "ehlo": "at the greeting",
    "tls": "at TLS",
    "auth": "at the log-in",
    "mail": "at the sender's address",
    "rcpt": "at the address",
    "data": "before the message",
    "body": "in the message",
    "final": "after the message",
    "rset": "between messages",
    "quit": "at the end",
    "render": "making the message",
}
_AT_A_PLACE = re.compile(rf"(?P<detail>.*) \((?P<phase>{'|'.join(_PLACES)})\)", re.DOTALL)


def place_in_words(phase: str) -> str:
    """Say at which step of a session a try ended."""
    return _PLACES.get(phase, f"at {phase}")


def state_in_words(one: Try, recipient: RecipientReading, *, is_last: bool) -> str:
    """Say what became of a recipient by a try; one that left them pending has mostly been followed by another."""
    if one.state != "pending":
        return one.state
    if not is_last or recipient.state == "in_flight":
        return "tried again"
    return "pending" if recipient.state == "pending" else "deferred"


def reason_in_words(reason: str | None) -> str | None:
    """Give a reason as it is stored, with the step that it may end with in words."""
    ended = None if reason is None else _AT_A_PLACE.fullmatch(reason)
    if ended is None:
        return reason
    detail, phase = ended["detail"], ended["phase"]
    if phase == "final" and not detail[:1].isdigit():
        return f"{detail} after the message, without a reply: it may have been sent"
    return f"{detail} ({place_in_words(phase)})"


def said_in_words(one: Try) -> str:
    """Say why, and what the server said, which the reason mostly has in it."""
    reason = reason_in_words(one.reason) or ""
    if not one.reply or one.reply in reason:
        return reason
    return f"{reason}: {one.reply}" if reason else one.reply
