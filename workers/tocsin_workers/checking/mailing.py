"""The test message, for which a person has said to whom."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from tocsin_schema.contract.addresses import Address, parse_address
from tocsin_schema.ledger.sending_profile_rules import Auth
from tocsin_workers.checking import budget
from tocsin_workers.checking.steps import Findings, Step
from tocsin_workers.diagnosis.causes import Cause, Verdict
from tocsin_workers.diagnosis.verdicts import explain_refused_message
from tocsin_workers.outcomes import Verdict as RecipientVerdict
from tocsin_workers.outcomes import judge
from tocsin_workers.provider_ids import provider_id
from tocsin_workers.rendering.headers import Mailbox
from tocsin_workers.rendering.message import RenderedMessage
from tocsin_workers.rendering.message_id import message_id
from tocsin_workers.rendering.mime import compose
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.envelope import Envelope

if TYPE_CHECKING:
    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.outcomes import RecipientOutcome
    from tocsin_workers.smtp.session import Session
    from tocsin_workers.tokens.token_facts import TokenFacts

SUBJECT = "Tocsin test message"


async def send_test_message(
    pool: Pool,
    profile: SenderProfile,
    session: Session,
    to: Address,
    *,
    findings: Findings,
    token_facts: TokenFacts | None,
    patience_seconds: float,
) -> None:
    """Send one small message within the mailbox's budget, and note what the server made of it."""
    no_room = await budget.wait_for_time_slot(pool, profile, patience_seconds=patience_seconds)
    no_room = no_room or await budget.count_recipient(pool, profile)
    if no_room is not None:
        findings.warn(Step.MESSAGE, no_room, "Not sent.")
        return
    octets = _test_message(profile, to, datetime.now(UTC))
    envelope = Envelope(
        parse_address(profile.from_address).address,
        (to.address,),
        size=len(octets),
        smtputf8=not octets.isascii(),
        eight_bit=not octets.isascii(),
    )
    transaction = await session.transact(envelope, to_wire(octets))
    if not session.counters.transactions:
        await budget.give_back_recipient(pool, profile)
    [outcome] = judge(transaction).recipients
    if outcome.verdict is RecipientVerdict.SENT and outcome.reply is not None:
        named = provider_id(outcome.reply)
        findings.ok(
            Step.MESSAGE, f"accepted for {to}: {outcome.reply}" + (f"; the provider calls it {named}" if named else "")
        )
        return
    findings.fail(Step.MESSAGE, _explain(outcome, profile, token_facts))


def _explain(outcome: RecipientOutcome, profile: SenderProfile, token_facts: TokenFacts | None) -> Verdict:
    if outcome.reply is not None:
        return explain_refused_message(
            outcome.phase,
            outcome.reply,
            login=profile.login,
            from_address=profile.from_address,
            token_facts=token_facts,
            profile_name=profile.name,
            uses_oauth=profile.auth == Auth.OAUTH,
        )
    if outcome.verdict is RecipientVerdict.UNKNOWN:
        return Verdict(
            Cause.CONNECTION_LOST,
            f"The message was written and no reply came: {outcome.reason}.",
            "It may have arrived; look before you try again.",
        )
    if outcome.verdict is RecipientVerdict.FAILED:
        another = f"Try another recipient: `tocsin profile check {profile.name} --to ADDRESS`."
        return Verdict(Cause.MESSAGE_REFUSED, f"It was not sent: {outcome.reason}.", another)
    return Verdict(Cause.CONNECTION_LOST, f"It was not sent: {outcome.reason}.", "Try again.")


def _test_message(profile: SenderProfile, to: Address, now: datetime) -> bytes:
    sender = parse_address(profile.from_address)
    text = (
        f"This is a test of the sending profile {profile.name}.\n\n"
        f"It was sent from {socket.gethostname()} at {now:%Y-%m-%d %H:%M:%S} UTC through {profile.host} as "
        f"{profile.login}, with `tocsin profile check {profile.name} --to {to}`.\n"
    )
    return compose(
        RenderedMessage(subject=SUBJECT, text=text),
        from_address=sender,
        to=Mailbox(to),
        message_id=message_id(uuid4(), "check", sender.domain),
        date=now.replace(microsecond=0),
    )
