"""`tocsin copy`: the record of every message that a provider accepted."""

import sys
from contextlib import aclosing
from typing import Annotated

import typer

from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import Cell, examples, print_bytes, print_facts, print_json, print_line
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.errors import UsageError
from tocsin_schema.ledger.copies_reading import EmailCopy, read_copies, read_copy
from tocsin_schema.ledger.job_reading import read_job

app = typer.Typer(help="Email copies: every message that a provider accepted.", no_args_is_help=True)

NEWEST_OF_PROFILE = 100
"""How many copies of a profile are listed where no limit was given."""


@app.command(
    "list",
    epilog=examples(
        "tocsin copy list --job 0192f0c1-6d2b-5f0a-9a41-0c2d5e7b9a10 --json", "tocsin copy list --profile news"
    ),
)
def list_copies(
    job: Annotated[str | None, typer.Option(metavar="ID", help="The copies of this job (id or number).")] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="P", help="The copies of this sending profile, newest job first.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Show at most so many; of a profile 100 unless given.", show_default=False),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List email copies, one a line, however many there are."""
    if job is None and profile is None:
        raise UsageError("Whose copies?", fix="Give --job ID or --profile P.")

    async def work(session: Session) -> None:
        number = None if job is None else (await read_job(session.connection, job)).number
        bound = limit if limit is not None or number is not None else NEWEST_OF_PROFILE
        if not as_json:
            print_line(("ID", "JOB", "ACCEPTED", "CODE", "RECIPIENTS", "FIRST", "SUBJECT"))
        found = read_copies(session.connection, job_number=number, profile=profile, limit=bound)
        async with aclosing(found) as copies:
            async for copy in copies:
                if as_json:
                    print_json(_as_json(copy))
                else:
                    print_line(_as_row(copy))
        sys.stdout.flush()

    in_session(work)


@app.command("show", epilog=examples("tocsin copy show 4711", "tocsin copy show 4711 --raw > message.eml"))
def show(
    copy_id: Annotated[int, typer.Argument(metavar="ID", min=1, help="The copy's id, as `copy list` shows it.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the message's exact bytes.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show an email copy, or the exact bytes that were sent, checked against the hash taken then."""
    if raw and as_json:
        raise UsageError("--raw and --json exclude each other.", fix="Give one of them.")
    if raw:
        print_bytes(in_session(lambda session: _exact_bytes(session, copy_id)))
        return

    async def work(session: Session) -> EmailCopy:
        return await read_copy(session.connection, copy_id)

    copy = in_session(work)
    if as_json:
        print_json(_as_json(copy))
    else:
        print_facts(_as_facts(copy))


async def _exact_bytes(session: Session, copy_id: int) -> bytes:
    """Give the bytes as they were sent; `remake` checks them by the hash taken then."""
    # Only this needs what the senders compose with.
    from tocsin_workers.copies import remake  # noqa: PLC0415  # see above

    return await remake(session.connection, copy_id)


def _as_json(copy: EmailCopy) -> dict[str, object]:
    return {
        "id": copy.id,
        "job": copy.job_id,
        "job_number": copy.job_number,
        "batch": copy.batch_number,
        "profile": copy.profile,
        "from": copy.from_address,
        "reply_to": copy.reply_to,
        "to": copy.visible_to,
        "subject": copy.subject,
        "recipients": copy.recipients,
        "message_id": copy.message_id,
        "provider_id": copy.provider_id,
        "dated_at": copy.dated_at,
        "accepted_at": copy.accepted_at,
        "code": copy.reply_code,
        "enhanced_code": copy.enhanced_code,
        "reply": copy.reply,
        "size": copy.size,
        "sha256": copy.sha256.hex(),
        "content": "full" if copy.is_full else "reference",
    }


def _as_row(copy: EmailCopy) -> tuple[Cell, ...]:
    first = copy.recipients[0] if copy.recipients else None
    return (copy.id, copy.job_id, copy.accepted_at, copy.reply_code, len(copy.recipients), first, copy.subject)


def _as_facts(copy: EmailCopy) -> list[tuple[str, Cell]]:
    return [
        ("Copy", copy.id),
        ("Job", copy.job_id),
        ("Profile", copy.profile),
        ("From", copy.from_address),
        ("Reply-To", copy.reply_to),
        ("To", copy.visible_to),
        ("Subject", copy.subject),
        ("Message-ID", copy.message_id),
        ("Provider's id", copy.provider_id),
        ("Date", copy.dated_at),
        ("Accepted", copy.accepted_at),
        ("Reply", " ".join(filter(None, (str(copy.reply_code), copy.enhanced_code, copy.reply)))),
        ("Size", f"{copy.size:,} bytes"),
        ("SHA-256", copy.sha256.hex()),
        ("Content", "kept in full" if copy.is_full else "made again on demand (--raw)"),
        ("Recipients", len(copy.recipients)),
        *[("  accepted for", address) for address in copy.recipients],
    ]
