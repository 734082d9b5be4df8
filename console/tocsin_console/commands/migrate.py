"""`tocsin migrate`: bring the ledger to this release's schema."""

import sys
from typing import Annotated

import typer

from tocsin_console.output import counted, examples, harmless, say
from tocsin_console.reading.session import ledger_url, run_to_end
from tocsin_schema.ledger.migrate import migrate, pending_migrations
from tocsin_schema.settings import read_settings

app = typer.Typer()


@app.command("migrate", epilog=examples("tocsin migrate", "tocsin migrate --check"))
def run_migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when something is to be done.")
    ] = False,
) -> None:
    """Bring the ledger to this release's schema. Safe to run many times, and from many machines at once."""
    settings = read_settings()
    with ledger_url(settings, migrated=False) as url:
        names = run_to_end(pending_migrations(url) if check else migrate(url))
    for name in names:
        sys.stdout.write(f"{'pending' if check else 'applied'} {harmless(name)}\n")
    if not names:
        say("The ledger fits this release.")
    elif check:
        say(f"{counted(len(names), 'migration is', 'migrations are')} pending. Run `tocsin migrate`.")
        raise typer.Exit(1)
    else:
        say(f"{counted(len(names), 'migration')} applied; the ledger fits this release.")
