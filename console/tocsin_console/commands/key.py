"""`tocsin key`: the master key that seals every stored secret."""

import sys
from typing import Annotated

import typer

from tocsin_console.output import examples, say
from tocsin_console.reading.session import open_ledger, run_to_end
from tocsin_console.rotating.rotation import RotationOptions
from tocsin_console.rotating.rotation import rotate as carry_out_rotation
from tocsin_schema.errors import UsageError
from tocsin_schema.sealing import write_new_key_file
from tocsin_schema.settings import read_settings

app = typer.Typer(help="The master key that seals stored secrets.", no_args_is_help=True)


@app.command(
    "init", epilog=examples("tocsin key init", "TOCSIN_MASTER_KEY_FILE=/etc/tocsin/master.key tocsin key init")
)
def init() -> None:
    """Write a new master key to TOCSIN_MASTER_KEY_FILE, or into the data directory. It never overwrites one.

    The key is not in the database, and nothing can open the stored secrets without it.
    """
    settings = read_settings()
    if settings.master_key is not None:
        raise UsageError(
            "The master key is set by TOCSIN_MASTER_KEY, so a file would not be used.",
            fix="Unset it, or keep using it.",
        )
    write_new_key_file(settings.key_file)
    sys.stdout.write(f"{settings.key_file}\n")
    say(
        "The master key is in this file, which only you can read.\n"
        "1. Back it up apart from the database: without it no stored secret can be opened.\n"
        "2. Give it to every machine that runs Tocsin, and name it there with TOCSIN_MASTER_KEY_FILE."
    )


@app.command("rotate", epilog=examples("tocsin key rotate", "tocsin key rotate --patience 600 --keep-old-keys"))
def rotate(
    patience: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for workers to take over a changed file.")
    ] = 60.0,
    keep_old_keys: Annotated[
        bool,
        typer.Option("--keep-old-keys", help="Leave old keys in the file; for one that another ledger uses as well."),
    ] = False,
) -> None:
    """Seal every stored secret with a new master key, while everything goes on working.

    Can be interrupted and run again at any point: it goes on where it stopped. Where machines have copies of the key
    file, it stops and names those that need the new one.
    """
    options = RotationOptions(patience_seconds=patience, keep_old_keys=keep_old_keys)
    try:
        with open_ledger() as ledger:
            run_to_end(carry_out_rotation(ledger.url, ledger.settings, options, say=say))
    except KeyboardInterrupt:
        say("Interrupted; nothing is broken. Run `tocsin key rotate` again to go on.")
        raise
