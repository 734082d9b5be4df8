"""`tocsin sweep`: let the sweeper look now."""

from contextlib import closing

import typer

from tocsin_console.output import examples, say
from tocsin_console.reading.session import Session, open_ledger
from tocsin_schema.ledger.status import read_workers
from tocsin_schema.message_broker import open_broker, wake
from tocsin_schema.message_broker.topology import SWEEP_QUEUE, Role

app = typer.Typer()

_SWEEPING_ROLES = {Role.ALL.value, Role.SWEEPER.value}


@app.command(epilog=examples("tocsin sweep"))
def sweep() -> None:
    """Let the sweeper look now: take back what dead workers held, end what is over, wake who has work.

    It does so every second by itself; this is for whoever does not want to wait.
    """

    async def has_sweeper(session: Session) -> bool:
        return any(one.role in _SWEEPING_ROLES for one in await read_workers(session.connection))

    with open_ledger() as ledger:
        broker_url = ledger.settings.broker_url
        broker = open_broker(
            broker_url=None if broker_url is None else broker_url.get_secret_value(),
            database_url=ledger.url,
            threads=ledger.settings.worker_threads,
        )
        with closing(broker):
            broker.connect()
            wake(broker, SWEEP_QUEUE)
        say("The sweeper is called.")
        if not ledger.visit(has_sweeper):
            start = "tocsin up" if ledger.settings.is_embedded else "tocsin worker"
            say(f"No worker sweeps now: it happens once one runs. Start `{start}`.")
