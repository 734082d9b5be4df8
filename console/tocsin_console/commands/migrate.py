"""`tocsin migrate`: bring the ledger to this release's schema."""

import sys
from typing import Annotated

import typer

from tocsin_console.output import counted, examples, harmless, say
from tocsin_console.reading.session import ledger_url, run_to_end
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.migrate import SchemaState, migrate, read_schema_state
from tocsin_schema.ledger.migration_steps import Stage
from tocsin_schema.settings import read_settings

app = typer.Typer()

#: Of `--check`: not the code of a check that could not be made.
PENDING = 3


@app.command(
    "migrate",
    epilog=examples(
        "tocsin migrate", "tocsin migrate --before", "tocsin migrate --after --wait 600", "tocsin migrate --check"
    ),
)
def run_migrate(
    before: Annotated[
        bool, typer.Option("--before", help="Only what has to be there before this release's workers start.")
    ] = False,
    after: Annotated[
        bool, typer.Option("--after", help="Only what may be done once no worker of an older release is alive.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for older workers to end.")
    ] = 0.0,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 3 when something is to be done.")
    ] = False,
) -> None:
    """Bring the ledger to this release's schema.

    By default both halves of it, the second one where that is safe. It may be run many times, from many machines at
    once, and while mail is going out. An upgrade is: --before, new workers in the place of old ones, --after.
    """
    stage = _stage(before=before, after=after)
    settings = read_settings()
    with ledger_url(settings, migrated=False) as url:
        applied = [] if check else run_to_end(migrate(url, stage, wait_seconds=wait))
        state = run_to_end(read_schema_state(url))
    for name in applied:
        sys.stdout.write(f"applied {harmless(name)}\n")
    if check:
        _tell_pending(state, stage)
    elif applied:
        say(f"{counted(len(applied), 'migration')} applied; the ledger fits this release.")
    else:
        say("The ledger fits this release.")
    if not check:
        _tell_left(state)


def _stage(*, before: bool, after: bool) -> Stage | None:
    match before, after:
        case True, True:
            raise UsageError("--before and --after are two steps of an upgrade.", fix="Give one, or neither for both.")
        case True, False:
            return Stage.BEFORE
        case False, True:
            return Stage.AFTER
        case _:
            return None


def _tell_pending(state: SchemaState, stage: Stage | None) -> None:
    """Name what is to be done; exit 3 if there is something."""
    names = [
        *(state.before if stage is not Stage.AFTER else ()),
        *(state.after if stage is not Stage.BEFORE else ()),
    ]
    for name in names:
        sys.stdout.write(f"pending {harmless(name)}\n")
    if names:
        say(f"{counted(len(names), 'migration is', 'migrations are')} pending. Run `tocsin migrate`.")
        raise typer.Exit(PENDING)
    say("The ledger fits this release.")


def _tell_left(state: SchemaState) -> None:
    """Say what is left for later, and whom it waits for."""
    if not state.after:
        return
    waits = f"{counted(len(state.after), 'migration is', 'migrations are')} left for after the upgrade"
    older = f" (alive: {harmless(', '.join(map(str, state.held_up_by)))})" if state.held_up_by else ""
    say(f"{waits}. When no worker of an older release is alive{older}, run `tocsin migrate --after`.")
