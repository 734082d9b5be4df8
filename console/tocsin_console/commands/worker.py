"""`tocsin worker`: the processes that do the work."""

from typing import Annotated

import typer

from tocsin_console.output import examples
from tocsin_console.reading.session import ledger_url
from tocsin_schema.message_broker.topology import Role
from tocsin_schema.settings import read_settings
from tocsin_workers.logging_setup import set_up_logging
from tocsin_workers.supervising.running import run_workers

app = typer.Typer()


@app.command(epilog=examples("tocsin worker", "tocsin worker --role sender --processes 4"))
def worker(
    role: Annotated[Role, typer.Option(help="What these processes do.")] = Role.ALL,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="How many processes; default: TOCSIN_WORKER_PROCESSES.")
    ] = None,
) -> None:
    """Run worker processes until Ctrl-C or SIGTERM; a process that dies is replaced."""
    settings = read_settings()
    set_up_logging(settings)
    with ledger_url(settings) as url:
        run_workers(settings, url, role, processes=processes or settings.worker_processes)
