"""`tocsin key`: the master key that seals every stored secret."""

import sys

import typer

from tocsin_console.output import examples, say
from tocsin_schema.errors import UsageError
from tocsin_schema.sealing import write_new_key_file
from tocsin_schema.settings import read_settings

app = typer.Typer(help="The master key that seals stored secrets.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Hold the group together: a group of one command would otherwise lose its name."""


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
