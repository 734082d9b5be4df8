"""`tocsin suppression`: addresses that are not written to any more."""

from collections.abc import Sequence
from typing import Annotated

import typer

from tocsin_console.commands.parameters import JsonFlag, ListLimit, read_reason
from tocsin_console.output import counted, examples, print_json, print_table, say
from tocsin_console.reading.addresses import read_address
from tocsin_console.reading.inputs import STANDARD_INPUT, read_text
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.contract.validation import MAX_NAME
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.actors import login_of_this_process
from tocsin_schema.ledger.suppressions import (
    Suppression,
    add_suppressions,
    read_suppressions,
    remove_suppressions,
    source_in_words,
)

app = typer.Typer(help="Suppressions: addresses that are not written to any more.", no_args_is_help=True)

#: What the first line of a column of addresses is called, in lower case.
HEADINGS = {"address", "addresses", "email", "e-mail", "mail"}

Addresses = Annotated[list[str] | None, typer.Argument(metavar="ADDRESS…", help="Mail addresses.", show_default=False)]
AddressFile = Annotated[
    str | None,
    typer.Option("--file", metavar="F|-", help="Take addresses from a file, one a line; - is standard input."),
]


@app.command(
    "list",
    epilog=examples(
        "tocsin suppression list",
        "tocsin suppression list --address ada@example.org",
        "tocsin suppression list --source library --json",
    ),
)
def list_suppressions(
    source: Annotated[
        str | None, typer.Option(metavar="S", help="Only those of this source; '' for jobs without a source.")
    ] = None,
    address: Annotated[str | None, typer.Option(metavar="A", help="Only those of this address.")] = None,
    limit: ListLimit = 50,
    as_json: JsonFlag = False,
) -> None:
    """List suppressions, newest first, with where they came from: a job's refused recipient, or a person."""
    _check_source(source)
    wanted = None if address is None else read_address(address.strip(), "--address")

    async def work(session: Session) -> list[Suppression]:
        return await read_suppressions(session.connection, source=source, address=wanted, limit=limit + 1)

    read = in_session(work)
    found = read[:limit]
    if as_json:
        for suppression in found:
            print_json(_as_json(suppression))
    else:
        print_table(
            ("SINCE", "ADDRESS", "FOR", "CAME FROM", "REASON"),
            [(s.created_at, s.address, source_in_words(s.source), _origin(s), s.reason) for s in found],
        )
    if len(read) > limit:
        say(f"{limit:,} shown, there are more; --limit shows more.")


@app.command(
    "add",
    epilog=examples(
        "tocsin suppression add ada@example.org --reason 'asked to be left alone'",
        "tocsin suppression add ada@example.org --source library",
        "tocsin suppression add --file left.txt --reason 'left the university'",
    ),
)
def add(
    addresses: Addresses = None,
    file: AddressFile = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="S", help="Only for jobs of this source; '' for jobs without one. [default: for all]"),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="R", help="Why, in words that recipients' states show.")] = (
        "added by hand"
    ),
) -> None:
    """Write to addresses no more, but in urgent jobs. All of them or, where one is malformed, none.

    What is under way is not stopped: a recipient is looked up whenever a batch's turn comes.
    """
    wanted = _wanted(addresses, file)
    _check_source(source)
    why = read_reason(reason)
    actor = login_of_this_process()

    async def work(session: Session) -> int:
        return await add_suppressions(session.connection, wanted, source=source, reason=why, actor=actor)

    added = in_session(work)
    where = source_in_words(source)
    if added:
        say(f"{counted(added, 'address', 'addresses')} suppressed for {where}.")
    if known := len(wanted) - added:
        say(f"{counted(known, 'address was', 'addresses were')} suppressed for {where} before; nothing changed there.")


@app.command(
    "remove",
    epilog=examples(
        "tocsin suppression remove ada@example.org",
        "tocsin suppression remove ada@example.org --source library",
        "tocsin suppression remove --file returned.txt",
    ),
)
def remove(
    addresses: Addresses = None,
    file: AddressFile = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="S", help="Only what was made for this source; '' for jobs without one. [default: all]"),
    ] = None,
) -> None:
    """Let addresses be written to again by jobs to come. A recipient that was suppressed stays so in its job.

    All of them or, where one is malformed or not suppressed, none.
    """
    wanted = _wanted(addresses, file)
    _check_source(source)

    async def work(session: Session) -> int:
        return await remove_suppressions(session.connection, wanted, source=source, actor=login_of_this_process())

    say(f"{counted(in_session(work), 'suppression')} removed.")


def _wanted(typed: Sequence[str] | None, file: str | None) -> list[str]:
    """Give the addresses in canonical form, each once. Raises UsageError that names the argument or the line."""
    found = [read_address(address.strip(), "ADDRESS") for address in typed or ()]
    if file is not None:
        found += _in_file(file)
    if not found:
        raise UsageError("No address is given.", fix="Name addresses, or a file with --file.")
    return list(dict.fromkeys(found))


def _in_file(source: str) -> list[str]:
    """Read one address a line; empty lines are passed over. Raises UsageError that names the line."""
    called = "standard input" if source == STANDARD_INPUT else source
    lines = read_text(source, "The list of addresses").split("\n")
    found: list[str] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        where = f"Line {number} of {called}"
        if not found and text.strip('"').lower() in HEADINGS:
            raise UsageError(
                f"{where} is a heading: {text}.", fix="Take it out: the list has one address a line and nothing else."
            )
        found.append(read_address(text, where))
    return found


def _check_source(source: str | None) -> None:
    """Refuse what no job's source can be: a suppression for it would silently hold for nobody."""
    if source is not None and (len(source) > MAX_NAME or any("\ud800" <= one <= "\udfff" for one in source)):
        raise UsageError(
            f"--source cannot be {source[:40]!r}.",
            fix=f"Give it as jobs do: at most {MAX_NAME} characters of UTF-8.",
        )


def _origin(suppression: Suppression) -> str:
    if suppression.job_number is not None:
        return f"job {suppression.job_id or suppression.job_number}"
    return f"{suppression.actor}"


def _as_json(suppression: Suppression) -> dict[str, object]:
    return {
        "address": suppression.address,
        "source": suppression.source,
        "since": suppression.created_at,
        "reason": suppression.reason,
        "code": suppression.code,
        "enhanced_code": suppression.enhanced_code,
        "reply": suppression.reply,
        "job": suppression.job_id,
        "job_number": suppression.job_number,
        "actor_kind": suppression.actor_kind,
        "actor": suppression.actor,
    }
