"""From what became of a message to what is recorded of it. Pure."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, assert_never

from tocsin_schema.contract.part import OnUnknown
from tocsin_schema.ledger.bit_strings import bit_string, lowest
from tocsin_schema.ledger.recording import CopyRow, RecordedException, Settlement
from tocsin_workers.classification import Kind
from tocsin_workers.outcomes import RecipientOutcome, Verdict
from tocsin_workers.provider_ids import provider_id
from tocsin_workers.sender.recording import MessageOutcome
from tocsin_workers.smtp.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tocsin_schema.ledger.sending import ClaimedBatch, SenderProfile
    from tocsin_workers.outcomes import Judgement
    from tocsin_workers.sender.preparing import PreparedMessage, UnrenderableRecipient
    from tocsin_workers.sender.retrying import RetrySchedule
    from tocsin_workers.sender.screening import ScreenedBatch
    from tocsin_workers.smtp.replies import Reply

#: A message whose fate is unknown is sent again after this time: the server may only have been restarted.
RESEND_SECONDS = 10.0
#: After a connection that was dead before it was used.
RECONNECT_SECONDS = 2.0
#: As many tries as the ledger can count.
MOST_ATTEMPTS = 32_767
#: A throttled recipient costs no attempt and comes back when the mailbox has rested a little.
THROTTLED_SECONDS = 30.0


def settle(
    message: PreparedMessage,
    judgement: Judgement,
    profile: SenderProfile,
    *,
    schedule: RetrySchedule,
    jitter: Callable[[], float],
    accepted_at: datetime,
) -> MessageOutcome:
    """Turn a judgement into a settlement of the batch, a copy where somebody was sent to, and the exceptions."""
    sent = 0
    reply: Reply | None = None
    exceptions: list[RecordedException] = []
    # Drawn once a message: who was deferred together comes back together, in one message again.
    spread = jitter()
    for recipient, outcome in zip(message.recipients, judgement.recipients, strict=True):
        if outcome.verdict is Verdict.SENT:
            sent |= 1 << recipient.index
            reply = outcome.reply
            continue
        attempts = recipient.attempts + 1
        state, due_in = _fate(outcome, attempts, message.on_unknown, schedule, spread)
        exceptions.append(
            RecordedException(
                job_number=message.batch.job_number,
                ordinal=recipient.recipient.ordinal,
                batch_number=message.batch.number,
                lease_epoch=message.batch.lease_epoch,
                state=state,
                attempts=min(attempts if outcome.costs_attempt else recipient.attempts, MOST_ATTEMPTS),
                due_in_seconds=due_in,
                phase=outcome.phase,
                code=None if outcome.reply is None else outcome.reply.code,
                enhanced_code=None if outcome.reply is None else outcome.reply.enhanced,
                reply=None if outcome.reply is None else outcome.reply.text,
                reason=outcome.reason,
                alone=outcome.alone or recipient.alone,
                is_try=outcome.costs_attempt or outcome.alone,
                dead_address=_is_dead_address(outcome),
            )
        )
    batch = message.batch
    return MessageOutcome(
        settlement=_settlement(batch, sent=sent, settled=message.mask),
        copy=None if reply is None else _copy(message, profile, sent, reply, accepted_at),
        exceptions=tuple(exceptions),
    )


def settle_unrenderable(unrenderable: UnrenderableRecipient) -> MessageOutcome:
    """Fail a recipient whose message cannot be made."""
    batch, recipient = unrenderable.batch, unrenderable.recipient
    return MessageOutcome(
        settlement=_settlement(batch, sent=0, settled=1 << recipient.index),
        exceptions=(
            RecordedException(
                job_number=batch.job_number,
                ordinal=recipient.recipient.ordinal,
                batch_number=batch.number,
                lease_epoch=batch.lease_epoch,
                state="failed",
                attempts=min(recipient.attempts + 1, MOST_ATTEMPTS),
                due_in_seconds=None,
                phase="render",
                code=None,
                enhanced_code=None,
                reply=None,
                reason=str(unrenderable.error),
            ),
        ),
    )


def settle_suppressed(screened: ScreenedBatch) -> MessageOutcome:
    """Settle those of a batch who are not sent to because their addresses are suppressed."""
    batch = screened.batch
    return MessageOutcome(
        settlement=_settlement(batch, sent=0, settled=sum(1 << one.recipient.index for one in screened.suppressed)),
        exceptions=tuple(
            RecordedException(
                job_number=batch.job_number,
                ordinal=one.recipient.recipient.ordinal,
                batch_number=batch.number,
                lease_epoch=batch.lease_epoch,
                state="suppressed",
                attempts=one.recipient.attempts,
                due_in_seconds=None,
                phase=None,
                code=None,
                enhanced_code=None,
                reply=None,
                reason=f"suppressed since {one.since.astimezone(UTC):%Y-%m-%d}: {one.reason}",
                is_try=False,
            )
            for one in screened.suppressed
        ),
    )


def settle_in_doubt(message: PreparedMessage, reason: str, *, schedule: RetrySchedule) -> MessageOutcome:
    """Record a message whose body was written and whose reply nobody waits for any more."""
    tries = max(recipient.attempts for recipient in message.recipients) + 1
    state, due_in = _unknown(message.on_unknown, tries, schedule, jitter=0.5)
    batch = message.batch
    return MessageOutcome(
        settlement=_settlement(batch, sent=0, settled=message.mask),
        exceptions=tuple(
            RecordedException(
                job_number=batch.job_number,
                ordinal=recipient.recipient.ordinal,
                batch_number=batch.number,
                lease_epoch=batch.lease_epoch,
                state=state,
                attempts=min(recipient.attempts + 1, MOST_ATTEMPTS),
                due_in_seconds=due_in,
                phase="final",
                code=None,
                enhanced_code=None,
                reply=None,
                reason=reason,
                alone=recipient.alone,
            )
            for recipient in message.recipients
        ),
    )


def _settlement(batch: ClaimedBatch, *, sent: int, settled: int) -> Settlement:
    return Settlement(batch.job_number, batch.number, batch.lease_epoch, batch.size, sent=sent, settled=settled)


def _fate(
    outcome: RecipientOutcome, attempts: int, on_unknown: str, schedule: RetrySchedule, jitter: float
) -> tuple[str, float | None]:
    """Give a recipient's state, and in how many seconds it is due again."""
    match outcome.verdict:
        case Verdict.FAILED:
            return "failed", None
        case Verdict.UNKNOWN:
            return _unknown(on_unknown, attempts, schedule, jitter)
        case Verdict.DEFERRED if outcome.alone or _did_not_fit(outcome):
            return "pending", 0.0
        case Verdict.DEFERRED if not outcome.costs_attempt and outcome.outcome is None:
            # The connection was dead before anything was asked, as idle ones are: a new one will do.
            return "pending", RECONNECT_SECONDS
        case Verdict.DEFERRED if not outcome.costs_attempt:
            return "pending", THROTTLED_SECONDS * (0.75 + 0.5 * jitter)
        case Verdict.DEFERRED:
            return "pending", schedule.delay(attempts, jitter)
        case Verdict.SENT:
            raise ValueError("a sent recipient is no exception")
        case _:
            assert_never(outcome.verdict)


def _is_dead_address(outcome: RecipientOutcome) -> bool:
    """Whether the server said of this very address, at RCPT, that it is none. After the dot it may mean anybody's."""
    said = outcome.outcome
    return outcome.verdict is Verdict.FAILED and outcome.phase is Phase.RCPT and said is not None and said.dead_address


def _did_not_fit(outcome: RecipientOutcome) -> bool:
    """Whether this recipient was merely one too many for one transaction: the next one may have them at once."""
    said = outcome.outcome
    return said is not None and said.kind is Kind.TOO_MANY_RECIPIENTS and not outcome.costs_attempt


def _unknown(on_unknown: str, attempts: int, schedule: RetrySchedule, jitter: float) -> tuple[str, float | None]:
    match OnUnknown(on_unknown):
        case OnUnknown.RESEND if attempts == 1:
            return "pending", RESEND_SECONDS
        case OnUnknown.RESEND:
            # A server that takes bodies and never answers shall not get one every few seconds.
            return "pending", max(RESEND_SECONDS, schedule.delay(attempts, jitter))
        case OnUnknown.HOLD:
            return "unknown", None


def _copy(message: PreparedMessage, profile: SenderProfile, sent: int, reply: Reply, accepted_at: datetime) -> CopyRow:
    return CopyRow(
        job_number=message.batch.job_number,
        batch_number=message.batch.number,
        lease_epoch=message.batch.lease_epoch,
        first_index=lowest(sent),
        recipients=bit_string(sent, message.batch.size),
        profile=profile.name,
        from_address=message.envelope.mail_from,
        reply_to=message.reply_to,
        visible_to=message.visible_to,
        subject=message.subject,
        message_id=message.message_id,
        provider_id=provider_id(reply),
        dated_at=message.dated_at,
        accepted_at=accepted_at,
        reply_code=reply.code,
        enhanced_code=reply.enhanced,
        reply=reply.text,
        size=len(message.octets),
        sha256=message.digest,
        content=message.octets if profile.copies == "full" else None,
    )
