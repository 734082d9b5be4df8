"""An authenticated session with a mail server, which carries one transaction after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from tocsin_workers.smtp.dialogue import Transaction
from tocsin_workers.smtp.envelope import Envelope, LocalRefusal, commands
from tocsin_workers.smtp.phases import Phase, TimedPhase
from tocsin_workers.smtp.pipelining import Pipelining, PipeliningWatch
from tocsin_workers.smtp.series import Counters, Series
from tocsin_workers.smtp.single_command import SingleCommand
from tocsin_workers.smtp.wire import Wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from tocsin_workers.smtp.capabilities import Capabilities
    from tocsin_workers.smtp.deadlines import Deadlines
    from tocsin_workers.smtp.dialogue import Cut
    from tocsin_workers.smtp.replies import Reply
    from tocsin_workers.smtp.series import Delivery

Observe = Callable[[TimedPhase, float], None]
"""Takes a phase and the seconds that it took."""
OnBody = Callable[[], None]
"""Called right before the first octet of a body is written, and, where the body does not fit in one piece,
again right before the piece with the final dot. It runs inside the event loop and must not block."""


#: TLS says good-bye on both sides; a server that does not is not waited for.
CLOSING_SECONDS = 1.0


def unobserved(_phase: TimedPhase, _seconds: float) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True)
class SenderTrial:
    """What a server said to MAIL and to the RSET after it; None where it said nothing, and `cut` why."""

    mail: Reply | LocalRefusal | None
    reset: Reply | None = None
    cut: Cut | None = None


class _OneMessage:
    """A delivery that keeps what became of it."""

    def __init__(self, envelope: Envelope, body_wire: bytes, on_body: OnBody | None) -> None:
        self.envelope = envelope
        self.transaction: Transaction | None = None
        self._body_wire = body_wire
        self._on_body = on_body

    def begin_body(self) -> bytes:
        self.may_end_body()
        return self._body_wire

    def may_end_body(self) -> None:
        if self._on_body is not None:
            self._on_body()

    def done(self, transaction: Transaction) -> None:
        self.transaction = transaction


class Session:
    """One open connection. It belongs to one event loop and carries one series of messages at a time.

    `server` names it for people (`host:port`). `opened_at` and `last_used_at` are on `time.monotonic`. `pipelining` is
    what the session shows of how its server copes, for a `PipeliningRecord`.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        capabilities: Capabilities,
        *,
        server: str,
        deadlines: Deadlines,
        observe: Observe,
        pipelining: Pipelining = Pipelining.ENVELOPE,
    ) -> None:
        self.capabilities = capabilities
        self.server = server
        self.counters = Counters()
        self.pipelining = PipeliningWatch(pipelining if capabilities.pipelining else Pipelining.OFF)
        self.opened_at = self.last_used_at = monotonic()
        self._observe = observe
        self._wire = Wire(transport, deadlines)
        # From here on what the server says comes to us and no longer to aiosmtplib.
        transport.set_protocol(self._wire)

    @property
    def is_open(self) -> bool:
        """Whether another transaction may be tried: the server has not closed or said good-bye, and allows one more."""
        limit = self.capabilities.transactions_limit
        return self._wire.is_open and (limit is None or self.counters.transactions < limit)

    @property
    def farewell(self) -> Reply | None:
        """What the server said before it closed unasked, mostly a 421: worth a look by the classifier."""
        return self._wire.farewell

    async def deliver(self, deliveries: Iterator[Delivery]) -> None:
        """Send messages one after the other, until there are no more of them or the session ends.

        The next one is asked for when its envelope may be written (see `series.Series`). Each that was begun is told
        what became of it. Nothing is raised for what the server says or for a connection that breaks; after that
        `is_open` is False. One that cannot be sent on this server is told so at once.

        What a delivery raises aborts the connection and comes out of here, like what the iterator raises, which waits
        for what is under way and aborts nothing. On cancellation the connection is aborted, and each message that was
        begun is told what is known of it, before `CancelledError` comes out.
        """
        if not self.is_open:
            return
        series = Series(
            deliveries, self.capabilities, watch=self.pipelining, counters=self.counters, observe=self._observe
        )
        try:
            await self._wire.run(series)
        finally:
            self.last_used_at = monotonic()

    async def transact(self, envelope: Envelope, body_wire: bytes, on_body: OnBody | None = None) -> Transaction:
        """Send one message to the envelope's recipients and tell all that became of it.

        `body_wire` comes from `body.to_wire`. `on_body` is called right before the body is written, when at
        least one recipient is accepted (see `OnBody`); if it raises, the final dot is not written, the
        connection is aborted, and the exception comes out of here.

        Nothing is raised for what the server says or for a connection that breaks: that is in the
        transaction. On cancellation the connection is aborted, and what is known of the transaction is lost:
        whoever has to know whether the body was written uses `deliver`.
        """
        message = _OneMessage(envelope, body_wire, on_body)
        await self.deliver(iter((message,)))
        if message.transaction is None:
            return Transaction(None, (None,) * len(envelope.recipients), cut=self._wire.end(Phase.MAIL))
        return message.transaction

    async def try_sender(self, mail_from: str) -> SenderTrial:
        """Ask whether the server takes a sender, and take the question back (RSET): no message comes of it."""
        built = commands(Envelope(mail_from, (mail_from,)), self.capabilities)
        if isinstance(built, LocalRefusal):
            return SenderTrial(built)
        mail = SingleCommand(built.mail, Phase.MAIL)
        await self._wire.run(mail)
        if not self._wire.is_open:
            return SenderTrial(mail.reply, cut=mail.cut)
        reset = SingleCommand(b"RSET\r\n", Phase.RSET)
        await self._wire.run(reset)
        self.last_used_at = monotonic()
        return SenderTrial(mail.reply, reset.reply, reset.cut)

    async def quit(self) -> None:
        """Say QUIT and close, without waiting long for the reply, or for the other side to close. Raises nothing.

        Then the connection counts no longer at the provider.
        """
        if self._wire.is_busy or not self._wire.is_open:
            self.abort()
            return
        await self._wire.run(SingleCommand(b"QUIT\r\n", Phase.QUIT))
        self._wire.close()
        await self._wire.gone(within_seconds=CLOSING_SECONDS)

    def abort(self) -> None:
        """Close the connection at once; a transaction under way is cut."""
        self._wire.abort()
