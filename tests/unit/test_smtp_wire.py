"""The wire on a transport that is not what it was."""

from __future__ import annotations

import asyncio

from tests.servers.moody_mail import MemoryTransport, MoodyServer, VirtualTimeLoop
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.capabilities import Capabilities
from tocsin_workers.smtp.deadlines import Deadlines
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.session import Session


class BrokenTransport(MemoryTransport):
    """It takes, and drops, what it is given after the envelope; its connection_lost comes later."""

    is_broken = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_broken, "written to a transport that is closing"
        super().write(data)
        self.is_broken = True

    def is_closing(self) -> bool:
        return self.is_broken or super().is_closing()


def test_a_body_that_nobody_would_take_is_not_marked_as_written() -> None:
    async def run() -> None:
        transport = BrokenTransport(MoodyServer({}, pipelining=True, smtputf8=False, mid_body=iter(())))
        offered = Capabilities(pipelining=True)
        session = Session(transport, offered, server="memory", deadlines=Deadlines(), observe=lambda *_: None)
        begun: list[bool] = []
        task = asyncio.create_task(
            session.transact(Envelope("s@x", ("u@y",)), to_wire(b"x"), lambda: begun.append(True))
        )
        await asyncio.sleep(0)
        session._wire.data_received(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
        session._wire.connection_lost(None)
        transaction = await task
        assert begun == []
        assert not transaction.body_written
        assert judge(transaction).recipients[0].verdict is Verdict.DEFERRED

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())
