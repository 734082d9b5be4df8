"""Carrying out what `reacting` decides: a mailbox rests or gets less, a profile is paused."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import structlog

from tocsin_schema.errors import LedgerError, TocsinError, TokenError, UnknownKeyError
from tocsin_schema.ledger import mailboxes, pausing
from tocsin_schema.ledger.pausing import PauseCause
from tocsin_workers import metrics
from tocsin_workers.diagnosis.naming import fix_for
from tocsin_workers.sender import adapting, reacting
from tocsin_workers.smtp.errors import SmtpSessionError

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Connection
    from tocsin_schema.ledger.pausing import Probe
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.desk import SenderDesk
    from tocsin_workers.sender.session_pool import PooledSession

_log = structlog.get_logger(__name__)


async def react_to_failed_session(desk: SenderDesk, profile: SenderProfile, error: TocsinError) -> None:
    """Answer a session that could not be opened: what may pass is waited for, for the rest a person has to act.

    Where only this process lacks the key for a secret, the ledger learns nothing of it: others can send.
    """
    if isinstance(error, UnknownKeyError):
        _tell_of_unknown_key(desk, profile, str(error))
        return
    error.fix = fix_for(error, profile)
    failures = desk.failures[profile.mailbox_id] = desk.failures.get(profile.mailbox_id, 0) + 1
    match error:
        case SmtpSessionError():
            if error.reply is not None:
                metrics.count_replies(profile.name, {error.reply.code: 1})
            reaction = reacting.to_failed_session(error, failures)
        case TokenError(permanent=False, retry_after=wish):
            # Not for as long as the endpoint wishes: that stands in the token's row, and a person may correct things.
            wait = min(wish or reacting.trouble_seconds(failures), reacting.LONGEST_TROUBLE_SECONDS)
            reaction = reacting.Park(wait, str(error))
        case TokenError(retry_after=wish):
            reaction = reacting.Pause(str(error), wish_seconds=wish or 0.0)
        case LedgerError():
            reaction = reacting.Park(reacting.trouble_seconds(failures), str(error))
        case _:
            reaction = reacting.Pause(str(error))
    await carry_out(desk, profile, reaction)


async def carry_out(
    desk: SenderDesk,
    profile: SenderProfile,
    reaction: reacting.Park | reacting.Pause | reacting.Slow | reacting.FewerConnections,
    *,
    pooled: PooledSession | None = None,
) -> None:
    """Park the mailbox, lower one of its limits or pause the profile, with the reason for a person.

    `pooled` is the session that the server said it on; where there are too many it is not kept.
    """
    if isinstance(reaction, reacting.Slow | reacting.FewerConnections):
        # So that what is learned goes by all that this process has sent.
        await adapting.tell_traffic(desk)
    async with desk.pool.connection() as connection:
        match reaction:
            case reacting.Park(seconds, reason, is_tenants):
                await _park(connection, profile, seconds, reason, is_tenants=is_tenants)
            case reacting.Slow(reason, counted_by):
                seconds = await adapting.slow_down(connection, profile, counted_by, reason)
                await _park(connection, profile, seconds, reason)
            case reacting.FewerConnections(reason, at_greeting):
                if pooled is not None:
                    pooled.is_over = True
                lowered = await adapting.lower_connections(connection, profile, reason, at_greeting=at_greeting)
                desk.sessions.hold(profile.mailbox_id, lowered.in_force)
                if not lowered.is_enough:
                    await _park(connection, profile, reacting.CONNECTIONS_SECONDS, reason)
            case reacting.Pause(reason, PauseCause.CREDENTIALS, wish):
                await _pause_and_probe(connection, profile, reason, reacting.next_probe(profile, wish_seconds=wish))
            case reacting.Pause(reason, cause):
                await pausing.pause_profile(connection, profile.id, reason, cause=cause, seen_at=profile.read_at)
                _log.error("profile paused", profile=profile.name, reason=reason)
            case _:
                assert_never(reaction)


async def _park(
    connection: Connection, profile: SenderProfile, seconds: float, reason: str, *, is_tenants: bool = False
) -> None:
    """Let the mailbox rest; or all mailboxes of its tenant, where it is in one and that is meant."""
    tenant_id = profile.tenant_id if is_tenants else None
    if tenant_id is None:
        await mailboxes.park_mailbox(connection, profile.mailbox_id, seconds=seconds, reason=reason)
    else:
        await mailboxes.park_tenant(connection, tenant_id, seconds=seconds, reason=reason)
    _log.warning(
        "mailbox resting" if tenant_id is None else "all mailboxes of a tenant resting",
        mailbox=f"{profile.login} at {profile.host}",
        profile=profile.name,
        seconds=round(seconds),
        reason=reason,
    )


def _tell_of_unknown_key(desk: SenderDesk, profile: SenderProfile, reason: str) -> None:
    """Log it once, not at every wake-up."""
    if desk.told_of_keys.get(profile.id) != reason:
        desk.told_of_keys[profile.id] = reason
        _log.error("this worker cannot send for a profile", profile=profile.name, reason=reason)


async def _pause_and_probe(connection: Connection, profile: SenderProfile, reason: str, probe: Probe) -> None:
    """Pause a profile whose credentials were refused, or put the next try off where it is paused already."""
    if profile.paused_reason is not None:
        await pausing.postpone_probe(connection, profile.id, reason, probe)
    else:
        await pausing.pause_profile(
            connection, profile.id, reason, cause=PauseCause.CREDENTIALS, probe=probe, seen_at=profile.read_at
        )
    _log.error("profile paused", profile=profile.name, reason=reason, tried_again_in_seconds=round(probe.in_seconds))
