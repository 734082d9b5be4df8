"""An authenticated session with a mail server, which carries one transaction after another."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from tocsin_workers.smtp.dialogue import Dialogue, Pipelining, SingleCommand, Transaction
from tocsin_workers.smtp.envelope import Envelope, LocalRefusal, commands
from tocsin_workers.smtp.phases import Phase
from tocsin_workers.smtp.wire import Observe, OnBody, Wire

if TYPE_CHECKING:
    import asyncio

    from tocsin_workers.smtp.capabilities import Capabilities
    from tocsin_workers.smtp.deadlines import Deadlines
    from tocsin_workers.smtp.dialogue import Cut
    from tocsin_workers.smtp.replies import Reply


#: TLS says good-bye on both sides; a server that does not is not waited for.
CLOSING_SECONDS = 1.0


@dataclass(slots=True)
class Counters:
    """What a session has carried so far; a pool recycles by them."""

    transactions: int = 0
    bodies: int = 0
    """Messages whose final dot was written."""
    recipients: int = 0
    """Recipients that were asked for."""


@dataclass(frozen=True, slots=True)
class SenderTrial:
    """What a server said to MAIL and to the RSET after it; None where it said nothing, and `cut` why."""

    mail: Reply | LocalRefusal | None
    reset: Reply | None = None
    cut: Cut | None = None


class Session:
    """One open connection. It belongs to one event loop and carries one transaction at a time.

    `server` names it for people (`host:port`). `opened_at` and `last_used_at` are on `time.monotonic`.
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
        self.opened_at = self.last_used_at = monotonic()
        self._wire = Wire(transport, deadlines, observe)
        self._deadlines = deadlines
        self._pipelined = capabilities.pipelining and pipelining is not Pipelining.OFF
        # From here on what the server says comes to us and no longer to aiosmtplib.
        transport.set_protocol(self._wire)

    @property
    def is_open(self) -> bool:
        """Whether another transaction may be tried: the server has not closed or said good-bye."""
        return self._wire.is_open

    @property
    def farewell(self) -> Reply | None:
        """What the server said before it closed unasked, mostly a 421: worth a look by the classifier."""
        return self._wire.farewell

    async def transact(self, envelope: Envelope, body_wire: bytes, on_body: OnBody | None = None) -> Transaction:
        """Send one message to the envelope's recipients and tell all that became of it.

        `body_wire` comes from `body.to_wire`. `on_body` is called right before the body is written, when at
        least one recipient is accepted (see `wire.OnBody`); if it raises, the final dot is not written, the
        connection is aborted, and the exception comes out of here.

        Nothing is raised for what the server says or for a connection that breaks: that is in the
        transaction. On cancellation the connection is aborted, and what is known of the transaction is lost:
        whoever has to know whether the body was written keeps a mark in `on_body`.
        """
        built = commands(envelope, self.capabilities)
        if isinstance(built, LocalRefusal):
            return Transaction(built, (built,) * len(envelope.recipients))
        dialogue = Dialogue(built, pipelined=self._pipelined)
        self.counters.transactions += 1
        self.counters.recipients += len(envelope.recipients)
        await self._wire.run(dialogue, body_wire, on_body)
        self.last_used_at = monotonic()
        transaction = dialogue.result
        self.counters.bodies += transaction.body_written
        return transaction

    async def try_sender(self, mail_from: str) -> SenderTrial:
        """Ask whether the server takes a sender, and take the question back (RSET): no message comes of it."""
        built = commands(Envelope(mail_from, (mail_from,)), self.capabilities)
        if isinstance(built, LocalRefusal):
            return SenderTrial(built)
        mail = SingleCommand(built.mail, Phase.MAIL)
        await self._wire.run(mail)
        if not self.is_open:
            return SenderTrial(mail.reply, cut=mail.cut)
        reset = SingleCommand(b"RSET\r\n", Phase.RSET)
        await self._wire.run(reset)
        self.last_used_at = monotonic()
        return SenderTrial(mail.reply, reset.reply, reset.cut)

    async def quit(self) -> None:
        """Say QUIT and close, without waiting long for the reply, or for the other side to close. Raises nothing.

        Then the connection counts no longer at the provider.
        """
        if self._wire.is_busy or not self.is_open:
            self.abort()
            return
        await self._wire.run(SingleCommand(b"QUIT\r\n", Phase.QUIT))
        self._wire.close()
        await self._wire.gone(within_seconds=CLOSING_SECONDS)

    def abort(self) -> None:
        """Close the connection at once; a transaction under way is cut."""
        self._wire.abort()
