"""`tocsin demo`: the whole way of two bulk jobs, on this machine, through OAuth and TLS, with nothing to set up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tocsin_console.output import examples
from tocsin_schema.errors import TocsinError

app = typer.Typer()

DIFFERENT, INTERRUPTED = 1, 130


@app.command(epilog=examples("tocsin demo", "tocsin demo --keep --directory /tmp/tocsin-demo"))
def demo(
    context: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the data of the demo where it is.")] = False,
    directory: Annotated[
        Path | None,
        typer.Option(help="Where the demo keeps its data, new or empty; default: a temporary directory."),
    ] = None,
) -> None:
    """Send two bulk jobs to a local mail server and compare the ledger with what arrived."""
    # Imported here: the demo needs the embedded extra, other commands do not.
    from tocsin_console.demo.tour import run_tour  # noqa: PLC0415 - see above

    command = context.find_root().command

    def run(arguments: Sequence[str]) -> None:
        code: object = command.main(args=list(arguments), prog_name="tocsin", standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise TocsinError(f"`tocsin {' '.join(arguments[:2])}` failed, so the demo ends here.")

    if not run_tour(directory, keep=keep, run=run):
        raise typer.Exit(DIFFERENT)
