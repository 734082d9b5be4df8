"""The `tocsin` command: which groups there are, and the one place that turns errors into words and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done and something is left (somebody was not sent to; migrations are
pending), 130 interrupted.
"""

import importlib.metadata
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tocsin_console.command_table import LazyGroup, new_app
from tocsin_console.output import say
from tocsin_console.standard_output import finish, prepare, trouble_of_output
from tocsin_schema.errors import AddressError, TocsinError, UsageError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

ERROR_FILE = "tocsin-errors.log"
"""In the data directory: what a defect of ours looked like from inside."""

app = new_app(group=LazyGroup)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            version = importlib.metadata.version("tocsin")
        except importlib.metadata.PackageNotFoundError:
            version = "(from a source tree that is not installed)"
        sys.stdout.write(f"tocsin {version}\n")
        raise typer.Exit


@app.callback()
def begin(
    debug: Annotated[
        bool, typer.Option("--debug", help="Log everything, and show where in the code an error arose.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Bulk notification mail that loses nothing and shows who got what."""
    del version
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)


def run() -> NoReturn:
    """Run the command that this process was started with, and end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter is no failure
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # None after `2>&-`; as long as the process
    prepare()
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code. Nothing is raised, and no traceback is shown unless asked for."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # so it is after `>&-`
        say("tocsin: Standard output is closed, so there is nowhere to put an answer. Nothing was done.")
        return FAILED
    code = _run_command(arguments)
    lost = finish()
    if lost is None:
        return code
    if not isinstance(lost, BrokenPipeError):  # a reader that stopped reading has seen what it wanted
        say(f"tocsin: The answer could not be written to standard output: {lost.strerror}.")
    return code or FAILED


def _run_command(arguments: Sequence[str]) -> int:
    try:
        app(list(arguments), prog_name="tocsin")
    except SystemExit as ended:
        return _exit_code(ended)
    except KeyboardInterrupt:
        return INTERRUPTED
    except TocsinError as error:
        if wants_tracebacks(arguments):
            traceback.print_exc()
        say(f"tocsin: {error}")
        return WRONG_USAGE if isinstance(error, UsageError | AddressError) else FAILED
    except Exception as error:  # noqa: BLE001  # the last net: whatever it is, a person gets one clear line
        if not (isinstance(error, OSError) and trouble_of_output() is not None):
            _tell_of_defect(error, arguments)
        return FAILED
    return DONE


def wants_tracebacks(arguments: Sequence[str]) -> bool:
    """Whether the person asked to see the inside of errors: by --debug before the command, or by the log level."""
    before_command = [argument for argument in arguments[:1] if argument == "--debug"]
    return bool(before_command) or os.environ.get("TOCSIN_LOG_LEVEL", "").upper() == "DEBUG"


def _exit_code(ended: SystemExit) -> int:
    if ended.code is None:
        return DONE
    return ended.code if isinstance(ended.code, int) else FAILED


def _tell_of_defect(error: Exception, arguments: Sequence[str]) -> None:
    if wants_tracebacks(arguments):
        traceback.print_exception(error)
    file = _keep_details(error)
    where = f"The details are in {file}." if file else "Run it again with `tocsin --debug …` to see the details."
    say(f"tocsin: Something went wrong that Tocsin was not prepared for ({type(error).__name__}). {where}")


def _keep_details(error: Exception) -> Path | None:
    """Write the traceback to the data directory, for this user's eyes only; None where that cannot be."""
    from tocsin_schema.settings import read_settings  # noqa: PLC0415  # slow to load, and rarely wanted here

    with suppress(OSError, TocsinError):
        file = read_settings().data_dir / ERROR_FILE
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{datetime.now(UTC).isoformat()}\n{''.join(traceback.format_exception(error))}\n")
        return file
    return None
