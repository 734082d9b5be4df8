"""How a sending profile looks: as a row, as facts, as JSON. No secret is among it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tocsin_console.output import brief_state, moment
from tocsin_schema.ledger.sending_profile_rules import Auth, PasswordSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tocsin_console.output import Cell
    from tocsin_schema.ledger.estimates import MailboxBudget
    from tocsin_schema.ledger.sending_profiles import SendingProfile


def headings() -> tuple[str, ...]:
    """Name the columns of `as_row`."""
    return ("NAME", "FROM", "SERVER", "AUTH", "CONNECTIONS", "A MINUTE", "IN 24 HOURS", "STATE")


def as_row(profile: SendingProfile) -> tuple[Cell, ...]:
    """Give a profile as a row of a table."""
    return (
        profile.name,
        profile.from_address,
        f"{profile.host}:{profile.port}",
        f"oauth {profile.oauth_profile}" if profile.oauth_profile else profile.auth,
        _limit(profile.connections),
        _limit(profile.messages_per_minute),
        _limit(profile.recipients_per_day),
        brief_state(state_of(profile))[0],
    )


def as_facts(
    profile: SendingProfile, others: Sequence[str], source: PasswordSource, mailboxes: Sequence[MailboxBudget]
) -> list[tuple[str, Cell]]:
    """Give all that may be known of a profile, for people; `mailboxes` are all there are."""
    facts: list[tuple[str, Cell]] = [
        ("Name", profile.name),
        ("Provider", profile.provider),
        ("From", profile.from_address),
        ("Server", f"{profile.host}:{profile.port}, TLS: {profile.tls}"),
        ("Own CA certificates", "yes" if profile.ca_pem else "no"),
        ("Authentication", profile.auth),
        ("Logs in as", profile.login if profile.auth != Auth.NONE else None),
    ]
    if profile.oauth_profile is not None:
        facts.append(("OAuth profile", profile.oauth_profile))
    if profile.auth == Auth.BASIC:
        facts.append(("Password", _password(source)))
    if profile.allow_plaintext_auth:
        facts.append(("Without TLS", "may log in to a server on this machine"))
    return [
        *facts,
        ("Batch size", profile.batch_size),
        ("Email copies", profile.copies),
        ("Pipelining", _pipelining(profile)),
        ("Connections", _learned(profile.connections, profile.learned_connections, profile.connections_reason)),
        (
            "Messages a minute",
            _learned(profile.messages_per_minute, profile.learned_per_minute, profile.per_minute_reason),
        ),
        ("Recipients in 24 hours", _limit(profile.recipients_per_day)),
        *_learned_size(profile),
        *_tenant(profile, mailboxes),
        ("Limits shared with", ", ".join(others) or "nobody"),
        ("State", state_of(profile)),
        ("Created", profile.created_at),
        ("Changed", profile.updated_at),
    ]


def as_json_object(profile: SendingProfile, others: Sequence[str]) -> dict[str, object]:
    """Give all that may be known of a profile, for programs."""
    return {
        "name": profile.name,
        "provider": profile.provider,
        "host": profile.host,
        "port": profile.port,
        "tls": profile.tls,
        "from": profile.from_address,
        "auth": profile.auth,
        "oauth": profile.oauth_profile,
        "user": profile.login,
        "has_password": profile.has_password,
        "has_own_ca": profile.ca_pem is not None,
        "allow_plaintext_auth": profile.allow_plaintext_auth,
        "batch_size": profile.batch_size,
        "copies": profile.copies,
        "limits": {
            "connections": profile.connections,
            "per_minute": profile.messages_per_minute,
            "per_day": profile.recipients_per_day,
        },
        "learned": {
            "connections": profile.learned_connections,
            "connections_reason": profile.connections_reason,
            "per_minute": profile.learned_per_minute,
            "per_minute_reason": profile.per_minute_reason,
            "recipients_per_message": profile.recipients_per_message,
            "pipelining": profile.learned_pipelining,
        },
        "pipelining": profile.pipelining,
        "tenant": profile.tenant,
        "tenant_per_day": profile.tenant_per_day,
        "limits_shared_with": list(others),
        "paused_at": profile.paused_at,
        "paused_reason": profile.paused_reason,
        "paused_by": profile.paused_by,
        "parked_until": profile.parked_until,
        "parked_reason": profile.parked_reason,
        "kept_for_urgent_until": profile.kept_for_urgent_until,
        "kept_for_urgent_reason": profile.kept_for_urgent_reason,
        "created_at": profile.created_at,
        "updated_at": profile.updated_at,
    }


def _limit(limit: int | None) -> Cell:
    return "no limit" if limit is None else limit


def _learned(limit: int | None, learned: float | None, reason: str | None) -> Cell:
    """Say what is set, and how much less is in force because the server refused more."""
    if learned is None or (limit is not None and learned >= limit):
        return _limit(limit)
    return f"{round(learned, 1):,g} learned from its server (set: {_limit(limit)}): {reason or 'it refused more'}"


def _learned_size(profile: SendingProfile) -> list[tuple[str, Cell]]:
    most = profile.recipients_per_message
    return [] if most is None else [("Recipients a message", f"{most} learned from its server, kept for a day")]


def _tenant(profile: SendingProfile, mailboxes: Sequence[MailboxBudget]) -> list[tuple[str, Cell]]:
    if profile.tenant is None:
        return []
    others = [
        f"{mailbox.login} at {mailbox.host}"
        for mailbox in mailboxes
        if mailbox.tenant == profile.tenant and mailbox.id != profile.mailbox_id
    ]
    shared = f", shared with {', '.join(others)}" if others else ""
    return [
        ("Tenant", f"{profile.tenant}{shared}"),
        ("External recipients in 24 hours", _limit(profile.tenant_per_day)),
    ]


def _pipelining(profile: SendingProfile) -> str:
    if profile.learned_pipelining is None or profile.learned_pipelining == profile.pipelining:
        return profile.pipelining
    return f"{profile.pipelining}, but at most {profile.learned_pipelining} for a day: its server broke on more"


def _password(source: PasswordSource) -> str:
    match source:
        case PasswordSource.OWN:
            return "its own, set (never shown)"
        case PasswordSource.INSTALLATION:
            return "EmailPassword of the installation"
        case PasswordSource.NOWHERE:
            return "not set"


def state_of(profile: SendingProfile) -> str:
    """Say whether a profile sends, and why not."""
    if profile.paused_reason is not None:
        return f"paused: {told_of_pause(profile.paused_reason, by=profile.paused_by, since=profile.paused_at)}"
    if profile.parked_until is not None:
        return f"rests until {moment(profile.parked_until)}: {profile.parked_reason or 'throttled'}"
    if profile.kept_for_urgent_until is not None:
        return f"only urgent jobs until {moment(profile.kept_for_urgent_until)}: {profile.kept_for_urgent_reason}"
    return "ready"


def told_of_pause(reason: str, *, by: str | None, since: datetime | None, probe_at: datetime | None = None) -> str:
    """Say why a profile is paused, by whom, since when, and when a worker tries again by itself.

    `by` is None where it was not a person.
    """
    facts = [
        f"by {by}" if by is not None else "",
        f"since {moment(since)}" if since is not None else "",
        f"tried again by itself at {moment(probe_at)}" if probe_at is not None else "",
    ]
    return f"{reason.removesuffix('.')} ({', '.join(fact for fact in facts if fact)})"


def tenant_limit_line(profile: SendingProfile, before: Sequence[MailboxBudget]) -> str | None:
    """Say that a tenant's limit is another one than `before`, and for whom else; None where that is nobody's news."""
    limits = {mailbox.tenant: mailbox.tenant_recipients_per_day for mailbox in before if mailbox.tenant is not None}
    if profile.tenant not in limits or limits[profile.tenant] == profile.tenant_per_day:
        return None
    others = [
        name
        for mailbox in before
        if mailbox.tenant == profile.tenant
        for name in mailbox.profiles
        if name != profile.name
    ]
    if not others:
        return None
    now, was = _limit(profile.tenant_per_day), _limit(limits[profile.tenant])
    return f"The limit of tenant {profile.tenant} is now {now} (was {was}); it also holds for: {', '.join(others)}."
