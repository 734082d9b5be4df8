"""What the slices of one process share: the ledger, the lease, sessions, the recorder, and what is remembered."""

from __future__ import annotations

import socket
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID

from tocsin_schema.ledger import learned_limits, sending
from tocsin_schema.ledger.attachments import read_attachments
from tocsin_workers import metrics
from tocsin_workers.classification import Kind, classify
from tocsin_workers.sender.preparing import JobMessages
from tocsin_workers.sender.refused_log_in import explained
from tocsin_workers.sender.traffic import Traffic
from tocsin_workers.smtp.connection import SmtpServer, open_session
from tocsin_workers.smtp.errors import SmtpAuthError
from tocsin_workers.smtp.tls import TlsMode

if TYPE_CHECKING:
    import asyncio

    from tocsin_schema.ledger.connection import Pool
    from tocsin_schema.ledger.sending import SenderProfile
    from tocsin_workers.sender.authorizing import Authorization, CredentialSource
    from tocsin_workers.sender.lease import WorkerLease
    from tocsin_workers.sender.recording import Recorder
    from tocsin_workers.sender.retrying import RetrySchedule
    from tocsin_workers.sender.session_pool import SessionPool
    from tocsin_workers.smtp.session import Session
    from tocsin_workers.tracing import Spans
    from tocsin_workers.waking import Waker

#: Jobs whose compiled templates and attachments a process keeps.
REMEMBERED_JOBS = 16


#: How long what was learned is kept here once the ledger knows it: until every slice has read it there.
CAP_SECONDS = 30.0


@dataclass(slots=True)
class _Cap:
    """Recipients that a server takes in one transaction, and when the ledger was told."""

    recipients: int
    told_at: float | None = None


@dataclass(slots=True)
class SenderDesk:
    """One a process; belongs to its event loop."""

    pool: Pool
    lease: WorkerLease
    recorder: Recorder
    sessions: SessionPool
    credentials: CredentialSource
    waker: Waker
    stopping: asyncio.Event
    schedule: RetrySchedule
    failures: dict[int, int] = field(default_factory=dict[int, int])
    """Failed sessions in a row by mailbox."""
    told_of_keys: dict[UUID, str] = field(default_factory=dict[UUID, str])
    """By profile, what was last logged of a master key that this process has not; until a session opens."""
    claim_sizes: dict[UUID, int] = field(default_factory=dict[UUID, int])
    """By profile, how many batches its last claim would best have had."""
    in_hand: set[tuple[int, int, int]] = field(default_factory=set[tuple[int, int, int]])
    """Claims (job, batch number, lease epoch) of the slices of this process."""
    traffic: Traffic = field(default_factory=Traffic)
    spans: Spans | None = None
    internal_domains: frozenset[str] = frozenset()
    """Domains whose recipients a tenant's limit does not count."""
    _caps: dict[int, _Cap] = field(default_factory=dict[int, "_Cap"])
    """By mailbox, what was just learned of recipients a transaction."""
    _jobs: OrderedDict[tuple[int, str], JobMessages] = field(default_factory=OrderedDict[tuple[int, str], JobMessages])

    async def open_session(self, profile: SenderProfile) -> Session:
        """Connect, secure and authenticate. A refused token is replaced once, if it is old enough to be stale.

        Raises SmtpSessionError, TokenError, SealError or ConfigurationError.
        """
        session = await self._authorize_and_open(profile)
        self.told_of_keys.pop(profile.id, None)
        return session

    async def _authorize_and_open(self, profile: SenderProfile) -> Session:
        authorization = await self.credentials.get(profile)
        try:
            return await self._open(profile, authorization)
        except SmtpAuthError as error:
            refused = error.reply is not None and classify(error.phase, error.reply).kind is Kind.NOT_AUTHENTICATED
            if not refused or not await self.credentials.replace(authorization):
                raise explained(profile, authorization, error, now=datetime.now(UTC)) from None
        authorization = await self.credentials.get(profile)
        try:
            return await self._open(profile, authorization)
        except SmtpAuthError as error:
            raise explained(profile, authorization, error, now=datetime.now(UTC)) from None

    async def messages_of(self, job_number: int, from_address: str) -> JobMessages:
        """Give what makes a job's messages, read and compiled once."""
        key = (job_number, from_address)
        known = self._jobs.get(key)
        if known is None:
            async with self.pool.connection() as connection:
                content = await sending.read_job_content(connection, job_number)
                attachments = await read_attachments(connection, job_number)
            known = self._jobs[key] = JobMessages.of(content, from_address, attachments)
            while len(self._jobs) > REMEMBERED_JOBS:
                self._jobs.popitem(last=False)
        else:
            self._jobs.move_to_end(key)
        return known

    def largest_transaction(self, profile: SenderProfile) -> int:
        """Give how many recipients a transaction may have: the batch size, or less where a server or a day says so.

        Of a day only what is not kept for urgent jobs: a larger one would never fit.
        """
        learned = self._caps.get(profile.mailbox_id)
        caps = (
            None if learned is None else learned.recipients,
            profile.recipients_per_message,
            _not_kept(profile.recipients_per_day, profile.urgent_share),
            _not_kept(profile.tenant_per_day, profile.tenant_urgent_share),
        )
        return min([profile.batch_size, *(cap for cap in caps if cap is not None)])

    def learn_cap(self, profile: SenderProfile, recipients: int) -> bool:
        """Remember how many recipients the server takes at once; whether that is fewer than we would have given it.

        The fleet knows it when `tell_caps` has told the ledger.
        """
        before = self.largest_transaction(profile)
        after = max(1, min(recipients, before))
        if after < before:
            self._caps[profile.mailbox_id] = _Cap(after)
        return after < before

    async def tell_caps(self) -> None:
        """Tell the ledger what was learned of recipients a transaction; raises the errors of a ledger that is away."""
        for mailbox_id, cap in list(self._caps.items()):
            if cap.told_at is None:
                async with self.pool.connection() as connection:
                    await learned_limits.learn_recipients(connection, mailbox_id, cap.recipients)
                cap.told_at = monotonic()
            elif monotonic() - cap.told_at > CAP_SECONDS and self._caps.get(mailbox_id) is cap:
                del self._caps[mailbox_id]

    async def _open(self, profile: SenderProfile, authorization: Authorization) -> Session:
        server = SmtpServer(
            profile.host,
            profile.port,
            TlsMode(profile.tls),
            ca_pem=profile.ca_pem,
            allow_plaintext_auth=profile.allow_plaintext_auth,
        )
        return await open_session(
            server,
            authorization.credentials,
            local_hostname=socket.gethostname(),
            observe=metrics.observe_smtp,
            pipelining=self.sessions.pipelining.form_for(profile),
        )


def _not_kept(limit: int | None, share: int | None) -> int | None:
    return None if limit is None else max(1, limit - (share or 0))
